/* A set of IPv4 and IPv6 networks, looked up by address in a time that does not grow with their number. IPv4-mapped IPv6 addresses count as IPv4. */
#ifndef MCTUNNEL_BASE_NETSET_H
#define MCTUNNEL_BASE_NETSET_H

#include "mctunnel/base/addr.h"

struct netset;

struct netset *netset_new(void);
void netset_free(struct netset *s);
/* "192.0.2.0/24", "2001:db8::/32", "192.0.2.7", "*" (all). value: what the network means to the caller (several may be added of one network).
 * -1: a sentence in err (host bits that are set, too, are an error that names the network that was meant). */
int netset_add(struct netset *s, const char *text, uint32_t value, char *err, size_t errsize) __attribute__((warn_unused_result));
bool netset_has(const struct netset *s, const struct addr *a); /* false for Unix sockets */
bool netset_covers(const struct netset *s, const char *text); /* one network of the set holds all of this one; false for what is none */
/* Calls visit for the values of all networks that hold the address, until it returns false. */
void netset_each(const struct netset *s, const struct addr *a, bool (*visit)(void *arg, uint32_t value), void *arg);

#endif
