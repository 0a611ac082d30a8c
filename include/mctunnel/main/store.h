/* The listening sockets as systemd keeps them (FileDescriptorStoreMax=), so that they outlive even the master. */
#ifndef MCTUNNEL_MAIN_STORE_H
#define MCTUNNEL_MAIN_STORE_H

#include <stddef.h>

struct endpoint;
struct worker_socket;

/* Takes LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES out of the environment, and what systemd has handed over. Before -D makes another process of us. */
void store_open(void);

/* A socket that was handed over and listens exactly there; the caller owns it. -1: there is none. */
int store_adopt(const struct endpoint *e) __attribute__((warn_unused_result));

/* systemd keeps exactly these from now on (none for admin sockets, which are files); what was handed over and not adopted is closed.
 * To be called after every change of the list; n = 0: clients shall be refused when this process ends. Needs notify_open(). */
void store_sync(const struct worker_socket *sockets, size_t n);

#endif
