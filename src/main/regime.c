/* A configuration put to work: TLS contexts and scripts from the contents it came with, and which socket serves what. Owns both; which regime is in
 * force, and how the threads go from one to the next, is the worker's. */
#include "mctunnel/main/regime.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/log.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/files.h"
#include "mctunnel/conf/ticket_keys.h"
#include "mctunnel/main/site.h"
#include "mctunnel/main/sockets.h"
#include "mctunnel/net/tls.h"
#include "mctunnel/script/lua.h"
#include "mctunnel/net/tls_site.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WARN_SECONDS (14 * 86400)

static const char *content(const struct conf *conf, const char *path)
{
	size_t len;
	const char *why;

	return path ? files_read(conf->files, path, &len, &why) : NULL;
}

static struct tls *server_tls(const struct conf *c, const struct conf_tls_bind *b, const struct tls_ticket_keys *keys, char *err, size_t errsize)
{
	struct tls_files f = { .cert_path = b->cert,
			       .cert = content(c, b->cert),
			       .key_path = b->key,
			       .key = content(c, b->key),
			       .ca_path = b->client_ca,
			       .ca = content(c, b->client_ca),
			       .crl_path = b->crl,
			       .crl = content(c, b->crl) };

	return tls_server(&f, keys, err, errsize);
}

static struct tls *client_tls(const struct conf *c, char *err, size_t errsize)
{
	const struct conf_agent *a = &c->agent;
	struct tls_files f = { .cert_path = a->cert,
			       .cert = content(c, a->cert),
			       .key_path = a->key,
			       .key = content(c, a->key),
			       .ca_path = a->ca,
			       .ca = content(c, a->ca) };

	return tls_client(&f, err, errsize);
}

struct complaint {
	char *err;
	size_t errsize;
};

/* The first bad one is the reason. */
static void on_finding(void *arg, bool bad, const char *text)
{
	struct complaint *c = arg;

	if (!bad || c->errsize == 0)
		return;
	snprintf(c->err, c->errsize, "%s", text);
	c->errsize = 0;
}

static int make_sites(struct regime *r, const struct tls_ticket_keys *keys, char *err, size_t errsize)
{
	const struct conf *c = r->conf;
	struct complaint why = { err, errsize };

	r->sites = xcalloc(c->listeners_n + 1, sizeof(struct tls_site *));
	for (size_t i = 0; i < c->listeners_n; i++) {
		if (!c->listeners[i].tls.at.file)
			continue;
		r->sites[i] = site_make(c, &c->listeners[i], keys, on_finding, &why);
		if (!r->sites[i])
			return -1;
	}
	return 0;
}

static int make_tls(struct regime *r, const struct tls_ticket_keys *keys, char *err, size_t errsize)
{
	const struct conf *c = r->conf;

	r->hub_tls = xcalloc(c->hub.bind_n + 1, sizeof(*r->hub_tls));
	for (size_t i = 0; i < c->hub.bind_n; i++) {
		r->hub_tls[i] = server_tls(c, &c->hub.bind[i], keys, err, errsize);
		if (!r->hub_tls[i])
			return -1;
	}
	if (make_sites(r, keys, err, errsize) < 0)
		return -1;
	if (!c->agent.set)
		return 0;
	r->agent_tls = client_tls(c, err, errsize);
	return r->agent_tls ? 0 : -1;
}

/* Those of the file, else the process's own. */
static int take_keys(const struct conf *c, const uint8_t *own, uint8_t keys[][TLS_TICKET_KEY], char *err, size_t errsize)
{
	const char *text = content(c, c->global.ticket_keys);

	if (text)
		return ticket_keys_parse(text, keys, err, errsize);
	memcpy(keys[0], own, TLS_TICKET_KEY);
	return 1;
}

/* A state for each thread. */
static int make_scripts(struct regime *r, char *err, size_t errsize)
{
	struct script_fault f;

	if (r->conf->global.lua.load.n == 0)
		return 0;
	r->scripts = xcalloc(r->conf->global.threads, sizeof(struct script *));
	for (; r->scripts_n < r->conf->global.threads; r->scripts_n++) {
		r->scripts[r->scripts_n] = script_new(r->conf, r->scripts[0], false, &f);
		if (r->scripts[r->scripts_n])
			continue;
		snprintf(err, errsize, "%.150s:%d: %.120s", f.file, f.line, f.text);
		return -1;
	}
	return 0;
}

struct script *regime_script(const struct regime *r, size_t thread)
{
	return thread < r->scripts_n ? r->scripts[thread] : NULL;
}

int regime_make(struct regime *r, struct conf *conf, const uint8_t *ticket_key, char *err, size_t errsize)
{
	uint8_t keys[TICKET_KEYS_MAX][TLS_TICKET_KEY];
	int n = take_keys(conf, ticket_key, keys, err, errsize);
	bool good = false;

	*r = (struct regime){ .conf = conf_get(conf) };
	if (n > 0)
		good = make_tls(r, &(struct tls_ticket_keys){ keys, (size_t)n }, err, errsize) == 0;
	explicit_bzero(keys, sizeof(keys));
	if (good && make_scripts(r, err, errsize) == 0)
		return 0;
	regime_free(r);
	return -1;
}

void regime_free(struct regime *r)
{
	for (size_t i = 0; r->hub_tls && i < r->conf->hub.bind_n; i++)
		tls_put(r->hub_tls[i]);
	free(r->hub_tls);
	for (size_t i = 0; r->sites && i < r->conf->listeners_n; i++)
		tls_site_put(r->sites[i]);
	free(r->sites);
	tls_put(r->agent_tls);
	for (size_t i = 0; i < r->scripts_n; i++)
		script_free(r->scripts[i]);
	free(r->scripts);
	free(r->sockets);
	conf_put(r->conf);
	*r = (struct regime){ .conf = NULL };
}

static int by_fd(const void *a, const void *b)
{
	const struct frontend_socket *x = a, *y = b;

	return (x->fd > y->fd) - (x->fd < y->fd);
}

/* "listener.NAME.I" */
static const char *listener_of(const char *socket, char *name, size_t size)
{
	const char *dot = strrchr(socket + 9, '.');

	BUG_ON(!dot);
	snprintf(name, size, "%.*s", (int)(dot - socket - 9), socket + 9);
	return name;
}

struct frontend_socket *regime_listeners(const struct regime *r, size_t *n)
{
	struct frontend_socket *out = xcalloc(r->sockets_n + 1, sizeof(*out));
	struct map *numbers = map_new();
	char name[160];

	*n = 0;
	for (size_t i = 0; i < r->conf->listeners_n; i++)
		map_set_str(numbers, r->conf->listeners[i].name, (void *)(i + 1));
	for (size_t i = 0; i < r->sockets_n; i++) {
		const struct worker_socket *s = &r->sockets[i];
		size_t number;

		if (strncmp(s->name, "listener.", 9) != 0)
			continue;
		number = (size_t)map_get_str(numbers, listener_of(s->name, name, sizeof(name)));
		BUG_ON(!number);
		out[(*n)++] = (struct frontend_socket){ .fd = s->fd, .listener = number - 1 };
	}
	map_free(numbers);
	qsort(out, *n, sizeof(*out), by_fd);
	return out;
}

int *regime_hub_sockets(const struct regime *r)
{
	int *fds = xcalloc(r->conf->hub.bind_n + 1, sizeof(*fds));

	for (size_t i = 0; i < r->sockets_n; i++) {
		size_t bind = strtoul(r->sockets[i].name + 4, NULL, 10);

		if (strncmp(r->sockets[i].name, "hub.", 4) == 0 && bind < r->conf->hub.bind_n)
			fds[bind] = r->sockets[i].fd;
	}
	return fds;
}

int regime_metrics_socket(const struct regime *r)
{
	for (size_t i = 0; i < r->sockets_n; i++) {
		if (strcmp(r->sockets[i].name, "metrics") == 0)
			return r->sockets[i].fd;
	}
	return -1;
}

static void warn_of(int64_t left, const char *path)
{
	if (left < 0)
		log_warning("certificate %s has expired", path);
	else if (left < WARN_SECONDS)
		log_warning("certificate %s expires in %lld days", path, (long long)(left / 86400));
}

static void warn_of_site(const struct tls_site *s)
{
	const char *path;
	int64_t left;

	for (size_t i = 0; (path = tls_site_cert(s, i, &left)); i++)
		warn_of(left, path);
}

void regime_warn_of_expiry(const struct regime *r)
{
	for (size_t i = 0; i < r->conf->hub.bind_n; i++)
		warn_of(tls_cert_expires_in(r->hub_tls[i]), r->conf->hub.bind[i].cert);
	for (size_t i = 0; i < r->conf->listeners_n; i++) {
		if (r->sites[i])
			warn_of_site(r->sites[i]);
	}
	if (r->agent_tls)
		warn_of(tls_cert_expires_in(r->agent_tls), r->conf->agent.cert);
}
