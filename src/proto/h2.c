/* HTTP/2 of a link: a thin layer over nghttp2 that turns its callbacks into the events of h2.h.
 * Owns the nghttp2 session and hello frames under way. The payload of DATA frames stays where the stream's owner has
 * it (NGHTTP2_DATA_FLAG_NO_COPY); the output points there, unless a piece is too short for that. Credit and flow control follow the
 * owner's word only: nghttp2's automatic WINDOW_UPDATEs are off, the connection's window is kept wide open.
 * At the end, apart from all that, the plain server of h2_server.h and the client of h2_client.h: they are here because nghttp2 is. */
#include "mctunnel/proto/h2.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/slot.h"
#include "mctunnel/base/str.h"
#include "mctunnel/proto/h2_client.h"
#include "mctunnel/proto/h2_mux.h"
#include "mctunnel/proto/h2_server.h"

#include <malloc.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORTH_POINTING 8192 /* shorter pieces are copied */
#define HELLO_PIECE 16000
#define HELLO_MAX (256u << 10)
#define HELLO_END 0x1
#define LATE_BYTES 4096 /* of what comes when nothing is wanted any more: a window of data that was under way is no flood */
#define CONNECTION_WINDOW INT32_MAX
#define STREAMS_SLACK 64 /* a stream that the agent resets counts there until the reset has gone out, on the hub no more once both ends came */

struct piece { /* of a hello frame, until it is serialised */
	struct list node;
	size_t len;
	uint8_t data[];
};

struct memory { /* of one session; must live as long */
	struct slot_share share;
	void *spare; /* owned: for a queue that must grow */
	size_t spare_size;
	bool refused; /* once: what nghttp2 says then may not be true, and something that was to be said or done is lost */
};

struct h2 {
	nghttp2_session *ng; /* owned */
	enum h2_role role;
	const struct h2_events *ev;
	void *owner;
	struct h2_fields fields; /* of the header block being received */
	bool fields_bad;
	bool peer_closing, closing; /* GOAWAY received, sent */
	bool broken;
	uint32_t row; /* h2_row() */
	uint8_t head[9]; /* of the frame being received, as far as it is there */
	size_t head_len, skip; /* skip: bytes until the next head */
	uint32_t glitches, explained; /* resets that the streams opened so far account for */
	char *hello; /* owned: pieces received so far */
	size_t hello_len;
	struct list pieces; /* owned: hello frames to send */
	struct h2_sink *sink; /* borrowed: of the running h2_output */
	uint8_t *out, *run; /* inside its buffer: where to go on; where what iov does not tell of yet begins */
	size_t room;
	struct memory memory;
	char error[128];
};

static void set_error(struct h2 *h, const char *what)
{
	h->broken = true;
	if (h->memory.refused || !h->error[0])
		str_copy(h->error, sizeof h->error, h->memory.refused ? "out of memory" : what);
}

static void starve(struct h2 *h)
{
	h->memory.refused = true;
	set_error(h, "");
}

/* After calls of nghttp2 that fail for other reasons as well, which do no harm. */
static void look_for_memory(struct h2 *h)
{
	if (h->memory.refused)
		starve(h);
}

bool h2_starved(const struct h2 *h)
{
	return h->memory.refused;
}

const char *h2_error(const struct h2 *h)
{
	return h->error[0] ? h->error : "HTTP/2 protocol error";
}

/* ---- nghttp2's memory ---- */

/* What it takes in large pieces lies in slots, because an idle link touches little of it: its own struct and, behind it, a buffer of a whole frame,
 * of which mostly the first bytes are used, share one; the table of streams has another. */
#define LARGE 2048u
#define SPARE 512u /* bytes: a queue of 64 streams */
#define SPARE_MAX 16384u

static void *take_memory(size_t size, void *arg)
{
	struct memory *m = arg;
	void *p = size >= LARGE ? slot_take(&m->share, size) : NULL;
	if (p)
		return p;
	p = malloc(size);
	m->refused |= !p;
	if (p && size > SLOT_SIZE)
		slot_shed(p, size); /* the buffer of a large frame */
	return p;
}

static void *take_zeroed(size_t n, size_t size, void *arg)
{
	struct memory *m = arg;
	void *p = NULL;
	if (n == 1 && size >= LARGE)
		p = slot_take(&m->share, size);
	else if (n > 1 && size <= SLOT_SIZE / n && n * size >= LARGE)
		p = slot_get();
	if (!p)
		p = calloc(n, size);
	m->refused |= !p;
	return p;
}

static void give_memory(void *p, void *arg)
{
	struct memory *m = arg;
	if (p && slot_owns(p))
		slot_give(&m->share, p);
	else
		free(p);
}

/* Twice as much as what a queue has now, while there is memory. */
static void keep_spare(struct memory *m, size_t size)
{
	void *p = m->spare_size < size ? malloc(size) : NULL;
	if (!p)
		return;
	free(m->spare);
	m->spare = p;
	m->spare_size = size;
}

static void *take_spare(struct memory *m, size_t size)
{
	void *p = m->spare;
	if (m->spare_size < size)
		die("out of memory");
	m->spare = NULL;
	m->spare_size = 0;
	return p;
}

/* So its queues grow, to twice their size. Where it cannot queue a frame for want of room, it frees the frame twice (1.52): this must not fail. */
static void *change_memory(void *p, size_t size, void *arg)
{
	struct memory *m = arg;
	bool slot = p && slot_owns(p);
	if (!p && size >= LARGE)
		return take_memory(size, arg); /* a buffer */
	void *fresh = mem_realloc(slot ? NULL : p, size);
	if (!slot && fresh) {
		keep_spare(m, size <= SPARE_MAX ? 2 * size : 0);
		return fresh;
	}
	if (!fresh)
		fresh = take_spare(m, size);
	size_t there = slot ? slot_rest(p) : p ? malloc_usable_size(p) : 0; /* it has at most that */
	if (p)
		memcpy(fresh, p, size < there ? size : there);
	give_memory(p, arg);
	return fresh;
}

/* nghttp2 keeps a copy. Without a spare it must not begin. */
static nghttp2_mem calls_of(struct memory *m)
{
	keep_spare(m, SPARE);
	return (nghttp2_mem){m, take_memory, give_memory, take_zeroed, change_memory};
}

/* ---- header fields ---- */

struct field_row {
	const char *name;
	size_t offset, size;
	bool indexed; /* may enter the HPACK table: constant for a link */
};

#define FIELD(name, member, indexed) {name, offsetof(struct h2_fields, member), sizeof(((struct h2_fields *)0)->member), indexed}

static const struct field_row field_rows[] = {
	FIELD(":authority", service, true), FIELD("mct-session", session, false),  FIELD("mct-client", client, false),
	FIELD("mct-local", local, true),    FIELD("mct-listener", listener, true), FIELD("mct-reason", reason, true),
	FIELD("mct-target", target, true),  FIELD("mct-sni", sni, true),           FIELD("mct-alpn", alpn, true),
};
#define FIELD_ROWS (sizeof field_rows / sizeof field_rows[0])

static bool parse_number(const char *text, uint64_t max, uint64_t *out)
{
	return str_u64(text, max, out);
}

static bool take_number_field(struct h2_fields *f, const char *name, const char *value)
{
	uint64_t n;
	if (strcmp(name, ":status") == 0) {
		if (!parse_number(value, 999, &n))
			return false;
		f->status = (uint16_t)n;
	} else if (strcmp(name, "mct-resume") == 0) {
		if (!parse_number(value, UINT32_MAX, &n))
			return false;
		f->resume = true;
		f->epoch = (uint32_t)n;
	} else if (strcmp(name, "mct-offset") == 0) {
		if (!parse_number(value, INT64_MAX, &n))
			return false;
		f->has_offset = true;
		f->offset = n;
	} else if (strcmp(name, "mct-fin") == 0) {
		f->fin = true;
	}
	return true;
}

static bool take_field(struct h2_fields *f, const char *name, const char *value)
{
	for (size_t i = 0; i < FIELD_ROWS; i++)
		if (strcmp(name, field_rows[i].name) == 0)
			return str_copy((char *)f + field_rows[i].offset, field_rows[i].size, value);
	if (strcmp(name, ":method") == 0)
		return strcmp(value, "CONNECT") == 0;
	return take_number_field(f, name, value);
}

static nghttp2_nv make_nv(const char *name, const char *value, bool indexed)
{
	return (nghttp2_nv){.name = (uint8_t *)name,
			    .value = (uint8_t *)value,
			    .namelen = strlen(name),
			    .valuelen = strlen(value),
			    .flags = indexed ? NGHTTP2_NV_FLAG_NONE : NGHTTP2_NV_FLAG_NO_INDEX};
}

struct nv_list {
	nghttp2_nv nv[16];
	size_t n;
	char numbers[3][24];
	size_t numbers_n;
};

static void add_number(struct nv_list *l, const char *name, uint64_t value, bool indexed)
{
	char *text = l->numbers[l->numbers_n++];
	snprintf(text, sizeof l->numbers[0], "%llu", (unsigned long long)value);
	l->nv[l->n++] = make_nv(name, text, indexed);
}

/* Pseudo-header fields come first, as RFC 9113 section 8.3 demands. */
static void build_fields(struct nv_list *l, const struct h2_fields *f, bool request)
{
	l->n = l->numbers_n = 0;
	if (request)
		l->nv[l->n++] = make_nv(":method", "CONNECT", true);
	else
		add_number(l, ":status", f->status, true);
	for (size_t i = 0; i < FIELD_ROWS; i++) {
		const struct field_row *row = &field_rows[i];
		const char *value = (const char *)f + row->offset;
		if (value[0] && (request || row->name[0] != ':'))
			l->nv[l->n++] = make_nv(row->name, value, row->indexed);
	}
	if (f->resume)
		add_number(l, "mct-resume", f->epoch, false);
	if (f->has_offset)
		add_number(l, "mct-offset", f->offset, false);
	if (f->fin)
		l->nv[l->n++] = make_nv("mct-fin", "1", true);
}

/* ---- receiving ---- */

static void *stream_owner(struct h2 *h, int32_t id)
{
	return nghttp2_session_get_stream_user_data(h->ng, id);
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
	struct h2 *h = arg;
	memset(&h->fields, 0, sizeof h->fields);
	h->fields_bad = false;
	return 0;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t namelen, const uint8_t *value,
		     size_t valuelen, uint8_t flags, void *arg)
{
	struct h2 *h = arg;
	if (memchr(value, 0, valuelen) || !take_field(&h->fields, (const char *)name, (const char *)value))
		h->fields_bad = true;
	return 0;
}

/* A stream may end with a reset from either side, crossing: those are no flood. */
static void explain_resets(struct h2 *h)
{
	if (h->explained < UINT32_MAX - 2)
		h->explained += 2;
}

static void headers_received(struct h2 *h, const nghttp2_frame *frame)
{
	int32_t id = frame->hd.stream_id;
	bool fin = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
	if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
		explain_resets(h);
	if (h->fields_bad) {
		h2_reset(h, id, NGHTTP2_PROTOCOL_ERROR);
		return;
	}
	if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
		h->ev->on_request(h->owner, id, &h->fields, fin);
	else if (frame->headers.cat == NGHTTP2_HCAT_RESPONSE && stream_owner(h, id))
		h->ev->on_answer(h->owner, stream_owner(h, id), &h->fields, fin);
}

static void hello_received(struct h2 *h, const nghttp2_frame *frame)
{
	h->glitches++;
	if (!(frame->hd.flags & HELLO_END))
		return;
	char *json = h->hello;
	size_t len = h->hello_len;
	h->hello = NULL;
	h->hello_len = 0;
	if (frame->hd.type == H2_FRAME_DRAIN)
		h->ev->on_goaway(h->owner, json ? json : "", len);
	else
		h->ev->on_hello(h->owner, (enum h2_frame)frame->hd.type, json ? json : "", len);
	free(json);
}

static void reset_received(struct h2 *h, const nghttp2_frame *frame)
{
	if (h->explained > 0)
		h->explained--;
	else
		h->glitches++;
	void *stream = stream_owner(h, frame->hd.stream_id);
	if (stream)
		h->ev->on_reset(h->owner, stream, frame->rst_stream.error_code);
}

static void ping_received(struct h2 *h, const nghttp2_frame *frame)
{
	uint64_t value;
	h->glitches++;
	if (!(frame->hd.flags & NGHTTP2_FLAG_ACK))
		return;
	memcpy(&value, frame->ping.opaque_data, sizeof value);
	h->ev->on_pong(h->owner, value);
}

static void data_received(struct h2 *h, const nghttp2_frame *frame)
{
	if (frame->hd.length == 0 && !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		h->glitches++;
}

static void credit_received(struct h2 *h, const nghttp2_frame *frame)
{
	void *stream = frame->hd.stream_id ? stream_owner(h, frame->hd.stream_id) : NULL;
	if (stream)
		h->ev->on_credit(h->owner, stream, (uint32_t)frame->window_update.window_size_increment);
}

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
	struct h2 *h = arg;
	switch (frame->hd.type) {
	case NGHTTP2_HEADERS: headers_received(h, frame); break;
	case NGHTTP2_DATA: data_received(h, frame); break;
	case NGHTTP2_WINDOW_UPDATE: credit_received(h, frame); break;
	case NGHTTP2_RST_STREAM: reset_received(h, frame); break;
	case NGHTTP2_PING: ping_received(h, frame); break;
	case NGHTTP2_GOAWAY:
		h->peer_closing = true;
		h->glitches++;
		h->ev->on_goaway(h->owner, (const char *)frame->goaway.opaque_data, frame->goaway.opaque_data_len);
		break;
	case H2_FRAME_AGENT:
	case H2_FRAME_HUB:
	case H2_FRAME_DRAIN: hello_received(h, frame); break;
	default: h->glitches++;
	}
	if ((frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS) && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) {
		void *stream = stream_owner(h, frame->hd.stream_id);
		if (stream)
			h->ev->on_fin(h->owner, stream);
	}
	return 0;
}

static int on_data_chunk(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *arg)
{
	struct h2 *h = arg;
	void *stream = stream_owner(h, id);
	nghttp2_session_consume_connection(ng, len);
	if (stream)
		h->ev->on_data(h->owner, stream, data, len);
	return 0;
}

/* A request that could not be sent for want of memory is closed as if it had been refused; but the link is over then, and its streams go on elsewhere. */
static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *arg)
{
	struct h2 *h = arg;
	void *stream = stream_owner(h, id);
	if (stream && !h->memory.refused)
		h->ev->on_closed(h->owner, stream, code);
	return 0;
}

static int on_invalid_frame(nghttp2_session *ng, const nghttp2_frame *frame, int code, void *arg)
{
	struct h2 *h = arg;
	h->glitches++;
	snprintf(h->error, sizeof h->error, "HTTP/2: %s (frame type %u)", nghttp2_strerror(code), frame->hd.type);
	return 0;
}

static int on_hello_chunk(nghttp2_session *ng, const nghttp2_frame_hd *hd, const uint8_t *data, size_t len, void *arg)
{
	struct h2 *h = arg;
	if (h->hello_len + len > HELLO_MAX) {
		set_error(h, "hello frame is larger than 256 KiB");
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	}
	char *grown = realloc(h->hello, h->hello_len + len + 1);
	if (!grown) {
		starve(h);
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	}
	memcpy(grown + h->hello_len, data, len);
	h->hello = grown;
	h->hello_len += len;
	h->hello[h->hello_len] = 0;
	return 0;
}

static int unpack_hello(nghttp2_session *ng, void **payload, const nghttp2_frame_hd *hd, void *arg)
{
	*payload = NULL;
	return 0;
}

/* A refusal takes nothing from the client any more; a reset queued together with it would overtake it.
 * nghttp2's own GOAWAY tells of a violation; from then on it ignores what it receives. */
static int on_frame_sent(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
	struct h2 *h = arg;
	if (frame->hd.type == NGHTTP2_HEADERS && h->role == H2_AGENT && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		h2_reset(h, frame->hd.stream_id, NGHTTP2_NO_ERROR);
	if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR)
		set_error(h, "HTTP/2 protocol error");
	return 0;
}

static bool known(uint8_t type)
{
	return type <= NGHTTP2_CONTINUATION || type == H2_FRAME_AGENT || type == H2_FRAME_HUB || type == H2_FRAME_DRAIN;
}

/* nghttp2 skips frames of unknown types without a word: whoever sends nothing else would not be noticed. */
static void count_unknown(struct h2 *h, const uint8_t *data, size_t len)
{
	while (len > 0) {
		size_t n = h->skip < len ? h->skip : len;
		h->skip -= n;
		data += n;
		len -= n;
		if (len == 0)
			return;
		h->head[h->head_len++] = *data++;
		len--;
		if (h->head_len < sizeof h->head)
			continue;
		h->head_len = 0;
		h->skip = (size_t)h->head[0] << 16 | (size_t)h->head[1] << 8 | h->head[2];
		h->glitches += !known(h->head[3]);
	}
}

int h2_input(struct h2 *h, const uint8_t *data, size_t len)
{
	count_unknown(h, data, len);
	if (h->peer_closing && !nghttp2_session_want_read(h->ng)) /* nghttp2 does not look at what follows the last stream's end */
		h->glitches += 1 + (uint32_t)(len / LATE_BYTES);
	while (len > 0 && !h->broken) {
		ssize_t n = nghttp2_session_mem_recv(h->ng, data, len);
		if (n < 0) {
			set_error(h, nghttp2_strerror((int)n));
			break;
		}
		data += n;
		len -= (size_t)n;
	}
	look_for_memory(h);
	/* nghttp2 wants nothing more once it has decided on a GOAWAY for a violation. */
	if (!h->peer_closing && !h->closing && !nghttp2_session_want_read(h->ng))
		set_error(h, "HTTP/2 protocol error");
	return h->broken ? -1 : 0;
}

/* ---- sending ---- */

static void put(struct h2 *h, const void *data, size_t len)
{
	memcpy(h->out, data, len);
	h->out += len;
	h->room -= len;
}

static void end_run(struct h2 *h)
{
	if (h->out > h->run)
		h->sink->iov[h->sink->n++] = (struct iovec){h->run, (size_t)(h->out - h->run)};
	h->run = h->out;
}

/* False when there are too many pieces already. */
static bool point(struct h2 *h, const void *at, size_t len)
{
	struct h2_sink *k = h->sink;
	if (k->n + 3 > k->max) /* what was put before, this, and what will be put after it */
		return false;
	end_run(h);
	k->iov[k->n++] = (struct iovec){(void *)(uintptr_t)at, len};
	h->room -= len;
	return true;
}

static ssize_t send_bytes(nghttp2_session *ng, const uint8_t *data, size_t len, int flags, void *arg)
{
	struct h2 *h = arg;
	if (h->room == 0)
		return NGHTTP2_ERR_WOULDBLOCK;
	if (len > h->room)
		len = h->room;
	put(h, data, len);
	return (ssize_t)len;
}

static int send_data(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *header, size_t len, nghttp2_data_source *source, void *arg)
{
	struct h2 *h = arg;
	void *stream = stream_owner(h, frame->hd.stream_id);
	BUG_ON(!stream || h->room < 9 + len);
	put(h, header, 9);
	for (size_t left = len, first = 1, n; left > 0; left -= n, first = 0) {
		const void *at;
		n = h->ev->next(h->owner, stream, &at, left);
		BUG_ON(n == 0);
		if (first || n < WORTH_POINTING || !point(h, at, n)) /* the first fills a TLS record together with the header */
			put(h, at, n);
	}
	h->ev->made(h->owner, stream, len, frame->hd.flags & NGHTTP2_FLAG_END_STREAM);
	return 0;
}

/* What does not fit as a whole waits for the next output: between here and send_data nothing may happen to the stream. */
static ssize_t read_data(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t len, uint32_t *flags, nghttp2_data_source *source, void *arg)
{
	struct h2 *h = arg;
	void *stream = stream_owner(h, id);
	bool fin = false;
	if (!stream)
		return NGHTTP2_ERR_DEFERRED;
	size_t n = h->ev->ready(h->owner, stream, len, &fin);
	if (n == 0 && !fin)
		return NGHTTP2_ERR_DEFERRED;
	if (h->room < 9 + n)
		return NGHTTP2_ERR_PAUSE;
	*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	if (fin)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

static ssize_t data_length(nghttp2_session *ng, uint8_t type, int32_t id, int32_t session_window, int32_t stream_window, uint32_t frame_max,
			   void *arg)
{
	const struct h2 *h = arg;
	int32_t len = (int32_t)h->row;
	while (len > H2_DATA_MAX && (h->room < 9 + (size_t)len || frame_max < (uint32_t)len))
		len -= H2_DATA_MAX;
	if (session_window < len)
		len = session_window;
	if (stream_window < len)
		len = stream_window;
	if (frame_max < (uint32_t)len)
		len = (int32_t)frame_max;
	return len;
}

static ssize_t pack_hello(nghttp2_session *ng, uint8_t *buf, size_t len, const nghttp2_frame *frame, void *arg)
{
	struct piece *p = frame->ext.payload;
	size_t n = p->len;
	BUG_ON(n > len);
	memcpy(buf, p->data, n);
	list_del(&p->node);
	free(p);
	return (ssize_t)n;
}

ssize_t h2_output(struct h2 *h, struct h2_sink *k)
{
	if (h->broken)
		return -1;
	h->sink = k;
	h->out = h->run = k->buf;
	h->room = k->size;
	k->n = 0;
	int rv = nghttp2_session_send(h->ng);
	end_run(h);
	h->sink = NULL;
	look_for_memory(h);
	bool failed = rv != 0 && rv != NGHTTP2_ERR_WOULDBLOCK;
	if (failed)
		set_error(h, nghttp2_strerror(rv));
	return failed || h->memory.refused ? -1 : (ssize_t)(k->size - h->room);
}

void h2_row(struct h2 *h, uint32_t bytes)
{
	h->row = bytes;
}

bool h2_wants_output(const struct h2 *h)
{
	return h->broken || nghttp2_session_want_write(h->ng) != 0;
}

void h2_hello(struct h2 *h, enum h2_frame type, const char *json, size_t len)
{
	size_t at = 0;
	do {
		size_t n = len - at < HELLO_PIECE ? len - at : HELLO_PIECE;
		struct piece *p = malloc(sizeof *p + n);
		if (!p) {
			starve(h);
			return;
		}
		p->len = n;
		memcpy(p->data, json + at, n);
		list_init(&p->node);
		list_add(&h->pieces, &p->node);
		at += n;
		if (nghttp2_submit_extension(h->ng, (uint8_t)type, at == len ? HELLO_END : 0, 0, p) != 0) {
			starve(h);
			return;
		}
	} while (at < len);
}

bool h2_hello_unsent(const struct h2 *h)
{
	return !list_empty(&h->pieces);
}

/* ---- streams ---- */

int32_t h2_connect(struct h2 *h, const struct h2_fields *f, void *stream)
{
	struct nv_list l;
	nghttp2_data_provider source = {.read_callback = read_data};
	BUG_ON(h->role != H2_HUB);
	if (!h2_can_connect(h))
		return -1;
	build_fields(&l, f, true);
	int32_t id = nghttp2_submit_request(h->ng, NULL, l.nv, l.n, &source, stream);
	explain_resets(h);
	if (id < 0)
		h->memory.refused = false; /* the link is as it was */
	return id < 0 ? -1 : id;
}

bool h2_can_connect(const struct h2 *h)
{
	return !h->broken && !h->peer_closing && !h->closing && nghttp2_session_check_request_allowed(h->ng);
}

uint32_t h2_max_streams(const struct h2 *h)
{
	uint32_t n = nghttp2_session_get_remote_settings(h->ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
	return n > STREAMS_SLACK ? n - STREAMS_SLACK : 1;
}

void h2_bind(struct h2 *h, int32_t id, void *stream)
{
	nghttp2_session_set_stream_user_data(h->ng, id, stream);
}

int h2_answer(struct h2 *h, int32_t id, const struct h2_fields *f, bool fin)
{
	struct nv_list l;
	nghttp2_data_provider source = {.read_callback = read_data};
	if (!h2_stream_open(h, id))
		return -1;
	build_fields(&l, f, false);
	int rv = nghttp2_submit_response(h->ng, id, l.nv, l.n, fin ? NULL : &source);
	look_for_memory(h); /* the hub would wait for it */
	return rv == 0 ? 0 : -1;
}

bool h2_stream_open(const struct h2 *h, int32_t id)
{
	return id > 0 && nghttp2_session_find_stream(h->ng, id) != NULL;
}

void h2_wake(struct h2 *h, int32_t id)
{
	nghttp2_session_resume_data(h->ng, id);
	look_for_memory(h);
}

void h2_credit(struct h2 *h, int32_t id, uint32_t bytes)
{
	nghttp2_submit_window_update(h->ng, NGHTTP2_FLAG_NONE, id, (int32_t)bytes);
	look_for_memory(h);
}

void h2_reset(struct h2 *h, int32_t id, uint32_t code)
{
	nghttp2_submit_rst_stream(h->ng, NGHTTP2_FLAG_NONE, id, code);
	look_for_memory(h);
}

void h2_ping(struct h2 *h, uint64_t value)
{
	uint8_t data[8];
	memcpy(data, &value, sizeof data);
	nghttp2_submit_ping(h->ng, NGHTTP2_FLAG_NONE, data);
	look_for_memory(h);
}

void h2_drain(struct h2 *h, const char *text)
{
	h2_hello(h, H2_FRAME_DRAIN, text, strlen(text));
}

static void say_goaway(struct h2 *h, int32_t last, uint32_t code, const char *text)
{
	h->closing = true;
	nghttp2_submit_goaway(h->ng, NGHTTP2_FLAG_NONE, last, code, (const uint8_t *)text, strlen(text));
	look_for_memory(h);
}

/* The agent's GOAWAY names the highest number there is: what is under way and what crosses it on the wire is still served. */
void h2_goaway(struct h2 *h, uint32_t code, const char *text)
{
	say_goaway(h, h->role == H2_AGENT ? INT32_MAX : 0, code, text);
}

void h2_farewell(struct h2 *h, const char *text)
{
	say_goaway(h, h->role == H2_AGENT ? nghttp2_session_get_last_proc_stream_id(h->ng) : 0, 0, text);
}

uint32_t h2_take_glitches(struct h2 *h)
{
	uint32_t n = h->glitches;
	h->glitches = 0;
	return n;
}

/* ---- making ---- */

static void set_callbacks(nghttp2_session_callbacks *cb)
{
	nghttp2_session_callbacks_set_send_callback(cb, send_bytes);
	nghttp2_session_callbacks_set_send_data_callback(cb, send_data);
	nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
	nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_sent);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data_chunk);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
	nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
	nghttp2_session_callbacks_set_on_extension_chunk_recv_callback(cb, on_hello_chunk);
	nghttp2_session_callbacks_set_unpack_extension_callback(cb, unpack_hello);
	nghttp2_session_callbacks_set_pack_extension_callback(cb, pack_hello);
	nghttp2_session_callbacks_set_data_source_read_length_callback(cb, data_length);
}

static nghttp2_session *make_session(struct h2 *h)
{
	nghttp2_mem memory = calls_of(&h->memory);
	nghttp2_session_callbacks *cb = NULL;
	nghttp2_option *opt = NULL;
	nghttp2_session *ng = NULL;
	if (h->memory.spare && nghttp2_session_callbacks_new(&cb) == 0 && nghttp2_option_new(&opt) == 0) {
		set_callbacks(cb);
		nghttp2_option_set_no_auto_window_update(opt, 1);
		nghttp2_option_set_no_closed_streams(opt, 1);
		nghttp2_option_set_stream_reset_rate_limit(opt, UINT32_MAX, UINT32_MAX); /* glitches are counted, and clients may break */
		nghttp2_option_set_user_recv_extension_type(opt, H2_FRAME_AGENT);
		nghttp2_option_set_user_recv_extension_type(opt, H2_FRAME_HUB);
		nghttp2_option_set_user_recv_extension_type(opt, H2_FRAME_DRAIN);
		int rv = h->role == H2_HUB ? nghttp2_session_client_new3(&ng, cb, h, opt, &memory) : nghttp2_session_server_new3(&ng, cb, h, opt, &memory);
		if (rv != 0)
			ng = NULL;
	}
	nghttp2_session_callbacks_del(cb);
	nghttp2_option_del(opt);
	return ng;
}

static int greet(struct h2 *h, uint32_t max_streams)
{
	nghttp2_settings_entry s[] = {
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_STREAM_WINDOW},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, 8192},
		{NGHTTP2_SETTINGS_MAX_FRAME_SIZE, H2_BULK_MAX},
		{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, max_streams < UINT32_MAX - STREAMS_SLACK ? max_streams + STREAMS_SLACK : UINT32_MAX},
		{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
	};
	size_t n = h->role == H2_HUB ? 5 : 4;
	if (nghttp2_submit_settings(h->ng, NGHTTP2_FLAG_NONE, s, n) != 0)
		return -1;
	return nghttp2_session_set_local_window_size(h->ng, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW) == 0 ? 0 : -1;
}

struct h2 *h2_new(enum h2_role role, const struct h2_events *ev, void *owner, uint32_t max_streams)
{
	struct h2 *h = calloc(1, sizeof *h);
	if (!h)
		return NULL;
	h->role = role;
	h->row = H2_DATA_MAX;
	h->ev = ev;
	h->owner = owner;
	h->skip = role == H2_AGENT ? NGHTTP2_CLIENT_MAGIC_LEN : 0;
	list_init(&h->pieces);
	h->ng = make_session(h);
	if (!h->ng || greet(h, max_streams) != 0) {
		h2_free(h);
		return NULL;
	}
	return h;
}

void h2_free(struct h2 *h)
{
	static const struct h2_events silent;
	if (!h)
		return;
	h->ev = &silent;
	nghttp2_session_del(h->ng);
	list_for_each_safe (n, &h->pieces) {
		list_del(n);
		free(container_of(n, struct piece, node));
	}
	free(h->hello);
	free(h->memory.spare);
	free(h);
}

/* ---- a server of small requests (h2_server.h) ---- */

struct rest { /* borrowed from nghttp2: serialised, not yet taken */
	const uint8_t *at;
	size_t len;
};

/* Fills dst with what there is to send; *failed: nghttp2 has, which takes memory for what it sends. */
static size_t give_out(nghttp2_session *ng, struct rest *r, uint8_t *dst, size_t size, bool *failed)
{
	size_t at = 0;
	while (at < size) {
		if (r->len == 0) {
			ssize_t n = nghttp2_session_mem_send(ng, &r->at);
			if (n < 0)
				*failed = true;
			if (n <= 0)
				break;
			r->len = (size_t)n;
		}
		size_t n = size - at < r->len ? size - at : r->len;
		memcpy(dst + at, r->at, n);
		at += n;
		r->at += n;
		r->len -= n;
	}
	return at;
}

struct h2_server {
	nghttp2_session *ng; /* owned */
	const struct h2_server_events *ev;
	void *owner;
	uint32_t max_fields, fields; /* bytes of the header block being received */
	uint32_t frames, bytes; /* bytes: not yet counted as frames */
	struct h2_request request;
	struct rest rest;
	bool trailers; /* h2_server_trailers was called for the answer being pulled */
	bool over, broken;
	struct memory memory;
};

#define PLAIN_FIELDS 8
#define BYTES_A_FRAME 128 /* frames of unknown types are skipped unseen: they count by their size */

static void server_give_up(struct h2_server *s, uint32_t code)
{
	if (!s->over)
		nghttp2_session_terminate_session(s->ng, code);
	s->over = true;
}

static int server_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *arg)
{
	struct h2_server *s = arg;
	s->frames++;
	return 0;
}

static int server_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
	struct h2_server *s = arg;
	s->fields = 0;
	if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
		memset(&s->request, 0, sizeof s->request);
	return 0;
}

static void server_take_field(struct h2_request *r, const char *name, const char *value)
{
	if (strcmp(name, ":method") == 0)
		str_copy(r->method, sizeof r->method, value);
	else if (strcmp(name, ":path") == 0)
		str_copy(r->path, sizeof r->path, value);
	else if (strcmp(name, "content-type") == 0)
		str_copy(r->content_type, sizeof r->content_type, value);
	else if (strcmp(name, "grpc-encoding") == 0)
		str_copy(r->encoding, sizeof r->encoding, value);
}

/* A field may come from the table: one byte on the wire, kilobytes here. */
static int server_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t namelen, const uint8_t *value, size_t valuelen,
			 uint8_t flags, void *arg)
{
	struct h2_server *s = arg;
	s->fields += (uint32_t)(namelen + valuelen + 32);
	if (s->fields > s->max_fields) {
		server_give_up(s, NGHTTP2_ENHANCE_YOUR_CALM);
		return NGHTTP2_ERR_PAUSE;
	}
	if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
		server_take_field(&s->request, (const char *)name, (const char *)value);
	return 0;
}

static void server_request(struct h2_server *s, int32_t id)
{
	void *stream = s->ev->on_request(s->owner, id, &s->request);
	if (stream)
		nghttp2_session_set_stream_user_data(s->ng, id, stream);
	else
		nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, id, NGHTTP2_REFUSED_STREAM);
}

static int server_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
	struct h2_server *s = arg;
	int32_t id = frame->hd.stream_id;
	if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
		return 0;
	if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
		server_request(s, id);
	void *stream = nghttp2_session_get_stream_user_data(ng, id);
	if (stream && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		s->ev->on_fin(s->owner, stream);
	return 0;
}

static int server_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *arg)
{
	struct h2_server *s = arg;
	void *stream = nghttp2_session_get_stream_user_data(ng, id);
	if (stream)
		s->ev->on_data(s->owner, stream, data, len);
	return 0;
}

static int server_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *arg)
{
	struct h2_server *s = arg;
	void *stream = nghttp2_session_get_stream_user_data(ng, id);
	if (stream)
		s->ev->on_closed(s->owner, stream);
	return 0;
}

/* Who still sends after its answer is not reset: some clients lose the answer then. The limit on floods ends it. */
static int server_frame_sent(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
	struct h2_server *s = arg;
	if (frame->hd.type == NGHTTP2_GOAWAY) { /* nghttp2's own, or ours */
		s->over = true;
		s->broken = frame->goaway.error_code != NGHTTP2_NO_ERROR && !s->memory.refused;
	}
	return 0;
}

void h2_server_input(struct h2_server *s, const uint8_t *data, size_t len)
{
	s->bytes += (uint32_t)len;
	s->frames += s->bytes / BYTES_A_FRAME;
	s->bytes %= BYTES_A_FRAME;
	while (len > 0 && !s->over && !s->memory.refused) {
		ssize_t n = nghttp2_session_mem_recv(s->ng, data, len);
		if (s->memory.refused) {
			break;
		} else if (n == NGHTTP2_ERR_FLOODED) {
			server_give_up(s, NGHTTP2_ENHANCE_YOUR_CALM);
		} else if (n < 0) {
			server_give_up(s, NGHTTP2_PROTOCOL_ERROR);
		} else {
			data += n;
			len -= (size_t)n;
		}
	}
}

size_t h2_server_output(struct h2_server *s, uint8_t *dst, size_t size)
{
	return s->memory.refused ? 0 : give_out(s->ng, &s->rest, dst, size, &s->over);
}

bool h2_server_wants_output(const struct h2_server *s)
{
	return !s->memory.refused && (s->rest.len > 0 || nghttp2_session_want_write(s->ng) != 0);
}

bool h2_server_over(const struct h2_server *s)
{
	return s->over || s->memory.refused || !nghttp2_session_want_read(s->ng);
}

bool h2_server_broken(const struct h2_server *s)
{
	return s->broken;
}

static ssize_t server_pull(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t len, uint32_t *flags, nghttp2_data_source *source, void *arg)
{
	struct h2_server *s = arg;
	void *stream = nghttp2_session_get_stream_user_data(ng, id);
	bool fin = false;
	s->trailers = false;
	size_t n = stream ? s->ev->pull(s->owner, stream, buf, len, &fin) : 0;
	if (s->memory.refused)
		return NGHTTP2_ERR_CALLBACK_FAILURE; /* without its trailers it would look whole */
	if (n == 0 && !fin)
		return NGHTTP2_ERR_DEFERRED;
	if (fin)
		*flags |= s->trailers ? NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM : NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

static size_t plain_fields(nghttp2_nv *nv, const struct h2_field *f, size_t n)
{
	BUG_ON(n > PLAIN_FIELDS);
	for (size_t i = 0; i < n; i++)
		nv[i] = make_nv(f[i].name, f[i].value, true);
	return n;
}

void h2_server_answer(struct h2_server *s, int32_t id, const struct h2_field *f, size_t n, bool fin)
{
	nghttp2_nv nv[PLAIN_FIELDS];
	nghttp2_data_provider source = {.read_callback = server_pull};
	if (nghttp2_submit_response(s->ng, id, nv, plain_fields(nv, f, n), fin ? NULL : &source) != 0)
		nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, id, NGHTTP2_INTERNAL_ERROR);
}

void h2_server_trailers(struct h2_server *s, int32_t id, const struct h2_field *f, size_t n)
{
	nghttp2_nv nv[PLAIN_FIELDS];
	s->trailers = nghttp2_submit_trailer(s->ng, id, nv, plain_fields(nv, f, n)) == 0;
}

void h2_server_wake(struct h2_server *s, int32_t id)
{
	nghttp2_session_resume_data(s->ng, id);
}

void h2_server_goaway(struct h2_server *s, uint32_t code)
{
	server_give_up(s, code);
}

uint32_t h2_server_take_frames(struct h2_server *s)
{
	uint32_t n = s->frames;
	s->frames = 0;
	return n;
}

static nghttp2_session *make_server(struct h2_server *s)
{
	nghttp2_mem memory = calls_of(&s->memory);
	nghttp2_session_callbacks *cb = NULL;
	nghttp2_option *opt = NULL;
	nghttp2_session *ng = NULL;
	if (s->memory.spare && nghttp2_session_callbacks_new(&cb) == 0 && nghttp2_option_new(&opt) == 0) {
		nghttp2_session_callbacks_set_on_begin_frame_callback(cb, server_begin_frame);
		nghttp2_session_callbacks_set_on_begin_headers_callback(cb, server_begin_headers);
		nghttp2_session_callbacks_set_on_header_callback(cb, server_header);
		nghttp2_session_callbacks_set_on_frame_recv_callback(cb, server_frame);
		nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, server_data);
		nghttp2_session_callbacks_set_on_stream_close_callback(cb, server_stream_close);
		nghttp2_session_callbacks_set_on_frame_send_callback(cb, server_frame_sent);
		nghttp2_option_set_no_closed_streams(opt, 1);
		if (nghttp2_session_server_new3(&ng, cb, s, opt, &memory) != 0)
			ng = NULL;
	}
	nghttp2_session_callbacks_del(cb);
	nghttp2_option_del(opt);
	return ng;
}

struct h2_server *h2_server_new(const struct h2_server_events *ev, void *owner, uint32_t max_streams, uint32_t max_fields)
{
	nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, max_streams},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, max_fields},
		{NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
	};
	struct h2_server *s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	s->ev = ev;
	s->owner = owner;
	s->max_fields = max_fields;
	s->ng = make_server(s);
	if (!s->ng || nghttp2_submit_settings(s->ng, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof settings[0]) != 0) {
		h2_server_free(s);
		return NULL;
	}
	return s;
}

void h2_server_free(struct h2_server *s)
{
	if (!s)
		return;
	nghttp2_session_del(s->ng);
	free(s->memory.spare);
	free(s);
}

/* ---- a client of one small request (h2_client.h) ---- */

struct h2_client {
	nghttp2_session *ng; /* owned */
	const struct h2_client_events *ev;
	void *owner;
	uint32_t fields; /* bytes of the answer's */
	uint8_t body[H2_CLIENT_BODY];
	size_t body_len, body_at;
	struct rest rest;
	bool over;
	struct memory memory;
};

static int client_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t namelen, const uint8_t *value, size_t valuelen,
			 uint8_t flags, void *arg)
{
	struct h2_client *c = arg;
	c->fields += (uint32_t)(namelen + valuelen + 32);
	if (c->fields > H2_CLIENT_FIELDS)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	c->ev->on_field(c->owner, (const char *)name, (const char *)value);
	return 0;
}

static int client_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *arg)
{
	struct h2_client *c = arg;
	c->ev->on_data(c->owner, data, len);
	return 0;
}

static int client_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *arg)
{
	struct h2_client *c = arg;
	c->over = true;
	if (!c->memory.refused)
		c->ev->on_end(c->owner, code);
	return 0;
}

static ssize_t client_pull(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t len, uint32_t *flags, nghttp2_data_source *source, void *arg)
{
	struct h2_client *c = arg;
	size_t n = len < c->body_len - c->body_at ? len : c->body_len - c->body_at;
	memcpy(buf, c->body + c->body_at, n);
	c->body_at += n;
	if (c->body_at == c->body_len)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

bool h2_client_input(struct h2_client *c, const uint8_t *data, size_t len)
{
	while (len > 0 && !c->over) {
		ssize_t n = nghttp2_session_mem_recv(c->ng, data, len);
		if (n < 0) {
			c->over = true;
			return false;
		}
		data += n;
		len -= (size_t)n;
	}
	return !c->memory.refused && (c->over || nghttp2_session_want_read(c->ng));
}

size_t h2_client_output(struct h2_client *c, uint8_t *dst, size_t size)
{
	bool failed; /* h2_client_input() will say so */
	return c->over || c->memory.refused ? 0 : give_out(c->ng, &c->rest, dst, size, &failed);
}

bool h2_client_starved(const struct h2_client *c)
{
	return c->memory.refused;
}

static nghttp2_session *make_client(struct h2_client *c)
{
	nghttp2_mem memory = calls_of(&c->memory);
	nghttp2_session_callbacks *cb = NULL;
	nghttp2_session *ng = NULL;
	if (c->memory.spare && nghttp2_session_callbacks_new(&cb) == 0) {
		nghttp2_session_callbacks_set_on_header_callback(cb, client_header);
		nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, client_data);
		nghttp2_session_callbacks_set_on_stream_close_callback(cb, client_stream_close);
		if (nghttp2_session_client_new3(&ng, cb, c, NULL, &memory) != 0)
			ng = NULL;
	}
	nghttp2_session_callbacks_del(cb);
	return ng;
}

struct h2_client *h2_client_new(const struct h2_client_events *ev, void *owner, const struct h2_field *f, size_t n, const uint8_t *body, size_t len)
{
	nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0}, {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_CLIENT_FIELDS}};
	nghttp2_data_provider source = {.read_callback = client_pull};
	nghttp2_nv nv[PLAIN_FIELDS];
	struct h2_client *c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	BUG_ON(len > sizeof c->body);
	memcpy(c->body, body, len);
	c->body_len = len;
	c->ev = ev;
	c->owner = owner;
	c->ng = make_client(c);
	if (c->ng && nghttp2_submit_settings(c->ng, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof settings[0]) == 0 &&
	    nghttp2_submit_request(c->ng, NULL, nv, plain_fields(nv, f, n), &source, NULL) > 0)
		return c;
	h2_client_free(c);
	return NULL;
}

void h2_client_free(struct h2_client *c)
{
	if (!c)
		return;
	nghttp2_session_del(c->ng);
	free(c->memory.spare);
	free(c);
}

/* ---- messages of others (h2_mux.h) ---- */

#define MUX_CONNECTION_WINDOW (4 << 20)
#define UNSEEN_BYTES 1024 /* a part of a frame may be under way */
#define MUX_SKIPPED 32    /* bytes a glitch */

struct h2_mux {
	nghttp2_session *ng; /* owned */
	const struct h2_mux_events *ev;
	void *owner;
	uint32_t max_fields, fields; /* bytes of the header block being received */
	char status;                 /* the first digit of its :status; 0: it has none */
	uint32_t glitches;
	int64_t unseen; /* bytes that came and belong to no frame that was shown: of unknown types */
	struct rest rest;
	bool server, trailers, over, broken;
	struct memory memory;
};

static void mux_give_up(struct h2_mux *m, uint32_t code)
{
	if (!m->over)
		nghttp2_session_terminate_session(m->ng, code);
	m->over = true;
	m->broken |= code != NGHTTP2_NO_ERROR;
}

static bool mux_moves_something(const nghttp2_frame_hd *hd)
{
	switch (hd->type) {
	case NGHTTP2_DATA:
		return hd->length > 0 || (hd->flags & NGHTTP2_FLAG_END_STREAM);
	case NGHTTP2_HEADERS:
	case NGHTTP2_WINDOW_UPDATE:
		return true;
	}
	return false;
}

static int mux_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *arg)
{
	struct h2_mux *m = arg;
	m->unseen -= (int64_t)hd->length + 9;
	if (!mux_moves_something(hd))
		m->glitches++;
	return 0;
}

static int mux_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
	struct h2_mux *m = arg;
	int32_t id = frame->hd.stream_id;
	m->fields = 0;
	m->status = 0;
	if (!m->server || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	void *stream = m->ev->on_stream(m->owner, id);
	if (!stream)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	nghttp2_session_set_stream_user_data(ng, id, stream);
	return 0;
}

/* A field may come from the table: one byte on the wire, kilobytes here. */
static int mux_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t namelen, const uint8_t *value, size_t valuelen, uint8_t flags,
		      void *arg)
{
	struct h2_mux *m = arg;
	void *stream = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
	m->fields += (uint32_t)(namelen + valuelen + 32);
	if (m->fields > m->max_fields) {
		mux_give_up(m, NGHTTP2_ENHANCE_YOUR_CALM);
		return NGHTTP2_ERR_PAUSE;
	}
	if (strcmp((const char *)name, ":status") == 0)
		m->status = (char)value[0];
	if (stream)
		m->ev->on_field(m->owner, stream, (const char *)name, (const char *)value);
	return 0;
}

/* nghttp2 would leave it out and go on; RFC 9113 calls the whole message malformed (8.1.1). */
static int mux_bad_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t namelen, const uint8_t *value, size_t valuelen, uint8_t flags,
			  void *arg)
{
	return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* RST_STREAM with PROTOCOL_ERROR */
}

/* nghttp2 says of a client's first block only that it is an answer, which may be an interim one: its :status tells. Trailers have none. */
static enum h2_block mux_block(const struct h2_mux *m, const nghttp2_frame *frame)
{
	if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
		return H2_REQUEST;
	if (m->server || !m->status)
		return H2_TRAILERS;
	return m->status == '1' ? H2_INTERIM : H2_ANSWER;
}

static int mux_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
	struct h2_mux *m = arg;
	bool fin = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
	if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
		return 0;
	void *stream = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
	if (!stream)
		return 0;
	if (frame->hd.type == NGHTTP2_HEADERS)
		m->ev->on_block(m->owner, stream, mux_block(m, frame), fin);
	else if (fin)
		m->ev->on_fin(m->owner, stream);
	return 0;
}

static int mux_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *arg)
{
	struct h2_mux *m = arg;
	void *stream = nghttp2_session_get_stream_user_data(ng, id);
	nghttp2_session_consume_connection(ng, len);
	if (stream)
		m->ev->on_data(m->owner, stream, data, len);
	return 0;
}

static int mux_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *arg)
{
	struct h2_mux *m = arg;
	void *stream = nghttp2_session_get_stream_user_data(ng, id);
	if (stream)
		m->ev->on_closed(m->owner, stream, code);
	return 0;
}

static int mux_frame_sent(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
	struct h2_mux *m = arg;
	if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR) { /* nghttp2's own, or ours */
		m->over = true;
		m->broken |= !m->memory.refused;
	}
	return 0;
}

/* nghttp2 skips frames of unknown types without a word: they count by their size. */
static void mux_count_unseen(struct h2_mux *m)
{
	for (; m->unseen > UNSEEN_BYTES; m->unseen -= UNSEEN_BYTES)
		m->glitches += UNSEEN_BYTES / MUX_SKIPPED;
}

void h2_mux_input(struct h2_mux *m, const uint8_t *data, size_t len)
{
	m->unseen += (int64_t)len;
	while (len > 0 && !m->over && !m->memory.refused) {
		ssize_t n = nghttp2_session_mem_recv(m->ng, data, len);
		if (m->memory.refused) {
			break;
		} else if (n < 0) {
			mux_give_up(m, n == NGHTTP2_ERR_FLOODED ? NGHTTP2_ENHANCE_YOUR_CALM : NGHTTP2_PROTOCOL_ERROR);
		} else {
			data += n;
			len -= (size_t)n;
		}
	}
	mux_count_unseen(m);
}

size_t h2_mux_output(struct h2_mux *m, uint8_t *dst, size_t size)
{
	return m->memory.refused ? 0 : give_out(m->ng, &m->rest, dst, size, &m->over);
}

bool h2_mux_wants_output(const struct h2_mux *m)
{
	return !m->memory.refused && (m->rest.len > 0 || nghttp2_session_want_write(m->ng) != 0);
}

bool h2_mux_over(const struct h2_mux *m)
{
	return m->over || m->memory.refused || (!nghttp2_session_want_read(m->ng) && !nghttp2_session_want_write(m->ng));
}

bool h2_mux_broken(const struct h2_mux *m)
{
	return m->broken;
}

bool h2_mux_starved(const struct h2_mux *m)
{
	return m->memory.refused;
}

static ssize_t mux_pull(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t len, uint32_t *flags, nghttp2_data_source *source, void *arg)
{
	struct h2_mux *m = arg;
	void *stream = nghttp2_session_get_stream_user_data(ng, id);
	bool fin = false;
	m->trailers = false;
	size_t n = stream ? m->ev->pull(m->owner, stream, buf, len, &fin) : 0;
	if (m->memory.refused)
		return NGHTTP2_ERR_CALLBACK_FAILURE; /* without its trailers it would look whole */
	if (n == 0 && !fin)
		return NGHTTP2_ERR_DEFERRED;
	if (fin)
		*flags |= m->trailers ? NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM : NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

static size_t mux_fields(nghttp2_nv *nv, const struct h2_field *f, size_t n)
{
	BUG_ON(n > H2_MUX_FIELDS);
	for (size_t i = 0; i < n; i++)
		nv[i] = make_nv(f[i].name, f[i].value, true);
	return n;
}

int32_t h2_mux_open(struct h2_mux *m, void *stream, const struct h2_field *f, size_t n, bool fin)
{
	nghttp2_nv nv[H2_MUX_FIELDS];
	nghttp2_data_provider source = {.read_callback = mux_pull};
	int32_t id = nghttp2_submit_request(m->ng, NULL, nv, mux_fields(nv, f, n), fin ? NULL : &source, stream);
	return id < 0 ? -1 : id;
}

void h2_mux_answer(struct h2_mux *m, int32_t id, const struct h2_field *f, size_t n, bool fin)
{
	nghttp2_nv nv[H2_MUX_FIELDS];
	nghttp2_data_provider source = {.read_callback = mux_pull};
	if (nghttp2_submit_response(m->ng, id, nv, mux_fields(nv, f, n), fin ? NULL : &source) != 0)
		h2_mux_reset(m, id, NGHTTP2_INTERNAL_ERROR);
}

void h2_mux_interim(struct h2_mux *m, int32_t id, const struct h2_field *f, size_t n)
{
	nghttp2_nv nv[H2_MUX_FIELDS];
	if (nghttp2_submit_headers(m->ng, NGHTTP2_FLAG_NONE, id, NULL, nv, mux_fields(nv, f, n), NULL) < 0)
		h2_mux_reset(m, id, NGHTTP2_INTERNAL_ERROR);
}

void h2_mux_trailers(struct h2_mux *m, int32_t id, const struct h2_field *f, size_t n)
{
	nghttp2_nv nv[H2_MUX_FIELDS];
	m->trailers = nghttp2_submit_trailer(m->ng, id, nv, mux_fields(nv, f, n)) == 0;
}

void h2_mux_wake(struct h2_mux *m, int32_t id)
{
	nghttp2_session_resume_data(m->ng, id);
}

void h2_mux_consume(struct h2_mux *m, int32_t id, size_t bytes)
{
	nghttp2_session_consume_stream(m->ng, id, bytes);
}

void h2_mux_reset(struct h2_mux *m, int32_t id, uint32_t code)
{
	nghttp2_submit_rst_stream(m->ng, NGHTTP2_FLAG_NONE, id, code);
}

void h2_mux_drain(struct h2_mux *m)
{
	nghttp2_submit_goaway(m->ng, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(m->ng), NGHTTP2_NO_ERROR, NULL, 0);
}

void h2_mux_goaway(struct h2_mux *m, uint32_t code)
{
	mux_give_up(m, code);
}

uint32_t h2_mux_take_glitches(struct h2_mux *m)
{
	uint32_t n = m->glitches;
	m->glitches = 0;
	return n;
}

static nghttp2_session *make_mux(struct h2_mux *m)
{
	nghttp2_mem memory = calls_of(&m->memory);
	nghttp2_session_callbacks *cb = NULL;
	nghttp2_option *opt = NULL;
	nghttp2_session *ng = NULL;
	if (m->memory.spare && nghttp2_session_callbacks_new(&cb) == 0 && nghttp2_option_new(&opt) == 0) {
		nghttp2_session_callbacks_set_on_begin_frame_callback(cb, mux_begin_frame);
		nghttp2_session_callbacks_set_on_begin_headers_callback(cb, mux_begin_headers);
		nghttp2_session_callbacks_set_on_header_callback(cb, mux_header);
		nghttp2_session_callbacks_set_on_invalid_header_callback(cb, mux_bad_header);
		nghttp2_session_callbacks_set_on_frame_recv_callback(cb, mux_frame);
		nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, mux_data);
		nghttp2_session_callbacks_set_on_stream_close_callback(cb, mux_stream_close);
		nghttp2_session_callbacks_set_on_frame_send_callback(cb, mux_frame_sent);
		nghttp2_option_set_no_closed_streams(opt, 1);
		nghttp2_option_set_no_auto_window_update(opt, 1);
		int rc = m->server ? nghttp2_session_server_new3(&ng, cb, m, opt, &memory) : nghttp2_session_client_new3(&ng, cb, m, opt, &memory);
		if (rc != 0)
			ng = NULL;
	}
	nghttp2_session_callbacks_del(cb);
	nghttp2_option_del(opt);
	return ng;
}

static bool mux_greet(struct h2_mux *m, const struct h2_mux_options *o)
{
	nghttp2_settings_entry server[] = {
		{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, o->max_streams},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, o->max_fields},
		{NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_MUX_WINDOW},
	};
	nghttp2_settings_entry client[] = {
		{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, o->max_fields},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_MUX_WINDOW},
	};
	int rc = o->server ? nghttp2_submit_settings(m->ng, NGHTTP2_FLAG_NONE, server, 4) : nghttp2_submit_settings(m->ng, NGHTTP2_FLAG_NONE, client, 3);
	return rc == 0 && nghttp2_session_set_local_window_size(m->ng, NGHTTP2_FLAG_NONE, 0, MUX_CONNECTION_WINDOW) == 0;
}

struct h2_mux *h2_mux_new(const struct h2_mux_options *o, const struct h2_mux_events *ev, void *owner)
{
	struct h2_mux *m = calloc(1, sizeof *m);
	if (!m)
		return NULL;
	m->ev = ev;
	m->owner = owner;
	m->server = o->server;
	m->max_fields = o->max_fields;
	m->ng = make_mux(m);
	if (m->ng && mux_greet(m, o))
		return m;
	h2_mux_free(m);
	return NULL;
}

void h2_mux_free(struct h2_mux *m)
{
	if (!m)
		return;
	nghttp2_session_del(m->ng);
	free(m->memory.spare);
	free(m);
}
