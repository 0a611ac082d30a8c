/* Intrusive doubly linked lists. A node that is in no list points at itself
 * once list_init() was called on it; list_del() leaves it that way. */
#ifndef MCTUNNEL_BASE_LIST_H
#define MCTUNNEL_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *next, *prev;
};

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

/* Adds at the end of the list whose head is h. n must be in no list. */
static inline void list_add(struct list *h, struct list *n)
{
	n->prev = h->prev;
	n->next = h;
	h->prev->next = n;
	h->prev = n;
}

static inline void list_add_first(struct list *h, struct list *n)
{
	list_add(h->next, n);
}

static inline void list_del(struct list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	list_init(n);
}

/* Moves all of src to the end of dst; src is empty afterwards. */
static inline void list_splice(struct list *dst, struct list *src)
{
	if (list_empty(src))
		return;
	src->next->prev = dst->prev;
	dst->prev->next = src->next;
	src->prev->next = dst;
	dst->prev = src->prev;
	list_init(src);
}

#define list_first(h, type, member) container_of((h)->next, type, member)

#define list_for_each(pos, h) for (struct list *pos = (h)->next; pos != (h); pos = pos->next)

/* The current node may be deleted inside, no other. */
#define list_for_each_safe(pos, h)                                                   \
	for (struct list *pos = (h)->next, *pos##_n = pos->next; pos != (h); \
	     pos = pos##_n, pos##_n = pos->next)

#endif
