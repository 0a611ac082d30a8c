/* The frames AGENT and HUB as JSON, both ways, over jansson (nobody else includes it).
 * What a peer sent is not trusted: size, depth, kinds, ranges, names and repetitions are checked here, so
 * that whoever reads the structs need not. Whether a certificate entitles to any of it is for others to say. */
#include "mctunnel/proto/hello.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/rnd.h"
#include "mctunnel/base/str.h"

#include <jansson.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 16, WEIGHT_MAX = 256 };

/* jansson says of a text for which it has no memory that it is none. */
static _Thread_local bool refused; /* an allocation was, since load() */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void *take_memory(size_t n)
{
	void *p = malloc(n);

	refused |= !p;
	return p;
}

static void watch_memory(void)
{
	json_set_alloc_funcs(take_memory, free);
}

/* Reading one JSON object; the first thing that is wrong is kept, what follows is skipped. */
struct reader {
	const json_t *obj; /* borrowed */
	char *err;
	size_t errsize;
	bool bad;
};

__attribute__((format(printf, 2, 3))) static void complain(struct reader *r, const char *fmt, ...)
{
	va_list ap;

	if (r->bad)
		return;
	r->bad = true;
	va_start(ap, fmt);
	vsnprintf(r->err, r->errsize, fmt, ap);
	va_end(ap);
}

static const json_t *need(struct reader *r, const char *key)
{
	const json_t *v = r->bad ? NULL : json_object_get(r->obj, key);

	if (!v)
		complain(r, "%s is missing", key);
	return v;
}

/* Keys that older versions do not send. */
static const json_t *may_have(struct reader *r, const char *key)
{
	return r->bad ? NULL : json_object_get(r->obj, key);
}

static bool read_bool(struct reader *r, const char *key)
{
	const json_t *v = need(r, key);

	if (v && !json_is_boolean(v))
		complain(r, "%s is not true or false", key);
	return json_is_true(v);
}

static uint32_t read_int(struct reader *r, const char *key, uint32_t min, uint32_t max)
{
	const json_t *v = need(r, key);
	json_int_t n = json_integer_value(v);

	if (v && !json_is_integer(v))
		complain(r, "%s is not a whole number", key);
	if (v && (n < min || n > max))
		complain(r, "%s is not between %u and %u", key, min, max);
	return r->bad ? 0 : (uint32_t)n;
}

/* 0 when it is not there. */
static uint64_t read_count(struct reader *r, const char *key)
{
	const json_t *v = may_have(r, key);
	json_int_t n = json_integer_value(v);

	if (v && (!json_is_integer(v) || n < 0))
		complain(r, "%s is not a whole number from 0 on", key);
	return r->bad || !v ? 0 : (uint64_t)n;
}

static bool good_name(const char *s, size_t len)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

	return len > 0 && len < HELLO_NAME_MAX && strspn(s, allowed) == len;
}

static void name_value(struct reader *r, const char *what, const json_t *v, char out[HELLO_NAME_MAX])
{
	if (r->bad)
		return;
	if (!json_is_string(v) || !good_name(json_string_value(v), json_string_length(v)))
		complain(r, "%s is not a name (1 to %d letters, digits, '.', '_', '-')", what, HELLO_NAME_MAX - 1);
	else
		memcpy(out, json_string_value(v), json_string_length(v) + 1);
}

static void read_name(struct reader *r, const char *key, char out[HELLO_NAME_MAX])
{
	name_value(r, key, need(r, key), out);
}

static bool printable(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < ' ' || *s == 0x7f)
			return false;
	return true;
}

static void read_text(struct reader *r, const char *key, char *out, size_t size)
{
	const json_t *v = need(r, key);

	if (!v)
		return;
	if (!json_is_string(v) || json_string_length(v) >= size || !printable(json_string_value(v)))
		complain(r, "%s is not a text of at most %zu bytes", key, size - 1);
	else
		memcpy(out, json_string_value(v), json_string_length(v) + 1);
}

static void read_instance(struct reader *r, uint8_t out[16])
{
	const json_t *v = need(r, "instance");

	if (v && (!json_is_string(v) || !str_unhex(out, 16, json_string_value(v))))
		complain(r, "instance is not 32 hexadecimal digits");
}

static size_t read_list(struct reader *r, const char *key, const json_t **list)
{
	*list = need(r, key);
	if (*list && !json_is_array(*list))
		complain(r, "%s is not a list", key);
	else if (json_array_size(*list) > HELLO_SERVICES_MAX)
		complain(r, "%s has more than %d entries", key, HELLO_SERVICES_MAX);
	return r->bad ? 0 : json_array_size(*list);
}

/* Room for n entries (one at least, so that NULL means no memory). */
static void *list_room(struct reader *r, size_t n, size_t size)
{
	void *room = r->bad ? NULL : calloc(n ? n : 1, size);

	refused |= !room && !r->bad;
	return room;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names lie `stride` bytes apart. */
static void refuse_repetition(struct reader *r, const char *first, size_t n, size_t stride)
{
	const char **sorted = list_room(r, n, sizeof(*sorted));

	if (!sorted)
		return;
	for (size_t i = 0; i < n; i++)
		sorted[i] = first + i * stride;
	qsort(sorted, n, sizeof(*sorted), by_text);
	for (size_t i = 1; i < n; i++)
		if (strcmp(sorted[i - 1], sorted[i]) == 0)
			complain(r, "service %s is named twice", sorted[i]);
	free(sorted);
}

static void read_check(struct reader *r, const json_t *v, struct hello_service *out)
{
	struct reader inner = { v, r->err, r->errsize, r->bad };

	if (!json_is_object(v))
		complain(&inner, "check is not an object");
	read_text(&inner, "status", out->status, sizeof(out->status));
	read_text(&inner, "text", out->text, sizeof(out->text));
	out->code = read_int(&inner, "code", 0, UINT32_MAX);
	out->since_ms = read_count(&inner, "since_ms");
	r->bad = inner.bad;
}

static void read_service(struct reader *r, const json_t *v, struct hello_service *out)
{
	struct reader inner = { v, r->err, r->errsize, r->bad };

	if (!json_is_object(v))
		complain(&inner, "an entry of services is not an object");
	read_name(&inner, "name", out->name);
	out->weight = (uint16_t)read_int(&inner, "weight", 0, WEIGHT_MAX);
	out->up = read_bool(&inner, "up");
	out->maxconn = read_int(&inner, "maxconn", 0, UINT32_MAX);
	out->proxy = !may_have(&inner, "proxy") || read_bool(&inner, "proxy");
	if (may_have(&inner, "check"))
		read_check(&inner, may_have(&inner, "check"), out);
	r->bad = inner.bad;
}

static void read_services(struct reader *r, struct agent_hello *out)
{
	const json_t *list;
	size_t n = read_list(r, "services", &list);

	out->services = list_room(r, n, sizeof(*out->services));
	if (!out->services)
		return;
	out->services_n = n;
	for (size_t i = 0; i < n && !r->bad; i++)
		read_service(r, json_array_get(list, i), &out->services[i]);
	if (!r->bad)
		refuse_repetition(r, out->services[0].name, n, sizeof(*out->services));
}

static void read_refused(struct reader *r, struct hub_hello *out)
{
	const json_t *list;
	size_t n = read_list(r, "refused", &list);

	out->refused = list_room(r, n, sizeof(*out->refused));
	if (!out->refused)
		return;
	out->refused_n = n;
	for (size_t i = 0; i < n && !r->bad; i++)
		name_value(r, "an entry of refused", json_array_get(list, i), out->refused[i]);
	if (!r->bad)
		refuse_repetition(r, out->refused[0], n, sizeof(*out->refused));
}

/* How deep brackets nest, without trusting that they match. */
static unsigned depth_of(const char *json, size_t len)
{
	unsigned depth = 0, max = 0;
	bool quoted = false;

	for (size_t i = 0; i < len; i++) {
		if (quoted && json[i] == '\\')
			i++;
		else if (json[i] == '"')
			quoted = !quoted;
		else if (!quoted && (json[i] == '[' || json[i] == '{'))
			max = ++depth > max ? depth : max;
		else if (!quoted && (json[i] == ']' || json[i] == '}'))
			depth -= depth > 0;
	}
	return max;
}

/* The caller gives the object back with json_decref() (NULL allowed). */
static json_t *load(struct reader *r, const char *json, size_t len)
{
	json_error_t e;
	json_t *obj = NULL;

	pthread_once(&once, watch_memory);
	refused = false;
	json_object_seed((size_t)rnd_u64() | 1); /* jansson would look for /dev/urandom, which a chroot lacks */
	if (len > HELLO_SIZE_MAX)
		complain(r, "longer than %u bytes", HELLO_SIZE_MAX);
	else if (depth_of(json, len) > DEPTH_MAX)
		complain(r, "nested deeper than %d", DEPTH_MAX);
	else if (!(obj = json_loadb(json, len, JSON_REJECT_DUPLICATES, &e)))
		complain(r, "not JSON: %s", printable(e.text) ? e.text : "bad bytes");
	else if (!json_is_object(obj))
		complain(r, "not an object");
	r->obj = obj;
	return obj;
}

/* What was found wrong may be right, where something is missing. */
static int verdict(const struct reader *r)
{
	if (refused)
		snprintf(r->err, r->errsize, "out of memory");
	return refused ? HELLO_STARVED : r->bad ? -1 : 0;
}

int hello_agent_parse(struct agent_hello *out, const char *json, size_t len, char *err, size_t errsize)
{
	struct reader r = { .err = err, .errsize = errsize };
	json_t *obj = load(&r, json, len);
	int said;

	memset(out, 0, sizeof(*out));
	out->protocol = read_int(&r, "protocol", 1, UINT32_MAX);
	read_name(&r, "agent", out->name);
	read_name(&r, "tunnel", out->tunnel);
	read_text(&r, "version", out->version, sizeof(out->version));
	read_instance(&r, out->instance);
	out->draining = read_bool(&r, "draining");
	out->serial = read_count(&r, "serial");
	read_services(&r, out);
	json_decref(obj);
	said = verdict(&r);
	if (said != 0)
		hello_agent_fini(out);
	return said;
}

int hello_hub_parse(struct hub_hello *out, const char *json, size_t len, char *err, size_t errsize)
{
	struct reader r = { .err = err, .errsize = errsize };
	json_t *obj = load(&r, json, len);
	int said;

	memset(out, 0, sizeof(*out));
	out->protocol = read_int(&r, "protocol", 1, UINT32_MAX);
	read_name(&r, "hub", out->name);
	read_text(&r, "version", out->version, sizeof(out->version));
	read_instance(&r, out->instance);
	out->accepted = read_bool(&r, "accepted");
	read_text(&r, "reason", out->reason, sizeof(out->reason));
	read_text(&r, "text", out->text, sizeof(out->text));
	out->retry_after_ms = read_int(&r, "retry_after_ms", 0, UINT32_MAX);
	out->heartbeat_interval_ms = read_int(&r, "heartbeat_interval_ms", 1, UINT32_MAX);
	out->heartbeat_timeout_ms = read_int(&r, "heartbeat_timeout_ms", 1, UINT32_MAX);
	out->resume_ms = read_int(&r, "resume_ms", 0, UINT32_MAX);
	read_refused(&r, out);
	json_decref(obj);
	said = verdict(&r);
	if (said != 0)
		hello_hub_fini(out);
	return said;
}

void hello_agent_fini(struct agent_hello *h)
{
	free(h->services);
	memset(h, 0, sizeof(*h));
}

void hello_hub_fini(struct hub_hello *h)
{
	free(h->refused);
	memset(h, 0, sizeof(*h));
}

/* Text for a log may quote anything; what is not printable ASCII becomes '?', so that it always is JSON. */
static json_t *text_value(const char *text)
{
	char clean[256];

	BUG_ON(strlen(text) >= sizeof(clean));
	str_copy(clean, sizeof(clean), text);
	for (char *c = clean; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	return json_string(clean);
}

static json_t *instance_value(const uint8_t instance[16])
{
	char hex[33];

	str_hex(hex, instance, 16);
	return json_string(hex);
}

static json_t *service_value(const struct hello_service *s)
{
	json_t *one = json_pack("{s:s,s:i,s:b,s:I,s:b}", "name", s->name, "weight", (int)s->weight, "up", (int)s->up, "maxconn", (json_int_t)s->maxconn, "proxy",
				(int)s->proxy);

	if (!one || !s->status[0])
		return one;
	if (json_object_set_new(one, "check",
				json_pack("{s:s,s:I,s:o,s:I}", "status", s->status, "code", (json_int_t)s->code, "text", text_value(s->text), "since_ms",
					  (json_int_t)s->since_ms)) == 0)
		return one;
	json_decref(one);
	return NULL;
}

static json_t *services_value(const struct agent_hello *h)
{
	json_t *list = json_array();

	for (size_t i = 0; i < h->services_n; i++) {
		if (json_array_append_new(list, service_value(&h->services[i])) == 0)
			continue;
		json_decref(list);
		return NULL;
	}
	return list;
}

static json_t *refused_value(const struct hub_hello *h)
{
	json_t *list = json_array();

	for (size_t i = 0; i < h->refused_n; i++) {
		if (json_array_append_new(list, json_string(h->refused[i])) == 0)
			continue;
		json_decref(list);
		return NULL;
	}
	return list;
}

/* Takes obj, which may be NULL. */
static char *dump(json_t *obj, size_t *len)
{
	char *text = obj ? json_dumps(obj, JSON_COMPACT) : NULL;

	*len = text ? strlen(text) : 0;
	json_decref(obj);
	return text;
}

char *hello_agent_build(const struct agent_hello *h, size_t *len)
{
	return dump(json_pack("{s:I,s:s,s:s,s:o,s:o,s:b,s:I,s:o}", "protocol", (json_int_t)h->protocol, "agent", h->name, "tunnel",
	                      h->tunnel, "version", text_value(h->version), "instance", instance_value(h->instance),
	                      "draining", (int)h->draining, "serial", (json_int_t)h->serial, "services", services_value(h)),
	            len);
}

char *hello_hub_build(const struct hub_hello *h, size_t *len)
{
	return dump(json_pack("{s:I,s:s,s:o,s:o,s:b,s:s,s:o,s:I,s:I,s:I,s:I,s:o}", "protocol", (json_int_t)h->protocol, "hub",
	                      h->name, "version", text_value(h->version), "instance", instance_value(h->instance), "accepted",
	                      (int)h->accepted, "reason", h->reason, "text", text_value(h->text), "retry_after_ms",
	                      (json_int_t)h->retry_after_ms, "heartbeat_interval_ms", (json_int_t)h->heartbeat_interval_ms,
	                      "heartbeat_timeout_ms", (json_int_t)h->heartbeat_timeout_ms, "resume_ms",
	                      (json_int_t)h->resume_ms, "refused", refused_value(h)),
	            len);
}
