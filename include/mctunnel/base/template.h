/* Texts with "${NAME}" in them, cut into pieces. "$${" stands for "${". */
#ifndef MCTUNNEL_BASE_TEMPLATE_H
#define MCTUNNEL_BASE_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>

enum template_kind { TEMPLATE_TEXT, TEMPLATE_NAME, TEMPLATE_BAD /* "${" that is no reference: closed nowhere, or no name inside */ };

struct template_piece { /* points into the text */
	enum template_kind kind;
	const char *at; /* NAME: of the name alone */
	size_t len;
};

/* *at begins at the start of the text; false: there is no more. */
bool template_next(const char **at, struct template_piece *out);

#endif
