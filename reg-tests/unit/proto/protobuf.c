/* Protobuf's wire format: each type of field, and every way in which a message can be cut short or wrong. */
#include "mctunnel/proto/protobuf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define MESSAGE(text) ((struct protobuf){ (const uint8_t *)(text), (const uint8_t *)(text) + sizeof(text) - 1 })

static void fields_of_each_type(void **state)
{
	struct protobuf p = MESSAGE("\x08\x96\x01\x11" "12345678" "\x1a\x03" "abc\x25" "1234\x2a\x00\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
	struct protobuf_field f;

	assert_true(protobuf_next(&p, &f) && f.number == 1 && f.is_varint && f.value == 150);
	assert_true(protobuf_next(&p, &f) && f.number == 2 && !f.is_varint && !f.is_bytes);
	assert_true(protobuf_next(&p, &f) && f.number == 3 && f.is_bytes && f.len == 3);
	assert_memory_equal(f.bytes, "abc", 3);
	assert_true(protobuf_next(&p, &f) && f.number == 4);
	assert_true(protobuf_next(&p, &f) && f.number == 5 && f.is_bytes && f.len == 0);
	assert_true(protobuf_next(&p, &f) && f.number == 6 && f.value == UINT64_MAX);
	assert_true(p.at == p.end);
}

static void wrong(struct protobuf p)
{
	struct protobuf_field f;

	assert_false(protobuf_next(&p, &f));
	assert_true(p.at <= p.end);
}

static void malformed(void **state)
{
	wrong(MESSAGE(""));
	wrong(MESSAGE("\x00\x01"));                         /* field 0 */
	wrong(MESSAGE("\x80\x80\x80\x80\x10\x01"));         /* field 2^29 */
	wrong(MESSAGE("\x0b"));                             /* a group */
	wrong(MESSAGE("\x0f\x01"));                         /* no such type */
	wrong(MESSAGE("\x08"));
	wrong(MESSAGE("\x08\x80"));
	wrong(MESSAGE("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")); /* eleven bytes */
	wrong(MESSAGE("\x09" "1234567"));
	wrong(MESSAGE("\x0d" "123"));
	wrong(MESSAGE("\x0a\x04" "abc"));
	wrong(MESSAGE("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" "abc"));
}

static void varints_there_and_back(void **state)
{
	static const uint64_t numbers[] = { 0, 1, 127, 128, 300, UINT32_MAX, UINT64_MAX };

	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
		uint8_t text[11] = { 0x08 };
		size_t n = protobuf_put_varint(text + 1, numbers[i]);
		struct protobuf p = { text, text + 1 + n };
		struct protobuf_field f;

		assert_true(protobuf_next(&p, &f) && f.value == numbers[i] && p.at == p.end);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(fields_of_each_type), cmocka_unit_test(malformed), cmocka_unit_test(varints_there_and_back) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
