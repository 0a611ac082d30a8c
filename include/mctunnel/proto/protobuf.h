/* Fields of a protobuf message, one after the other (https://protobuf.dev/programming-guides/encoding). Only what messages of gRPC's health protocol need: numbers and texts. */
#ifndef MCTUNNEL_PROTO_PROTOBUF_H
#define MCTUNNEL_PROTO_PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct protobuf {
	const uint8_t *at, *end; /* borrowed: what is left */
};

struct protobuf_field {
	uint32_t number;      /* 1 to 2^29 - 1 */
	bool is_varint, is_bytes; /* neither: a fixed number, passed over */
	uint64_t value;       /* of a varint */
	const uint8_t *bytes; /* borrowed, and how many; of a text, or a message */
	size_t len;
};

/* The next field. false: the message is malformed. To be called while at < end. */
bool protobuf_next(struct protobuf *p, struct protobuf_field *f);

/* n as a varint, at most 10 bytes; returns how many. */
size_t protobuf_put_varint(uint8_t *dst, uint64_t n);

#endif
