/* A reload as the master sees it: from somebody's wish to the answer. One at a time; wishes that come meanwhile are granted together by one more. */
#ifndef MCTUNNEL_MAIN_RELOAD_H
#define MCTUNNEL_MAIN_RELOAD_H

#include "mctunnel/main/binding.h"
#include "mctunnel/main/control.h"
#include "mctunnel/main/loader.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conf;
struct log_set;
struct worker_socket;

struct reload_place { /* the master's own, changed when a reload is done */
	struct conf **conf;
	struct worker_socket **sockets;
	size_t *sockets_n;
	const int *control; /* -1: there is no worker at the moment */
};

enum reload_state { RELOAD_NONE, RELOAD_READING, RELOAD_CHANGING };

struct reload {
	const char *const *paths; /* borrowed: of -f */
	size_t paths_n;
	bool debug;               /* -d: every target of the log at level debug */
	struct reload_place place;
	void (*in_child)(void *arg);
	void *arg;
	enum reload_state state;
	bool again;               /* somebody has asked since it began */
	uint32_t asked, ticket;   /* the newest wish; the newest that this one is for */
	struct loader loader;
	struct conf *conf;        /* owned while CHANGING */
	struct binding_next next; /* owned while CHANGING */
	struct log_set *logs;     /* owned while CHANGING; NULL: as before */
	char *found;              /* owned while CHANGING: warnings */
};

void reload_ask(struct reload *r, uint32_t ticket); /* 0: not an operator at the worker's admin socket */
void reload_look(struct reload *r, uint64_t now);   /* now and then */
bool reload_reap(struct reload *r, int pid, int status); /* false: not a process of a reload */
void reload_answered(struct reload *r, const struct control_msg *m);
void reload_worker_gone(struct reload *r);
void reload_end(struct reload *r); /* the program stops: whatever is under way is given up */

#endif
