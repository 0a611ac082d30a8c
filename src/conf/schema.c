/* The rows of the configuration language: every key with its type, limits, default and help. Data only; what a value of a kind
 * looks like is value.c's, how rows are walked load.c's, what they mean together check.c's. */
#include "mctunnel/conf/schema.h"

#include "mctunnel/base/log.h"
#include "mctunnel/conf/conf.h"

#include <string.h>

#define FIELD(type, field) .offset = offsetof(type, field), .size = sizeof(((type *)0)->field)
#define ARRAY(type, field, n) .offset = offsetof(type, field), .size = sizeof(((type *)0)->field), .count = offsetof(type, n)
#define STRINGS(type, field) .many = true, ARRAY(type, field.v, field.n)
#define ROWS(table) .rows = table, .rows_n = sizeof(table) / sizeof(table[0])

#define MS 1ull
#define SECOND (1000 * MS)
#define DAY (86400 * SECOND)
#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define MAX_TIME (24 * DAY) /* fits 31 bits of milliseconds */

static const struct word log_formats[] = { { "text", LOG_TEXT, false }, { "json", LOG_JSON, false }, { 0 } };

static const struct word log_levels[] = {
	{ "alert", LOG_ALERT, false },   { "error", LOG_ERROR, false }, { "warning", LOG_WARNING, false },
	{ "notice", LOG_NOTICE, false }, { "info", LOG_INFO, false },   { "debug", LOG_DEBUG, false },
	{ 0 },
};

static const struct word balances[] = {
	{ "roundrobin", BALANCE_ROUNDROBIN, false },
	{ "leastconn", BALANCE_LEASTCONN, false },
	{ "random", BALANCE_RANDOM, false },
	{ "source", BALANCE_SOURCE, false },
	{ "first", BALANCE_FIRST, false },
	{ 0 },
};

static const struct word modes[] = {
	{ "tcp", MODE_TCP, false },
	{ "tls", MODE_TLS, false },
	{ "http", MODE_HTTP, false },
	{ "connect", MODE_CONNECT, false },
	{ 0 },
};

static const struct word send_proxies[] = {
	{ "none", SEND_PROXY_NONE, false },
	{ "v1", SEND_PROXY_V1, false },
	{ "v2", SEND_PROXY_V2, false },
	{ 0 },
};

static const struct word tls_versions[] = { { "1.3", 0, false }, { "1.2", 1, true }, { 0 } };
static const struct word client_tls_versions[] = { { "1.2", 12, false }, { "1.3", 13, false }, { 0 } };
static const struct word verifies[] = { { "none", VERIFY_NONE, false }, { "optional", VERIFY_OPTIONAL, false }, { "required", VERIFY_REQUIRED, false }, { 0 } };
static const struct word actions[] = {
	{ "route", ACTION_ROUTE, false },
	{ "deny", ACTION_DENY, false },
	{ "reject", ACTION_REJECT, false },
	{ "redirect", ACTION_REDIRECT, false },
	{ 0 },
};
static const struct word forwardeds[] = {
	{ "replace", FORWARDED_REPLACE, false },
	{ "append", FORWARDED_APPEND, false },
	{ "keep", FORWARDED_KEEP, false },
	{ "off", FORWARDED_OFF, false },
	{ 0 },
};
static const struct word overs[] = { { "queue", OVER_QUEUE, false }, { "reject", OVER_REJECT, false }, { "deny", OVER_DENY, false }, { 0 } };
static const struct word check_types[] = {
	{ "none", CHECK_NONE, false }, { "tcp", CHECK_TCP, false }, { "http", CHECK_HTTP, false }, { "tls", CHECK_TLS, false }, { "grpc", CHECK_GRPC, false }, { 0 },
};

#define TIMEOUT(field, low, text, words) \
	{ .name = #field, .kind = KIND_TIME, FIELD(struct conf_timeouts, field), .min = low, .max = MAX_TIME, .def = text, .help = words }

static const struct row timeouts_rows[] = {
	TIMEOUT(connect, 1, "5s", "How long opening a session may take: on the hub, from the choice of an agent to its answer; on the agent, connecting to the target."),
	TIMEOUT(client_hello, 1, "5s", "How long a client may take to show where it wants to go: PROXY header, ClientHello (mode tls), TLS handshake (listeners with tls)."),
	TIMEOUT(http_request, 1, "10s", "How long a client may take to send the head of a request, and how long its connection may be idle between two requests (listeners of modes http and connect)."),
	TIMEOUT(answer, 0, "0", "How long a target may take to begin its answer to a request of HTTP that is there in whole; then the client gets a 504. 0: as long as idle says."),
	TIMEOUT(idle, 1, "1h", "A session on which no byte has moved in either direction for this long is ended."),
	TIMEOUT(half_closed, 1, "1m", "As idle, once one of the two directions has ended."),
	TIMEOUT(queue, 0, "5s", "How long a client waits for an agent while its tunnel has none; then it is refused. 0 refuses at once."),
	TIMEOUT(resume, 0, "30s", "How long a session that has lost its link waits for another link of the same agent. 0 ends it at once."),
};
static const struct section timeouts = { .name = "timeouts", ROWS(timeouts_rows), .at = NO_PLACE };

static const struct row log_rows[] = {
	{ .name = "target", .kind = KIND_LOG, .required = true, FIELD(struct conf_log, target),
	  .help = "Where lines go: \"stdout\", \"stderr\", the path of a file, \"syslog:/dev/log\" or \"syslog:127.0.0.1:514\" (UDP, a numeric address)." },
	{ .name = "format", .kind = KIND_WORD, FIELD(struct conf_log, format), .words = log_formats, .def = "text",
	  .help = "text is key=value for people, json the same facts as one object a line." },
	{ .name = "level", .kind = KIND_WORD, FIELD(struct conf_log, level), .words = log_levels, .def = "info",
	  .help = "The least important lines this target takes." },
};
static const struct section logs = {
	.name = "log", ROWS(log_rows), .size = sizeof(struct conf_log), .at = offsetof(struct conf_log, at),
	.intro = "Each element is a target of its own. A slow target never holds up a session: lines it cannot take are dropped and counted.",
};

static const struct row metrics_rows[] = {
	{ .name = "bind", .kind = KIND_BIND, .required = true, FIELD(struct conf_global, metrics),
	  .help = "The address of /metrics (Prometheus), /healthz, /readyz, and of a status page at /. It answers everybody who can reach it: bind it to an address that only the monitoring reaches." },
	{ .name = "max_series", .kind = KIND_INT, .restart = true, FIELD(struct conf_global, metrics_max_series), .min = 1, .max = 1000000, .def = "1000",
	  .help = "Series with labels of one metric, for example one for each agent. Sets of labels beyond it are counted in one series whose labels say other, or left out when they are gauges; mctunnel_metrics_series_dropped tells how many." },
};
static const struct section metrics = { .name = "metrics", ROWS(metrics_rows), .at = offsetof(struct conf_global, metrics_at) };

static const struct word admin_levels[] = {
	{ "user", ADMIN_USER, false },
	{ "operator", ADMIN_OPERATOR, false },
	{ "admin", ADMIN_ADMIN, false },
	{ 0 },
};

static const struct row admin_rows[] = {
	{ .name = "bind", .kind = KIND_BIND, .required = true, FIELD(struct conf_admin, bind),
	  .help = "The socket: \"unix:/run/mctunnel/admin.sock\" is where mctunnelctl looks for it." },
	{ .name = "mode", .kind = KIND_MODE, FIELD(struct conf_admin, mode), .max = 0777, .def = "0660",
	  .help = "The rights of a Unix socket's file, from the moment it is there. Who may write to it may use it." },
	{ .name = "level", .kind = KIND_WORD, FIELD(struct conf_admin, level), .words = admin_levels, .def = "admin",
	  .help = "What may be asked there: user reads what is not confidential, operator reads everything, admin changes things." },
};
static const struct section admins = {
	.name = "admin", ROWS(admin_rows), .size = sizeof(struct conf_admin), .at = offsetof(struct conf_admin, at),
	.intro = "Each element is a socket of its own. Commands: doc/management.txt. There is no password: the rights of the file, or who can reach the address, are the only guard.",
};

static const struct row lua_rows[] = {
	{ .name = "load", .kind = KIND_PATH, .required = true, STRINGS(struct conf_global, lua.load),
	  .help = "Scripts, run once in each thread when the configuration is loaded. They register functions by name (doc/lua.md)." },
	{ .name = "path", .kind = KIND_PATH, STRINGS(struct conf_global, lua.path), .def_words = "none: there is no require()",
	  .help = "Folders in which require() finds NAME.lua." },
	{ .name = "memory", .kind = KIND_SIZE, FIELD(struct conf_global, lua.memory), .min = MIB, .max = GIB, .def = "16m",
	  .help = "What the scripts of one thread may hold. Whoever asks for more fails, and its client is denied." },
	{ .name = "budget", .kind = KIND_TIME, FIELD(struct conf_global, lua.budget_ms), .min = 1, .max = 1000, .def = "1ms",
	  .help = "How long one call may take, counted in instructions. Whoever needs more fails, and its client is denied." },
};
static const struct section lua = { .name = "lua", ROWS(lua_rows), .at = NO_PLACE, .intro = "Scripts that decide about clients." };

static const struct row global_rows[] = {
	{ .name = "threads", .kind = KIND_INT, .restart = true, FIELD(struct conf_global, threads), .min = 1, .max = 64,
	  .def_words = "the number of CPUs the process may use, at most 64", .help = "Threads of the worker. Each has its own links and sessions." },
	{ .name = "maxconn", .kind = KIND_INT, FIELD(struct conf_global, maxconn), .min = 1, .max = 10000000, .def = "50000",
	  .help = "Sessions in the process. At the limit listeners stop accepting, and new clients wait in the kernel's queue." },
	{ .name = "rate_limit", .kind = KIND_INT, FIELD(struct conf_global, rate_limit), .max = 1000000, .def = "0",
	  .help = "New sessions a second, evenly spaced. At the limit listeners pause, and new clients wait in the kernel's queue. 0: no limit." },
	{ .name = "memory", .kind = KIND_SIZE, FIELD(struct conf_global, memory), .min = 4 * MIB, .max = 1024 * GIB, .def = "512m",
	  .help = "Budget for data in flight: bytes taken from one side and not yet consumed by the other. When it runs low, sessions are slowed down, none is dropped." },
	{ .name = "user", .kind = KIND_TEXT, .restart = true, FIELD(struct conf_global, user), .min = 1, .max = 32, .def_words = "no change",
	  .help = "The worker runs as this user. Only of use when started as root." },
	{ .name = "group", .kind = KIND_TEXT, .restart = true, FIELD(struct conf_global, group), .min = 1, .max = 32, .def_words = "the user's group",
	  .help = "The worker runs in this group." },
	{ .name = "chroot", .kind = KIND_PATH, .restart = true, FIELD(struct conf_global, chroot), .def_words = "none",
	  .help = "The worker locks itself into this directory, which should be empty. Only of use when started as root." },
	{ .name = "log", .kind = KIND_LIST, ARRAY(struct conf_global, log, log_n), .sub = &logs,
	  .def_words = "one target: stderr, text, info", .help = "Targets of the log." },
	{ .name = "metrics", .kind = KIND_GROUP, .sub = &metrics, .def_words = "none", .help = "Metrics and health over HTTP." },
	{ .name = "admin", .kind = KIND_LIST, .restart = true, ARRAY(struct conf_global, admin, admin_n), .sub = &admins, .def_words = "none",
	  .help = "Admin sockets." },
	{ .name = "lua", .kind = KIND_GROUP, .sub = &lua, .def_words = "none", .help = "Scripts that decide about clients." },
	{ .name = "ticket_keys", .kind = KIND_PATH, FIELD(struct conf_global, ticket_keys), .def_words = "a random one of the process",
	  .help = "A file of keys that a pair of hubs shares, so that agents resume their TLS sessions at either: a key of 80 bytes a line, as base64 or hexadecimal digits (mctunnel-pki ticket-key makes one). The first seals tickets, all open them. As secret as the hub's key." },
	{ .name = "hard_stop_after", .kind = KIND_TIME, FIELD(struct conf_global, hard_stop_after), .min = 1, .max = MAX_TIME, .def = "30s",
	  .help = "At a soft stop, sessions may go on for this long; then they are ended." },
	{ .name = "health_file", .kind = KIND_PATH, .restart = true, FIELD(struct conf_global, health_file), .def_words = "none",
	  .help = "A file for keepalived's track_file, written by the master: 0 says serve, 1 says move the VIP, because the worker hangs or does not come back, or because the hub stops (doc/failover.md)." },
	{ .name = "health_timeout", .kind = KIND_TIME, FIELD(struct conf_global, health_timeout), .min = 200, .max = DAY, .def = "300ms",
	  .help = "A worker one of whose loops has not turned for this long, or that is not back this long after its death, makes health_file say 1; when it has done well for a second, 0 again. A loop that stands still for 2s is ended." },
	{ .name = "vip_grace", .kind = KIND_TIME, FIELD(struct conf_global, vip_grace), .max = MAX_TIME, .def = "1s",
	  .help = "Of a hub that has been told that it is master (set vip): how long at a stop it goes on as before once health_file says 1. As soon as it is told that it is master no more, it stops. 0 does not wait." },
};
static const struct section global = { .name = "global", ROWS(global_rows), .at = NO_PLACE, .intro = "What concerns the whole process." };

static const struct row defaults_rows[] = {
	{ .name = "timeouts", .kind = KIND_GROUP, .sub = &timeouts, .help = "For every listener and service that does not say otherwise." },
};
static const struct section defaults = { .name = "defaults", ROWS(defaults_rows), .at = NO_PLACE,
	.intro = "Taken by every listener and service that does not say otherwise, wherever in the files it stands." };

static const struct row tls_bind_rows[] = {
	{ .name = "address", .kind = KIND_BIND, .required = true, FIELD(struct conf_tls_bind, address), .help = "Where agents arrive." },
	{ .name = "cert", .kind = KIND_PATH, .required = true, FIELD(struct conf_tls_bind, cert),
	  .help = "The hub's certificate with its chain, PEM." },
	{ .name = "key", .kind = KIND_PATH, FIELD(struct conf_tls_bind, key), .def_words = "the same file as cert",
	  .help = "Its key, PEM, not encrypted. Nobody but its owner should be able to read it." },
	{ .name = "client_ca", .kind = KIND_PATH, .required = true, FIELD(struct conf_tls_bind, client_ca),
	  .help = "The authorities whose certificates agents must show, PEM." },
	{ .name = "crl", .kind = KIND_PATH, FIELD(struct conf_tls_bind, crl), .def_words = "none", .help = "Revoked certificates, PEM." },
	{ .name = "tls_min", .kind = KIND_WORD, .words = tls_versions, .def = "1.3", .help = "The lowest TLS version." },
};
static const struct section tls_binds = { .name = "bind", ROWS(tls_bind_rows), .size = sizeof(struct conf_tls_bind),
	.at = offsetof(struct conf_tls_bind, at), .intro = "Each element is an address with its certificate." };

static const struct row hub_heartbeat_rows[] = {
	{ .name = "interval", .kind = KIND_TIME, FIELD(struct conf_hub, heartbeat_interval), .min = 10, .max = DAY, .def = "1s",
	  .help = "An idle link is asked for a sign of life this often." },
	{ .name = "timeout", .kind = KIND_TIME, FIELD(struct conf_hub, heartbeat_timeout), .min = 10, .max = DAY, .def = "3s",
	  .help = "A link on which nothing has arrived for this long is dead. Must be longer than interval." },
};
static const struct section hub_heartbeat = { .name = "heartbeat", ROWS(hub_heartbeat_rows), .at = NO_PLACE };

static const struct row hub_rows[] = {
	{ .name = "name", .kind = KIND_NAME, FIELD(struct conf_hub, name), .def_words = "the host's name", .help = "The hub's name for agents and in the log." },
	{ .name = "bind", .kind = KIND_LIST, .required = true, ARRAY(struct conf_hub, bind, bind_n), .sub = &tls_binds, .help = "Addresses where agents arrive." },
	{ .name = "heartbeat", .kind = KIND_GROUP, .sub = &hub_heartbeat, .help = "How a dead link is found." },
	{ .name = "max_links", .kind = KIND_INT, FIELD(struct conf_hub, max_links), .min = 1, .max = 1000000, .def = "20000",
	  .help = "Links of all agents together; more are refused." },
	{ .name = "handshakes", .kind = KIND_INT, FIELD(struct conf_hub, handshakes), .min = 1, .max = 100000, .def = "256",
	  .help = "TLS handshakes with agents in progress at once; at the limit the hub stops accepting links for a moment." },
};
static const struct section hub = { .name = "hub", ROWS(hub_rows), .at = offsetof(struct conf_hub, at),
	.intro = "The process that clients and agents connect to. Without this section the process is no hub, and tunnels and listeners are refused." };


#define RATE_MAX 1000000
#define BYTES_MAX (1024 * GIB)

#define BANDWIDTH_ROWS(type) \
	{ .name = "session_up", .kind = KIND_SIZE, FIELD(type, limits.session_up), .max = BYTES_MAX, .def = "0", .help = "Bytes a second of one session, from the client to the target. 0: no limit." }, \
	{ .name = "session_down", .kind = KIND_SIZE, FIELD(type, limits.session_down), .max = BYTES_MAX, .def = "0", .help = "The same, from the target to the client." }, \
	{ .name = "up", .kind = KIND_SIZE, FIELD(type, limits.up), .max = BYTES_MAX, .def = "0", .help = "Bytes a second of all sessions together, from clients to targets. 0: no limit." }, \
	{ .name = "down", .kind = KIND_SIZE, FIELD(type, limits.down), .max = BYTES_MAX, .def = "0", .help = "The same, from targets to clients." }

static const struct row tunnel_limits_rows[] = { BANDWIDTH_ROWS(struct conf_tunnel) };
static const struct section tunnel_limits = { .name = "limits", ROWS(tunnel_limits_rows), .at = NO_PLACE, .intro = "Bandwidth. Who is over a limit is slowed down, not ended." };

static const struct row service_limits_rows[] = { BANDWIDTH_ROWS(struct conf_service) };
static const struct section service_limits = { .name = "limits", ROWS(service_limits_rows), .at = NO_PLACE, .intro = "As limits of tunnels, for this service at this agent." };

static const struct row listener_limits_rows[] = {
	{ .name = "client_sessions", .kind = KIND_INT, FIELD(struct conf_listener, limits.client_sessions), .max = 10000000, .def = "0", .help = "Sessions at once from one client address. 0: no limit." },
	{ .name = "client_rate", .kind = KIND_INT, FIELD(struct conf_listener, limits.client_rate), .max = RATE_MAX, .def = "0",
	  .help = "New sessions (mode http: requests) a second from one client address; a second's worth may come at once. 0: no limit." },
	{ .name = "client_prefix4", .kind = KIND_INT, FIELD(struct conf_listener, limits.client_prefix4), .min = 8, .max = 32, .def = "32", .help = "Leading bits of an IPv4 address that make one client." },
	{ .name = "client_prefix6", .kind = KIND_INT, FIELD(struct conf_listener, limits.client_prefix6), .min = 16, .max = 128, .def = "64", .help = "The same of an IPv6 address." },
	{ .name = "clients", .kind = KIND_INT, FIELD(struct conf_listener, limits.clients), .min = 16, .max = 10000000, .def = "100000",
	  .help = "Client addresses remembered at once. When there are more, those that were quiet longest are forgotten." },
	{ .name = "over", .kind = KIND_WORD, FIELD(struct conf_listener, limits.over), .words = overs, .def = "deny",
	  .help = "What happens to a client over its limits: it waits up to timeouts.queue (queue), gets a RST (reject), or 429 in modes http and connect and a RST in others (deny)." },
	BANDWIDTH_ROWS(struct conf_listener),
};
static const struct section listener_limits = { .name = "limits", ROWS(listener_limits_rows), .at = NO_PLACE, .intro = "Limits of one client address, and bandwidth. Who is over a bandwidth is slowed down, not ended." };

static const struct row tunnel_rows[] = {
	{ .name = "name", .kind = KIND_NAME, .required = true, FIELD(struct conf_tunnel, name), .help = "Unique; the first half of a route." },
	{ .name = "agents", .kind = KIND_TEXT, STRINGS(struct conf_tunnel, agents), .min = 1, .def_words = "the tunnel's name",
	  .help = "Names of the certificates (SAN DNS, else CN) that may serve the tunnel." },
	{ .name = "services", .kind = KIND_GLOB, STRINGS(struct conf_tunnel, services), .def_words = "none: everything is denied",
	  .help = "Services the agents may offer; '*' stands for any letters." },
	{ .name = "balance", .kind = KIND_WORD, FIELD(struct conf_tunnel, balance), .words = balances, .def = "roundrobin",
	  .help = "Which of several agents gets a new session: each in turn (roundrobin), the one with the fewest sessions (leastconn), any (random), by the client's address (source), the first that is up in order of name (first)." },
	{ .name = "maxconn", .kind = KIND_INT, FIELD(struct conf_tunnel, maxconn), .max = 10000000, .def = "0", .help = "Sessions in the tunnel; 0: no limit of its own." },
	{ .name = "limits", .kind = KIND_GROUP, .sub = &tunnel_limits, .help = "Bandwidth of the tunnel." },
};
static const struct section tunnels = { .name = "tunnels", ROWS(tunnel_rows), .size = sizeof(struct conf_tunnel),
	.at = offsetof(struct conf_tunnel, at), .intro = "The sites: which agents may serve each, and what they may offer there. What is not named is denied.",
	.example = "tunnels = (\n"
		   "  { name = \"site-a\"; agents = [ \"edge-1\", \"edge-2\" ]; services = [ \"web\", \"db-*\" ];\n"
		   "    balance = \"leastconn\"; }\n"
		   ");" };

static const struct row header_rows[] = {
	{ .name = "name", .kind = KIND_TEXT, .required = true, FIELD(struct conf_header, name), .min = 1, .max = 64, .help = "The field's name, in any case." },
	{ .name = "value", .kind = KIND_MATCH, FIELD(struct conf_header, value), .def_words = "any", .help = "What one of its values must be." },
};
static const struct section headers = { .name = "header", ROWS(header_rows), .size = sizeof(struct conf_header), .at = offsetof(struct conf_header, at),
	.intro = "Each element is a condition on a field of the request; all must hold." };

static const struct row rule_rows[] = {
	{ .name = "src", .kind = KIND_NET, .list = LIST_ANY, STRINGS(struct conf_rule, src), .help = "The client's address: networks such as \"192.0.2.0/24\", single addresses, or \"@FILE\"." },
	{ .name = "dst_port", .kind = KIND_PORTS, .list = LIST_ANY, STRINGS(struct conf_rule, dst_port), .help = "The port the client came to (mode connect: asked for): \"443\" or \"8000-8099\", or \"@FILE\"." },
	{ .name = "sni", .kind = KIND_MATCH, .list = LIST_ANY, STRINGS(struct conf_rule, sni), .help = "The server name of the TLS ClientHello, in any case: a name, a glob (\"*.example.com\") \"~PCRE2\" or \"@FILE\". In mode http, where a rule of the listener has sni and not host, a request to another host than its connection's server name gets 421: clients of HTTP/2 use one connection for all names of its certificate." },
	{ .name = "alpn", .kind = KIND_MATCH, .list = LIST_ANY, STRINGS(struct conf_rule, alpn), .help = "One of the protocols that the ClientHello offers, where TLS ends here the one agreed on; as sni, but upper and lower case differ." },
	{ .name = "host", .kind = KIND_MATCH, .list = LIST_ANY, STRINGS(struct conf_rule, host), .help = "The host of the request, in any case, without port (modes http and connect); as sni." },
	{ .name = "path", .kind = KIND_MATCH, .list = LIST_ANY, STRINGS(struct conf_rule, path), .help = "The path of the request without its query, normalised: no dot segments, no needless %XX (mode http); as alpn." },
	{ .name = "method", .kind = KIND_MATCH, .list = LIST_ANY, STRINGS(struct conf_rule, method), .help = "The method of the request (mode http); as alpn." },
	{ .name = "header", .kind = KIND_LIST, ARRAY(struct conf_rule, header, header_n), .sub = &headers, .help = "Fields of the request (mode http)." },
	{ .name = "action", .kind = KIND_WORD, FIELD(struct conf_rule, action), .words = actions, .def = "route",
	  .help = "route: the client goes where route says. deny: 403 in modes http and connect, a RST in others. reject: a RST. redirect: the client is sent to the location redirect (mode http)." },
	{ .name = "route", .kind = KIND_TEMPLATE, STRINGS(struct conf_rule, route), .help = "\"TUNNEL/SERVICE\", or a list of them that is tried in order. \"${NAME}\" is what the group (?<NAME>...) of a PCRE2 of this rule has matched." },
	{ .name = "rewrite", .kind = KIND_TEMPLATE, FIELD(struct conf_rule, rewrite), .max = 4096, .def_words = "as it came", .help = "The path the target gets instead; the query stays (mode http)." },
	{ .name = "redirect", .kind = KIND_TEMPLATE, FIELD(struct conf_rule, redirect), .max = 4096, .help = "The location of a redirect; besides captures it knows \"${host}\" and \"${path}\" (with the query)." },
	{ .name = "status", .kind = KIND_INT, FIELD(struct conf_rule, status), .max = 599, .def = "0", .def_words = "302 of a redirect, 403 of a deny", .help = "The status of the answer: 301, 302, 303, 307 or 308 of a redirect, 400 to 599 of a deny." },
};
static const struct section rules = { .name = "rules", ROWS(rule_rows), .size = sizeof(struct conf_rule), .at = offsetof(struct conf_rule, at),
	.intro = "Rules run top down, and the first one that applies decides. All conditions of a rule must hold; of several values of one condition, one must. A rule without a condition always applies." };

static const struct row listener_tls_rows[] = {
	{ .name = "cert", .kind = KIND_PATH, .required = true, STRINGS(struct conf_listener, tls.cert),
	  .help = "Certificates with their chains, PEM: files, or folders (ending in '/') whose *.pem and *.crt are taken, 2000 at most. The client's server name chooses (a name, then *.DOMAIN for one label); the first one is for who asks for none of them." },
	{ .name = "key", .kind = KIND_PATH, FIELD(struct conf_listener, tls.key), .def_words = "in the same file, or beside it as NAME.key", .help = "The key, PEM, when there is one certificate only." },
	{ .name = "tls_min", .kind = KIND_WORD, FIELD(struct conf_listener, tls.min), .words = client_tls_versions, .def = "1.2", .help = "The lowest TLS version." },
	{ .name = "client_ca", .kind = KIND_PATH, FIELD(struct conf_listener, tls.client_ca), .def_words = "none", .help = "The authorities of clients' certificates, PEM." },
	{ .name = "crl", .kind = KIND_PATH, FIELD(struct conf_listener, tls.crl), .def_words = "none", .help = "Revoked certificates of clients, PEM." },
	{ .name = "verify", .kind = KIND_WORD, FIELD(struct conf_listener, tls.verify), .words = verifies, .def = "none", .def_words = "required with client_ca, else none",
	  .help = "Whether a client must show a certificate: not asked for (none), checked when there is one (optional), or required." },
	{ .name = "alpn", .kind = KIND_TEXT, STRINGS(struct conf_listener, tls.alpn), .min = 1, .max = 63, .def_words = "\"h2\", \"http/1.1\" in mode http, else none",
	  .help = "Protocols offered, the best first. A client that offers others only is refused; who offers none is not." },
};
static const struct section listener_tls = { .name = "tls", ROWS(listener_tls_rows), .at = offsetof(struct conf_listener, tls.at),
	.intro = "TLS that ends here: clients speak TLS, targets get what was inside (modes tcp, http, connect)." };

static const struct row listener_rows[] = {
	{ .name = "name", .kind = KIND_NAME, .required = true, FIELD(struct conf_listener, name), .help = "Unique; for the log and the metrics." },
	{ .name = "bind", .kind = KIND_BIND, .many = true, .required = true, ARRAY(struct conf_listener, bind, bind_n), .help = "Where clients arrive: an address or a list of them." },
	{ .name = "mode", .kind = KIND_WORD, FIELD(struct conf_listener, mode), .words = modes, .def = "tcp", .help = "What is understood of the client's bytes: nothing (tcp), the names in a TLS ClientHello, without ending TLS here (tls), requests, each of which is routed by itself (http), or what an HTTP proxy is asked to connect to (connect)." },
	{ .name = "route", .kind = KIND_ROUTE, .many = true, ARRAY(struct conf_listener, route, route_n),
	  .help = "Where clients are taken whom no rule concerns: \"TUNNEL/SERVICE\", or a list of them that is tried in order, the next when none of a tunnel's agents is up. There must be a route, or rules, or a policy; in mode connect, without route and rules, the name SERVICE.TUNNEL leads there." },
	{ .name = "maxconn", .kind = KIND_INT, FIELD(struct conf_listener, maxconn), .max = 10000000, .def = "0", .help = "Sessions of this listener; 0: no limit of its own." },
	{ .name = "rate_limit", .kind = KIND_INT, FIELD(struct conf_listener, rate_limit), .max = 1000000, .def = "0",
	  .help = "New sessions a second of this listener, evenly spaced; others wait in the kernel's queue, none is refused. 0: no limit of its own." },
	{ .name = "timeouts", .kind = KIND_GROUP, .inherit = true, FIELD(struct conf_listener, timeouts), .sub = &timeouts, .help = "As in defaults, for this listener." },
	{ .name = "rules", .kind = KIND_LIST, ARRAY(struct conf_listener, rules, rules_n), .sub = &rules, .help = "Conditions that choose the route." },
	{ .name = "policy", .kind = KIND_NAME, FIELD(struct conf_listener, policy), .def_words = "none", .help = "A Lua function that is asked after the rules, for each client (mode http: each request)." },
	{ .name = "tls", .kind = KIND_GROUP, .sub = &listener_tls, .def_words = "none", .help = "TLS terminated here." },
	{ .name = "accept_proxy", .kind = KIND_NET, .list = LIST_FILLED, STRINGS(struct conf_listener, accept_proxy),
	  .help = "Networks of proxies that must begin with a PROXY protocol header (version 1 or 2), which is believed. Whoever comes from elsewhere is refused." },
	{ .name = "forwarded", .kind = KIND_WORD, FIELD(struct conf_listener, forwarded), .words = forwardeds, .def = "replace",
	  .help = "X-Forwarded-For, -Proto, -Host and Forwarded of requests: those of the client are replaced by ours (replace), ours are added behind the client's (append), the client's go on as they are and none is added (keep), or all go (off). X-Request-ID: replace sets a new one, append and keep take over a harmless one of the client, off adds none." },
	{ .name = "users", .kind = KIND_TEXT, .list = LIST_FILLED, STRINGS(struct conf_listener, users),
	  .help = "Who may use the proxy (mode connect): \"NAME:PASSWORD\", the password in plain text or as crypt(3) makes it (\"$6$...\"); \"@/path\" is a file with one a line." },
	{ .name = "max_head", .kind = KIND_SIZE, FIELD(struct conf_listener, max_head), .min = 1024, .max = 64u << 10, .def = "16k", .help = "The longest head of a request (modes http and connect)." },
	{ .name = "max_body", .kind = KIND_SIZE, FIELD(struct conf_listener, max_body), .max = 1024 * GIB, .def = "0", .help = "The longest body of a request (mode http); what is longer gets 413. 0: no limit." },
	{ .name = "limits", .kind = KIND_GROUP, .sub = &listener_limits, .help = "Limits of a client address, and bandwidth." },
};
static const struct section listeners = { .name = "listeners", ROWS(listener_rows), .size = sizeof(struct conf_listener),
	.at = offsetof(struct conf_listener, at), .intro = "Addresses of the hub where clients arrive, and where they are taken from there.",
	.example = "listeners = (\n"
		   "  { name = \"ssh\"; bind = \"*:2222\"; route = \"site-a/ssh\"; },\n"
		   "  { name = \"web\"; bind = [ \"*:80\", \"[::1]:8080\" ]; route = [ \"site-a/web\", \"site-b/web\" ];\n"
		   "    timeouts = { idle = \"5m\"; }; }\n"
		   ");" };

static const struct row agent_tls_rows[] = {
	{ .name = "cert", .kind = KIND_PATH, .required = true, FIELD(struct conf_agent, cert), .help = "The agent's certificate with its chain, PEM. Its name is who the agent is." },
	{ .name = "key", .kind = KIND_PATH, FIELD(struct conf_agent, key), .def_words = "the same file as cert", .help = "Its key, PEM, not encrypted." },
	{ .name = "ca", .kind = KIND_PATH, .required = true, FIELD(struct conf_agent, ca), .help = "The authorities that hubs' certificates must come from, PEM." },
	{ .name = "server_name", .kind = KIND_TEXT, FIELD(struct conf_agent, server_name), .min = 1, .max = 253, .def_words = "the host of the address dialled",
	  .help = "The name the hub's certificate must carry, for all hubs." },
};
static const struct section agent_tls = { .name = "tls", ROWS(agent_tls_rows), .at = NO_PLACE };

static const struct row backoff_rows[] = {
	{ .name = "min", .kind = KIND_TIME, FIELD(struct conf_agent, backoff_min), .min = 1, .max = DAY, .def = "1s", .help = "The second attempt comes after up to this long." },
	{ .name = "max", .kind = KIND_TIME, FIELD(struct conf_agent, backoff_max), .min = 1, .max = DAY, .def = "1m", .help = "No wait is longer than this." },
};
static const struct section backoff = { .name = "backoff", ROWS(backoff_rows), .at = NO_PLACE };

static const struct row agent_heartbeat_rows[] = {
	{ .name = "interval", .kind = KIND_TIME, FIELD(struct conf_agent, heartbeat_interval), .min = 10, .max = DAY, .def = "1s", .help = "As hub.heartbeat.interval." },
	{ .name = "timeout", .kind = KIND_TIME, FIELD(struct conf_agent, heartbeat_timeout), .min = 10, .max = DAY, .def = "3s", .help = "As hub.heartbeat.timeout." },
};
static const struct section agent_heartbeat = { .name = "heartbeat", ROWS(agent_heartbeat_rows), .at = NO_PLACE };

static const struct row check_rows[] = {
	{ .name = "type", .kind = KIND_WORD, .required = true, FIELD(struct conf_service, check.type), .words = check_types,
	  .help = "tcp: the target takes a connection. http: it answers a request with a status of expect. tls: it completes a TLS handshake, whatever its certificate. grpc: the gRPC health service answers SERVING (HTTP/2 in plain text). none: no check." },
	{ .name = "interval", .kind = KIND_TIME, FIELD(struct conf_service, check.interval), .min = 10, .max = DAY, .def = "2s", .help = "From the end of one check to the next." },
	{ .name = "fastinter", .kind = KIND_TIME, FIELD(struct conf_service, check.fastinter), .max = DAY, .def = "0", .def_words = "interval", .help = "The same while it is on the way up or down." },
	{ .name = "downinter", .kind = KIND_TIME, FIELD(struct conf_service, check.downinter), .max = DAY, .def = "0", .def_words = "interval", .help = "The same while it is down." },
	{ .name = "timeout", .kind = KIND_TIME, FIELD(struct conf_service, check.timeout), .min = 1, .max = DAY, .def = "1s", .help = "A check that takes longer has failed." },
	{ .name = "rise", .kind = KIND_INT, FIELD(struct conf_service, check.rise), .min = 1, .max = 1000, .def = "2", .help = "So many good checks in a row bring it up." },
	{ .name = "fall", .kind = KIND_INT, FIELD(struct conf_service, check.fall), .min = 1, .max = 1000, .def = "3", .help = "So many bad checks in a row bring it down." },
	{ .name = "jitter", .kind = KIND_INT, FIELD(struct conf_service, check.jitter), .max = 50, .def = "5", .help = "Percent of the interval by which a check may come earlier or later, so that checks spread out." },
	{ .name = "path", .kind = KIND_TEXT, FIELD(struct conf_service, check.path), .min = 1, .max = 1024, .def = "/", .help = "What is asked for (http)." },
	{ .name = "method", .kind = KIND_TEXT, FIELD(struct conf_service, check.method), .min = 1, .max = 16, .def = "GET", .help = "How it is asked (http)." },
	{ .name = "host", .kind = KIND_TEXT, FIELD(struct conf_service, check.host), .min = 1, .max = 253, .def_words = "the target's", .help = "The Host field (http), the server name (tls), the authority (grpc)." },
	{ .name = "expect", .kind = KIND_STATUSES, STRINGS(struct conf_service, check.expect), .def_words = "\"200-399\"", .help = "Good statuses (http): \"200\" or \"200-399\", or a list of such." },
	{ .name = "service", .kind = KIND_TEXT, FIELD(struct conf_service, check.service), .min = 1, .max = 128, .def_words = "\"\": the server as a whole", .help = "Whose health is asked (grpc)." },
	{ .name = "error_limit", .kind = KIND_INT, FIELD(struct conf_service, check.error_limit), .max = 1000000, .def = "10", .help = "So many sessions in a row that could not be connected bring it down without a check. 0: none do." },
	{ .name = "on_marked_down", .kind = KIND_BOOL, FIELD(struct conf_service, check.on_marked_down), .def = "false", .help = "Sessions end when it goes down." },
	{ .name = "slowstart", .kind = KIND_TIME, FIELD(struct conf_service, check.slowstart), .max = DAY, .def = "0", .help = "The time over which its weight rises once it has come up." },
};
static const struct section checks = { .name = "check", ROWS(check_rows), .at = offsetof(struct conf_service, check.at),
	.intro = "How the agent finds out whether its target can be used. A service begins as down, and its first good check brings it up; hubs hear of each change at once and "
		 "take new sessions elsewhere." };

static const struct row service_rows[] = {
	{ .name = "name", .kind = KIND_NAME, .required = true, FIELD(struct conf_service, name), .help = "Unique; the second half of a route. The hub must allow it in the tunnel." },
	{ .name = "target", .kind = KIND_DIAL, .required = true, FIELD(struct conf_service, target), .help = "The address the service leads to." },
	{ .name = "send_proxy", .kind = KIND_WORD, FIELD(struct conf_service, send_proxy), .words = send_proxies, .def = "none",
	  .help = "The version of the PROXY protocol header, with the client's address, that the target gets before the first byte." },
	{ .name = "maxconn", .kind = KIND_INT, FIELD(struct conf_service, maxconn), .max = 10000000, .def = "0", .help = "Sessions to the target; more are refused, and the hub tries another agent. 0: no limit." },
	{ .name = "weight", .kind = KIND_INT, FIELD(struct conf_service, weight), .max = 256, .def = "100", .help = "This agent's share of the sessions, against other agents of the tunnel. 0: none while another agent is up." },
	{ .name = "timeouts", .kind = KIND_GROUP, .inherit = true, FIELD(struct conf_service, timeouts), .sub = &timeouts, .help = "As in defaults, for this service." },
	{ .name = "check", .kind = KIND_GROUP, .sub = &checks, .def_words = "none: it counts as up", .help = "How the target's health is found out." },
	{ .name = "limits", .kind = KIND_GROUP, .sub = &service_limits, .help = "Bandwidth of the service." },
};
static const struct section services = { .name = "services", ROWS(service_rows), .size = sizeof(struct conf_service),
	.at = offsetof(struct conf_service, at), .intro = "What this agent offers." };

static const struct row agent_rows[] = {
	{ .name = "name", .kind = KIND_NAME, .restart = true, FIELD(struct conf_agent, name), .def_words = "the host's name", .help = "For the log on both sides. Who the agent is, its certificate says." },
	{ .name = "tunnel", .kind = KIND_NAME, .restart = true, FIELD(struct conf_agent, tunnel), .def_words = "the agent's name", .help = "The tunnel of the hub that this agent serves." },
	{ .name = "hubs", .kind = KIND_DIAL, .many = true, .required = true, ARRAY(struct conf_agent, hubs, hubs_n),
	  .help = "The hubs to dial. Links are kept to all of them, so that a failover finds them warm." },
	{ .name = "links", .kind = KIND_INT, FIELD(struct conf_agent, links), .min = 1, .max = 64, .def = "2", .help = "Links to each hub." },
	{ .name = "tls", .kind = KIND_GROUP, .required = true, .sub = &agent_tls, .help = "Who the agent is, and whom it trusts." },
	{ .name = "proxy", .kind = KIND_PROXY, FIELD(struct conf_agent, proxy), .count = offsetof(struct conf_agent, proxy_auth), .def_words = "none",
	  .help = "An HTTP proxy (CONNECT) on the way to the hubs: \"http://[USER:PASSWORD@]HOST:PORT\"; special characters of user and password as %XX." },
	{ .name = "backoff", .kind = KIND_GROUP, .sub = &backoff,
	  .help = "Waits between attempts to reach a hub: the first retry comes at once, with a little jitter; then the wait doubles, with full jitter, and starts anew after a stable link." },
	{ .name = "heartbeat", .kind = KIND_GROUP, .sub = &agent_heartbeat, .help = "How a dead link is found." },
	{ .name = "services", .kind = KIND_LIST, .required = true, ARRAY(struct conf_agent, services, services_n), .sub = &services, .help = "What is offered, and where it leads." },
};
static const struct section agent = { .name = "agent", ROWS(agent_rows), .at = offsetof(struct conf_agent, at),
	.intro = "The process at a site that dials hubs. One file may hold hub and agent together." };

static const struct row root_rows[] = {
	{ .name = "global", .kind = KIND_GROUP, FIELD(struct conf, global), .sub = &global },
	{ .name = "defaults", .kind = KIND_GROUP, FIELD(struct conf, defaults), .sub = &defaults },
	{ .name = "hub", .kind = KIND_GROUP, FIELD(struct conf, hub), .sub = &hub },
	{ .name = "tunnels", .kind = KIND_LIST, ARRAY(struct conf, tunnels, tunnels_n), .sub = &tunnels },
	{ .name = "listeners", .kind = KIND_LIST, ARRAY(struct conf, listeners, listeners_n), .sub = &listeners },
	{ .name = "agent", .kind = KIND_GROUP, FIELD(struct conf, agent), .sub = &agent },
};
const struct section schema_root = { .name = "configuration", ROWS(root_rows), .at = NO_PLACE };

const struct row *schema_row(const struct section *s, const char *name)
{
	for (size_t i = 0; i < s->rows_n; i++) {
		if (strcmp(s->rows[i].name, name) == 0)
			return &s->rows[i];
	}
	return NULL;
}
