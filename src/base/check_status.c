/* The words of health checks, as rows of their table.
 * Whoever looks a status up gets what the table says; nobody else knows these words.
 * How checks are counted is edge/standing.c's, how they are made edge/probe.c's. */
#include "mctunnel/base/check_status.h"

static const struct {
	const char *word, *text;
	int verdict;
} statuses[CHECK_STATUS_COUNT] = {
#define CHECK_STATUS_ROW(id, word, verdict, text) { word, text, verdict },
	CHECK_STATUSES(CHECK_STATUS_ROW)
#undef CHECK_STATUS_ROW
};

const char *check_status_word(enum check_status s)
{
	return statuses[s].word;
}

const char *check_status_text(enum check_status s)
{
	return statuses[s].text;
}

int check_status_verdict(enum check_status s)
{
	return statuses[s].verdict;
}
