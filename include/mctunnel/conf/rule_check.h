/* What the rules of a listener mean together with it, with the tunnels, and with each other. */
#ifndef MCTUNNEL_CONF_RULE_CHECK_H
#define MCTUNNEL_CONF_RULE_CHECK_H

struct conf_listener;
struct findings;
struct routes;

/* Fills in what a rule leaves unsaid (the action of one with `redirect`), then reports what cannot work: conditions that the mode does not know, actions without what they
 * need, references to nothing, routes to nowhere, rules that are never reached. Values may be missing: those were reported before. */
void rule_check(struct conf_listener *l, const struct routes *routes, struct findings *f);

#endif
