/* The configuration as an immutable, reference-counted snapshot. Made by conf_load(); everything in it is owned by
 * it and never changes. Times are milliseconds, sizes bytes. Lists are arrays with a count. */
#ifndef MCTUNNEL_CONF_CONF_H
#define MCTUNNEL_CONF_CONF_H

#include "mctunnel/base/addr.h" /* plain data only */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct files;

struct conf_where { /* where something was written, for later messages */
	const char *file;
	int line;
};

struct conf_strings {
	char **v;
	size_t n;
};

struct conf_timeouts {
	uint32_t connect, client_hello, http_request, idle, half_closed, queue, resume;
};

struct conf_log {
	struct conf_where at;
	char *target;
	int format; /* enum log_format */
	int level;  /* enum log_level */
};

enum admin_level { ADMIN_USER, ADMIN_OPERATOR, ADMIN_ADMIN };

struct conf_admin {
	struct conf_where at;
	struct endpoint bind;
	uint32_t mode; /* of a Unix socket's file */
	int level;     /* enum admin_level: what may be asked there */
};

struct conf_global {
	uint32_t threads;
	uint32_t maxconn;
	uint32_t rate_limit; /* new sessions a second; 0: no limit */
	char *user, *group, *chroot; /* NULL: not asked for */
	struct conf_log *log;
	size_t log_n;
	struct endpoint metrics; /* text NULL: none */
	struct conf_where metrics_at;
	uint32_t metrics_max_series; /* of a family */
	struct conf_admin *admin;
	size_t admin_n;
	uint32_t hard_stop_after;
	char *health_file; /* NULL: none */
	uint64_t memory;   /* budget for data in flight, bytes */
};

struct conf_tls_bind {
	struct conf_where at;
	struct endpoint address;
	char *cert, *key, *client_ca, *crl; /* paths; content through conf->files; crl may be NULL */
};

struct conf_hub {
	bool set;
	struct conf_where at;
	char *name;
	struct conf_tls_bind *bind;
	size_t bind_n;
	uint32_t heartbeat_interval, heartbeat_timeout;
	uint32_t max_links;      /* links of all agents together */
	uint32_t handshakes;     /* TLS handshakes in progress at once */
};

enum balance { BALANCE_ROUNDROBIN, BALANCE_LEASTCONN, BALANCE_RANDOM, BALANCE_SOURCE, BALANCE_FIRST };

struct conf_tunnel {
	struct conf_where at;
	char *name;
	struct conf_strings agents;   /* certificate names; default: the tunnel's name */
	struct conf_strings services; /* names or globs; default: none */
	enum balance balance;
	uint32_t maxconn; /* 0: no limit */
};

enum listener_mode { MODE_TCP, MODE_TLS, MODE_HTTP, MODE_CONNECT };

struct conf_route {
	char *text; /* "TUNNEL/SERVICE" */
	char *tunnel, *service;
};

struct conf_listener {
	struct conf_where at;
	char *name;
	struct endpoint *bind;
	size_t bind_n;
	enum listener_mode mode;
	struct conf_route *route; /* tried in order */
	size_t route_n;
	uint32_t maxconn;    /* 0: no limit of its own */
	uint32_t rate_limit; /* new sessions a second; 0: no limit of its own */
	struct conf_timeouts timeouts;
};

enum send_proxy { SEND_PROXY_NONE, SEND_PROXY_V1, SEND_PROXY_V2 };

struct conf_service {
	struct conf_where at;
	char *name;
	struct endpoint target;
	enum send_proxy send_proxy;
	uint32_t maxconn; /* 0: no limit */
	uint32_t weight;  /* 0..256 */
	struct conf_timeouts timeouts;
};

struct conf_agent {
	bool set;
	struct conf_where at;
	char *name, *tunnel;
	struct endpoint *hubs;
	size_t hubs_n;
	uint32_t links; /* per hub */
	char *cert, *key, *ca, *server_name; /* paths; server_name NULL: the host as dialled */
	struct endpoint proxy;               /* text NULL: none; "http://host:port" */
	char *proxy_auth;                    /* "user:password" from the URL, or NULL */
	uint32_t backoff_min, backoff_max;
	uint32_t heartbeat_interval, heartbeat_timeout;
	struct conf_service *services;
	size_t services_n;
};

struct conf {
	atomic_uint refs;
	struct files *files; /* everything it was read from */
	struct conf_global global;
	struct conf_timeouts defaults;
	struct conf_hub hub;
	struct conf_agent agent;
	struct conf_tunnel *tunnels;
	size_t tunnels_n;
	struct conf_listener *listeners;
	size_t listeners_n;
};

/* Called for each finding: "FILE:LINE: [ALERT] section.key: what is wrong". */
typedef void conf_report(void *arg, bool alert, const char *line);

/* Reads the files (or the *.cfg of directories, in order) into one configuration. All findings are reported; returns NULL when
 * one of them was an alert. The caller holds one reference. */
struct conf *conf_load(const char *const *paths, size_t n, conf_report *report, void *arg) __attribute__((warn_unused_result));

/* The same from contents that were read before (files_unpack); files belongs to the configuration from now on, also when NULL is returned. */
struct conf *conf_load_files(struct files *files, conf_report *report, void *arg) __attribute__((warn_unused_result));

struct conf *conf_get(struct conf *c); /* one more reference; any thread */
void conf_put(struct conf *c);         /* the last one frees; any thread */

/* The reference of all keys, as doc/configuration.txt has it, on stdout. */
void conf_print_reference(void);

#endif
