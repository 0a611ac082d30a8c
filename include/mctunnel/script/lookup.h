/* What scripts look up in files: lists of words or networks, and maps from a word to a value. Read once, shared by all threads, never changed. */
#ifndef MCTUNNEL_SCRIPT_LOOKUP_H
#define MCTUNNEL_SCRIPT_LOOKUP_H

#include <stdbool.h>
#include <stddef.h>

struct addr;
struct lookup;

enum lookup_kind { LOOKUP_LIST, LOOKUP_MAP };

/* text: lines as conf/lines.h has them. A list's is a word (whatever stands there); a map's is a word, blanks, and the value up to the end. text is only read.
 * NULL: a sentence in err, *line says where. */
struct lookup *lookup_new(enum lookup_kind kind, const char *text, size_t len, int *line, char *err, size_t errsize);
struct lookup *lookup_hold(struct lookup *l); /* any thread */
void lookup_put(struct lookup *l);

bool lookup_has(const struct lookup *l, const char *word, size_t len);
const char *lookup_get(const struct lookup *l, const char *word, size_t len); /* NULL: not there. Of a list: "" */
size_t lookup_count(const struct lookup *l);

/* Is the address in one of the networks? Only of a list all of whose lines are networks or addresses, see lookup_networks(). */
bool lookup_holds(const struct lookup *l, const struct addr *a);
const char *lookup_networks(const struct lookup *l); /* NULL: all lines are; else what is wrong with one that is not */

/* What the states of a configuration share: each file once. Any thread. */
struct shelf;
struct shelf *shelf_new(void);
struct shelf *shelf_hold(struct shelf *f);
void shelf_put(struct shelf *f);
/* Borrowed from the shelf; NULL: not there. */
struct lookup *shelf_get(struct shelf *f, enum lookup_kind kind, const char *path);
/* l is the shelf's then. Gives what is there now: another thread may have been quicker. */
struct lookup *shelf_add(struct shelf *f, enum lookup_kind kind, const char *path, struct lookup *l);

#endif
