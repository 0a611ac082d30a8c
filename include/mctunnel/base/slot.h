/* Large buffers of which mostly the first bytes are used: page-aligned slots in one reserved region, so that pages never touched
 * take no memory. Thread-safe; meant for what is made once a link, not once a message. */
#ifndef MCTUNNEL_BASE_SLOT_H
#define MCTUNNEL_BASE_SLOT_H

#include <stdbool.h>
#include <stddef.h>

#define SLOT_SIZE 20480u

/* A slot of SLOT_SIZE bytes, not zeroed; NULL when there is none (no region, or all taken): use malloc then. */
void *slot_get(void);
void slot_put(void *slot);
bool slot_owns(const void *p); /* is it one of these? */

#endif
