/* The listening sockets of the program, held by the master for as long as it lives. */
#ifndef MCTUNNEL_MAIN_BINDING_H
#define MCTUNNEL_MAIN_BINDING_H

#include <stddef.h>

struct conf;
struct worker_socket;

/* Binds all that the configuration needs. Every failure is reported on stderr with its place; then nothing stays bound and
 * -1 is returned. */
int binding_open(const struct conf *conf, struct worker_socket **out, size_t *n) __attribute__((warn_unused_result));

/* Gives up this process's hold on them; nothing is shut down, a worker may still serve its own. */
void binding_close(struct worker_socket *sockets, size_t n);

#endif
