/* The configuration as an immutable, reference-counted snapshot. Made by conf_load(); everything in it is owned by
 * it and never changes. Times are milliseconds, sizes bytes. Lists are arrays with a count. */
#ifndef MCTUNNEL_CONF_CONF_H
#define MCTUNNEL_CONF_CONF_H

#include "mctunnel/base/addr.h" /* plain data only */
#include "mctunnel/event/aside.h"

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
	uint32_t connect, client_hello, http_request, answer, idle, half_closed, queue, resume;
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

struct conf_lua {
	struct conf_strings load;  /* paths; content through conf->files. None: no scripts */
	struct conf_strings path;  /* folders that require() searches; none: there is no require() */
	uint64_t memory;           /* bytes a thread */
	uint32_t budget_ms;        /* of one call; counted in instructions */
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
	uint32_t health_timeout, vip_grace;
	uint64_t memory;   /* budget for data in flight, bytes */
	struct conf_lua lua;
	char *ticket_keys; /* path, see ticket_keys.h; NULL: a random key of the process: what tickets of TLS sessions are sealed with */
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

enum over { OVER_QUEUE, OVER_REJECT, OVER_DENY }; /* wait in the queue; RST; 429 in modes http and connect, RST in others */

struct conf_limits {
	uint32_t client_sessions; /* at once, from one client address; 0: no limit */
	uint32_t client_rate;     /* new ones a second (http: requests), from one client address; 0: no limit */
	uint32_t client_prefix4, client_prefix6; /* bits of an address that make one client */
	uint32_t clients;         /* addresses remembered at once */
	int over;                 /* enum over */
	uint64_t session_up, session_down; /* bytes a second; 0: no limit */
	uint64_t up, down;        /* the same, of the listener, tunnel or service as a whole */
};

enum balance { BALANCE_ROUNDROBIN, BALANCE_LEASTCONN, BALANCE_RANDOM, BALANCE_SOURCE, BALANCE_FIRST };

struct conf_tunnel {
	struct conf_where at;
	char *name;
	struct conf_strings agents;   /* certificate names; default: the tunnel's name */
	struct conf_strings services; /* names or globs; default: none */
	enum balance balance;
	uint32_t maxconn; /* 0: no limit */
	struct conf_limits limits;
};

enum listener_mode { MODE_TCP, MODE_TLS, MODE_HTTP, MODE_CONNECT };

struct conf_route {
	char *text; /* "TUNNEL/SERVICE" */
	char *tunnel, *service;
};

/* A condition's values are literal texts, globs (with '*') or "~PCRE2" (base/pattern.h); "@FILE" has been replaced by the lines of the file. */
struct conf_header {
	struct conf_where at;
	char *name, *value; /* value NULL: it is there, whatever it says */
};

enum rule_action { ACTION_ROUTE, ACTION_DENY, ACTION_REJECT, ACTION_REDIRECT };

struct conf_rule { /* conditions are ANDed, several values of one are ORed; one without values is none */
	struct conf_where at;
	struct conf_strings src;      /* networks or addresses: "192.0.2.0/24", "::1" */
	struct conf_strings dst_port; /* "443", "8000-8099" */
	struct conf_strings sni, alpn, host, path, method;
	struct conf_header *header;
	size_t header_n;
	int action; /* enum rule_action; ROUTE unless said (REDIRECT when redirect is given) */
	struct conf_strings route; /* "TUNNEL/SERVICE", may hold "${capture}"; tried in order */
	char *rewrite;             /* NULL, or the new path, may hold "${capture}"; the query stays */
	char *redirect;            /* NULL, or the new location, may hold "${capture}", "${host}", "${path}" (with the query) */
	uint32_t status;           /* of a redirect (default 302) or a deny (default 403); 0: the default */
	bool never;                /* the file of a condition is empty: it never applies */
};

enum tls_verify { VERIFY_NONE, VERIFY_OPTIONAL, VERIFY_REQUIRED };

struct conf_pair {
	char *cert, *key; /* paths; the same where one file holds both; content through conf->files */
};

struct conf_listener_tls { /* TLS terminated at a listener */
	struct conf_where at; /* file NULL: there is none */
	struct conf_strings cert; /* PEM files with chain and key, or folders (ending in '/') of such: *.pem, *.crt (key beside it as *.key) */
	char *key;                /* NULL: in the same file as cert, or beside it */
	int min;                  /* 12, 13 */
	char *client_ca, *crl;    /* NULL: none */
	int verify;               /* enum tls_verify */
	struct conf_strings alpn; /* empty: as the mode has it (http: http/1.1; others: none) */
	struct conf_pair *pairs;  /* what cert comes to: its folders opened, each with its key */
	size_t pairs_n;
};

struct conf_listener {
	struct conf_where at;
	char *name;
	struct endpoint *bind;
	size_t bind_n;
	enum listener_mode mode;
	struct conf_route *route; /* of clients no rule applies to; tried in order; none: there is no way for them */
	size_t route_n;
	struct conf_rule *rules;
	size_t rules_n;
	char *policy; /* NULL: none; the name of a Lua function */
	struct conf_listener_tls tls;
	struct conf_strings accept_proxy; /* networks; none: nobody's PROXY header is expected */
	int forwarded;                /* enum forwarded: what becomes of X-Forwarded-* and Forwarded of clients */
	struct conf_strings users;    /* mode connect: "NAME:PASSWORD", the password plain or as crypt(3) has it; none: no authentication */
	uint32_t max_head;            /* bytes of the head of an HTTP request */
	uint64_t max_body;            /* bytes of its body; 0: any number */
	struct conf_limits limits;
	uint32_t maxconn;    /* 0: no limit of its own */
	uint32_t rate_limit; /* new sessions a second; 0: no limit of its own */
	struct conf_timeouts timeouts;
};

enum forwarded { FORWARDED_REPLACE, FORWARDED_APPEND, FORWARDED_KEEP, FORWARDED_OFF };

enum check_type { CHECK_NONE, CHECK_TCP, CHECK_HTTP, CHECK_TLS, CHECK_GRPC };

struct conf_check {
	struct conf_where at;
	int type; /* enum check_type; NONE: no check */
	uint32_t interval, fastinter, downinter, timeout; /* ms; fastinter, downinter 0: as interval */
	uint32_t rise, fall;
	uint32_t jitter;         /* percent of the interval */
	char *path, *host, *method; /* http; host: its Host field, or the name asked for (SNI) in type tls; NULL: the target's */
	struct conf_strings expect; /* http: "200", "200-399" */
	char *service;           /* grpc: the name asked for; NULL: "" */
	uint32_t error_limit;    /* sessions in a row that could not be connected, which mark it down as well; 0: none do */
	bool on_marked_down;     /* sessions end when it goes down */
	uint32_t slowstart;      /* ms over which the weight rises once it is up; 0: at once */
};

enum send_proxy { SEND_PROXY_NONE, SEND_PROXY_V1, SEND_PROXY_V2 };

struct conf_service {
	struct conf_where at;
	char *name;
	struct endpoint target;
	enum send_proxy send_proxy;
	uint32_t maxconn; /* 0: no limit */
	uint32_t weight;  /* 0..256 */
	struct conf_check check;
	struct conf_limits limits; /* of one client: not here */
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
	struct aside end;    /* freed aside */
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
