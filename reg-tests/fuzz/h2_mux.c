/* Fuzzes HTTP/2 towards strangers: bytes to a server that answers what it is asked, or to a client that has asked. The first byte says which, and how the owner behaves; the second
 * in which pieces the bytes come. Events must keep their order, every stream ends once, and what is said in return stays in proportion. */
#include "mctunnel/proto/h2_mux.h"

#include "mctunnel/base/bug.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CLIENT = 1, RAW = 2, RESET = 4, DRAIN = 8, TRAILERS = 16, HOLD = 32, REFUSE = 64 };
enum { STREAMS = 8, FIELDS = 4096, ASKED = 2, ANSWER = 100000 };

static const struct h2_field answer[] = { { ":status", "200" }, { "content-type", "text/plain" } };
static const struct h2_field early[] = { { ":status", "103" } };
static const struct h2_field trailer[] = { { "grpc-status", "0" } };
static const struct h2_field request[] = { { ":method", "POST" }, { ":scheme", "http" }, { ":path", "/" }, { ":authority", "a.example" } };

struct stream {
	int32_t id;
	bool used, regular, asked, answered, fin;
	size_t fields, to_send;
};

static struct {
	struct h2_mux *m;
	struct stream streams[STREAMS];
	uint8_t how;
	unsigned live;
} f;

static void *on_stream(void *owner, int32_t id)
{
	BUG_ON(f.how & CLIENT);
	if ((f.how & REFUSE) && id % 4 == 3)
		return NULL;
	for (size_t i = 0; i < STREAMS; i++) {
		if (!f.streams[i].used) {
			f.streams[i] = (struct stream){ .id = id, .used = true };
			f.live++;
			return &f.streams[i];
		}
	}
	BUG_ON(true); /* more than max_streams */
	return NULL;
}

static void check_text(const char *name, const char *value)
{
	BUG_ON(!*name);
	for (const char *c = name; *c; c++)
		BUG_ON(isupper((unsigned char)*c) || (unsigned char)*c <= ' ' || *c == 0x7f);
	BUG_ON(strpbrk(value, "\r\n"));
}

static void on_field(void *owner, void *stream, const char *name, const char *value)
{
	struct stream *s = stream;

	BUG_ON(!s->used || s->fin);
	check_text(name, value);
	BUG_ON(name[0] == ':' && s->regular);
	s->regular |= name[0] != ':';
	s->fields += strlen(name) + strlen(value) + 32;
	BUG_ON(s->fields > FIELDS);
}

static void serve(struct stream *s)
{
	bool bodiless = s->id % 8 == 1;

	s->answered = true;
	s->to_send = bodiless ? 0 : ANSWER;
	if (s->id % 8 == 5)
		h2_mux_interim(f.m, s->id, early, 1);
	h2_mux_answer(f.m, s->id, answer, 2, bodiless);
}

static void on_block(void *owner, void *stream, enum h2_block what, bool fin)
{
	struct stream *s = stream;

	BUG_ON(!s->used || s->fin);
	s->regular = false;
	s->fields = 0;
	s->fin = fin;
	if (f.how & CLIENT) {
		BUG_ON(what == H2_REQUEST || (what == H2_TRAILERS && !fin));
		return;
	}
	BUG_ON(what == H2_REQUEST ? s->asked : what != H2_TRAILERS || !s->asked);
	if (what == H2_REQUEST)
		serve(s);
	s->asked = true;
}

static void on_data(void *owner, void *stream, const uint8_t *data, size_t len)
{
	struct stream *s = stream;

	BUG_ON(!s->used || s->fin || (!(f.how & CLIENT) && !s->asked));
	if (f.how & RESET)
		h2_mux_reset(f.m, s->id, H2_CANCEL);
	else if (!(f.how & HOLD))
		h2_mux_consume(f.m, s->id, len);
}

static void on_fin(void *owner, void *stream)
{
	struct stream *s = stream;

	BUG_ON(!s->used || s->fin);
	s->fin = true;
}

static void on_closed(void *owner, void *stream, uint32_t code)
{
	struct stream *s = stream;

	BUG_ON(!s->used);
	s->used = false;
	f.live--;
}

static size_t pull(void *owner, void *stream, uint8_t *dst, size_t room, bool *fin)
{
	struct stream *s = stream;
	size_t n = s->to_send < room ? s->to_send : room;

	BUG_ON(!s->used);
	memset(dst, 'x', n);
	s->to_send -= n;
	*fin = s->to_send == 0;
	if (*fin && (f.how & TRAILERS) && !(f.how & CLIENT))
		h2_mux_trailers(f.m, s->id, trailer, 1);
	return n;
}

static const struct h2_mux_events events = { on_stream, on_field, on_block, on_data, on_fin, on_closed, pull };

static size_t drain_output(void)
{
	uint8_t buf[20000];
	size_t n, all = 0;

	while ((n = h2_mux_output(f.m, buf, sizeof(buf))) > 0)
		all += n;
	return all;
}

static void greet(void)
{
	static const uint8_t settings[9] = { 0, 0, 0, 4 };

	if (f.how & RAW)
		return;
	if (!(f.how & CLIENT))
		h2_mux_input(f.m, (const uint8_t *)H2_PREFACE, strlen(H2_PREFACE));
	h2_mux_input(f.m, settings, sizeof(settings));
}

static void ask(void)
{
	for (int i = 0; i < ASKED; i++) {
		struct stream *s = &f.streams[i];

		*s = (struct stream){ .used = true, .asked = true, .to_send = 1000 };
		s->id = h2_mux_open(f.m, s, request, 4, i == 0);
		BUG_ON(s->id < 0);
		f.live++;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct h2_mux_options o = { .max_streams = STREAMS, .max_fields = FIELDS };
	size_t piece, said = 0;

	if (size < 2)
		return 0;
	memset(&f, 0, sizeof(f));
	f.how = data[0];
	piece = data[1] ? data[1] : size;
	o.server = !(f.how & CLIENT);
	f.m = h2_mux_new(&o, &events, NULL);
	if (f.how & CLIENT)
		ask();
	greet();
	for (size_t at = 2, n; at < size; at += n) {
		n = size - at < piece ? size - at : piece;
		h2_mux_input(f.m, data + at, n);
		said += drain_output();
		if ((f.how & DRAIN) && at < size / 2)
			h2_mux_drain(f.m);
	}
	BUG_ON(said > (size + 1) * (ANSWER + 1000)); /* an answer for a frame at most */
	BUG_ON(h2_mux_broken(f.m) && !h2_mux_over(f.m));
	if (f.live == 0 && !h2_mux_over(f.m))
		h2_mux_goaway(f.m, H2_NO_ERROR);
	drain_output();
	BUG_ON(h2_mux_over(f.m) && h2_mux_wants_output(f.m));
	h2_mux_free(f.m);
	return 0;
}
