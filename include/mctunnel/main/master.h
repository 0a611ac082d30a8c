/* The master: binds and holds every listening socket, starts the worker, restarts it when it dies or hangs, tells systemd and keepalived.
 * Parses nothing that comes from a network. */
#ifndef MCTUNNEL_MAIN_MASTER_H
#define MCTUNNEL_MAIN_MASTER_H

#include <stdbool.h>
#include <stddef.h>

struct conf;

struct master_options {
	bool daemonise;       /* -D */
	bool no_master;       /* -1: run the worker in this process */
	bool quiet;           /* -q: no warnings */
	bool debug;           /* -d: log at level debug whatever the configuration says */
	const char *pid_file; /* -p, or NULL */
	const char *const *paths; /* -f, borrowed: read again at a reload */
	size_t paths_n;
	int argc;             /* the program's arguments, borrowed: the worker writes its title over them; may be 0 */
	char **argv;
};

/* Binds, starts, supervises until stopped; returns the process's exit code. All errors have been written to stderr. */
int master_run(struct conf *conf, const struct master_options *o);

#endif
