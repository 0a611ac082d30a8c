/* One question to a gRPC server: grpc.health.v1.Health/Check. Owns the HTTP/2 client and what of the answer matters, each with a maximum.
 * The verdict is SERVING only for an answer that is right in every respect: HTTP 200, content type, one whole message, grpc-status 0. */
#include "mctunnel/proto/grpc_probe.h"

#include "mctunnel/base/str.h"
#include "mctunnel/proto/h2_client.h"
#include "mctunnel/proto/protobuf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX 5       /* of a message: compressed flag, length */
#define MESSAGE_MAX 64 /* bytes of the answer's message: one field of two bytes, and room for later versions */
#define SERVICE_MAX 128

enum health { UNKNOWN, SERVING, NOT_SERVING, SERVICE_UNKNOWN };

struct grpc_probe {
	struct h2_client *h2; /* owned */
	enum grpc_verdict verdict;
	uint32_t code;
	char status[8], type[64], grpc_status[16], grpc_message[64];
	uint8_t body[PREFIX + MESSAGE_MAX];
	size_t body_len;
	bool too_long;
	char text[128];
};

/* ---- words ---- */

static const char *code_word(uint64_t code)
{
	static const char *const words[] = { "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
					     "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
					     "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED" };

	return code < sizeof(words) / sizeof(words[0]) ? words[code] : "an unknown grpc-status";
}

static void judge(struct grpc_probe *p, enum grpc_verdict verdict, uint64_t code, const char *text)
{
	p->verdict = verdict;
	p->code = (uint32_t)code;
	str_copy(p->text, sizeof(p->text), text);
}

/* ---- the message ---- */

/* False: it is none. */
static bool get_message(const struct grpc_probe *p, uint64_t *status)
{
	const uint8_t *b = p->body;
	struct protobuf r = { b + PREFIX, b + p->body_len };
	struct protobuf_field f;

	*status = UNKNOWN;
	if (p->too_long || p->body_len < PREFIX || b[0] != 0 || b[1] != 0 || b[2] != 0 || b[3] != 0 || b[4] != p->body_len - PREFIX)
		return false;
	while (r.at < r.end) {
		if (!protobuf_next(&r, &f))
			return false;
		if (f.number == 1 && f.is_varint) /* others are of a later version */
			*status = f.value;
	}
	return true;
}

static void judge_health(struct grpc_probe *p)
{
	static const char *const words[] = { "UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN" };
	uint64_t status;

	if (!get_message(p, &status))
		judge(p, GRPC_MALFORMED, 0, p->body_len ? "malformed gRPC message" : "no gRPC message");
	else if (status == SERVING)
		judge(p, GRPC_SERVING, 0, words[status]);
	else
		judge(p, GRPC_OTHER, 0, status <= SERVICE_UNKNOWN ? words[status] : "an unknown health status");
}

static void judge_answer(struct grpc_probe *p)
{
	char text[sizeof(p->text)];
	uint64_t http, grpc;

	if (!str_u64(p->status, 999, &http)) {
		judge(p, GRPC_MALFORMED, 0, "no status");
	} else if (http != 200) {
		snprintf(text, sizeof(text), "HTTP %s", p->status);
		judge(p, GRPC_OTHER, http, text);
	} else if (strncmp(p->type, "application/grpc", 16) != 0) {
		judge(p, GRPC_MALFORMED, 0, "the content type is not gRPC's");
	} else if (!str_u64(p->grpc_status, UINT32_MAX, &grpc)) {
		judge(p, GRPC_MALFORMED, 0, "no grpc-status");
	} else if (grpc != 0) {
		snprintf(text, sizeof(text), "%s%s%s", code_word(grpc), p->grpc_message[0] ? ": " : "", p->grpc_message);
		judge(p, GRPC_OTHER, grpc, text);
	} else {
		judge_health(p);
	}
}

/* ---- HTTP/2 ---- */

static void on_field(void *owner, const char *name, const char *value)
{
	struct grpc_probe *p = owner;

	if (strcmp(name, ":status") == 0)
		str_copy(p->status, sizeof(p->status), value);
	else if (strcmp(name, "content-type") == 0)
		str_copy(p->type, sizeof(p->type), value);
	else if (strcmp(name, "grpc-status") == 0)
		str_copy(p->grpc_status, sizeof(p->grpc_status), value);
	else if (strcmp(name, "grpc-message") == 0)
		str_copy(p->grpc_message, sizeof(p->grpc_message), value);
}

static void on_data(void *owner, const uint8_t *data, size_t len)
{
	struct grpc_probe *p = owner;
	size_t room = sizeof(p->body) - p->body_len, n = len < room ? len : room;

	memcpy(p->body + p->body_len, data, n);
	p->body_len += n;
	p->too_long |= n < len;
}

static void on_end(void *owner, uint32_t code)
{
	struct grpc_probe *p = owner;
	char text[64];

	if (code == H2_NO_ERROR) {
		judge_answer(p);
	} else {
		snprintf(text, sizeof(text), "the stream was reset (code %u)", code);
		judge(p, GRPC_MALFORMED, 0, text);
	}
}

static const struct h2_client_events events = { .on_field = on_field, .on_data = on_data, .on_end = on_end };

/* HealthCheckRequest with its prefix; field 1 is the service. */
static size_t put_request(uint8_t *out, const char *service)
{
	size_t len = strlen(service), at = PREFIX;

	if (len) {
		out[at++] = 0x0a;
		if (len > 0x7f) {
			out[at++] = (uint8_t)(len & 0x7f) | 0x80;
			out[at++] = (uint8_t)(len >> 7);
		} else {
			out[at++] = (uint8_t)len;
		}
		memcpy(out + at, service, len);
		at += len;
	}
	memset(out, 0, PREFIX);
	out[PREFIX - 1] = (uint8_t)(at - PREFIX);
	return at;
}

struct grpc_probe *grpc_probe_new(const char *authority, const char *service, uint32_t timeout_ms)
{
	char timeout[16];
	const struct h2_field f[] = {
		{ ":method", "POST" }, { ":scheme", "http" }, { ":path", "/grpc.health.v1.Health/Check" }, { ":authority", authority },
		{ "content-type", "application/grpc" }, { "te", "trailers" }, { "user-agent", "mctunnel/" MCTUNNEL_VERSION }, { "grpc-timeout", timeout },
	};
	uint8_t request[PREFIX + 3 + SERVICE_MAX];
	struct grpc_probe *p = strlen(service) <= SERVICE_MAX ? calloc(1, sizeof(*p)) : NULL;

	if (!p)
		return NULL;
	snprintf(timeout, sizeof(timeout), "%um", timeout_ms % 100000000); /* at most eight digits */
	p->h2 = h2_client_new(&events, p, f, sizeof(f) / sizeof(f[0]), request, put_request(request, service));
	if (p->h2)
		return p;
	free(p);
	return NULL;
}

void grpc_probe_free(struct grpc_probe *p)
{
	if (!p)
		return;
	h2_client_free(p->h2);
	free(p);
}

size_t grpc_probe_output(struct grpc_probe *p, uint8_t *dst, size_t size)
{
	return h2_client_output(p->h2, dst, size);
}

enum grpc_verdict grpc_probe_input(struct grpc_probe *p, const uint8_t *data, size_t len)
{
	if (p->verdict != GRPC_WAITING || h2_client_input(p->h2, data, len) || p->verdict != GRPC_WAITING)
		return p->verdict;
	if (h2_client_starved(p->h2))
		judge(p, GRPC_STARVED, 0, "no memory");
	else
		judge(p, GRPC_MALFORMED, 0, "what answers does not speak HTTP/2");
	return p->verdict;
}

const char *grpc_probe_text(const struct grpc_probe *p, uint32_t *code)
{
	*code = p->code;
	return p->text;
}
