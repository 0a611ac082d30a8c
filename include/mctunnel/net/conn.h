/* conn: one end of a byte stream. Made as plain TCP/Unix (conn_tcp) or TLS over that (tls.h); whoever uses it cannot tell.
 * Readiness is remembered (edge-triggered): readable and writable stay true until a call answers CONN_AGAIN. The owner is called when something
 * became possible, and then acts until CONN_AGAIN or until it has no more to do. Belongs to one thread at a time. */
#ifndef MCTUNNEL_NET_CONN_H
#define MCTUNNEL_NET_CONN_H

#include "mctunnel/base/reason.h"
#include "mctunnel/event/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define CONN_AGAIN (-1)  /* nothing now; the owner will be called */
#define CONN_FAILED (-2) /* broken: conn->error says how; only conn_abort() makes sense */

struct bufq;
struct conn;

struct conn_ops {
	ssize_t (*readv)(struct conn *c, const struct iovec *iov, int n);
	ssize_t (*writev)(struct conn *c, const struct iovec *iov, int n);
	int (*shut)(struct conn *c);
	void (*close)(struct conn *c, bool orderly);
	size_t (*unsent)(const struct conn *c);
};

struct conn {
	const struct conn_ops *ops;
	struct watch watch;                   /* of fd, while attached to a loop */
	int fd;                               /* owned */
	void (*on_event)(struct conn *c);     /* set by the owner; readable/writable/hup have changed */
	void *owner;                          /* borrowed */
	bool readable, writable;              /* may be tried */
	bool hup;                             /* the peer is gone both ways: read what is left, then CONN_FAILED or 0 */
	bool peer_shut;                       /* the peer ended its direction (data may be left) */
	bool shut, ended;                     /* of a plain conn: conn_shut() was called; the peer's end was read */
	int error;                            /* errno of CONN_FAILED; ETIMEDOUT, ECONNRESET, EPROTO (TLS), ...; set as well when unsent bytes were lost */
};

/* Takes over a connected (or connecting) socket. NULL when memory or the loop refuses (errno); fd is then still the caller's. */
struct conn *conn_tcp(int fd, void (*on_event)(struct conn *), void *owner) __attribute__((warn_unused_result));

/* >0 bytes; 0 end of data (FIN, or TLS close_notify); CONN_AGAIN; CONN_FAILED. A TLS end without close_notify is CONN_FAILED with ECONNRESET. */
ssize_t conn_readv(struct conn *c, const struct iovec *iov, int n);

/* Bytes taken (perhaps fewer than given), CONN_AGAIN or CONN_FAILED. TLS takes all or CONN_AGAIN, and keeps what the socket does not take yet
 * (see conn_unsent); it sends that by itself when the socket is writable, then calls the owner. */
ssize_t conn_writev(struct conn *c, const struct iovec *iov, int n);

/* Writes a queue as far as the conn takes it, and drops that much of it. 0 (what is left waits for the conn), or CONN_FAILED. */
int conn_flush(struct conn *c, struct bufq *q) __attribute__((warn_unused_result));

/* Bytes taken by conn_writev that the kernel has not got yet. 0 for plain sockets. */
size_t conn_unsent(const struct conn *c);

/* Ends our direction in good order (FIN) after everything written. 0 or CONN_FAILED. */
int conn_shut(struct conn *c);

/* The end: the owner hears nothing any more; the object lives until the turn ends. close: in good order, the peer sees FIN after what
 * was written (over TLS: call it when conn_unsent() is 0, else the peer sees a truncated stream). abort: RST, what is not delivered is
 * thrown away. */
void conn_close(struct conn *c);
void conn_abort(struct conn *c);

/* Move to another thread: conn_detach on the old one, then conn_attach on the new one (0, or -1 when the loop refuses: abort it).
 * After attaching, readiness is reported anew. */
void conn_detach(struct conn *c);
int conn_attach(struct conn *c) __attribute__((warn_unused_result));

int conn_fd(const struct conn *c);

/* Why a broken conn ends what was carried over it: RESOURCES when we had no memory for it, else what the caller says of the other side. */
enum reason conn_reason(const struct conn *c, enum reason otherwise);

/* For what is built over a plain conn (TLS): frees the object and returns its descriptor, unwatched, untouched. */
int conn_release(struct conn *plain) __attribute__((warn_unused_result));
/* Notes what the loop reported in readable, writable, hup and peer_shut. */
void conn_note(struct conn *c, unsigned events);

#endif
