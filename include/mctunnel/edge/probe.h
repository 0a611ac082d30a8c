/* One check of a target under way: connects, says what the check's type says, judges the answer. */
#ifndef MCTUNNEL_EDGE_PROBE_H
#define MCTUNNEL_EDGE_PROBE_H

#include "mctunnel/base/check_status.h"

#include <stdint.h>

struct conf_service;
struct probe;
struct tls;

struct probe_result {
	enum check_status status;
	uint32_t code;    /* of HTTP or gRPC; 0: none */
	uint64_t took_us;
	char text[64];    /* what came, printable; "": the status says it all */
};

/* on_done is called exactly once, never inside this call, unless cancelled. s (with a check) and tls (of tls_probe; NULL unless the type is tls) are borrowed
 * until then. NULL: no memory. */
struct probe *probe_start(const struct conf_service *s, struct tls *tls, void (*on_done)(void *arg, const struct probe_result *r), void *arg);
void probe_cancel(struct probe *p);

#endif
