/* Large buffers of which mostly the first bytes are used: page-aligned slots in one reserved region, so that pages never touched
 * take no memory. Thread-safe; meant for what is made once a link, not once a message. */
#ifndef MCTUNNEL_BASE_SLOT_H
#define MCTUNNEL_BASE_SLOT_H

#include <stdbool.h>
#include <stddef.h>

#define SLOT_SIZE 20480u

/* A slot of SLOT_SIZE bytes, all zero; NULL when there is none (no region, or all taken): use malloc then. */
void *slot_get(void);
void slot_put(void *slot); /* its memory goes back to the kernel */
bool slot_owns(const void *p);   /* is it in one of these? */
size_t slot_rest(const void *p); /* then so many bytes from p to the end of its slot */

/* Several pieces in one slot, one behind the other, as long as there is room; what finds none gets a slot of its own. Begins all zero; owned by
 * one thread at a time; a piece is given back to whom it was taken from, and its room is used again only when all have been. */
struct slot_share {
	void *slot;
	size_t used;
	unsigned tenants;
};
void *slot_take(struct slot_share *s, size_t size); /* zero, aligned to 16; NULL: larger than a slot, or none left */
void slot_give(struct slot_share *s, void *p);

/* For what is larger than a slot and just came from malloc(), where others may have used its pages before: the kernel gets them back. The content is lost. */
void slot_shed(void *p, size_t size);

#endif
