"use strict";
(function () {
	var units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

	function text(kind, v) {
		if (v === null || v === undefined)
			return "\u2013";
		if (kind === "ms")
			return v.toFixed(2) + " ms";
		if (kind !== "bytes")
			return String(v);
		var i = 0;
		for (; v >= 1024 && i + 1 < units.length; i++)
			v /= 1024;
		return v.toFixed(i ? 1 : 0) + " " + units[i];
	}

	function age(s) {
		var d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
		return d ? d + " d " + h + " h" : h ? h + " h " + m + " min" : m ? m + " min " + s % 60 + " s" : s + " s";
	}

	function table(section, rows) {
		var heads = section.querySelectorAll("th"), body = document.createElement("tbody");
		rows.forEach(function (row) {
			var tr = body.insertRow();
			heads.forEach(function (th) {
				var td = tr.insertCell(), kind = th.dataset.kind, v = row[th.dataset.key];
				td.className = kind === "state" ? "state " + v : kind;
				td.textContent = text(kind, v);
			});
		});
		section.querySelector("tbody").replaceWith(body);
	}

	function plot(figure, history) {
		var tracks = figure.dataset.tracks.split(" "), top = 1;
		tracks.forEach(function (t) { top = Math.max(top, Math.max.apply(null, history[t])); });
		figure.querySelector("figcaption span").textContent = text(figure.dataset.kind, top);
		tracks.forEach(function (t) {
			figure.querySelector("polyline." + t).setAttribute("points", history[t].map(function (v, i) {
				return i + "," + (40 - 38 * v / top).toFixed(2);
			}).join(" "));
		});
	}

	function pill(id, word, state) {
		var b = document.getElementById(id);
		if (b) {
			b.textContent = word;
			b.className = "pill " + state;
		}
	}

	function show(s) {
		pill("phase", s.phase, s.ready ? "up" : "down");
		pill("vip", "VIP " + s.vip, s.vip);
		document.getElementById("uptime").textContent = age(s.uptime);
		document.querySelectorAll("[data-figure]").forEach(function (b) {
			b.textContent = text(b.dataset.kind, s.figures[b.dataset.figure]);
		});
		document.querySelectorAll("figure").forEach(function (f) { plot(f, s.history); });
		document.querySelectorAll("section").forEach(function (t) {
			if (s[t.id])
				table(t, s[t.id]);
		});
	}

	function say(words, stale) {
		document.getElementById("live").textContent = words;
		document.body.className = stale ? "stale" : "";
	}

	function again() {
		fetch("/status.json", { cache: "no-store" }).then(function (r) { return r.json(); }).then(function (s) {
			show(s);
			say("live", false);
		}).catch(function () {
			say("no answer since " + new Date().toLocaleTimeString() + ", trying again", true);
		}).then(function () { setTimeout(again, 1000); });
	}
	again();
})();
