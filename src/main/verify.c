/* The checks that need more than the configuration: TLS material is tried as hub and agent will use it, scripts are run, names of
 * user and group are looked up. Runs at start and with -c, so that what -c accepts does start.
 * It owns nothing. */
#include "mctunnel/main/verify.h"

#include "mctunnel/conf/files.h"
#include "mctunnel/conf/finding.h"
#include "mctunnel/main/privs.h"
#include "mctunnel/main/site.h"
#include "mctunnel/net/tls.h"
#include "mctunnel/script/lua.h"
#include "mctunnel/net/tls_site.h"

#include <stdio.h>

struct verify {
	const struct conf *conf;
	conf_report *on_finding;
	void *arg;
	int result;
};

static void tell(struct verify *v, bool alert, const struct conf_where *at, const char *key, const char *text)
{
	char line[1024], place[512] = "";

	if (at && at->file)
		snprintf(place, sizeof(place), "%s:%d: ", at->file, at->line);
	snprintf(line, sizeof(line), "%s[%s] %s%s%s", place, alert ? "ALERT" : "WARNING", key, key[0] ? ": " : "", text);
	v->on_finding(v->arg, alert, line);
	if (alert)
		v->result = -1;
}

static void report(struct verify *v, const struct conf_where *at, const char *key, const char *text)
{
	tell(v, true, at, key, text);
}

static const char *content_of(struct verify *v, const struct conf_where *at, const char *section, const char *key, const char *path)
{
	const char *why = "unreadable", *content;
	char name[128], text[512];
	size_t len;

	if (!path)
		return NULL;
	content = files_read(v->conf->files, path, &len, &why);
	if (content)
		return content;
	snprintf(name, sizeof(name), "%s.%s", section, key);
	snprintf(text, sizeof(text), "cannot read '%s': %s", path, why);
	report(v, at, name, text);
	return NULL;
}

static void check_tls(struct verify *v, const struct conf_where *at, const char *section, struct tls_files *f, bool server)
{
	char err[512] = "";

	f->cert = content_of(v, at, section, "cert", f->cert_path);
	f->key = content_of(v, at, section, "key", f->key_path);
	f->ca = content_of(v, at, section, server ? "client_ca" : "ca", f->ca_path);
	f->crl = content_of(v, at, section, "crl", f->crl_path);
	if (!f->cert || !f->key || !f->ca || (f->crl_path && !f->crl))
		return;
	if (tls_check(f, server, err, sizeof(err)) < 0)
		report(v, at, section, err);
	else if (tls_doubt(f, server, err, sizeof(err)))
		tell(v, false, at, section, err);
}

static void check_hub(struct verify *v)
{
	for (size_t i = 0; i < v->conf->hub.bind_n; i++) {
		const struct conf_tls_bind *b = &v->conf->hub.bind[i];
		struct tls_files f = { .cert_path = b->cert, .key_path = b->key, .ca_path = b->client_ca, .crl_path = b->crl };
		char section[48];

		snprintf(section, sizeof(section), "hub.bind[%zu]", i);
		check_tls(v, &b->at, section, &f, true);
	}
}

static void check_agent(struct verify *v)
{
	const struct conf_agent *a = &v->conf->agent;
	struct tls_files f = { .cert_path = a->cert, .key_path = a->key, .ca_path = a->ca };

	check_tls(v, &a->at, "agent.tls", &f, false);
}

struct place { /* where findings of a listener belong */
	struct verify *v;
	const struct conf_where *at;
	char key[48];
};

static void on_site_finding(void *arg, bool bad, const char *text)
{
	const struct place *p = arg;

	tell(p->v, bad, p->at, p->key, text);
}

static void check_sites(struct verify *v)
{
	for (size_t i = 0; i < v->conf->listeners_n; i++) {
		const struct conf_listener *l = &v->conf->listeners[i];
		struct place p = { .v = v, .at = &l->tls.at };

		if (!l->tls.at.file)
			continue;
		snprintf(p.key, sizeof(p.key), "listeners[%zu].tls", i);
		tls_site_put(site_make(v->conf, l, NULL, on_site_finding, &p));
	}
}

/* scripts NULL: there are none. */
static void check_policy(struct verify *v, const struct script *scripts, size_t i)
{
	const struct conf_listener *l = &v->conf->listeners[i];
	struct suggest s = { .word = l->policy };
	struct script_hook h;
	char key[48], text[256];

	if (!l->policy || (scripts && script_has(scripts, l->policy)))
		return;
	for (size_t k = 0; scripts && script_hook(scripts, k, &h); k++) {
		if (h.kind == SCRIPT_POLICY)
			suggest_try(&s, h.name);
	}
	snprintf(key, sizeof(key), "listeners[%zu].policy", i);
	if (scripts)
		snprintf(text, sizeof(text), "no script registers a policy '%.64s'%s", l->policy, suggest_text(&s));
	else
		snprintf(text, sizeof(text), "there are no scripts that could register '%.64s': global.lua.load names them", l->policy);
	report(v, &l->at, key, text);
}

static void check_scripts(struct verify *v)
{
	struct script *scripts = NULL;
	struct script_fault f;
	struct conf_where at;

	if (v->conf->global.lua.load.n > 0) {
		scripts = script_new((struct conf *)v->conf, NULL, true, &f); /* takes a reference, and gives it back */
		if (!scripts) {
			at = (struct conf_where){ f.file[0] ? f.file : NULL, f.line };
			report(v, &at, "global.lua.load", f.text);
			return;
		}
	}
	for (size_t i = 0; i < v->conf->listeners_n; i++)
		check_policy(v, scripts, i);
	script_free(scripts);
}

static void check_privs(struct verify *v)
{
	char err[512];

	if (privs_prepare(v->conf, err, sizeof(err)) < 0)
		report(v, NULL, "", err);
}

int verify_conf(const struct conf *conf, conf_report *on_finding, void *arg)
{
	struct verify v = { .conf = conf, .on_finding = on_finding, .arg = arg };

	if (conf->hub.set)
		check_hub(&v);
	check_sites(&v);
	if (conf->agent.set)
		check_agent(&v);
	check_scripts(&v);
	check_privs(&v);
	return v.result;
}
