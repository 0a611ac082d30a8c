/* The reference of the configuration language, written from the rows of schema.c: doc/configuration.txt. */
#ifndef MCTUNNEL_CONF_REFERENCE_H
#define MCTUNNEL_CONF_REFERENCE_H

#include <stdio.h>

void reference_write(FILE *out);

#endif
