/* The table of reasons, made once from REASONS: words for the log and metrics, letters for end states,
 * statuses and codes for the wire. Knows nothing of who ends what, or why. */
#include "mctunnel/base/reason.h"

#include "mctunnel/base/bug.h"

#include <stddef.h>
#include <string.h>

static const struct row {
	const char *word, *text;
	int status;
	char letter;
} rows[REASON_COUNT] = {
#define REASON_ROW(id, w, s, l, t) [REASON_##id] = { .word = (w), .text = (t), .status = (s), .letter = (l) },
	REASONS(REASON_ROW)
#undef REASON_ROW
};

static const struct row *row(enum reason r)
{
	BUG_ON((unsigned)r >= REASON_COUNT);
	return &rows[r];
}

const char *reason_word(enum reason r)
{
	return row(r)->word;
}

const char *reason_text(enum reason r)
{
	return row(r)->text;
}

char reason_letter(enum reason r)
{
	return row(r)->letter;
}

int reason_status(enum reason r)
{
	return row(r)->status;
}

uint32_t reason_code(enum reason r)
{
	BUG_ON((unsigned)r >= REASON_COUNT);
	return REASON_WIRE + (uint32_t)r;
}

enum reason reason_from_code(uint32_t code, enum reason otherwise)
{
	if (code < REASON_WIRE || code - REASON_WIRE >= REASON_COUNT)
		return otherwise;
	return (enum reason)(code - REASON_WIRE);
}

enum reason reason_from_word(const char *word, enum reason otherwise)
{
	for (size_t i = 0; i < REASON_COUNT; i++)
		if (strcmp(rows[i].word, word) == 0)
			return (enum reason)i;
	return otherwise;
}
