/* Where routes may lead: the tunnels of a configuration and the services they allow. */
#ifndef MCTUNNEL_CONF_ROUTE_H
#define MCTUNNEL_CONF_ROUTE_H

struct conf;
struct findings;
struct routes;

struct routes *routes_new(const struct conf *c, struct findings *f); /* both borrowed */
void routes_free(struct routes *r);

/* Reports, at the field, a tunnel that is not there or a service that it does not allow. Either may hold '*' where something is filled in later: then any tunnel and
 * service will do that could be meant. */
void routes_check(const struct routes *r, const char *tunnel, const char *service, const void *field);

#endif
