/* Rings of the last log records. Owns copies of them, bounded in number and (by the log) in length. It does not know
 * who asks, nor what a record says. */
#include "mctunnel/base/ring.h"

#include "mctunnel/base/str.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct record {
	uint64_t seq; /* 0: empty */
	char *text;   /* owned: the text, NUL, the JSON, NUL */
	char *json;   /* within text */
};

static struct record events[RING_EVENTS_MAX], errors[RING_ERRORS_MAX];

static struct {
	struct record *records;
	size_t max;
	uint64_t seq; /* of the newest */
} rings[RING_COUNT] = {
	[RING_EVENTS] = { events, RING_EVENTS_MAX, 0 },
	[RING_ERRORS] = { errors, RING_ERRORS_MAX, 0 },
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool is_open;

static struct ring_page *shared_page; /* borrowed */

void ring_share(struct ring_page *page)
{
	shared_page = page;
}

void ring_panic(char *buf, size_t size)
{
	size_t len = 0;

	if (shared_page) {
		len = strnlen(shared_page->panic, sizeof(shared_page->panic) < size ? sizeof(shared_page->panic) : size - 1);
		memcpy(buf, shared_page->panic, len);
	}
	buf[len] = '\0';
}

/* Under the lock. A process that dies in the middle of this leaves a torn line, no more. */
static void share(const char *text, size_t len)
{
	struct ring_page *p = shared_page;

	for (size_t i = 0; i <= len; i++)
		p->events[p->at++ % sizeof(p->events)] = i < len ? text[i] : '\n';
}

/* Where it ends is read once: a process that was taken over may have left others behind that still write. */
void ring_page_events(const struct ring_page *page, char *buf, size_t size)
{
	size_t at = *(const volatile uint32_t *)&page->at, from, got = 0;
	/* one byte less than there is: the one before tells whether a line begins here */
	size_t n = at < sizeof(page->events) ? at : sizeof(page->events) - 1;

	if (n > size - 1)
		n = size - 1;
	from = at - n;
	while (from > 0 && from < at && page->events[(from - 1) % sizeof(page->events)] != '\n')
		from++; /* not the end of a line whose begin is gone */
	while (from < at)
		buf[got++] = page->events[from++ % sizeof(page->events)];
	buf[got] = '\0';
}

bool ring_is_open(void)
{
	return atomic_load_explicit(&is_open, memory_order_relaxed);
}

void ring_open(void)
{
	atomic_store(&is_open, true);
}

void ring_close(void)
{
	atomic_store(&is_open, false);
	pthread_mutex_lock(&lock);
	for (int i = 0; i < RING_COUNT; i++) {
		for (size_t k = 0; k < rings[i].max; k++) {
			free(rings[i].records[k].text);
			rings[i].records[k] = (struct record){ 0 };
		}
		rings[i].seq = 0;
	}
	pthread_mutex_unlock(&lock);
}

void ring_keep(enum ring_id ring, const char *text, size_t text_len, const char *json, size_t json_len)
{
	char *copy = malloc(text_len + json_len + 2), *old;

	if (!copy)
		return;
	memcpy(copy, text, text_len);
	copy[text_len] = '\0';
	memcpy(copy + text_len + 1, json, json_len);
	copy[text_len + 1 + json_len] = '\0';
	pthread_mutex_lock(&lock);
	if (ring == RING_EVENTS && shared_page)
		share(text, text_len);
	uint64_t seq = ++rings[ring].seq;
	struct record *r = &rings[ring].records[seq % rings[ring].max];
	old = r->text;
	*r = (struct record){ seq, copy, copy + text_len + 1 };
	pthread_mutex_unlock(&lock);
	free(old);
}

size_t ring_next(enum ring_id ring, uint64_t *seq, bool json, char *buf, size_t size)
{
	size_t len = 0;

	pthread_mutex_lock(&lock);
	uint64_t newest = rings[ring].seq, next = *seq + 1;
	if (newest > rings[ring].max && next <= newest - rings[ring].max)
		next = newest - rings[ring].max + 1;
	const struct record *r = &rings[ring].records[next % rings[ring].max];
	if (next <= newest && r->seq == next) {
		str_copy(buf, size, json ? r->json : r->text);
		len = strlen(buf);
		*seq = next;
	}
	pthread_mutex_unlock(&lock);
	return len;
}
