/* Rules as a row of text conditions. Knows where each is, and what is the same in it; owns nothing. */
#include "mctunnel/conf/rule.h"

static const struct {
	const char *name;
	size_t offset;
	bool fold;
} fields[RULE_FIELD_COUNT] = {
#define RULE_ROW(field, folds) [RULE_##field] = { #field, offsetof(struct conf_rule, field), folds },
	RULE_FIELDS(RULE_ROW)
#undef RULE_ROW
};

const struct conf_strings *rule_values(const struct conf_rule *r, enum rule_field f)
{
	return (const struct conf_strings *)((const char *)r + fields[f].offset);
}

bool rule_folds(enum rule_field f)
{
	return fields[f].fold;
}

const char *rule_field_name(enum rule_field f)
{
	return fields[f].name;
}
