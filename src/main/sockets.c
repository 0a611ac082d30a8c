/* Which listening sockets a configuration needs, and what each is called. The names are what master and worker know them by; who binds
 * them (binding.c) and who serves them (worker.c) is not known here. */
#include "mctunnel/main/sockets.h"

#include "mctunnel/base/mem.h"
#include "mctunnel/conf/conf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void add_socket(struct worker_socket **out, size_t *n, const char *name)
{
	*out = xrealloc(*out, (*n + 1) * sizeof **out);
	struct worker_socket *s = &(*out)[(*n)++];
	memset(s, 0, sizeof *s);
	snprintf(s->name, sizeof s->name, "%s", name);
	s->fd = -1;
}

size_t worker_sockets(const struct conf *conf, struct worker_socket **out)
{
	char name[160];
	size_t n = 0;
	*out = NULL;
	for (size_t i = 0; i < conf->hub.bind_n; i++) {
		snprintf(name, sizeof name, "hub.%zu", i);
		add_socket(out, &n, name);
	}
	for (size_t i = 0; i < conf->listeners_n; i++) {
		for (size_t k = 0; k < conf->listeners[i].bind_n; k++) {
			snprintf(name, sizeof name, "listener.%s.%zu", conf->listeners[i].name, k);
			add_socket(out, &n, name);
		}
	}
	for (size_t i = 0; i < conf->global.admin_n; i++) {
		snprintf(name, sizeof name, "admin.%zu", i);
		add_socket(out, &n, name);
	}
	if (conf->global.metrics.text)
		add_socket(out, &n, "metrics");
	return n;
}

static const struct endpoint *listener_endpoint(const struct conf *conf, const char *rest)
{
	const char *dot = strrchr(rest, '.');
	if (!dot)
		return NULL;
	size_t len = (size_t)(dot - rest), k = strtoul(dot + 1, NULL, 10);
	for (size_t i = 0; i < conf->listeners_n; i++) {
		const struct conf_listener *l = &conf->listeners[i];
		if (strlen(l->name) == len && memcmp(l->name, rest, len) == 0)
			return k < l->bind_n ? &l->bind[k] : NULL;
	}
	return NULL;
}

const struct endpoint *worker_socket_endpoint(const struct conf *conf, const char *name)
{
	if (strcmp(name, "metrics") == 0)
		return conf->global.metrics.text ? &conf->global.metrics : NULL;
	if (strncmp(name, "listener.", 9) == 0)
		return listener_endpoint(conf, name + 9);
	if (strncmp(name, "admin.", 6) == 0) {
		size_t i = strtoul(name + 6, NULL, 10);
		return i < conf->global.admin_n ? &conf->global.admin[i].bind : NULL;
	}
	if (strncmp(name, "hub.", 4) == 0) {
		size_t i = strtoul(name + 4, NULL, 10);
		return i < conf->hub.bind_n ? &conf->hub.bind[i].address : NULL;
	}
	return NULL;
}
