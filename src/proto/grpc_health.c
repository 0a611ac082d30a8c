/* Health checks by gRPC: what a probe, a load balancer or a client library asks a server before it trusts it. Owns the calls of one connection.
 * A request is taken whole, once its end has come, and is answered at once; a Watch then keeps what it told last and tells what differs, so a reader
 * that is slow misses states in between but never the newest. Every size is bounded before a byte is kept. */
#include "mctunnel/proto/grpc_health.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/str.h"
#include "mctunnel/proto/h2_server.h"
#include "mctunnel/proto/protobuf.h"

#include <stdlib.h>
#include <string.h>

#define PREFIX 5 /* of a message: compressed flag, length */
#define CONTENT_TYPE "application/grpc"

enum call { CALL_CHECK, CALL_WATCH, CALL_LIST, CALL_COUNT };

static const char *const paths[CALL_COUNT] = {
	[CALL_CHECK] = "/grpc.health.v1.Health/Check",
	[CALL_WATCH] = "/grpc.health.v1.Health/Watch",
	[CALL_LIST] = "/grpc.health.v1.Health/List",
};

/* Of gRPC's codes, those we use. */
enum code { OK = 0, INVALID_ARGUMENT = 3, NOT_FOUND = 5, RESOURCE_EXHAUSTED = 8, UNIMPLEMENTED = 12, INTERNAL = 13 };

static const char *code_text(enum code c)
{
	switch (c) {
	case OK: return "0";
	case INVALID_ARGUMENT: return "3";
	case NOT_FOUND: return "5";
	case RESOURCE_EXHAUSTED: return "8";
	case UNIMPLEMENTED: return "12";
	case INTERNAL: break;
	}
	return "13";
}

struct stream {
	struct list node;
	struct grpc_health *h;
	int32_t id;
	enum call call;
	bool encoded;         /* it announced a compression */
	bool answered;        /* what still comes is ignored */
	bool watching;
	uint8_t prefix[PREFIX];
	size_t prefix_len;
	uint8_t *body;        /* owned */
	size_t body_len, body_got;
	char service[GRPC_HEALTH_NAME_MAX];
	enum health_status told, now; /* of a Watch */
	uint8_t message[PREFIX + 2];
	uint8_t *listed;      /* owned: the answer of List */
	size_t out_len, out_at;
};

struct grpc_health {
	struct h2_server *h2; /* owned */
	const struct grpc_health_events *ev;
	void *owner;
	struct list streams;
};

/* ---- messages ---- */

static void put_prefix(uint8_t *p, size_t len)
{
	p[0] = 0;
	p[1] = p[2] = 0;
	p[3] = (uint8_t)(len >> 8);
	p[4] = (uint8_t)len;
}

/* UNKNOWN is proto3's default and takes no bytes. */
static size_t put_status(uint8_t *p, enum health_status status)
{
	if (status == HEALTH_UNKNOWN)
		return 0;
	p[0] = 0x08;
	p[1] = (uint8_t)status;
	return 2;
}

/* A name that cannot be one of ours is as good as none of them. */
static void take_name(char *service, const uint8_t *p, size_t len)
{
	if (len >= GRPC_HEALTH_NAME_MAX || memchr(p, 0, len)) {
		str_copy(service, GRPC_HEALTH_NAME_MAX, "?");
		return;
	}
	memcpy(service, p, len);
	service[len] = 0;
}

/* HealthCheckRequest: field 1 is the service; others are of a later version. */
static bool parse_request(struct stream *s)
{
	struct protobuf r = {s->body, s->body + s->body_len};
	struct protobuf_field f;
	while (r.at < r.end) {
		if (!protobuf_next(&r, &f))
			return false;
		if (f.number == 1 && f.is_bytes)
			take_name(s->service, f.bytes, f.len);
	}
	return true;
}

/* ---- List ---- */

#define ENTRY_MAX (GRPC_HEALTH_NAME_MAX + 10)

struct health_list {
	uint8_t *data; /* room for GRPC_HEALTH_LISTED entries */
	size_t len, n; /* n: also those that found no room */
	bool failed;
};

void health_list_fail(struct health_list *l)
{
	l->failed = true;
}

bool health_list_add(struct health_list *l, const char *service, enum health_status status)
{
	size_t name = strlen(service);
	uint8_t entry[ENTRY_MAX], *p = entry;
	if (name >= GRPC_HEALTH_NAME_MAX)
		return true; /* nobody can ask for it either */
	if (l->n++ >= GRPC_HEALTH_LISTED)
		return false;
	*p++ = 0x0a; /* key */
	p += protobuf_put_varint(p, name);
	memcpy(p, service, name);
	p += name;
	*p++ = 0x12; /* value: a HealthCheckResponse */
	size_t value = put_status(p + 1, status);
	*p = (uint8_t)value;
	p += 1 + value;
	l->data[l->len++] = 0x0a; /* statuses */
	l->len += protobuf_put_varint(l->data + l->len, (size_t)(p - entry));
	memcpy(l->data + l->len, entry, (size_t)(p - entry));
	l->len += (size_t)(p - entry);
	return true;
}

/* ---- answering ---- */

static struct h2_field status_field(const char *status)
{
	return (struct h2_field){":status", status};
}

/* By HTTP: this is no gRPC at all. */
static void answer_http(struct stream *s, const char *status)
{
	struct h2_field f = status_field(status);
	s->answered = true;
	h2_server_answer(s->h->h2, s->id, &f, 1, true);
	s->h->ev->answered(s->h->owner, "", HEALTH_UNKNOWN);
}

/* "Trailers-Only". */
static void refuse(struct stream *s, enum code code, const char *why)
{
	struct h2_field f[] = {status_field("200"), {"content-type", CONTENT_TYPE}, {"grpc-status", code_text(code)}, {"grpc-message", why}};
	s->answered = true;
	h2_server_answer(s->h->h2, s->id, f, 4, true);
	s->h->ev->answered(s->h->owner, "", HEALTH_UNKNOWN);
}

/* The body comes from pull(). */
static void answer(struct stream *s)
{
	struct h2_field f[] = {status_field("200"), {"content-type", CONTENT_TYPE}};
	s->answered = true;
	h2_server_answer(s->h->h2, s->id, f, 2, false);
}

static void set_message(struct stream *s, enum health_status status)
{
	size_t len = put_status(s->message + PREFIX, status);
	put_prefix(s->message, len);
	s->out_len = PREFIX + len;
	s->out_at = 0;
	s->h->ev->answered(s->h->owner, s->service, status);
}

static void check(struct stream *s)
{
	enum health_status status = s->h->ev->status(s->h->owner, s->service);
	if (status != HEALTH_SERVICE_UNKNOWN) {
		set_message(s, status);
		answer(s);
		return;
	}
	struct h2_field f[] = {status_field("200"), {"content-type", CONTENT_TYPE}, {"grpc-status", code_text(NOT_FOUND)}, {"grpc-message", "unknown service"}};
	s->answered = true;
	h2_server_answer(s->h->h2, s->id, f, 4, true);
	s->h->ev->answered(s->h->owner, s->service, status);
}

static void watch(struct stream *s)
{
	if (!s->h->ev->watch_begins(s->h->owner)) {
		refuse(s, RESOURCE_EXHAUSTED, "too many watches");
		return;
	}
	s->watching = true;
	s->told = s->now = s->h->ev->status(s->h->owner, s->service);
	set_message(s, s->now);
	answer(s);
}

static void list(struct stream *s)
{
	struct health_list l = {.data = malloc(PREFIX + GRPC_HEALTH_LISTED * (ENTRY_MAX + 3)), .len = PREFIX};
	if (l.data)
		s->h->ev->list(s->h->owner, &l);
	if (!l.data || l.failed || l.n > GRPC_HEALTH_LISTED) {
		free(l.data);
		refuse(s, RESOURCE_EXHAUSTED, !l.data || l.failed ? "out of memory" : "there are more than 100 services");
		return;
	}
	put_prefix(l.data, l.len - PREFIX);
	s->listed = l.data;
	s->out_len = l.len;
	answer(s);
}

/* ---- requests ---- */

static bool is_grpc(const char *content_type)
{
	size_t n = sizeof CONTENT_TYPE - 1;
	return strncmp(content_type, CONTENT_TYPE, n) == 0 && (!content_type[n] || content_type[n] == '+' || content_type[n] == ';');
}

static enum call find_call(const char *path)
{
	enum call c = CALL_CHECK;
	while (c < CALL_COUNT && strcmp(path, paths[c]) != 0)
		c++;
	return c;
}

static void *on_request(void *owner, int32_t id, const struct h2_request *r)
{
	struct grpc_health *h = owner;
	struct stream *s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	s->h = h;
	s->id = id;
	s->call = find_call(r->path);
	s->encoded = r->encoding[0] && strcmp(r->encoding, "identity") != 0;
	list_add(&h->streams, &s->node);
	if (!is_grpc(r->content_type))
		answer_http(s, "415");
	else if (strcmp(r->method, "POST") != 0)
		answer_http(s, "405");
	else if (s->call == CALL_COUNT)
		refuse(s, UNIMPLEMENTED, "there is nothing here but grpc.health.v1.Health");
	return s;
}

static bool begin_message(struct stream *s)
{
	const uint8_t *p = s->prefix;
	uint32_t len = (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4];
	if (p[0] == 1 && s->encoded)
		refuse(s, UNIMPLEMENTED, "compression is not supported");
	else if (p[0] != 0)
		refuse(s, INTERNAL, "a compressed message without grpc-encoding");
	else if (len > GRPC_HEALTH_MESSAGE)
		refuse(s, RESOURCE_EXHAUSTED, "the message is larger than 4 KiB");
	else if (!(s->body = malloc(len + 1)))
		refuse(s, RESOURCE_EXHAUSTED, "out of memory");
	s->body_len = len;
	return !s->answered;
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

static void on_data(void *owner, void *stream, const uint8_t *data, size_t len)
{
	struct stream *s = stream;
	if (s->answered)
		return;
	if (!s->body) {
		size_t n = smaller(len, PREFIX - s->prefix_len);
		memcpy(s->prefix + s->prefix_len, data, n);
		s->prefix_len += n;
		data += n;
		len -= n;
		if (s->prefix_len < PREFIX || !begin_message(s))
			return;
	}
	size_t n = smaller(len, s->body_len - s->body_got);
	memcpy(s->body + s->body_got, data, n);
	s->body_got += n;
	if (n < len)
		refuse(s, INTERNAL, "more than one message");
}

static void on_fin(void *owner, void *stream)
{
	struct stream *s = stream;
	if (s->answered)
		return;
	if (!s->body || s->body_got < s->body_len)
		refuse(s, INTERNAL, "the request ended before its message was whole");
	else if (!parse_request(s))
		refuse(s, INVALID_ARGUMENT, "the message is no HealthCheckRequest");
	else if (s->call == CALL_CHECK)
		check(s);
	else if (s->call == CALL_WATCH)
		watch(s);
	else
		list(s);
	free(s->body);
	s->body = NULL;
}

static void on_closed(void *owner, void *stream)
{
	struct stream *s = stream;
	list_del(&s->node);
	if (s->watching)
		s->h->ev->watch_ends(s->h->owner);
	free(s->body);
	free(s->listed);
	free(s);
}

static size_t pull(void *owner, void *stream, uint8_t *dst, size_t room, bool *fin)
{
	static const struct h2_field good[] = {{"grpc-status", "0"}};
	struct stream *s = stream;
	if (s->watching && s->out_at == s->out_len && s->now != s->told) {
		s->told = s->now;
		set_message(s, s->now);
	}
	size_t n = smaller(room, s->out_len - s->out_at);
	memcpy(dst, (s->listed ? s->listed : s->message) + s->out_at, n);
	s->out_at += n;
	if (!s->watching && s->out_at == s->out_len) {
		h2_server_trailers(s->h->h2, s->id, good, 1);
		*fin = true;
	}
	return n;
}

static const struct h2_server_events h2_events = {
	.on_request = on_request,
	.on_data = on_data,
	.on_fin = on_fin,
	.on_closed = on_closed,
	.pull = pull,
};

/* ---- for the owner ---- */

void grpc_health_changed(struct grpc_health *h)
{
	list_for_each (n, &h->streams) {
		struct stream *s = container_of(n, struct stream, node);
		if (!s->watching)
			continue;
		s->now = h->ev->status(h->owner, s->service);
		if (s->now != s->told)
			h2_server_wake(h->h2, s->id);
	}
}

void grpc_health_input(struct grpc_health *h, const uint8_t *data, size_t len)
{
	h2_server_input(h->h2, data, len);
}

size_t grpc_health_output(struct grpc_health *h, uint8_t *dst, size_t size)
{
	return h2_server_output(h->h2, dst, size);
}

bool grpc_health_wants_output(const struct grpc_health *h)
{
	return h2_server_wants_output(h->h2);
}

void grpc_health_goaway(struct grpc_health *h, bool flood)
{
	h2_server_goaway(h->h2, flood ? H2_ENHANCE_YOUR_CALM : H2_NO_ERROR);
}

bool grpc_health_over(const struct grpc_health *h)
{
	return h2_server_over(h->h2);
}

bool grpc_health_broken(const struct grpc_health *h)
{
	return h2_server_broken(h->h2);
}

uint32_t grpc_health_take_frames(struct grpc_health *h)
{
	return h2_server_take_frames(h->h2);
}

struct grpc_health *grpc_health_new(const struct grpc_health_events *ev, void *owner)
{
	struct grpc_health *h = calloc(1, sizeof *h);
	if (!h)
		return NULL;
	h->ev = ev;
	h->owner = owner;
	list_init(&h->streams);
	h->h2 = h2_server_new(&h2_events, h, GRPC_HEALTH_STREAMS, GRPC_HEALTH_FIELDS);
	if (h->h2)
		return h;
	free(h);
	return NULL;
}

void grpc_health_free(struct grpc_health *h)
{
	if (!h)
		return;
	h2_server_free(h->h2);
	list_for_each_safe (n, &h->streams)
		on_closed(h, container_of(n, struct stream, node));
	free(h);
}
