/* The admin sockets: connections that give commands, a line at a time. All of it lives on thread 0. */
#ifndef MCTUNNEL_ADMIN_SOCKET_H
#define MCTUNNEL_ADMIN_SOCKET_H

struct admin_state;
struct conf_admin;

/* Once, before admin_open. state is borrowed until admin_close. */
void admin_init(const struct admin_state *state);

/* Accepts on a listening socket. The descriptor is borrowed until admin_close, and never shut down. -1 with errno when the loop refuses. */
int admin_open(const struct conf_admin *c, int fd) __attribute__((warn_unused_result));

/* Stops accepting and breaks off what is under way; before the loop ends. Without admin_init it does nothing. */
void admin_close(void);

#endif
