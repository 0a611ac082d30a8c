/* A command of the admin socket: one row of the table in commands.c, from which `help`, doc/management.txt and the shell's completion are made. */
#ifndef MCTUNNEL_ADMIN_COMMAND_H
#define MCTUNNEL_ADMIN_COMMAND_H

#include "mctunnel/conf/conf.h"

struct answer;

#define COMMAND_JSON 1u    /* takes the word json at its end */
#define COMMAND_CSV 2u     /* speaks CSV unless asked for JSON */
#define COMMAND_CHANGES 4u /* is logged with who gave it; its words may not be shortened */

struct command {
	const char *words; /* "show sessions" */
	const char *args;  /* "[ID]"; "": none */
	unsigned min, max; /* of them */
	enum admin_level level;
	unsigned flags;
	int (*next)(struct answer *a); /* see answer.h */
	const char *help;              /* one sentence */
};

#endif
