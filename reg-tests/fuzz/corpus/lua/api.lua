local t = mctunnel.counter("t", { size = 10, expire = "1s" })
local m = mctunnel.metric("m", "help", { "a", "b" })
mctunnel.policy("p", function(c)
  t:incr(c.src, 5) t:rate(c.src, "10s") t:get("x") m:inc(2, c.host, c.path)
  mctunnel.cidr(c.src, "10.0.0.0/8", "::1") mctunnel.date(0, true) mctunnel.log("info", mctunnel.time()) print(c.alpn[1], c.header("a", 2))
  c:limit_rate("1m", 5) return "route", "a/b"
end)
mctunnel.on_agent(function(a) return #a.services > 1 and "allow" or "deny", "why" end)
mctunnel.on_session_end(function(e) t:incr(e.tunnel, e.up + e.down) end)
