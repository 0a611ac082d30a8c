/* What a configuration must also fulfil and what the floor of the configuration cannot see: certificates that fit their keys,
 * users that exist. */
#ifndef MCTUNNEL_MAIN_VERIFY_H
#define MCTUNNEL_MAIN_VERIFY_H

#include "mctunnel/conf/conf.h"

/* Reports every finding in the form of conf_load(). Returns 0, or -1 when one of them was an alert. */
int verify_conf(const struct conf *conf, conf_report *on_finding, void *arg) __attribute__((warn_unused_result));

#endif
