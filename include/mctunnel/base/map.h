/* Hash map from byte-string keys to pointers, open addressing, keyed hash (SipHash-like with a
 * random key a process, so that peers cannot choose collisions). Keys are copied. Not thread-safe. */
#ifndef MCTUNNEL_BASE_MAP_H
#define MCTUNNEL_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>

struct map;

struct map *map_new(void);
void map_free(struct map *m); /* the values are the caller's; NULL is allowed */

void *map_get(const struct map *m, const void *key, size_t len); /* NULL: not there */
/* Sets or replaces; returns the value replaced, or NULL. value must not be NULL. */
void *map_set(struct map *m, const void *key, size_t len, void *value);
void *map_del(struct map *m, const void *key, size_t len); /* returns the value removed, or NULL */
size_t map_count(const struct map *m);

void *map_get_str(const struct map *m, const char *key);
void *map_set_str(struct map *m, const char *key, void *value);
void *map_del_str(struct map *m, const char *key);

/* Walk: *pos starts at 0; returns the next value or NULL at the end. No set or del meanwhile. */
void *map_next(const struct map *m, size_t *pos);

#endif
