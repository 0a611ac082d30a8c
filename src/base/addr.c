/* Addresses as operators write them and as the kernel takes them. Owns the grammar of endpoints ("*:8443",
 * "[::1]:80", "unix:/path", "host.name:443") and the way an address is shown. Resolves nothing: a name stays a name. */
#include "mctunnel/base/addr.h"

#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOST_MAX 253

static int __attribute__((format(printf, 3, 4))) fail(char *err, size_t errsize, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err, errsize, fmt, ap);
	va_end(ap);
	return -1;
}

static void set_in4(struct addr *out, const struct in_addr *ip, uint16_t port)
{
	memset(out, 0, sizeof(*out));
	out->len = sizeof(out->u.in4);
	out->u.in4.sin_family = AF_INET;
	out->u.in4.sin_addr = *ip;
	out->u.in4.sin_port = htons(port);
}

static void set_in6(struct addr *out, const struct in6_addr *ip, uint16_t port, uint32_t scope)
{
	memset(out, 0, sizeof(*out));
	out->len = sizeof(out->u.in6);
	out->u.in6.sin6_family = AF_INET6;
	out->u.in6.sin6_addr = *ip;
	out->u.in6.sin6_port = htons(port);
	out->u.in6.sin6_scope_id = scope;
}

static int parse_scope(const char *text, uint32_t *scope)
{
	uint64_t n;

	*scope = if_nametoindex(text);
	if (*scope == 0 && str_u64(text, UINT32_MAX, &n))
		*scope = (uint32_t)n;
	return *scope ? 0 : -1;
}

static int parse_in6(struct addr *out, const char *host, uint16_t port)
{
	char text[INET6_ADDRSTRLEN + IF_NAMESIZE + 1];
	struct in6_addr ip;
	uint32_t scope = 0;

	if (!str_copy(text, sizeof(text), host))
		return -1;
	char *percent = strchr(text, '%');
	if (percent) {
		*percent = '\0';
		if (parse_scope(percent + 1, &scope) < 0)
			return -1;
	}
	if (inet_pton(AF_INET6, text, &ip) != 1)
		return -1;
	set_in6(out, &ip, port, scope);
	return 0;
}

static int parse_unix(struct addr *out, const char *path, char *err, size_t errsize)
{
	size_t len = strlen(path);

	if (len == 0)
		return fail(err, errsize, "a path is missing after \"unix:\"");
	if (path[0] != '/')
		return fail(err, errsize, "the path \"%.64s\" must be absolute: \"unix:/path\"", path);
	if (len >= sizeof(out->u.un.sun_path))
		return fail(err, errsize, "the path of a Unix socket has at most %zu bytes, this one has %zu",
			    sizeof(out->u.un.sun_path) - 1, len);
	memset(out, 0, sizeof(*out));
	out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
	out->u.un.sun_family = AF_UNIX;
	memcpy(out->u.un.sun_path, path, len + 1);
	return 0;
}

/* A host name by its letters; one made of digits and dots only is a mistyped address. */
static bool is_host_name(const char *host)
{
	size_t label = 0;
	bool letter = false;

	for (const char *p = host; *p; p++) {
		unsigned char c = (unsigned char)*p;
		if (c == '.') {
			if (label == 0)
				return false;
			label = 0;
			continue;
		}
		if (!isalnum(c) && c != '-' && c != '_')
			return false;
		letter |= !isdigit(c);
		if (++label > 63)
			return false;
	}
	return letter && strlen(host) <= HOST_MAX;
}

static int parse_port(const char *text, enum endpoint_use use, uint16_t *port, char *err, size_t errsize)
{
	uint64_t n;

	if (*text == '\0')
		return fail(err, errsize, "the port is missing after ':'");
	if (!str_u64(text, 65535, &n))
		return fail(err, errsize, "\"%.32s\" is not a port: a number from 1 to 65535 is expected", text);
	if (n == 0 && use == ENDPOINT_DIAL)
		return fail(err, errsize, "port 0 cannot be dialled");
	*port = (uint16_t)n;
	return 0;
}

/* Cuts "HOST:PORT" or "[HOST]:PORT"; *host is malloc'ed. */
static int split(const char *text, char **host, const char **port, char *err, size_t errsize)
{
	const char *colon = strrchr(text, ':');

	if (text[0] == '[') {
		const char *close = strchr(text, ']');
		if (!close)
			return fail(err, errsize, "']' is missing: an IPv6 address is written \"[::1]:80\"");
		if (close[1] != ':')
			return fail(err, errsize, "the port is missing: \"[::1]:80\" is expected");
		*host = xasprintf("%.*s", (int)(close - text - 1), text + 1);
		*port = close + 2;
		return 0;
	}
	if (!colon)
		return fail(err, errsize, "the port is missing in \"%.64s\": \"ADDRESS:PORT\" or \"unix:/path\" is expected", text);
	if (strchr(text, ':') != colon)
		return fail(err, errsize, "an IPv6 address needs brackets: \"[::1]:80\"");
	*host = xasprintf("%.*s", (int)(colon - text), text);
	*port = colon + 1;
	return 0;
}

/* Everything but the port is in host; decides what it is. */
static int set_host(struct endpoint *e, char *host, bool bracketed, enum endpoint_use use, char *err, size_t errsize)
{
	struct in_addr ip4;

	if (bracketed) {
		if (parse_in6(&e->addr, host, e->port) < 0)
			return fail(err, errsize, "\"%.64s\" is not an IPv6 address", host);
		return 0;
	}
	if (strcmp(host, "*") == 0 && use == ENDPOINT_BIND) {
		e->any = true;
		set_in6(&e->addr, &in6addr_any, e->port, 0);
		return 0;
	}
	if (inet_pton(AF_INET, host, &ip4) == 1) {
		set_in4(&e->addr, &ip4, e->port);
		return 0;
	}
	if (use == ENDPOINT_BIND)
		return fail(err, errsize, "\"%.64s\" is not a numeric address: \"*:PORT\", \"192.0.2.1:PORT\" or \"[::1]:PORT\" is expected", host);
	if (!is_host_name(host))
		return fail(err, errsize, "\"%.64s\" is neither an address nor a host name", host);
	e->host = xstrdup(host);
	return 0;
}

static int parse_inet(struct endpoint *e, const char *text, enum endpoint_use use, char *err, size_t errsize)
{
	char *host = NULL;
	const char *port = NULL;

	if (strstr(text, "://"))
		return fail(err, errsize, "\"%.64s\" is a URL: only \"HOST:PORT\" is expected", text);
	if (split(text, &host, &port, err, errsize) < 0)
		return -1;
	int rc = parse_port(port, use, &e->port, err, errsize);
	if (rc == 0 && *host == '\0')
		rc = fail(err, errsize, "the address is missing before ':'%s", use == ENDPOINT_BIND ? " (\"*\" stands for all)" : "");
	if (rc == 0)
		rc = set_host(e, host, text[0] == '[', use, err, errsize);
	free(host);
	return rc;
}

int endpoint_parse(struct endpoint *out, const char *text, enum endpoint_use use, char *err, size_t errsize)
{
	int rc;

	memset(out, 0, sizeof(*out));
	if (*text == '\0')
		return fail(err, errsize, "an address is expected, not an empty string");
	if (strncmp(text, "unix:", 5) == 0)
		rc = parse_unix(&out->addr, text + 5, err, errsize);
	else
		rc = parse_inet(out, text, use, err, errsize);
	if (rc == 0)
		out->text = xstrdup(text);
	else
		memset(out, 0, sizeof(*out));
	return rc;
}

void endpoint_fini(struct endpoint *e)
{
	free(e->text);
	free(e->host);
	memset(e, 0, sizeof(*e));
}

static bool is_mapped(const struct addr *a)
{
	return a->u.sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&a->u.in6.sin6_addr);
}

static void in6_text(const struct addr *a, char *buf, size_t size)
{
	char scope[IF_NAMESIZE] = "";
	size_t len;

	if (!inet_ntop(AF_INET6, &a->u.in6.sin6_addr, buf, (socklen_t)size))
		str_copy(buf, size, "?");
	if (a->u.in6.sin6_scope_id == 0)
		return;
	len = strlen(buf);
	if (if_indextoname(a->u.in6.sin6_scope_id, scope))
		snprintf(buf + len, size - len, "%%%s", scope);
	else
		snprintf(buf + len, size - len, "%%%u", a->u.in6.sin6_scope_id);
}

static void unix_text(const struct addr *a, char *buf, size_t size)
{
	size_t head = offsetof(struct sockaddr_un, sun_path);
	size_t len = a->len > head ? a->len - head : 0;

	/* An abstract name begins with NUL and may hold more; it is shown as "@name". */
	if (len > 0 && a->u.un.sun_path[0] == '\0')
		snprintf(buf, size, "unix:@%.*s", (int)(len - 1), a->u.un.sun_path + 1);
	else
		snprintf(buf, size, "unix:%.*s", (int)len, a->u.un.sun_path);
}

const char *addr_host_text(const struct addr *a, char *buf, size_t size)
{
	if (a->len == 0)
		str_copy(buf, size, "-");
	else if (a->u.sa.sa_family == AF_INET)
		inet_ntop(AF_INET, &a->u.in4.sin_addr, buf, (socklen_t)size);
	else if (is_mapped(a))
		inet_ntop(AF_INET, &a->u.in6.sin6_addr.s6_addr[12], buf, (socklen_t)size);
	else if (a->u.sa.sa_family == AF_INET6)
		in6_text(a, buf, size);
	else if (a->u.sa.sa_family == AF_UNIX)
		unix_text(a, buf, size);
	else
		str_copy(buf, size, "?");
	return buf;
}

const char *addr_text(const struct addr *a, char *buf, size_t size)
{
	char host[ADDR_TEXT];

	addr_host_text(a, host, sizeof(host));
	if (a->len == 0 || (a->u.sa.sa_family != AF_INET && a->u.sa.sa_family != AF_INET6))
		str_copy(buf, size, host);
	else if (strchr(host, ':'))
		snprintf(buf, size, "[%s]:%u", host, addr_port(a));
	else
		snprintf(buf, size, "%s:%u", host, addr_port(a));
	return buf;
}

uint16_t addr_port(const struct addr *a)
{
	if (a->len && a->u.sa.sa_family == AF_INET)
		return ntohs(a->u.in4.sin_port);
	if (a->len && a->u.sa.sa_family == AF_INET6)
		return ntohs(a->u.in6.sin6_port);
	return 0;
}

static bool in6_equal(const struct sockaddr_in6 *a, const struct sockaddr_in6 *b)
{
	return a->sin6_port == b->sin6_port && a->sin6_scope_id == b->sin6_scope_id &&
	       IN6_ARE_ADDR_EQUAL(&a->sin6_addr, &b->sin6_addr);
}

bool addr_equal(const struct addr *a, const struct addr *b)
{
	if (a->len == 0 || b->len == 0)
		return a->len == b->len;
	if (a->u.sa.sa_family != b->u.sa.sa_family)
		return false;
	if (a->u.sa.sa_family == AF_INET)
		return a->u.in4.sin_port == b->u.in4.sin_port && a->u.in4.sin_addr.s_addr == b->u.in4.sin_addr.s_addr;
	if (a->u.sa.sa_family == AF_INET6)
		return in6_equal(&a->u.in6, &b->u.in6);
	return a->len == b->len && memcmp(&a->u, &b->u, a->len) == 0;
}

bool addr_is_loopback(const struct addr *a)
{
	if (a->len && a->u.sa.sa_family == AF_INET)
		return (ntohl(a->u.in4.sin_addr.s_addr) >> 24) == IN_LOOPBACKNET;
	if (!a->len || a->u.sa.sa_family != AF_INET6)
		return false;
	return is_mapped(a) ? a->u.in6.sin6_addr.s6_addr[12] == IN_LOOPBACKNET : IN6_IS_ADDR_LOOPBACK(&a->u.in6.sin6_addr);
}

bool addr_same_host(const struct addr *a, const struct addr *b)
{
	if (a->len && b->len && a->u.sa.sa_family == AF_INET && b->u.sa.sa_family == AF_INET)
		return a->u.in4.sin_addr.s_addr == b->u.in4.sin_addr.s_addr;
	if (a->len && b->len && a->u.sa.sa_family == AF_INET6 && b->u.sa.sa_family == AF_INET6)
		return a->u.in6.sin6_scope_id == b->u.in6.sin6_scope_id && IN6_ARE_ADDR_EQUAL(&a->u.in6.sin6_addr, &b->u.in6.sin6_addr);
	return addr_equal(a, b);
}

int addr_parse(struct addr *out, const char *text)
{
	struct endpoint e;
	char err[256];

	if (endpoint_parse(&e, text, ENDPOINT_BIND, err, sizeof(err)) < 0)
		return -1;
	*out = e.addr;
	bool any = e.any;
	endpoint_fini(&e);
	return any ? -1 : 0;
}
