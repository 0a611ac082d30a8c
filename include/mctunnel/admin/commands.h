/* The commands of the admin socket: found by their words, guarded by level, logged when they change something. */
#ifndef MCTUNNEL_ADMIN_COMMANDS_H
#define MCTUNNEL_ADMIN_COMMANDS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct admin_state;
struct answer;

struct asker { /* who gives commands */
	const struct admin_state *state;
	int level;           /* enum admin_level */
	bool numbers;        /* set severity-output number */
	char where[128];     /* the socket */
	char who[128];       /* address of the other end */
	int64_t uid, pid;    /* -1: not known, it is not on this host */
};

/* The answer to one command (the text up to its end is copied); always one, be it a refusal. NULL: no memory. */
struct answer *commands_ask(const struct asker *k, const char *text, void (*on_more)(void *owner), void *owner) __attribute__((warn_unused_result));
/* An answer that is only this sentence, an error. */
struct answer *commands_refuse(const struct asker *k, const char *sentence, void (*on_more)(void *owner), void *owner) __attribute__((warn_unused_result));

/* Cuts the next command off a line in which ';' divides them, in place; NULL: there is none left. "\;", "\ " and "\\" stand for themselves, and are
 * left to commands_ask(). */
char *commands_cut(char **rest);

void commands_print_manual(FILE *out);     /* doc/management.txt */
void commands_print_completion(FILE *out); /* etc/bash-completion/mctunnelctl */

#endif
