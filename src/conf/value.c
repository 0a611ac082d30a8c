/* What a value of each kind looks like: times, sizes, names, routes, addresses, log targets. One table row a kind.
 * Does not know which keys there are. */
#include "mctunnel/conf/value.h"

#include "mctunnel/base/addr.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/netset.h"
#include "mctunnel/base/pattern.h"
#include "mctunnel/base/str.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/expand.h"
#include "mctunnel/conf/finding.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct parse { /* one call of value_parse */
	const struct row *row;
	const char *text, *file;
	char *err;
	size_t errsize;
};

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit times[] = { { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 }, { "d", 86400000 }, { 0 } };
static const struct unit sizes[] = { { "k", 1u << 10 }, { "m", 1u << 20 }, { "g", 1u << 30 }, { "K", 1u << 10 }, { "M", 1u << 20 }, { "G", 1u << 30 }, { 0 } };
static const struct unit none[] = { { 0 } };

static int __attribute__((format(printf, 2, 3))) refuse(const struct parse *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p->err, p->errsize, fmt, ap);
	va_end(ap);
	return -1;
}

static const struct unit *units_of(enum kind kind)
{
	return kind == KIND_TIME ? times : kind == KIND_SIZE ? sizes : none;
}

static const char *units_words(enum kind kind)
{
	return kind == KIND_TIME ? "a whole number with a unit (ms, s, m, h, d) is expected" :
	       kind == KIND_SIZE ? "a whole number with a unit (k, m, g) is expected" :
				   "a whole number is expected";
}

const char *value_show(enum kind kind, uint64_t n, char *buf, size_t size)
{
	const char *name = kind == KIND_TIME && n == 0 ? "" : kind == KIND_TIME ? "ms" : "";
	uint64_t factor = 1;

	for (const struct unit *u = units_of(kind); u->name; u++) {
		if (n && n % u->factor == 0 && u->factor > factor) {
			factor = u->factor;
			name = u->name;
		}
	}
	snprintf(buf, size, "%llu%s", (unsigned long long)(n / factor), name);
	return buf;
}

/* One character as a message shows it. */
static const char *show_char(char c, char *buf, size_t size)
{
	if (isprint((unsigned char)c))
		snprintf(buf, size, "'%c'", c);
	else
		snprintf(buf, size, "byte 0x%02x", (unsigned char)c);
	return buf;
}

static int too_big(const struct parse *p, bool big, uint64_t limit)
{
	char shown[32];

	value_show(p->row->kind, limit, shown, sizeof(shown));
	return refuse(p, "%.40s is too %s: the %s is %s", p->text, big ? "much" : "little", big ? "maximum" : "minimum", shown);
}

/* The unit behind the digits; NULL, with the sentence, when there is no such. */
static const struct unit *find_unit(const struct parse *p, const char *suffix)
{
	static const struct unit one = { "", 1 };
	char shown[16];

	if (*suffix == '\0')
		return &one;
	for (const struct unit *u = units_of(p->row->kind); u->name; u++) {
		if (strcmp(u->name, suffix) == 0)
			return u;
	}
	refuse(p, "unexpected %s in \"%.40s\": %s", show_char(*suffix, shown, sizeof(shown)), p->text, units_words(p->row->kind));
	return NULL;
}

static int read_number(const struct parse *p, uint64_t *out)
{
	const char *c = p->text;
	uint64_t n = 0;

	if (*c == '-')
		return refuse(p, "%.40s: must not be negative", p->text);
	if (*c == '\0')
		return refuse(p, "an empty string: %s", units_words(p->row->kind));
	for (; isdigit((unsigned char)*c); c++) {
		if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, (uint64_t)(*c - '0'), &n))
			return too_big(p, true, p->row->max);
	}
	/* Without a digit in front even a good unit is no number. */
	const struct unit *u = c == p->text ? NULL : find_unit(p, c);
	if (c == p->text)
		refuse(p, "\"%.40s\" begins with no digit: %s", p->text, units_words(p->row->kind));
	if (!u)
		return -1;
	if (__builtin_mul_overflow(n, u->factor, &n) || n > p->row->max)
		return too_big(p, true, p->row->max);
	if (n < p->row->min)
		return too_big(p, false, p->row->min);
	*out = n;
	return 0;
}

static int parse_number(const struct parse *p, void *field)
{
	uint64_t n = 0;

	if (read_number(p, &n) < 0)
		return -1;
	if (p->row->size == sizeof(uint64_t))
		*(uint64_t *)field = n;
	else if (p->row->size == sizeof(uint32_t))
		*(uint32_t *)field = (uint32_t)n;
	else
		BUG_ON(p->row->size != 0);
	return 0;
}

/* Octal, as for chmod. A bare number would be taken as decimal, so only a string will do. */
static int parse_mode(const struct parse *p, void *field)
{
	size_t len = strlen(p->text);

	if (len < 3 || len > 4 || strspn(p->text, "01234567") != len || (len == 4 && p->text[0] != '0'))
		return refuse(p, "\"%.40s\" are no rights of a file: three octal digits such as \"0660\" are expected", p->text);
	*(uint32_t *)field = (uint32_t)strtoul(p->text, NULL, 8);
	return 0;
}

static int unknown_word(const struct parse *p)
{
	struct suggest s = { .word = p->text };
	char list[160];
	struct strbuf b;

	strbuf_init(&b, list, sizeof(list));
	for (const struct word *w = p->row->words; w->name; w++) {
		suggest_try(&s, w->name);
		if (!w->later)
			strbuf_add(&b, "%s%s", b.len ? ", " : "", w->name);
	}
	return refuse(p, "\"%.40s\" is not one of %s%s", p->text, list, suggest_text(&s));
}

static int parse_word(const struct parse *p, void *field)
{
	const struct word *w = p->row->words;

	while (w->name && strcmp(w->name, p->text) != 0)
		w++;
	if (!w->name)
		return unknown_word(p);
	if (w->later)
		return refuse(p, "\"%s\" is not available in this version", w->name);
	if (p->row->size)
		memcpy(field, &w->value, sizeof(w->value));
	return 0;
}

static int check_length(const struct parse *p)
{
	size_t len = strlen(p->text);
	size_t max = p->row->max ? p->row->max : 255;

	if (len == 0)
		return refuse(p, "must not be empty");
	if (len > max)
		return refuse(p, "%zu characters are too many: the maximum is %zu", len, max);
	return 0;
}

static int parse_text(const struct parse *p, void *field)
{
	char shown[16];

	if (check_length(p) < 0)
		return -1;
	for (const char *c = p->text; *c; c++) {
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			return refuse(p, "must not hold control characters (%s)", show_char(*c, shown, sizeof(shown)));
	}
	*(char **)field = xstrdup(p->text);
	return 0;
}

static bool is_name_char(char c)
{
	return isalnum((unsigned char)c) || c == '.' || c == '_' || c == '-';
}

static int check_name(const struct parse *p, const char *name, bool glob)
{
	char shown[16];
	size_t len = strlen(name);

	if (len == 0)
		return refuse(p, "a name must not be empty");
	for (const char *c = name; *c; c++) {
		if (!is_name_char(*c) && !(glob && *c == '*'))
			return refuse(p, "unexpected %s in \"%.80s\": a name has letters, digits, '.', '_' and '-'%s", show_char(*c, shown, sizeof(shown)),
				      name, glob ? ", a pattern also '*'" : "");
	}
	if (len > 63)
		return refuse(p, "a name has at most 63 characters, \"%.16s...\" has %zu", name, len);
	return 0;
}

static int parse_name(const struct parse *p, void *field)
{
	if (check_name(p, p->text, p->row->kind == KIND_GLOB) < 0)
		return -1;
	*(char **)field = xstrdup(p->text);
	return 0;
}

static int parse_path(const struct parse *p, void *field)
{
	if (*p->text == '\0')
		return refuse(p, "a path must not be empty");
	if (strlen(p->text) > 4000)
		return refuse(p, "the path is too long");
	*(char **)field = expand_path(p->file, p->text);
	return 0;
}

static int check_syslog(const struct parse *p, const char *to)
{
	struct addr a;

	if (*to == '/')
		return strlen(to) < sizeof(a.u.un.sun_path) ? 0 : refuse(p, "the path of the syslog socket is too long");
	if (addr_parse(&a, to) < 0)
		return refuse(p, "\"syslog:\" needs the path of a socket, or a numeric address with port such as 127.0.0.1:514 (got \"%.64s\")", to);
	return 0;
}

static int parse_log(const struct parse *p, void *field)
{
	bool syslog = strncmp(p->text, "syslog:", 7) == 0;

	if (syslog && check_syslog(p, p->text + 7) < 0)
		return -1;
	if (!syslog && strcmp(p->text, "stdout") != 0 && strcmp(p->text, "stderr") != 0)
		return strchr(p->text, '/') ? parse_path(p, field) :
					      refuse(p, "\"%.64s\" is not one of stdout, stderr, syslog:WHERE, or the path of a file (with a '/')", p->text);
	*(char **)field = xstrdup(p->text);
	return 0;
}

static int parse_endpoint(const struct parse *p, void *field)
{
	enum endpoint_use use = p->row->kind == KIND_BIND ? ENDPOINT_BIND : ENDPOINT_DIAL;
	struct endpoint *e = field;

	if (endpoint_parse(e, p->text, use, p->err, p->errsize) < 0)
		return -1;
	if (use == ENDPOINT_DIAL || e->addr.u.sa.sa_family == AF_UNIX || e->port > 0)
		return 0;
	endpoint_fini(e);
	return refuse(p, "port 0: nobody would know where to connect");
}

static int parse_route(const struct parse *p, void *field)
{
	struct conf_route *r = field;
	const char *slash = strchr(p->text, '/');

	if (!slash || strchr(slash + 1, '/'))
		return refuse(p, "\"%.130s\" is not a route: \"TUNNEL/SERVICE\" is expected", p->text);
	char *tunnel = strndup(p->text, (size_t)(slash - p->text));
	if (check_name(p, tunnel, false) < 0 || check_name(p, slash + 1, false) < 0) {
		free(tunnel);
		return -1;
	}
	r->text = xstrdup(p->text);
	r->tunnel = tunnel;
	r->service = xstrdup(slash + 1);
	return 0;
}

/* Undoes %XX in place; false when it is malformed. */
static bool unescape(char *s)
{
	char *out = s;

	for (; *s; s++) {
		if (*s != '%') {
			*out++ = *s;
			continue;
		}
		char hex[3] = { s[1], s[1] ? s[2] : '\0', '\0' };
		if (!str_unhex(out, 1, hex) || *out == '\0')
			return false;
		out++;
		s += 2;
	}
	*out = '\0';
	return true;
}

static int parse_bool(const struct parse *p, void *field)
{
	static const char *const words[] = { "false", "true", "no", "yes", "off", "on" };

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(words[i], p->text) != 0)
			continue;
		*(bool *)field = i % 2;
		return 0;
	}
	return refuse(p, "\"%.40s\" is neither true nor false", p->text);
}

/* Numbers up to max, or a range of them. */
static int check_range(const struct parse *p, unsigned long max, const char *words)
{
	char *end;
	unsigned long from, to;

	if (!isdigit((unsigned char)p->text[0]))
		return refuse(p, "\"%.40s\": %s is expected", p->text, words);
	from = to = strtoul(p->text, &end, 10);
	if (*end == '-' && isdigit((unsigned char)end[1]))
		to = strtoul(end + 1, &end, 10);
	if (*end != '\0')
		return refuse(p, "\"%.40s\": %s is expected", p->text, words);
	if (from > to || to > max)
		return refuse(p, "\"%.40s\": %s", p->text, from > to ? "the range ends before it begins" : "the number is too big");
	return 0;
}

static int parse_ports(const struct parse *p, void *field)
{
	if (check_range(p, 65535, "a port (\"443\") or a range of ports (\"8000-8099\")") < 0)
		return -1;
	*(char **)field = xstrdup(p->text);
	return 0;
}

/* A file's list has been replaced by its lines before, where there can be one. */
static int parse_match(const struct parse *p, void *field)
{
	struct pattern *pattern;

	if (p->text[0] == '@')
		return refuse(p, "\"%.80s\": a file's list cannot stand here (a text that begins with '@' is written \"~^@...\")", p->text);
	if (check_length(p) < 0)
		return -1;
	pattern = pattern_new(p->text, false, p->err, p->errsize);
	if (!pattern)
		return -1;
	pattern_free(pattern);
	return parse_text(p, field);
}

static int parse_net(const struct parse *p, void *field)
{
	struct netset *s = netset_new();
	int rc = netset_add(s, p->text, 0, p->err, p->errsize);

	netset_free(s);
	return rc < 0 ? -1 : parse_text(p, field);
}

static int parse_statuses(const struct parse *p, void *field)
{
	if (check_range(p, 599, "a status (\"200\") or a range of them (\"200-399\")") < 0)
		return -1;
	*(char **)field = xstrdup(p->text);
	return 0;
}

static int parse_proxy(const struct parse *p, void *field)
{
	struct endpoint *e = field;
	char **auth = (char **)((char *)field - p->row->offset + p->row->count);
	const char *host = p->text + 7, *at = strrchr(p->text, '@');

	if (strncmp(p->text, "http://", 7) != 0)
		return refuse(p, "a proxy is written \"http://[USER:PASSWORD@]HOST:PORT\"");
	if (at)
		host = at + 1;
	size_t len = strlen(host);
	if (len && host[len - 1] == '/')
		len--;
	char *dial = strndup(host, len);
	int rc = endpoint_parse(e, dial, ENDPOINT_DIAL, p->err, p->errsize);
	free(dial);
	if (rc < 0 || !at)
		return rc;
	char *user = strndup(p->text + 7, (size_t)(at - p->text - 7));
	if (!strchr(user, ':') || !unescape(user)) {
		free(user);
		endpoint_fini(e);
		return refuse(p, "before '@', \"USER:PASSWORD\" is expected, special characters as %%XX");
	}
	*auth = user;
	return 0;
}

static void fini_text(const struct row *row, void *field)
{
	free(*(char **)field);
}

static void fini_endpoint(const struct row *row, void *field)
{
	endpoint_fini(field);
}

static void fini_route(const struct row *row, void *field)
{
	struct conf_route *r = field;

	free(r->text);
	free(r->tunnel);
	free(r->service);
}

static void fini_proxy(const struct row *row, void *field)
{
	endpoint_fini(field);
	free(*(char **)((char *)field - row->offset + row->count));
}

static const struct kind_row {
	const char *type, *expected;
	bool number;
	size_t size;
	int (*parse)(const struct parse *p, void *field);
	void (*fini)(const struct row *row, void *field); /* NULL: owns nothing */
} kinds[] = {
	[KIND_INT] = { "NUMBER", "a whole number", true, sizeof(uint32_t), parse_number, NULL },
	[KIND_SIZE] = { "SIZE", "a size such as \"64k\"", true, sizeof(uint64_t), parse_number, NULL },
	[KIND_TIME] = { "TIME", "a time such as \"5s\"", true, sizeof(uint32_t), parse_number, NULL },
	[KIND_MODE] = { "MODE", "the rights of a file in quotes, such as \"0660\"", false, sizeof(uint32_t), parse_mode, NULL },
	[KIND_WORD] = { "WORD", "a word in quotes", false, sizeof(int), parse_word, NULL },
	[KIND_TEXT] = { "STRING", "a string", false, sizeof(char *), parse_text, fini_text },
	[KIND_NAME] = { "NAME", "a name in quotes", false, sizeof(char *), parse_name, fini_text },
	[KIND_GLOB] = { "PATTERN", "a name or pattern in quotes", false, sizeof(char *), parse_name, fini_text },
	[KIND_PATH] = { "PATH", "a path in quotes", false, sizeof(char *), parse_path, fini_text },
	[KIND_LOG] = { "TARGET", "a log target in quotes", false, sizeof(char *), parse_log, fini_text },
	[KIND_BIND] = { "ADDRESS", "an address such as \"*:8080\"", false, sizeof(struct endpoint), parse_endpoint, fini_endpoint },
	[KIND_DIAL] = { "ADDRESS", "an address such as \"127.0.0.1:80\"", false, sizeof(struct endpoint), parse_endpoint, fini_endpoint },
	[KIND_BOOL] = { "BOOLEAN", "true or false", false, sizeof(bool), parse_bool, NULL },
	[KIND_MATCH] = { "MATCH", "a text, a glob, \"~PCRE2\" or \"@FILE\" in quotes", false, sizeof(char *), parse_match, fini_text },
	[KIND_NET] = { "NETWORK", "an address or network such as \"192.0.2.0/24\"", false, sizeof(char *), parse_net, fini_text },
	[KIND_PORTS] = { "PORTS", "a port or a range of ports in quotes", true, sizeof(char *), parse_ports, fini_text },
	[KIND_STATUSES] = { "STATUSES", "a status or a range of them in quotes", true, sizeof(char *), parse_statuses, fini_text },
	[KIND_TEMPLATE] = { "TEMPLATE", "a text in quotes", false, sizeof(char *), parse_text, fini_text },
	[KIND_ROUTE] = { "ROUTE", "a route such as \"site-a/ssh\"", false, sizeof(struct conf_route), parse_route, fini_route },
	[KIND_PROXY] = { "URL", "a URL such as \"http://proxy:3128\"", false, sizeof(struct endpoint), parse_proxy, fini_proxy },
	[KIND_GROUP] = { "GROUP", "a group: { ... }", false, 0, NULL, NULL },
	[KIND_LIST] = { "LIST", "a list of groups: ( { ... }, ... )", false, 0, NULL, NULL },
};

int value_parse(const struct row *row, const char *text, const char *file, void *field, char *err, size_t errsize)
{
	struct parse p = { .row = row, .text = text, .file = file, .err = err, .errsize = errsize };

	return kinds[row->kind].parse(&p, field);
}

void value_fini(const struct row *row, void *field)
{
	if (kinds[row->kind].fini)
		kinds[row->kind].fini(row, field);
}

size_t value_size(enum kind kind)
{
	return kinds[kind].size;
}

bool value_takes_number(enum kind kind)
{
	return kinds[kind].number;
}

const char *value_expected(enum kind kind)
{
	return kinds[kind].expected;
}

const char *value_type(enum kind kind)
{
	return kinds[kind].type;
}
