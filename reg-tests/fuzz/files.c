/* Fuzzes files that operators write beside the configuration: keys of tickets, lists of words and networks, maps. The first byte says which. What is found in a file is in what was
 * made of it (a NUL ends a word), and a file that is refused gets a sentence that tells its line and, of keys, nothing else. */
#define _GNU_SOURCE
#include "mctunnel/base/addr.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/conf/lines.h"
#include "mctunnel/conf/ticket_keys.h"
#include "mctunnel/script/lookup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ticket_keys(const char *text)
{
	uint8_t keys[TICKET_KEYS_MAX][TICKET_KEY_BYTES];
	char err[200] = "";
	int n = ticket_keys_parse(text, keys, err, sizeof(err));

	BUG_ON(n == 0 || n > TICKET_KEYS_MAX || (n < 0) != (err[0] != '\0'));
	BUG_ON(n < 0 && strncmp(err, "line ", 5) != 0 && strncmp(err, "there is no key", 15) != 0);
}

static void all_are_there(const struct lookup *l, enum lookup_kind kind, const char *text, size_t len)
{
	struct lines lines = { .text = text, .len = len };
	size_t n = 0;

	for (char *at; (at = lines_next(&lines)); n++) {
		size_t word = kind == LOOKUP_MAP ? strcspn(at, " \t") : strlen(at);
		const char *value = lookup_get(l, at, word);

		BUG_ON(strchr(at, '\n') || at[0] == ' ' || at[0] == '#');
		BUG_ON(!value || !lookup_has(l, at, word) || strpbrk(value, "\n"));
		BUG_ON(kind == LOOKUP_LIST && value[0] != '\0');
		free(at);
	}
	BUG_ON(lookup_count(l) > n || (n > 0 && lookup_count(l) == 0));
}

static void networks(const struct lookup *l, const char *text, size_t len)
{
	struct lines lines = { .text = text, .len = len };
	const char *why = lookup_networks(l);

	BUG_ON(why && strncmp(why, "line ", 5) != 0);
	for (char *at; !why && (at = lines_next(&lines));) {
		char text_of[100];
		struct addr a;

		*strchrnul(at, '/') = '\0'; /* the first address of each network */
		snprintf(text_of, sizeof(text_of), strchr(at, ':') ? "[%s]:1" : "%s:1", at);
		BUG_ON(addr_parse(&a, text_of) == 0 && !lookup_holds(l, &a));
		free(at);
	}
}

static void lookup(enum lookup_kind kind, const char *text, size_t len)
{
	char err[200] = "";
	int line = 0;
	struct lookup *l = lookup_new(kind, text, len, &line, err, sizeof(err));

	BUG_ON(!l != (err[0] != '\0') || (!l && line < 1));
	if (!l)
		return;
	all_are_there(l, kind, text, len);
	if (kind == LOOKUP_LIST)
		networks(l, text, len);
	lookup_put(l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (size == 0)
		return 0;
	text = malloc(size);
	BUG_ON(!text);
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	if (data[0] % 3 == 0)
		ticket_keys(text);
	else
		lookup(data[0] % 3 == 1 ? LOOKUP_LIST : LOOKUP_MAP, text, size - 1);
	free(text);
	return 0;
}
