/* The listening sockets of a configuration, by name. */
#ifndef MCTUNNEL_MAIN_SOCKETS_H
#define MCTUNNEL_MAIN_SOCKETS_H

#include <stddef.h>

struct conf;
struct endpoint;

/* A listening socket that the master bound. */
struct worker_socket {
	char name[160]; /* "listener.NAME.I", "hub.I", "admin.I", "metrics": which endpoint of the configuration it serves (I counts its bind entries) */
	int fd;
};

/* The names and endpoints of the listening sockets a configuration needs; *out is malloc'ed by the call, fds are -1. Returns the number. */
size_t worker_sockets(const struct conf *conf, struct worker_socket **out);
/* The endpoint a socket name stands for in a configuration, NULL when there is none. */
const struct endpoint *worker_socket_endpoint(const struct conf *conf, const char *name);

#endif
