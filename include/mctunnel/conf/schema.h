/* The configuration language as tables: one row a key, one section a group. The loader, the release of a snapshot and the reference
 * all work from these rows, so they cannot disagree. */
#ifndef MCTUNNEL_CONF_SCHEMA_H
#define MCTUNNEL_CONF_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kind {
	KIND_INT,    /* uint32_t or uint64_t */
	KIND_SIZE,   /* bytes; the same */
	KIND_TIME,   /* milliseconds; the same */
	KIND_MODE,   /* of a file, octal; uint32_t */
	KIND_WORD,   /* an enum, one of row.words */
	KIND_TEXT,   /* char * and all below */
	KIND_NAME,   /* of a tunnel, a service, ... */
	KIND_GLOB,   /* a name that may hold '*' */
	KIND_PATH,   /* made absolute */
	KIND_LOG,    /* a log target */
	KIND_BIND,   /* struct endpoint */
	KIND_DIAL,   /* struct endpoint */
	KIND_BOOL,   /* bool; true or false, or "yes" and the like */
	KIND_MATCH,  /* char *: a literal text, a glob or "~PCRE2" */
	KIND_NET,    /* char *: an address or network */
	KIND_PORTS,  /* char *: "443" or "8000-8099" */
	KIND_STATUSES, /* char *: "200" or "200-399" */
	KIND_TEMPLATE, /* char *: text with "${capture}"; the environment is not looked at */
	KIND_ROUTE,  /* struct conf_route */
	KIND_PROXY,  /* struct endpoint, and the user and password (char *) at row.count */
	KIND_GROUP,  /* another section, in place */
	KIND_LIST,   /* an array of sections, its length at row.count */
};

enum list_use { /* of a row with many: may one be "@FILE", which stands for the lines of the file? */
	LIST_NONE,
	LIST_FILLED, /* it must hold something */
	LIST_ANY,    /* it may be empty: then the field's array is there, its length 0 */
};

struct word { /* one of an enum's names; ends with a NULL name */
	const char *name;
	int value;
	bool later;
};

struct section;

struct row {
	const char *name;
	enum kind kind;
	bool many;      /* an array of such values, its length (size_t) at count; a single one may be given bare */
	enum list_use list;
	bool required;
	bool restart;   /* a reload does not change it */
	bool later;     /* known, but not available in this version */
	bool inherit;   /* KIND_GROUP: what is not given comes from the section `defaults` */
	size_t offset;  /* in the section's struct */
	size_t size;    /* of the field; 0: checked but not kept */
	size_t count;
	uint64_t min, max;        /* of the number, or of a text's length (max 0: 255) */
	const char *def;          /* default, as it would be written; NULL: none */
	const char *def_words;    /* for the reference, where def does not say it */
	const struct word *words; /* of KIND_WORD */
	const struct section *sub;
	const char *help;
};

#define NO_PLACE ((size_t)-1)

struct section {
	const char *name, *intro;
	const struct row *rows;
	size_t rows_n;
	size_t size; /* of an element's struct (KIND_LIST) */
	size_t at;   /* offset of its struct conf_where, or NO_PLACE */
	const char *example; /* lines for the reference, or NULL */
};

extern const struct section schema_root; /* over struct conf */

const struct row *schema_row(const struct section *s, const char *name); /* NULL: no such key */

#endif
