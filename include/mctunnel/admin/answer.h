/* An answer under way: what a command of the admin socket says, made in pieces of at most about 64 KiB, each when the client has taken the one before.
 * It may travel: what only a thread knows is asked for on that thread. So neither a long answer nor a client that does not read holds up anything. */
#ifndef MCTUNNEL_ADMIN_ANSWER_H
#define MCTUNNEL_ADMIN_ANSWER_H

#include "mctunnel/base/list.h"
#include "mctunnel/base/text.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/event/thread.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct command;
struct conf;

/* What only the worker knows; all of it is called on thread 0. */
struct admin_state {
	struct conf *(*conf)(void);  /* the one in force, borrowed */
	const char *(*phase)(void);  /* starting, serving, draining, stopping */
	uint64_t (*restarts)(void);  /* of the worker, by its master */
	void (*stop)(bool softly);   /* the whole program */
	uint32_t (*reload)(void);    /* asks for one; gives a number */
	/* 0: not over; 1: done, with notes for the operator in text (borrowed; lines; may be empty); -1: refused, with the reasons */
	int (*reloaded)(uint32_t number, const char **text);
};

enum form { FORM_TEXT, FORM_JSON, FORM_CSV };
enum effect { EFFECT_NONE, EFFECT_PROMPT, EFFECT_QUIT, EFFECT_NUMBERS, EFFECT_PLAIN }; /* of a command on its connection, once it is answered */

#define ANSWER_ARGS 40
#define ANSWER_DONE (-1)
#define ANSWER_WAIT (-2) /* ask again a little later, on thread 0 */

struct answer {
	struct msg msg;
	const struct admin_state *state; /* borrowed */
	const struct command *command;   /* borrowed */
	int argc;                        /* words behind the command's own */
	char *argv[ANSWER_ARGS];         /* within line */
	char *line;                      /* owned */
	enum form form;
	enum effect effect;
	int level;    /* enum admin_level: of who asks */
	bool numbers; /* messages begin with "[SEVERITY]: " */

	/* The command's own notes between two calls; zero at first. */
	int stage;
	uint64_t cursor, index, count, until_ms;
	void *data; /* with data_free, at the end, on thread 0 */
	void (*data_free)(void *data);

	/* Of answer.c. */
	FILE *out;
	struct text text; /* the piece, when answer_more() has come back with true */
	const char *const *columns;
	int columns_n, column;
	uint64_t rows;
	bool pairs, list, begun, done, away, dropped, broken;
	int thread;
	struct timer again;
	struct list node;
	void (*on_more)(void *owner);
	void *owner;
};

/* command and what is above are set by the caller then. on_more is called on thread 0. NULL: no memory. */
struct answer *answer_new(void (*on_more)(void *owner), void *owner) __attribute__((warn_unused_result));
/* The next piece. true: it is in text, or done is set and it was the last one (perhaps empty). false: it is on its way, on_more will be
 * called. broken: there was no memory. */
bool answer_more(struct answer *a);
/* The owner goes: a travelling answer is freed when it comes back. */
void answer_drop(struct answer *a);

/* ---- for commands: each has a function that adds some text and returns the thread it wants to be called on next, or ANSWER_DONE, ANSWER_WAIT ---- */

bool answer_full(struct answer *a); /* enough for this piece: return, and go on in the next call */
/* This thread is through (over), or has more: what to return when all threads are to be asked in turn. Resets the cursor between threads. */
int answer_next_thread(struct answer *a, bool over);

/* There is no memory for what is to be said: what a command returns then, and the client's connection ends in the middle. */
int answer_fail(struct answer *a);

/* A table: its columns first (NULL at the end; may be said again), then cells, from left to right. */
void answer_table(struct answer *a, const char *const *columns);
void answer_str(struct answer *a, const char *value); /* NULL: nothing there */
void answer_int(struct answer *a, int64_t value);
void answer_float(struct answer *a, double value);
void answer_age(struct answer *a, uint64_t ms); /* seconds in JSON */

/* An object: pairs. */
void answer_pair(struct answer *a, const char *key, const char *value);
void answer_pair_int(struct answer *a, const char *key, int64_t value);
FILE *answer_pair_json(struct answer *a, const char *key); /* FORM_JSON only: where to write the value then, whole */

/* A sentence. error: the command was refused. */
void answer_say(struct answer *a, bool error, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Lines as they are, or JSON values as they are in an array. */
void answer_list(struct answer *a);
void answer_raw(struct answer *a, const char *line);
FILE *answer_raw_json(struct answer *a); /* FORM_JSON only: where to write the next value then, whole */

#endif
