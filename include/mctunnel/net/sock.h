/* Sockets. Every descriptor made here is non-blocking and close-on-exec. */
#ifndef MCTUNNEL_NET_SOCK_H
#define MCTUNNEL_NET_SOCK_H

#include "mctunnel/base/addr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Binds and listens (backlog = somaxconn). Reuses the address (SO_REUSEADDR), free-binds addresses that are not local yet
 * (a VIP on the standby), replaces a stale Unix socket nobody listens on. "*" binds [::] for both families, 0.0.0.0 where there is no IPv6.
 * With CAP_NET_RAW (or CAP_NET_ADMIN) what is accepted there can still be reset when the host has lost the address.
 * On a loopback address nothing is paced: where the system's congestion control is BBR, another is chosen.
 * Returns the descriptor, or -1 with a sentence in err. Never shutdown() such a socket: others hold it too. */
int sock_listen(const struct endpoint *e, char *err, size_t errsize) __attribute__((warn_unused_result));

/* Whoever connects to this TCP socket from now on gets TCP_NODELAY and SO_LINGER 0 from it (Linux copies them): until sock_orderly() a crash or close() is seen
 * by the peer as RST, never as a clean end. sock_listen() has done it; for sockets that others may have made. */
void sock_bequeath(int listener);

/* Accepts one. Returns the descriptor, or -1 with errno (EAGAIN: none waiting; ECONNABORTED and the like are skipped inside). peer may be NULL.
 * early: true from sock_bequeath() on, until nobody waits for the first time: who had come before is given the options here. NULL: there are none of those. */
int sock_accept(int listener, struct addr *peer, bool *early) __attribute__((warn_unused_result));

/* Starts connecting; not paced to a loopback address. Returns the descriptor (TCP options as above), or -1 with errno. Finished when sock_connected() says so, or
 * when writable: sock_error() is 0. */
int sock_connect(const struct addr *to) __attribute__((warn_unused_result));
/* At once after sock_connect(). 0: connected; EINPROGRESS: not yet, or it cannot be told; else the errno of its failure, which sock_error() will not say again. */
int sock_connected(int fd, const struct addr *to);
int sock_error(int fd); /* takes and returns SO_ERROR */
bool sock_exhausted(int error); /* this errno means that we have no descriptor or memory for it: it says nothing of the peer */

void sock_orderly(int fd);                          /* linger off: close() now delivers what was written, then FIN */
void sock_user_timeout(int fd, uint32_t ms);        /* TCP_USER_TIMEOUT */
void sock_keepalive(int fd, uint32_t idle_s);       /* the kernel asks a silent peer whether it lives; a dead one is noticed within twice that */
void sock_notsent_lowat(int fd, uint32_t bytes);    /* TCP_NOTSENT_LOWAT */
void sock_local(int fd, struct addr *out);          /* own address */
bool sock_is_here(const struct addr *a);            /* this host has that address now (when it cannot be told: true) */

/* The last close of a connection. Orderly: what was written is delivered, then FIN (what was not read is thrown away first, because
 * the kernel would make an RST of it). Else RST. */
void sock_end(int fd, bool orderly);

/* SCM_RIGHTS over a Unix socket: one message with up to 64 descriptors. Return bytes (0: closed), -1 with errno. */
ssize_t sock_send_fds(int fd, const void *data, size_t len, const int *fds, int n);
ssize_t sock_recv_fds(int fd, void *data, size_t size, int *fds, int *n); /* *n: room in, number out; received ones are close-on-exec */

#endif
