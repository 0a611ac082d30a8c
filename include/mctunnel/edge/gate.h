/* Listening sockets and who may come in: the limits of sessions and of new ones a second, of the process and of each listener. A client counts from accept until gate_give. */
#ifndef MCTUNNEL_EDGE_GATE_H
#define MCTUNNEL_EDGE_GATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct addr;
struct conf;
struct place;

/* A client came. true: fd is the callee's, and gate_give follows one day. false: no memory; the gate closes it and takes a breath. */
typedef bool gate_client(struct place *p, int fd, const struct addr *peer);

struct gate_socket {
	int fd; /* borrowed */
	struct place *place;
};

/* Each thread, after room_init. conf and places are borrowed: of the generation in force. */
void gate_init(const struct conf *conf, gate_client *on_client);
void gate_fini(void);
int gate_open(struct place *p, int fd) __attribute__((warn_unused_result)); /* -1: the loop refuses */
void gate_close_all(void);
/* Reload: these sockets, sorted by fd, and no others; then gate_resume(), when those who wait already have had their turn. */
void gate_renew(const struct conf *conf, const struct gate_socket *sockets, size_t n);
void gate_resume(void);
void gate_enable(struct place *p, bool on); /* on every thread: accept there no more, or again */
void gate_give(struct place *p);            /* a client has ended; any thread */

uint32_t gate_sessions(void);          /* in the process now */
const atomic_uint *gate_count(void);   /* the same, to be looked at at any time */
void gate_set_maxconn(uint32_t n);     /* instead of global.maxconn; 0: as the configuration has it. Any thread */
uint32_t gate_maxconn(void);

#endif
