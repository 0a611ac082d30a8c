/* What systemd and keepalived are told. */
#include "main/notify.c"

#include <setjmp.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

static char path[96], err[256];
static int listener = -1;

static void listen_at(const char *name)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	size_t len = strlen(name);

	memcpy(un.sun_path, name, len);
	if (name[0] == '@')
		un.sun_path[0] = '\0';
	listener = socket(AF_UNIX, SOCK_DGRAM, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&un, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)), 0);
	setenv("NOTIFY_SOCKET", name, 1);
}

static const char *heard(void)
{
	static char text[600];
	ssize_t n = recv(listener, text, sizeof(text) - 1, MSG_DONTWAIT);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

static void hush(void)
{
	notify_close();
	close(listener);
	listener = -1;
}

static void an_abstract_socket(void **state)
{
	char name[64];

	snprintf(name, sizeof(name), "@mctunnel-notify-%ld", (long)getpid());
	listen_at(name);
	notify_open(NULL);
	assert_null(getenv("NOTIFY_SOCKET"));
	notify_send("READY=1\nSTATUS=%s", "serving");
	assert_string_equal(heard(), "READY=1\nSTATUS=serving");
	hush();
}

static void a_socket_in_the_file_system(void **state)
{
	char name[64];

	snprintf(name, sizeof(name), "/tmp/mctunnel-notify-%ld", (long)getpid());
	listen_at(name);
	notify_open(NULL);
	notify_send("STOPPING=1");
	assert_string_equal(heard(), "STOPPING=1");
	hush();
	unlink(name);
}

/* The descriptor arrives with its name; a barrier lasts until what it has sent is closed. */
static void descriptors(void **state)
{
	char name[64], said[320];
	int got[2], n = 2;
	struct stat sent, come;

	snprintf(name, sizeof(name), "@mctunnel-notify-%ld", (long)getpid());
	listen_at(name);
	notify_open(NULL);
	notify_store("listener.web.0", listener);
	ssize_t len = sock_recv_fds(listener, said, sizeof(said) - 1, got, &n);
	assert_int_equal(n, 1);
	said[len] = '\0';
	assert_string_equal(said, "FDSTORE=1\nFDNAME=listener.web.0\nFDPOLL=0");
	fstat(listener, &sent);
	fstat(got[0], &come);
	assert_int_equal(sent.st_ino, come.st_ino);
	close(got[0]);
	notify_unstore("listener.web.0");
	assert_string_equal(heard(), "FDSTOREREMOVE=1\nFDNAME=listener.web.0");
	if (fork() == 0) {
		n = 2;
		len = sock_recv_fds(listener, said, sizeof(said), got, &n);
		_exit(len == 9 && n == 1 && memcmp(said, "BARRIER=1", 9) == 0 ? 0 : 1);
	}
	notify_barrier();
	int status;
	assert_true(wait(&status) > 0);
	assert_int_equal(status, 0);
	hush();
}

static void nobody_listens(void **state)
{
	static const char *const names[] = { "/nonexistent/socket", "@mctunnel-nobody-is-here", "relative", "", "/" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		setenv("NOTIFY_SOCKET", names[i], 1);
		notify_open(NULL);
		notify_send("READY=1");
		notify_close();
	}
	unsetenv("NOTIFY_SOCKET");
	notify_open(NULL);
	notify_send("READY=1");
	notify_close();
}

static uint64_t watchdog(const char *usec, const char *pid)
{
	uint64_t ms;
	char name[64];

	snprintf(name, sizeof(name), "@mctunnel-watchdog-%ld", (long)getpid());
	listen_at(name);
	setenv("WATCHDOG_USEC", usec, 1);
	if (pid)
		setenv("WATCHDOG_PID", pid, 1);
	notify_open(NULL);
	ms = notify_watchdog_ms();
	assert_null(getenv("WATCHDOG_USEC"));
	assert_null(getenv("WATCHDOG_PID"));
	hush();
	return ms;
}

static void the_watchdog_is_fed_in_half_its_time(void **state)
{
	char own[24];

	snprintf(own, sizeof(own), "%ld", (long)getpid());
	assert_int_equal(watchdog("3000000", NULL), 1500);
	assert_int_equal(watchdog("3000000", own), 1500);
	assert_int_equal(watchdog("3000000", "1"), 0);
	assert_int_equal(watchdog("never", NULL), 0);
	assert_int_equal(watchdog("10", NULL), 1);
}

static char digit(void)
{
	char c = '-';
	int fd = open(path, O_RDONLY);

	if (fd >= 0 && read(fd, &c, 1) != 1)
		c = '?';
	close(fd);
	return c;
}

static void the_health_file_follows(void **state)
{
	struct stat before, after;

	snprintf(path, sizeof(path), "/tmp/mctunnel-health-%ld", (long)getpid());
	notify_open(path);
	assert_int_equal(notify_health(false, err, sizeof(err)), 0);
	assert_int_equal(digit(), '1');
	assert_int_equal(notify_health(true, err, sizeof(err)), 0);
	assert_int_equal(digit(), '0');
	assert_int_equal(stat(path, &before), 0);
	assert_int_equal(before.st_mode & 0777, 0644);
	assert_int_equal(notify_health(true, err, sizeof(err)), 0);
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	unlink(path);
}

static void a_health_file_that_is_not_ours(void **state)
{
	char other[sizeof(path) + 8];
	struct stat st;

	snprintf(path, sizeof(path), "/tmp/mctunnel-health-%ld", (long)getpid());
	snprintf(other, sizeof(other), "%s.other", path);
	assert_int_equal(symlink(other, path), 0);
	notify_open(path);
	assert_int_equal(notify_health(false, err, sizeof(err)), 0);
	assert_int_equal(digit(), '1');
	assert_int_equal(lstat(path, &st), 0);
	assert_true(S_ISREG(st.st_mode)); /* another one in its place, and nothing was written elsewhere */
	assert_int_equal(access(other, F_OK), -1);
	unlink(path);
}

static void a_worker_that_is_left_alone(void **state)
{
	int fd;

	snprintf(path, sizeof(path), "/tmp/mctunnel-health-%ld", (long)getpid());
	notify_open(path);
	assert_int_equal(notify_health(true, err, sizeof(err)), 0);
	fd = notify_health_fd();
	assert_true(fd >= 0);
	assert_int_equal(notify_health(false, err, sizeof(err)), 0);
	assert_int_equal(notify_health(true, err, sizeof(err)), 0);
	notify_unfit(fd); /* it is still that file */
	assert_int_equal(digit(), '1');
	unlink(path);
	notify_unfit(-1);
	notify_open(NULL);
	assert_int_equal(notify_health_fd(), -1);
}

static void a_health_file_that_cannot_be_written(void **state)
{
	notify_open("/nonexistent/health");
	assert_int_equal(notify_health(true, err, sizeof(err)), -1);
	assert_non_null(strstr(err, "/nonexistent/health: No such file"));
	notify_open(NULL);
	assert_int_equal(notify_health(true, err, sizeof(err)), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_abstract_socket),
		cmocka_unit_test(a_socket_in_the_file_system),
		cmocka_unit_test(descriptors),
		cmocka_unit_test(nobody_listens),
		cmocka_unit_test(the_watchdog_is_fed_in_half_its_time),
		cmocka_unit_test(the_health_file_follows),
		cmocka_unit_test(a_health_file_that_is_not_ours),
		cmocka_unit_test(a_worker_that_is_left_alone),
		cmocka_unit_test(a_health_file_that_cannot_be_written),
	};

	umask(022);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
