/* What the values of a configuration mean together. */
#ifndef MCTUNNEL_CONF_CHECK_H
#define MCTUNNEL_CONF_CHECK_H

struct conf;
struct findings;

/* Fills the defaults that depend on the machine or on other keys, then reports what cannot work: names that are not unique, routes
 * to nowhere, addresses bound twice, files that cannot be read. first: the file to name when nothing better is known. */
void check_conf(struct conf *c, const char *first, struct findings *f);

#endif
