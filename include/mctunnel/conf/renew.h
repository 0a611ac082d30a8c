/* From one configuration to the next, at a reload. */
#ifndef MCTUNNEL_CONF_RENEW_H
#define MCTUNNEL_CONF_RENEW_H

struct conf;

/* Before c is shared: keys that only a restart changes ("at start only" in the reference) get the values of before; note is called for each that would
 * have changed. The places (FILE:LINE) of elements of such lists are gone then. */
void conf_keep(struct conf *c, const struct conf *before, void (*note)(void *arg, const char *key), void *arg);

#endif
