/* From the configuration of a listener to the TLS that ends there. */
#ifndef MCTUNNEL_MAIN_SITE_H
#define MCTUNNEL_MAIN_SITE_H

#include <stdbool.h>

struct conf;
struct conf_listener;
struct tls_site;
struct tls_ticket_keys;

/* l has tls. keys NULL: a random one. Findings as tls_site_new() has them; NULL: one was bad. */
struct tls_site *site_make(const struct conf *c, const struct conf_listener *l, const struct tls_ticket_keys *keys, void (*tell)(void *arg, bool bad, const char *text), void *arg)
    __attribute__((warn_unused_result));

#endif
