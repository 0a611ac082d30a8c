/* The listening sockets of the program, held by the master for as long as it lives. */
#ifndef MCTUNNEL_MAIN_BINDING_H
#define MCTUNNEL_MAIN_BINDING_H

#include <stddef.h>
#include <stdint.h>

struct conf;
struct worker_socket;

/* Binds all that the configuration needs. Every failure is reported on stderr with its place; then nothing stays bound and
 * -1 is returned. */
int binding_open(const struct conf *conf, struct worker_socket **out, size_t *n) __attribute__((warn_unused_result));

/* From the sockets of one configuration to those of the next: an address that stays keeps its socket, whatever it is for now. */
struct binding_held {
	const struct conf *conf;
	const struct worker_socket *sockets;
	size_t n;
};
struct binding_next {
	struct worker_socket *sockets; /* owned; their descriptors are those held, or fresh ones, which are owned too */
	size_t n, fresh;
	int32_t *origins; /* owned: for each its place among those held, -1: fresh */
};
typedef void binding_report(void *arg, const char *line);
/* Binds what is new. -1: something could not be bound, each was reported, and nothing is left in next. */
int binding_renew(const struct binding_held *held, const struct conf *conf, struct binding_next *next, binding_report *on_failure, void *arg)
    __attribute__((warn_unused_result));
void binding_abandon(struct binding_next *next);
/* Closes those of the list that next has not kept. */
void binding_close_gone(struct worker_socket *sockets, size_t n, const struct binding_next *next);

/* Gives up this process's hold on them; nothing is shut down, a worker may still serve its own. */
void binding_close(struct worker_socket *sockets, size_t n);

#endif
