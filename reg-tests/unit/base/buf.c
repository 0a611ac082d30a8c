/* Byte queues: what they hold in memory, and random use with cursors against a plain array. */
#include "base/buf.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define STREAM (4u << 20)

static unsigned char stream[STREAM]; /* what the bytes at each offset of every stream are */
static unsigned char got[STREAM];

static size_t used(enum mem_kind kind)
{
	struct mem_usage u;

	mem_usage(kind, &u);
	return u.used;
}

static void assert_held(size_t chunks, size_t morsels)
{
	assert_int_equal(used(MEM_CHUNK), chunks);
	assert_int_equal(used(MEM_MORSEL), morsels);
}

static int nothing_held(void **state)
{
	mem_limit(MEM_CHUNK, 0);
	mem_limit(MEM_MORSEL, 0);
	mem_drain();
	assert_held(0, 0);
	return 0;
}

static void append(struct bufq *q, size_t n)
{
	assert_int_equal(bufq_append(q, stream + q->dropped + q->len, n), 0);
}

/* Reserves, writes the stream's next n bytes into the room, commits them. Returns the pieces offered. */
static int receive(struct bufq *q, size_t want, int max, size_t n)
{
	struct iovec iov[16];
	const unsigned char *src = stream + q->dropped + q->len;
	int pieces = bufq_reserve(q, want, iov, max);
	size_t room = 0, left;

	for (int i = 0; i < pieces; i++) {
		assert_true(iov[i].iov_len > 0);
		room += iov[i].iov_len;
	}
	assert_true(room <= want);
	n = left = smaller(n, room);
	for (int i = 0; i < pieces; i++) {
		size_t part = smaller(left, iov[i].iov_len);

		memcpy(iov[i].iov_base, src, part);
		memset((unsigned char *)iov[i].iov_base + part, 0xee, iov[i].iov_len - part);
		src += part;
		left -= part;
	}
	bufq_commit(q, n);
	return pieces;
}

static void assert_content(const struct bufq *q)
{
	struct iovec iov[300];
	int pieces = bufq_peek(q, iov, 300);
	size_t at = q->dropped;

	for (int i = 0; i < pieces; i++) {
		assert_true(iov[i].iov_len > 0);
		assert_memory_equal(iov[i].iov_base, stream + at, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	assert_int_equal(at, q->dropped + q->len);
	assert_true(q->len || (!q->head && !q->tail));
}

static void assert_reads(const struct bufq *q, struct buf_cursor *c, size_t from, size_t ask, size_t expect)
{
	assert_int_equal(bufq_read(q, c, got, ask), expect);
	assert_memory_equal(got, stream + from, expect);
}

static void test_empty_holds_nothing(void **state)
{
	struct bufq q = { 0 };
	struct buf_cursor c = { 0 };
	struct iovec iov[2];

	assert_int_equal(bufq_peek(&q, iov, 2), 0);
	assert_int_equal(bufq_read(&q, &c, got, 10), 0);
	assert_int_equal(bufq_reserve(&q, 0, iov, 2), 0);
	bufq_commit(&q, 0);
	receive(&q, 100000, 16, 0);
	append(&q, 0);
	bufq_drop(&q, 0);
	assert_held(0, 0);
	append(&q, 5);
	bufq_drop(&q, 5);
	assert_content(&q);
	bufq_clear(&q);
}

static void test_little_data_holds_little(void **state)
{
	struct bufq q = { 0 };

	assert_int_equal(receive(&q, 4 * BUFQ_CHUNK, 16, 100), 4);
	assert_held(0, 1);
	assert_int_equal(receive(&q, 4 * BUFQ_CHUNK, 16, 100), 5);
	assert_held(0, 1);
	append(&q, MORSEL_CAP - 200);
	assert_held(0, 1);
	append(&q, 1);
	assert_held(0, 2);
	assert_content(&q);
	bufq_drop(&q, MORSEL_CAP);
	assert_held(0, 1);
	bufq_clear(&q);
	append(&q, MORSEL_CAP + 1);
	assert_held(1, 0);
	bufq_clear(&q);
	receive(&q, BUFQ_CHUNK, 2, MORSEL_CAP + 1);
	assert_held(1, 0);
	assert_content(&q);
	bufq_clear(&q);
	append(&q, BUFQ_CHUNK + 10);
	assert_held(1, 1);
	bufq_clear(&q);
}

static void test_shrinking_needs_memory(void **state)
{
	struct bufq q = { 0 };
	struct bufq other = { 0 };

	append(&other, 1);
	mem_limit(MEM_MORSEL, 1);
	receive(&q, BUFQ_CHUNK, 2, 10);
	assert_held(1, 1);
	assert_content(&q);
	bufq_clear(&q);
	bufq_clear(&other);
}

static void test_pieces_are_bounded(void **state)
{
	struct bufq q = { 0 };

	assert_int_equal(receive(&q, 1000000, 3, 1000000), 3);
	assert_int_equal(q.len, 3 * BUFQ_CHUNK);
	assert_int_equal(receive(&q, 50, 3, 20), 1);
	assert_int_equal(receive(&q, 50, 0, 0), 0);
	assert_content(&q);
	bufq_clear(&q);
}

static void test_no_memory_appends_nothing(void **state)
{
	struct bufq q = { 0 };
	struct iovec iov[8];

	append(&q, 10);
	mem_limit(MEM_CHUNK, 3);
	assert_int_equal(bufq_append(&q, stream, 5 * BUFQ_CHUNK), -1);
	assert_int_equal(q.len, 10);
	assert_held(0, 1);
	assert_int_equal(bufq_reserve(&q, 5 * BUFQ_CHUNK, iov, 8), 4);
	bufq_commit(&q, 0);
	assert_content(&q);
	bufq_clear(&q);
	append(&q, 3 * BUFQ_CHUNK);
	assert_int_equal(bufq_reserve(&q, BUFQ_CHUNK, iov, 8), 0);
	bufq_commit(&q, 0);
	assert_content(&q);
	bufq_clear(&q);
}

/* However many hold all the large pieces: who has nothing gets a small one, who has some waits. */
static void test_the_last_come_is_not_starved(void **state)
{
	struct bufq greedy = { 0 }, modest = { 0 };
	struct iovec iov[4];

	mem_limit(MEM_CHUNK, 1);
	assert_int_equal(bufq_append(&greedy, stream, BUFQ_CHUNK), 0);
	assert_int_equal(bufq_reserve(&modest, BUFQ_CHUNK, iov, 4), 1);
	assert_true(iov[0].iov_len > 1000 && iov[0].iov_len < 2048);
	memcpy(iov[0].iov_base, stream, iov[0].iov_len);
	bufq_commit(&modest, iov[0].iov_len);
	assert_int_equal(bufq_reserve(&modest, BUFQ_CHUNK, iov, 4), 0);
	bufq_commit(&modest, 0);
	assert_int_equal(bufq_reserve(&greedy, BUFQ_CHUNK, iov, 4), 0);
	bufq_commit(&greedy, 0);
	bufq_clear(&greedy);
	bufq_clear(&modest);
}

static void test_cursor_at_the_end_sees_what_comes(void **state)
{
	struct bufq q = { 0 };
	struct buf_cursor c = { 0 };

	append(&q, BUFQ_CHUNK);
	assert_reads(&q, &c, 0, BUFQ_CHUNK + 5, BUFQ_CHUNK);
	append(&q, 7);
	assert_reads(&q, &c, BUFQ_CHUNK, 100, 7);
	receive(&q, 20000, 4, 20000);
	assert_reads(&q, &c, BUFQ_CHUNK + 7, 30000, 20000);
	bufq_clear(&q);
}

/* The chunk the cursor stands at the end of is freed while another follows. */
static void test_cursor_outlives_its_chunk(void **state)
{
	struct bufq q = { 0 };
	struct buf_cursor c = { 0 };

	append(&q, BUFQ_CHUNK);
	assert_reads(&q, &c, 0, BUFQ_CHUNK, BUFQ_CHUNK);
	append(&q, 50);
	bufq_drop(&q, BUFQ_CHUNK);
	mem_reclaim();
	assert_reads(&q, &c, BUFQ_CHUNK, 10, 10);
	bufq_drop(&q, 50);
	mem_reclaim();
	assert_reads(&q, &c, BUFQ_CHUNK, 10, 0);
	append(&q, 5);
	assert_reads(&q, &c, BUFQ_CHUNK + 50, 10, 5);
	bufq_clear(&q);
}

static void test_bytes_in_place(void **state)
{
	struct bufq q = { 0 };
	struct buf_cursor c = { 0 };
	const void *at = NULL;

	assert_int_equal(bufq_rest(&q, &c), 0);
	assert_int_equal(bufq_next(&q, &c, &at, 10), 0);
	append(&q, BUFQ_CHUNK);
	append(&q, 7);
	assert_int_equal(bufq_rest(&q, &c), BUFQ_CHUNK);
	assert_int_equal(bufq_next(&q, &c, &at, 100), 100);
	assert_ptr_equal(at, q.head->data);
	assert_int_equal(bufq_rest(&q, &c), BUFQ_CHUNK - 100);
	assert_int_equal(bufq_next(&q, &c, &at, 100000), BUFQ_CHUNK - 100);
	assert_ptr_equal(at, q.head->data + 100);
	assert_int_equal(bufq_rest(&q, &c), 7);
	assert_int_equal(bufq_next(&q, &c, &at, 100000), 7);
	assert_memory_equal(at, stream + BUFQ_CHUNK, 7);
	assert_int_equal(bufq_rest(&q, &c), 0);
	append(&q, 3); /* behind it, in the same chunk */
	assert_int_equal(bufq_rest(&q, &c), 3);
	bufq_clear(&q);
	assert_int_equal(bufq_rest(&q, &c), 0);
}

static void test_cursor_over_an_emptied_queue(void **state)
{
	struct bufq q = { 0 };
	struct buf_cursor c = { 0 };
	size_t at = 0;

	for (int i = 0; i < 5; i++) {
		append(&q, 100);
		assert_reads(&q, &c, at, 1000, 100);
		at += 100;
		bufq_drop(&q, 100);
		mem_reclaim();
		assert_reads(&q, &c, at, 1000, 0);
	}
	receive(&q, BUFQ_CHUNK, 2, 30);
	assert_reads(&q, &c, at, 1000, 30);
	bufq_clear(&q);
}

static void test_seek(void **state)
{
	struct bufq q = { 0 };
	struct buf_cursor c = { 0 };

	bufq_seek(&q, &c, 0);
	append(&q, 3 * BUFQ_CHUNK);
	bufq_drop(&q, 100);
	assert_reads(&q, &c, 100, 10, 10);
	bufq_seek(&q, &c, BUFQ_CHUNK);
	assert_reads(&q, &c, 100 + BUFQ_CHUNK, 10, 10);
	bufq_seek(&q, &c, 0);
	assert_reads(&q, &c, 100, 10, 10);
	bufq_seek(&q, &c, q.len);
	assert_reads(&q, &c, 0, 10, 0);
	append(&q, 9);
	assert_reads(&q, &c, 3 * BUFQ_CHUNK, 100, 9);
	bufq_clear(&q);
	assert_reads(&q, &c, 0, 10, 0);
}

static uint32_t seed;

static uint32_t chance(uint32_t n)
{
	seed = seed * 1664525u + 1013904223u;
	return (uint32_t)(((uint64_t)seed * n) >> 32);
}

/* Mostly small, at times several chunks, often exactly at a boundary. */
static size_t some_length(void)
{
	static const size_t edges[] = { 1, MORSEL_CAP - 1, MORSEL_CAP, MORSEL_CAP + 1, BUFQ_CHUNK, BUFQ_CHUNK + 1, 2 * BUFQ_CHUNK };

	if (chance(3) == 0)
		return edges[chance(sizeof(edges) / sizeof(edges[0]))];
	return chance(1u << chance(17));
}

enum { CURSORS = 3 };
static struct buf_cursor cursors[CURSORS];
static uint64_t places[CURSORS]; /* where the model says they are */

static void random_read(struct bufq *q)
{
	uint32_t i = chance(CURSORS);
	uint64_t end = q->dropped + q->len;
	size_t ask = chance(4) ? some_length() : q->len;

	if (places[i] < q->dropped)
		places[i] = q->dropped;
	if (chance(10) == 0) {
		places[i] = q->dropped + chance((uint32_t)q->len + 1);
		bufq_seek(q, &cursors[i], places[i] - q->dropped);
	}
	assert_reads(q, &cursors[i], places[i], ask, smaller(ask, end - places[i]));
	places[i] += smaller(ask, end - places[i]);
}

static void random_step(struct bufq *q)
{
	size_t n = some_length();

	switch (chance(6)) {
	case 0:
		if (bufq_append(q, stream + q->dropped + q->len, n) != 0)
			assert_true(n > 0);
		break;
	case 1:
		receive(q, some_length(), (int)chance(9), n);
		break;
	case 2:
		bufq_drop(q, chance(4) ? smaller(n, q->len) : q->len);
		break;
	case 3:
		mem_limit(MEM_CHUNK, chance(3) ? 0 : 2 + chance(8));
		mem_reclaim();
		break;
	default:
		random_read(q);
	}
	assert_content(q);
}

static void test_random_use(void **state)
{
	uint64_t most = 0;

	for (uint32_t round = 1; round <= 60; round++) {
		struct bufq q = { 0 };

		seed = round;
		memset(cursors, 0, sizeof(cursors));
		memset(places, 0, sizeof(places));
		for (int step = 0; step < 400 && q.dropped + q.len < STREAM - 200000; step++)
			random_step(&q);
		most = q.dropped > most ? q.dropped : most;
		bufq_clear(&q);
		assert_held(0, 0);
	}
	assert_true(most > 300000);
}

#define RULE(f) cmocka_unit_test_teardown(f, nothing_held)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RULE(test_empty_holds_nothing),
		RULE(test_little_data_holds_little),
		RULE(test_shrinking_needs_memory),
		RULE(test_pieces_are_bounded),
		RULE(test_no_memory_appends_nothing),
		RULE(test_the_last_come_is_not_starved),
		RULE(test_cursor_at_the_end_sees_what_comes),
		RULE(test_cursor_outlives_its_chunk),
		RULE(test_bytes_in_place),
		RULE(test_cursor_over_an_emptied_queue),
		RULE(test_seek),
		RULE(test_random_use),
	};

	seed = 99;
	for (size_t i = 0; i < STREAM; i++)
		stream[i] = (unsigned char)chance(256);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
