/* Host names to addresses without blocking, over c-ares (included by resolve.c only). Per thread. */
#ifndef MCTUNNEL_NET_RESOLVE_H
#define MCTUNNEL_NET_RESOLVE_H

#include "mctunnel/base/addr.h"

#include <stdbool.h>
#include <stddef.h>

struct resolve; /* one question under way */

struct resolved {
	const struct addr *addrs; /* borrowed */
	size_t n;                 /* 0: failure */
	const char *why;          /* that says it ("name does not exist", "timed out", ...) */
	bool starved;             /* it was memory: nothing is known of the name */
};

/* Reads /etc/resolv.conf and /etc/hosts settings; call once a thread, before a chroot. 0 or -1 with err. */
int resolve_init(char *err, size_t errsize) __attribute__((warn_unused_result));
void resolve_fini(void);

/* Asks for all addresses (IPv6 and IPv4 interleaved as RFC 8305 section 4 wants). on_done is called exactly once, never inside this call,
 * unless cancelled.
 * When the servers fail after an earlier success, the last good answer is given again (n > 0). Returns NULL when memory is used up. */
struct resolve *resolve_start(const char *host, uint16_t port, void (*on_done)(void *arg, const struct resolved *r), void *arg);
void resolve_cancel(struct resolve *r);

#endif
