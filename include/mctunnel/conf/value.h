/* Single values of the configuration: from text to a field of the snapshot, and away again. */
#ifndef MCTUNNEL_CONF_VALUE_H
#define MCTUNNEL_CONF_VALUE_H

#include "mctunnel/conf/schema.h"

/* Sets the field (one element where row->many) from text; file is where it was written (relative paths). -1: a sentence in err. */
int value_parse(const struct row *row, const char *text, const char *file, void *field, char *err, size_t errsize) __attribute__((warn_unused_result));
void value_fini(const struct row *row, void *field);

size_t value_size(enum kind kind);           /* of one element */
bool value_takes_number(enum kind kind);     /* a bare integer will do */
const char *value_expected(enum kind kind);  /* "a time such as \"5s\"" */
const char *value_type(enum kind kind);      /* "TIME", for the reference */

/* A number as an operator would write it: "5s", "64k", "12". Returns buf. */
const char *value_show(enum kind kind, uint64_t n, char *buf, size_t size);

#endif
