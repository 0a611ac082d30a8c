/* The command line. */
#ifndef MCTUNNEL_MAIN_OPTIONS_H
#define MCTUNNEL_MAIN_OPTIONS_H

#include "mctunnel/main/master.h"

#include <stdbool.h>
#include <stddef.h>

struct options {
	const char **paths; /* owned array of borrowed words: files and folders of the configuration */
	size_t paths_n;
	bool check;     /* -c */
	bool quiet;     /* -q */
	bool debug;     /* -d */
	bool help;      /* -h */
	bool reference; /* -dK */
	bool manual;    /* -dM */
	bool completion; /* -dB */
	int version;    /* 1: -v, 2: -vv */
	char **lua;     /* -l: the words behind it, borrowed; NULL: not given */
	int lua_n;
	struct master_options master;
};

/* 0, or -1 after having said on stderr what is wrong, with the usage. */
int options_parse(struct options *o, int argc, char **argv) __attribute__((warn_unused_result));
void options_fini(struct options *o);

void options_print_usage(void);            /* on stdout */
void options_print_version(bool libraries); /* on stdout */

#endif
