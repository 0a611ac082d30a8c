/* Keeps what a dying worker says. Its last words come through a pipe whose writing end only it holds: a process whose memory is
 * broken can still write to a descriptor, and the pipe is larger than a backtrace, so that nobody ever waits. Its events it
 * writes into a page shared with the master as it goes along: after SIGKILL they are all there is.
 * Owns the pipe's ends. It does not know why workers die. */
#define _GNU_SOURCE
#include "mctunnel/main/remains.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/log.h"
#include "mctunnel/base/ring.h"
#include "mctunnel/base/str.h"

#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WORDS_MAX 4096
#define LINES_MAX 48 /* in the log */

static int ends[2] = { -1, -1 }; /* reading, writing */

static void close_ends(void)
{
	for (int i = 0; i < 2; i++) {
		if (ends[i] >= 0)
			close(ends[i]);
		ends[i] = -1;
	}
}

void remains_prepare(void)
{
	close_ends();
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		ends[0] = ends[1] = -1;
}

void remains_leave(struct ring_page *page)
{
	if (ends[0] >= 0)
		close(ends[0]);
	ends[0] = -1;
	bug_copy_to(ends[1]);
	ring_share(page);
}

static void read_words(char *buf, size_t size)
{
	size_t len = 0;
	ssize_t n;

	while (ends[0] >= 0 && len < size - 1 && (n = read(ends[0], buf + len, size - 1 - len)) > 0)
		len += (size_t)n;
	buf[len] = '\0';
}

/* A record for each line: the log knows no other. */
static void log_words(const char *words)
{
	for (int i = 0; *words && i < LINES_MAX; i++) {
		size_t len = strcspn(words, "\n");

		log_alert("the worker's last words: %.*s", (int)len, words);
		words += words[len] ? len + 1 : len;
	}
}

static void add_lines(struct strbuf *b, const char *title, const char *lines)
{
	if (!*lines)
		return;
	strbuf_add(b, "  %s:\n", title);
	while (*lines) {
		size_t len = strcspn(lines, "\n");

		strbuf_add(b, "    %.*s\n", (int)len, lines);
		lines += lines[len] ? len + 1 : len;
	}
}

void remains_collect(struct ring_page *page, const char *how)
{
	char words[WORDS_MAX], events[sizeof(page->events)], when[32] = "";
	time_t now = time(NULL);
	struct strbuf b;
	struct tm tm;

	read_words(words, sizeof(words));
	log_words(words);
	ring_page_events(page, events, sizeof(events));
	if (gmtime_r(&now, &tm))
		strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
	strbuf_init(&b, page->panic, sizeof(page->panic));
	strbuf_add(&b, "%s %s\n", when, how);
	add_lines(&b, "its last words", words);
	add_lines(&b, "its last events", events);
	remains_forget(page);
}

void remains_forget(struct ring_page *page)
{
	close_ends();
	page->at = 0;
}
