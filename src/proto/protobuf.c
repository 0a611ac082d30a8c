/* Reads protobuf's wire format field by field, and writes its varints. Owns nothing; every length is held against what is there. Groups, which nobody has used
 * for long, are malformed. */
#include "mctunnel/proto/protobuf.h"

#include <string.h>

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

#define NUMBERS (1u << 29)

static bool get_varint(struct protobuf *p, uint64_t *out)
{
	*out = 0;
	for (unsigned shift = 0; shift < 64 && p->at < p->end; shift += 7) {
		uint8_t b = *p->at++;

		*out |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80))
			return true;
	}
	return false;
}

static bool skip(struct protobuf *p, uint64_t n)
{
	if (n > (uint64_t)(p->end - p->at))
		return false;
	p->at += n;
	return true;
}

static bool get_bytes(struct protobuf *p, struct protobuf_field *f)
{
	uint64_t n;

	if (!get_varint(p, &n) || !skip(p, n))
		return false;
	f->is_bytes = true;
	f->bytes = p->at - n;
	f->len = (size_t)n;
	return true;
}

bool protobuf_next(struct protobuf *p, struct protobuf_field *f)
{
	uint64_t tag;

	memset(f, 0, sizeof(*f));
	if (!get_varint(p, &tag) || tag >> 3 == 0 || tag >> 3 >= NUMBERS)
		return false;
	f->number = (uint32_t)(tag >> 3);
	switch (tag & 7) {
	case VARINT: f->is_varint = true; return get_varint(p, &f->value);
	case FIXED64: return skip(p, 8);
	case BYTES: return get_bytes(p, f);
	case FIXED32: return skip(p, 4);
	}
	return false;
}

size_t protobuf_put_varint(uint8_t *dst, uint64_t n)
{
	size_t len = 0;

	for (; n > 0x7f; n >>= 7)
		dst[len++] = (uint8_t)(n | 0x80);
	dst[len++] = (uint8_t)n;
	return len;
}
