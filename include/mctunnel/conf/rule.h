/* The conditions of rules that are texts, for whoever treats them alike. */
#ifndef MCTUNNEL_CONF_RULE_H
#define MCTUNNEL_CONF_RULE_H

#include "mctunnel/conf/conf.h"

#define RULE_ROUTES_MAX 16 /* of a rule, and of a listener */

/* name, upper and lower case are the same */
#define RULE_FIELDS(X)  \
	X(host, true)   \
	X(sni, true)    \
	X(path, false)  \
	X(method, false) \
	X(alpn, false)

enum rule_field {
#define RULE_ENUM(name, fold) RULE_##name,
	RULE_FIELDS(RULE_ENUM)
#undef RULE_ENUM
	RULE_FIELD_COUNT
};

const struct conf_strings *rule_values(const struct conf_rule *r, enum rule_field f);
bool rule_folds(enum rule_field f);
const char *rule_field_name(enum rule_field f);

#endif
