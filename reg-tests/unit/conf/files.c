/* The set of files: packed and unpacked whole, never from a bundle that lies. */
#define _GNU_SOURCE
#include "conf/files.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static char folder[64];

static const char *make(const char *name, const char *text, size_t len, mode_t mode)
{
	static char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	fclose(f);
	assert_int_equal(chmod(path, mode), 0);
	return path;
}

static void take_in(struct files *f, const char *path)
{
	const char *why;
	size_t len;

	assert_non_null(files_read(f, path, &len, &why));
}

static struct files *some_files(void)
{
	struct files *f = files_new();

	take_in(f, make("empty", "", 0, 0600));
	take_in(f, make("key", "secret\0key", 10, 0600));
	take_in(f, make("open", "for all", 7, 0644));
	files_add_root(f, "b.cfg");
	files_add_root(f, "a.cfg");
	return f;
}

static int pack(const struct files *f)
{
	int fd = memfd_create("bundle", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(files_pack(f, fd), 0);
	return fd;
}

static void all_comes_back(void **state)
{
	struct files *f = some_files(), *g;
	int fd = pack(f);
	const char *why, *text;
	char path[128];
	size_t len;

	files_free(f);
	g = files_unpack(fd);
	assert_non_null(g);
	snprintf(path, sizeof(path), "%s/key", folder);
	text = files_read(g, path, &len, &why);
	assert_int_equal(len, 10);
	assert_memory_equal(text, "secret\0key", 11);
	assert_string_equal(files_path(g, path), path);
	assert_false(files_world_readable(g, path));
	snprintf(path, sizeof(path), "%s/open", folder);
	assert_true(files_world_readable(g, path));
	snprintf(path, sizeof(path), "%s/empty", folder);
	assert_string_equal(files_read(g, path, &len, &why), "");
	assert_int_equal(len, 0);
	assert_int_equal(files_roots(g), 2);
	assert_string_equal(files_root(g, 0), "b.cfg");
	assert_string_equal(files_root(g, 1), "a.cfg");
	files_free(g);
	close(fd);
}

static void nothing_else_is_read(void **state)
{
	struct files *f = some_files(), *g;
	int fd = pack(f);
	const char *path = make("later", "new", 3, 0600), *why = NULL;
	size_t len;

	g = files_unpack(fd);
	assert_null(files_read(g, path, &len, &why));
	assert_string_equal(why, "not part of the bundle");
	files_free(f);
	files_free(g);
	close(fd);
}

static bool accepted(const char *bytes, size_t len)
{
	int fd = memfd_create("bundle", MFD_CLOEXEC);
	struct files *f;

	assert_int_equal(put(fd, bytes, len), 0);
	errno = 0;
	f = files_unpack(fd);
	if (!f)
		assert_int_equal(errno, EBADMSG);
	files_free(f);
	close(fd);
	return f != NULL;
}

static size_t bundle(char *bytes, size_t size)
{
	struct files *f = some_files();
	int fd = pack(f);
	ssize_t n = pread(fd, bytes, size, 0);

	assert_true(n > 0 && (size_t)n < size);
	files_free(f);
	close(fd);
	return (size_t)n;
}

static void cut_anywhere(void **state)
{
	char bytes[2000];
	size_t len = bundle(bytes, sizeof(bytes));

	assert_true(accepted(bytes, len));
	for (size_t i = 0; i < len; i++)
		assert_false(accepted(bytes, i));
	bytes[len] = 'x';
	assert_false(accepted(bytes, len + 1));
}

static void any_byte_may_lie(void **state)
{
	static const unsigned char lies[] = { 0, 1, 0x7f, 0x80, 0xff };
	char bytes[2000];
	size_t len = bundle(bytes, sizeof(bytes));

	for (size_t i = 0; i < len; i++) {
		for (size_t k = 0; k < sizeof(lies); k++) {
			char good = bytes[i];

			bytes[i] = (char)lies[k];
			(void)accepted(bytes, len); /* either way, without harm */
			bytes[i] = good;
		}
	}
}

static void twice_the_same_path(void **state)
{
	struct head h = { .files = 2 };
	struct item i = { .path_len = 2, .len = 1 };
	char bytes[200];
	size_t len = sizeof(h);

	memcpy(h.magic, magic, sizeof(magic));
	memcpy(bytes, &h, sizeof(h));
	for (int k = 0; k < 2; k++) {
		memcpy(bytes + len, &i, sizeof(i));
		memcpy(bytes + len + sizeof(i), "/ax", 3);
		len += sizeof(i) + 3;
	}
	assert_false(accepted(bytes, len));
}

static void folders(void **state)
{
	struct files *f = files_new(), *g;
	char path[100], file[128];
	const char *why, *names;
	int fd;

	snprintf(path, sizeof(path), "%s/certs/", folder);
	assert_null(files_list(f, path, &why));
	assert_string_equal(why, "no such file");
	assert_int_equal(mkdir(path, 0700), 0);
	names = files_list(f, path, &why);
	assert_string_equal(names, "");
	make("certs/b.pem", "b", 1, 0600);
	make("certs/a.crt", "a", 1, 0600);
	make("certs/.hidden", "c", 1, 0600);
	for (int i = 0; i < 300; i++) {
		snprintf(file, sizeof(file), "certs/c-%060d", i);
		make(file, "c", 1, 0600);
	}
	assert_string_equal(files_list(f, path, &why), ""); /* what was seen once counts */
	files_free(f);
	f = files_new();
	names = files_list(f, path, &why);
	assert_memory_equal(names, "a.crt\nb.pem\nc-0", 15);
	assert_int_equal(strlen(names), 12 + 300 * 63);
	fd = pack(f);
	g = files_unpack(fd);
	assert_non_null(g);
	assert_string_equal(files_list(g, path, &why), names);
	assert_null(files_list(g, "/tmp/", &why));
	assert_string_equal(why, "not part of the bundle");
	files_free(f);
	files_free(g);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_comes_back),   cmocka_unit_test(nothing_else_is_read), cmocka_unit_test(cut_anywhere),
		cmocka_unit_test(any_byte_may_lie), cmocka_unit_test(twice_the_same_path),
		cmocka_unit_test(folders),
	};
	char rm[100];
	int rc;

	snprintf(folder, sizeof(folder), "/tmp/mctunnel-files-%ld", (long)getpid());
	assert_int_equal(mkdir(folder, 0700), 0);
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(rm, sizeof(rm), "rm -r %s", folder);
	return system(rm) | rc;
}
