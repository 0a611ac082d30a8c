/* The tables hold together: every row is documented, every default parses within its limits, every field is inside of its struct;
 * and doc/configuration.txt is what they say. */
#include "mctunnel/conf/schema.h"

#include "mctunnel/conf/reference.h"
#include "mctunnel/conf/value.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static unsigned rows;

static void check_default(const struct row *row)
{
	char field[256] = { 0 }, err[256];

	if (!row->def)
		return;
	assert_false(row->required);
	if (value_parse(row, row->def, "", field, err, sizeof(err)) < 0)
		fail_msg("%s: %s", row->name, err);
	value_fini(row, field);
}

static void check_row(const struct row *row, bool root)
{
	rows++;
	for (const char *c = row->name; *c; c++)
		assert_true(islower((unsigned char)*c) || *c == '_' || (isdigit((unsigned char)*c) && c > row->name));
	if (!root && (!row->help || row->help[strlen(row->help) - 1] != '.'))
		fail_msg("%s: no help, or not a sentence", row->name);
	if (row->later)
		return;
	check_default(row);
	assert_int_equal(row->kind == KIND_WORD, row->words != NULL);
	assert_int_equal(row->kind == KIND_GROUP || row->kind == KIND_LIST, row->sub != NULL);
	if (row->kind == KIND_INT || row->kind == KIND_TIME || row->kind == KIND_SIZE)
		assert_true(row->max > row->min && (row->size == 8 || row->max <= UINT32_MAX));
	if (row->many || row->kind == KIND_LIST)
		assert_true(row->count > row->offset && row->size == sizeof(void *));
}

static void check_section(const struct section *s, int depth)
{
	assert_true(depth < 8);
	for (size_t i = 0; i < s->rows_n; i++) {
		assert_ptr_equal(schema_row(s, s->rows[i].name), &s->rows[i]); /* no name twice */
		check_row(&s->rows[i], depth == 0);
		if (s->rows[i].sub)
			check_section(s->rows[i].sub, depth + 1);
	}
}

static void test_rows(void **state)
{
	check_section(&schema_root, 0);
	assert_true(rows > 80);
	assert_null(schema_row(&schema_root, "nosuch"));
}

static char *whole(const char *path)
{
	FILE *in = fopen(path, "r");
	char *text = calloc(1, 1 << 20);

	if (!in)
		fail_msg("%s: run this from the top of the tree", path);
	assert_true(fread(text, 1, (1 << 20) - 1, in) > 0);
	fclose(in);
	return text;
}

static void test_reference(void **state)
{
	char *text = NULL, *page = whole("doc/configuration.txt");
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	reference_write(out);
	fclose(out);
	if (strcmp(text, page) != 0)
		fail_msg("doc/configuration.txt is old: ./mctunnel -dK >doc/configuration.txt");
	free(text);
	free(page);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_rows), cmocka_unit_test(test_reference) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
