/* The pid file, locked for as long as the program lives. */
#ifndef MCTUNNEL_MAIN_PIDFILE_H
#define MCTUNNEL_MAIN_PIDFILE_H

#include <stddef.h>

/* Takes the file for this process and writes its id. 0, or -1 with a sentence in err (another instance has it, ...). */
int pidfile_take(const char *path, char *err, size_t errsize) __attribute__((warn_unused_result));
void pidfile_drop(void);   /* removes it, if it was taken */
void pidfile_forget(void); /* in a child: closes the descriptor, so that the lock dies with the master */

#endif
