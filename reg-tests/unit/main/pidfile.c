/* The pid file: content, lock, takeover, removal. */
#include "mctunnel/main/pidfile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64], path[96], err[256];

static int make_dir(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/mctunnel-pidfile-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/x.pid", dir);
	return 0;
}

static int remove_dir(void **state)
{
	unlink(path);
	return rmdir(dir);
}

static long content(void)
{
	FILE *in = fopen(path, "r");
	long pid = -1;

	if (!in)
		return -1;
	if (fscanf(in, "%ld", &pid) != 1)
		pid = -2;
	fclose(in);
	return pid;
}

/* What another process gets: 0, or 1 and its message in err. */
static int try_in_child(void)
{
	int pair[2], status;
	pid_t child;
	ssize_t n;

	assert_int_equal(pipe(pair), 0);
	child = fork();
	if (child == 0) {
		pidfile_forget();
		status = pidfile_take(path, err, sizeof(err)) < 0;
		if (status && write(pair[1], err, strlen(err)) < 0)
			status = 2;
		_exit(status);
	}
	close(pair[1]);
	assert_int_equal(waitpid(child, &status, 0), child);
	n = read(pair[0], err, sizeof(err) - 1);
	err[n > 0 ? n : 0] = '\0';
	close(pair[0]);
	return WEXITSTATUS(status);
}

static void holds_our_id_until_dropped(void **state)
{
	assert_int_equal(pidfile_take(path, err, sizeof(err)), 0);
	assert_int_equal(content(), getpid());
	pidfile_drop();
	assert_int_equal(access(path, F_OK), -1);
}

static void a_second_instance_is_refused(void **state)
{
	char expected[64];

	snprintf(expected, sizeof(expected), "another instance is running (pid %ld)", (long)getpid());
	assert_int_equal(pidfile_take(path, err, sizeof(err)), 0);
	assert_int_equal(try_in_child(), 1);
	assert_non_null(strstr(err, expected));
	assert_int_equal(content(), getpid());
	pidfile_drop();
}

static void what_a_crash_left_behind_is_taken_over(void **state)
{
	assert_int_equal(try_in_child(), 0);
	assert_true(content() > 0 && content() != getpid());
	assert_int_equal(pidfile_take(path, err, sizeof(err)), 0);
	assert_int_equal(content(), getpid());
	pidfile_drop();
}

static void a_child_that_forgets_holds_no_lock(void **state)
{
	int pair[2];
	pid_t child;

	assert_int_equal(pipe(pair), 0);
	assert_int_equal(pidfile_take(path, err, sizeof(err)), 0);
	child = fork();
	if (child == 0) {
		char byte;

		pidfile_forget();
		close(pair[1]);
		_exit(read(pair[0], &byte, 1) != 0);
	}
	pidfile_forget(); /* as when we were killed: the file stays */
	close(pair[0]);
	int taken = -1;
	for (int i = 0; i < 30000 && taken < 0; i++) {
		taken = pidfile_take(path, err, sizeof(err));
		usleep(1000);
	}
	assert_int_equal(taken, 0);
	assert_int_equal(content(), getpid());
	close(pair[1]);
	waitpid(child, NULL, 0);
	pidfile_drop();
}

static void a_place_that_is_none(void **state)
{
	assert_int_equal(pidfile_take("/nonexistent/x.pid", err, sizeof(err)), -1);
	assert_non_null(strstr(err, "No such file"));
	pidfile_drop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(holds_our_id_until_dropped),
		cmocka_unit_test(a_second_instance_is_refused),
		cmocka_unit_test(what_a_crash_left_behind_is_taken_over),
		cmocka_unit_test(a_child_that_forgets_holds_no_lock),
		cmocka_unit_test(a_place_that_is_none),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
