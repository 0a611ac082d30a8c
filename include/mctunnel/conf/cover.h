/* Rules that an earlier one leaves nothing to. Says so only where it is certain: patterns are compared as texts, networks by their bits. */
#ifndef MCTUNNEL_CONF_COVER_H
#define MCTUNNEL_CONF_COVER_H

#include <stddef.h>

struct conf_rule;

/* Calls found for each rule that is never reached, with an earlier one that applies whenever it would. The patterns and networks of the rules are good. */
void cover_find(const struct conf_rule *rules, size_t n, void (*found)(void *arg, size_t rule, size_t by), void *arg);

#endif
