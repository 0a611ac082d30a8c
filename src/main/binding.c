/* Binds the listening sockets and tells, for those that cannot be bound, where the configuration asked for them.
 * It does not know what a socket serves: names and endpoints are the worker's. */
#include "mctunnel/main/binding.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/main/store.h"
#include "mctunnel/main/sockets.h"
#include "mctunnel/net/sock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct conf_where *place_of_listener(const struct conf *conf, const char *rest)
{
	const char *dot = strrchr(rest, '.');
	size_t len = dot ? (size_t)(dot - rest) : strlen(rest);

	for (size_t i = 0; i < conf->listeners_n; i++)
		if (strlen(conf->listeners[i].name) == len && memcmp(conf->listeners[i].name, rest, len) == 0)
			return &conf->listeners[i].at;
	return NULL;
}

static const struct conf_where *place_of(const struct conf *conf, const char *name)
{
	if (strncmp(name, "listener.", 9) == 0)
		return place_of_listener(conf, name + 9);
	if (strncmp(name, "hub.", 4) == 0) {
		size_t i = strtoul(name + 4, NULL, 10);

		return i < conf->hub.bind_n ? &conf->hub.bind[i].at : &conf->hub.at;
	}
	if (strncmp(name, "admin.", 6) == 0)
		return &conf->global.admin[strtoul(name + 6, NULL, 10)].at;
	return &conf->global.metrics_at;
}

static void report(const struct conf *conf, const char *name, const char *why, binding_report *on_failure, void *arg)
{
	const struct conf_where *at = place_of(conf, name);
	char line[1024], place[512] = "";

	if (at && at->file)
		snprintf(place, sizeof(place), "%s:%d: ", at->file, at->line);
	snprintf(line, sizeof(line), "%s[ALERT] %s: %s", place, name, why);
	on_failure(arg, line);
}

static void say_on_stderr(void *arg, const char *line)
{
	fprintf(stderr, "%s\n", line);
}

/* The folder of an admin socket may be one that is gone at each start of the machine. */
static void make_folder(const char *path)
{
	char folder[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char *slash;

	str_copy(folder, sizeof(folder), path);
	slash = strrchr(folder, '/');
	if (!slash || slash == folder)
		return;
	*slash = '\0';
	(void)mkdir(folder, 0755); /* there already, or the bind will say what is wrong */
}

/* The file must never have more rights than were asked for, not even for a moment. */
static int listen_admin(const struct conf_admin *a, char *err, size_t errsize)
{
	mode_t before;
	int fd;

	if (a->bind.addr.u.sa.sa_family != AF_UNIX)
		return sock_listen(&a->bind, err, errsize);
	make_folder(a->bind.addr.u.un.sun_path);
	before = umask(~(mode_t)a->mode & 0777);
	fd = sock_listen(&a->bind, err, errsize);
	umask(before);
	return fd;
}

static int adopt_or_listen(const struct endpoint *e, char *err, size_t errsize)
{
	int fd = store_adopt(e);

	return fd >= 0 ? fd : sock_listen(e, err, errsize);
}

static int bind_one(const struct conf *conf, struct worker_socket *s, binding_report *on_failure, void *arg)
{
	const struct endpoint *e = worker_socket_endpoint(conf, s->name);
	char err[256] = "";

	BUG_ON(!e);
	if (strncmp(s->name, "admin.", 6) == 0)
		s->fd = listen_admin(&conf->global.admin[strtoul(s->name + 6, NULL, 10)], err, sizeof(err));
	else
		s->fd = adopt_or_listen(e, err, sizeof(err));
	if (s->fd >= 0)
		return 0;
	report(conf, s->name, err, on_failure, arg);
	return -1;
}

int binding_open(const struct conf *conf, struct worker_socket **out, size_t *n)
{
	int failed = 0;

	*n = worker_sockets(conf, out);
	for (size_t i = 0; i < *n; i++)
		failed |= bind_one(conf, &(*out)[i], say_on_stderr, NULL);
	if (!failed)
		return 0;
	binding_close(*out, *n);
	free(*out);
	*out = NULL;
	*n = 0;
	return -1;
}

void binding_close(struct worker_socket *sockets, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (sockets[i].fd >= 0)
			close(sockets[i].fd);
		sockets[i].fd = -1;
	}
}

/* What listens at an address, by the address as it is written: its place in the list, counted from 1. */
static struct map *by_address(const struct conf *conf, const struct worker_socket *sockets, size_t n)
{
	struct map *m = map_new();

	for (size_t i = 0; i < n; i++)
		map_set_str(m, worker_socket_endpoint(conf, sockets[i].name)->text, (void *)(i + 1));
	return m;
}

int binding_renew(const struct binding_held *held, const struct conf *conf, struct binding_next *next, binding_report *on_failure, void *arg)
{
	struct map *olds = by_address(held->conf, held->sockets, held->n);
	int failed = 0;

	*next = (struct binding_next){ .n = 0 };
	next->n = worker_sockets(conf, &next->sockets);
	next->origins = xcalloc(next->n + 1, sizeof(*next->origins));
	for (size_t i = 0; i < next->n; i++) {
		struct worker_socket *s = &next->sockets[i];
		size_t old = (size_t)map_get_str(olds, worker_socket_endpoint(conf, s->name)->text);

		next->origins[i] = (int32_t)old - 1;
		if (old)
			s->fd = held->sockets[old - 1].fd;
		else
			failed |= bind_one(conf, s, on_failure, arg);
		next->fresh += !old;
	}
	map_free(olds);
	if (failed)
		binding_abandon(next);
	return failed;
}

void binding_abandon(struct binding_next *next)
{
	for (size_t i = 0; i < next->n; i++) {
		if (next->origins[i] < 0 && next->sockets[i].fd >= 0)
			close(next->sockets[i].fd);
	}
	free(next->sockets);
	free(next->origins);
	*next = (struct binding_next){ .n = 0 };
}

void binding_close_gone(struct worker_socket *sockets, size_t n, const struct binding_next *next)
{
	bool *kept = xcalloc(n + 1, sizeof(*kept));

	for (size_t i = 0; i < next->n; i++) {
		if (next->origins[i] >= 0)
			kept[next->origins[i]] = true;
	}
	for (size_t i = 0; i < n; i++) {
		if (!kept[i] && sockets[i].fd >= 0)
			close(sockets[i].fd);
	}
	free(kept);
}
