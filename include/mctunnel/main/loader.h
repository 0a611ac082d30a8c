/* Reading and checking a configuration in a process of its own, so that neither a slow disk nor a mistake of ours can harm the master. */
#ifndef MCTUNNEL_MAIN_LOADER_H
#define MCTUNNEL_MAIN_LOADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LOADER_MS 10000 /* it has so long */

struct loader {
	pid_t pid;    /* 0: none */
	int pipe;     /* owned: its findings */
	int bundle;   /* owned: what it has read, when all is good */
	bool expired; /* it took too long, and was killed */
	uint64_t until_ms;
};

/* child is called first in the new process, to close what is not its business. -1 with errno. */
int loader_start(struct loader *l, const char *const *paths, size_t n, void (*child)(void *arg), void *arg) __attribute__((warn_unused_result));
/* To be asked now and then: kills one that takes too long. */
void loader_look(struct loader *l, uint64_t now);
/* Its process has ended with status (of waitpid). The bundle, which the caller owns then; -1: it was not good. text: what was found, a line
 * each, malloc'ed. */
int loader_end(struct loader *l, int status, char **text) __attribute__((warn_unused_result));

#endif
