/* What went wrong in a script: where, what, and the calls that led there. */
#ifndef MCTUNNEL_SCRIPT_FAULT_H
#define MCTUNNEL_SCRIPT_FAULT_H

#include <stdbool.h>
#include <stdint.h>

struct script_fault {
	char file[512]; /* "": no place is known */
	int line;
	char text[600];  /* "": nothing went wrong */
	char trace[800]; /* the calls that led there, the innermost first; "" */
};

void fault_clear(struct script_fault *f);
void fault_place(struct script_fault *f, const char *file, int line);
void fault_text(struct script_fault *f, const char *text);
/* A text that may begin with "NAME:LINE: ", as Lua puts it in front: then that is the better line. */
void fault_said(struct script_fault *f, const char *name, const char *text);
/* The same of a file that does not parse, whose name may have been shortened: the first ":LINE: " counts. */
void fault_syntax(struct script_fault *f, const char *file, const char *text);

struct fault_log { /* zeroes; of a thread: so many lines at once, then one a second */
	uint32_t level;
	uint64_t ms, suppressed;
};

/* listener, id: NULL where there is none. */
void fault_log(struct fault_log *l, const struct script_fault *f, const char *function, const char *listener, const char *id);

#endif
