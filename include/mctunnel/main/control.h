/* What master and worker say to each other over their Unix socket: whole messages, a letter with a few bytes and perhaps descriptors behind it. */
#ifndef MCTUNNEL_MAIN_CONTROL_H
#define MCTUNNEL_MAIN_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONTROL_MAX 32768u /* bytes behind the letter */
#define CONTROL_FDS 32     /* descriptors in one message */

enum control {
	/* worker to master */
	CONTROL_READY = 'R',
	CONTROL_DRAINING = 'D',
	CONTROL_ASK_RELOAD = 'H', /* struct control_ticket */
	CONTROL_ANSWER = 'A',     /* to CONTROL_LOAD: struct control_ticket; what was wrong as text, nothing: done */
	/* both ways: an order of the master, a wish of an operator who asks the worker */
	CONTROL_SOFT_STOP = 'S',
	CONTROL_STOP = 'T',
	/* master to worker */
	/* struct control_load, then an int32_t for each socket: the place in the list of before, or -1: fresh; fds: the bundle, then the log's */
	CONTROL_LOAD = 'L',
	CONTROL_SOCKETS = 'F', /* fds: more of the fresh ones, in order */
	CONTROL_REFUSED = 'N', /* struct control_ticket; why, as text */
	CONTROL_LOGS = 'O',    /* struct control_logs; fds: of targets of the log in force, opened anew */
};

struct control_ticket { /* who asked up to this number is meant */
	uint32_t ticket;
};

struct control_load {
	uint32_t ticket, sockets, fresh;
	uint32_t logs; /* as below, of the new configuration; 0 when its log is as before */
};

struct control_logs {
	uint32_t logs; /* a bit for each element of global.log whose descriptor is sent along, in their order */
};

struct control_msg {
	char what;
	size_t len;
	int fds[CONTROL_FDS]; /* whoever receives owns them */
	int fds_n;
	uint8_t bytes[CONTROL_MAX + 1] __attribute__((aligned(8))); /* a NUL behind */
};

int control_pair(int pair[2]) __attribute__((warn_unused_result)); /* as socketpair() */

/* Never blocks. -1 with errno (EAGAIN: the other side does not read). */
int control_send(int fd, enum control what, const void *bytes, size_t len, const int *fds, int fds_n) __attribute__((warn_unused_result));
/* A ticket, then text, which is cut where it is too long. */
int control_say(int fd, enum control what, uint32_t ticket, const char *text) __attribute__((warn_unused_result));

/* 1: a message; 0: the other side is gone; -1: none now, or one that is none (errno: EAGAIN, EBADMSG ...). with_fds false: those sent along are closed. */
int control_recv(int fd, struct control_msg *m, bool with_fds) __attribute__((warn_unused_result));

/* The parts of a message; NULL when it is too short for them. */
const struct control_ticket *control_ticket_of(const struct control_msg *m, const char **text);
const struct control_logs *control_logs_of(const struct control_msg *m); /* there are as many descriptors as bits */
/* Also checks that the list of origins is whole and that exactly `fresh` of them are -1, the others below held and none twice. */
const struct control_load *control_load_of(const struct control_msg *m, size_t held, const int32_t **origins);

#endif
