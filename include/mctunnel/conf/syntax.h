/* Checks the grammar of a configuration before libconfig sees it, because libconfig knows only one sentence ("syntax error"),
 * takes 2147483648 for a negative number, and joins strings between which a comma was forgotten. */
#ifndef MCTUNNEL_CONF_SYNTAX_H
#define MCTUNNEL_CONF_SYNTAX_H

struct expanded;
struct findings;

#define SYNTAX_MAX_DEPTH 32
#define SYNTAX_MAX_KEYS 100 /* in one group */
#define SYNTAX_MAX_STRING 65536

/* 0, or -1 when the first mistake was reported. Blanks out a comma before a closing bracket, which libconfig refuses. */
int syntax_check(struct expanded *e, struct findings *f) __attribute__((warn_unused_result));

#endif
