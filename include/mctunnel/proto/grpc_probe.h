/* Asks a gRPC server for its health (grpc.health.v1.Health/Check), once: bytes out, bytes in, a verdict. No sockets, no clock. */
#ifndef MCTUNNEL_PROTO_GRPC_PROBE_H
#define MCTUNNEL_PROTO_GRPC_PROBE_H

#include <stddef.h>
#include <stdint.h>

struct grpc_probe;

enum grpc_verdict { GRPC_WAITING, GRPC_SERVING, GRPC_OTHER, GRPC_MALFORMED, GRPC_STARVED /* memory is used up: nothing was found */ };

/* service: "" for the server as a whole, at most 128 bytes. NULL: no memory. Texts are copied. */
struct grpc_probe *grpc_probe_new(const char *authority, const char *service, uint32_t timeout_ms) __attribute__((warn_unused_result));
void grpc_probe_free(struct grpc_probe *p); /* NULL is allowed */

size_t grpc_probe_output(struct grpc_probe *p, uint8_t *dst, size_t size); /* 0: nothing to send now */
/* To be called again after the output that follows, with len 0. */
enum grpc_verdict grpc_probe_input(struct grpc_probe *p, const uint8_t *data, size_t len);

/* Once there is a verdict: what was found (not cleaned of anything the server said); code: of HTTP when that was not 200, else of gRPC, 0: none. */
const char *grpc_probe_text(const struct grpc_probe *p, uint32_t *code);

#endif
