/* What the keys of listeners[].tls mean together: folders of certificates opened, keys found, everything readable. */
#ifndef MCTUNNEL_CONF_LISTENER_TLS_H
#define MCTUNNEL_CONF_LISTENER_TLS_H

struct conf;
struct conf_listener;
struct conf_listener_tls;
struct findings;

/* Sets pairs and, where it was not given, verify. Any pointer may be NULL: a missing key was reported before. */
void listener_tls_check(struct conf *c, struct conf_listener *l, struct findings *f);
void listener_tls_fini(struct conf_listener_tls *t);

#endif
