/* The log: both forms of a record, every kind of target, and what happens when one takes nothing. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>

/* A fork() waits for who is in the allocator. glibc's sees to that itself, AddressSanitizer's does not: the child would wait for ever. */
static pthread_mutex_t heap = PTHREAD_MUTEX_INITIALIZER;

static void lock_heap(void)
{
	pthread_mutex_lock(&heap);
}

static void unlock_heap(void)
{
	pthread_mutex_unlock(&heap);
}

static void *guarded_malloc(size_t size)
{
	lock_heap();
	void *p = malloc(size);
	unlock_heap();
	return p;
}

static void guarded_free(void *p)
{
	lock_heap();
	free(p);
	unlock_heap();
}

#define malloc(size) guarded_malloc(size)
#define free(p) guarded_free(p)
#include "base/log.c"
#undef malloc
#undef free

#include <jansson.h>
#include <setjmp.h>
#include <stddef.h>
#include <cmocka.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char dir[64], path[96], content[1 << 20];

static int start(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/unit-log-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/log", dir);
	return 0;
}

static int end(void **state)
{
	log_close_all();
	log_set_level(LOG_INFO);
	unlink(path);
	return rmdir(dir);
}

static void open_target(const char *target, enum log_format format, enum log_level level)
{
	char err[200];

	assert_int_equal(log_open(target, format, level, err, sizeof(err)), 0);
}

/* The whole file, ended by NUL. */
static size_t slurp(const char *name)
{
	int fd = open(name, O_RDONLY);
	ssize_t n = read(fd, content, sizeof(content) - 1);

	assert_true(fd >= 0 && n >= 0);
	content[n] = '\0';
	close(fd);
	return (size_t)n;
}

/* Until all is written. */
static void drain(void)
{
	bool busy = true;

	while (busy) {
		pthread_mutex_lock(&queue.lock);
		busy = queue.head || queue.current;
		pthread_mutex_unlock(&queue.lock);
		usleep(100);
	}
}

/* log_stop() alone waits for a second only. */
static void stop(void)
{
	drain();
	log_stop();
}

static int count_of(const char *word)
{
	int n = 0;

	for (const char *s = content; (s = strstr(s, word)); s++)
		n++;
	return n;
}

static void text_is_key_value(void **state)
{
	struct log_rec r;

	open_target(path, LOG_TEXT, LOG_INFO);
	log_begin(&r, LOG_INFO, "session");
	log_str(&r, "plain", "10.0.0.1:80");
	log_str(&r, "quoted", "two words \"and\" \\ \x1b[0m\n");
	log_str(&r, "utf8", "zürich");
	log_str(&r, "c1", "\xc2\x9b");
	log_str(&r, "bad", "\xff");
	log_str(&r, "empty", "");
	log_str(&r, "none", NULL);
	log_int(&r, "n", -42);
	log_end(&r);
	assert_int_equal(r.json_len, 0);
	slurp(path);
	assert_string_equal(strchr(content, ' '),
			    " info session plain=10.0.0.1:80 quoted=\"two words \\\"and\\\" \\\\ \\x1b[0m\\x0a\" utf8=zürich"
			    " c1=\"\\xc2\\x9b\" bad=\"\\xff\" empty=\"\" none=- n=-42\n");
	assert_int_equal(strcspn(content, " "), strlen("2026-11-23T02:19:00.123Z"));
}

static void sentences_keep_to_one_line(void **state)
{
	open_target(path, LOG_TEXT, LOG_NOTICE);
	log_warning("he said \"%s\"", "a\nb\x7f");
	log_info("not wanted");
	slurp(path);
	assert_string_equal(strchr(content, ' '), " warning he said \"a\\x0ab\\x7f\"\n");
}

static json_t *parse(const char *line, size_t len)
{
	json_error_t e;
	json_t *o = json_loadb(line, len, JSON_REJECT_DUPLICATES, &e);

	if (!o)
		print_error("%s in %s", e.text, line);
	assert_non_null(o);
	return o;
}

static void json_is_valid_for_any_bytes(void **state)
{
	struct log_rec r;
	char all[256];

	for (int i = 0; i < 255; i++)
		all[i] = (char)(i + 1);
	all[255] = '\0';
	open_target(path, LOG_JSON, LOG_DEBUG);
	log_begin(&r, LOG_DEBUG, "session");
	log_str(&r, "all", all);
	log_str(&r, "odd", "\xed\xa0\x80 \xc0\xaf \xf4\x90\x80\x80 \xe2\x82 \xf0\x9f\x98\x80 \xfe");
	log_str(&r, "none", NULL);
	log_int(&r, "n", INT64_MIN);
	log_end(&r);
	assert_int_equal(r.text_len, 0);

	json_t *o = parse(content, slurp(path));
	const char *got = json_string_value(json_object_get(o, "all"));
	for (int i = 1; i < 128; i++)
		assert_int_equal(got[i - 1], i);
	assert_string_equal(json_string_value(json_object_get(o, "level")), "debug");
	assert_string_equal(json_string_value(json_object_get(o, "event")), "session");
	assert_non_null(strstr(json_string_value(json_object_get(o, "odd")), " \xf0\x9f\x98\x80 "));
	assert_true(json_is_null(json_object_get(o, "none")));
	assert_true(json_integer_value(json_object_get(o, "n")) == INT64_MIN);
	json_decref(o);
}

/* Wherever the end of the room falls, the record stays whole. */
static void long_records_are_cut_and_say_so(void **state)
{
	char value[2200];
	struct log_rec r;

	open_target("/dev/null", LOG_JSON, LOG_INFO);
	open_target("/dev/null", LOG_TEXT, LOG_INFO);
	for (size_t len = 1850; len < sizeof(value); len++) {
		memset(value, 'v', len);
		value[len - 1] = '\0';
		log_begin(&r, LOG_INFO, "session");
		log_str(&r, "long", value);
		log_str(&r, "quoted", "\n \n \n");
		log_str(&r, "none", NULL);
		log_int(&r, "number", 123456789);
		log_end(&r);
		json_t *o = parse(r.json, r.json_len);
		assert_int_equal(r.json_cut, json_is_true(json_object_get(o, "cut")));
		assert_true(len < 2048 || r.json_cut);
		json_decref(o);
		assert_int_equal(r.text[r.text_len - 1], '\n');
		assert_int_equal(r.text_cut, !memcmp(r.text + r.text_len - 9, " cut=yes\n", 9));
	}
	log_close_all();
	open_target(path, LOG_JSON, LOG_INFO);
	log_info("%s\"", value);
	json_t *o = parse(content, slurp(path));
	assert_true(json_is_true(json_object_get(o, "cut")));
	json_decref(o);
}

static void levels(void **state)
{
	assert_int_equal(log_level_parse("warning"), LOG_WARNING);
	assert_int_equal(log_level_parse("loud"), -1);
	assert_true(log_wants(LOG_INFO));
	assert_false(log_wants(LOG_DEBUG));
	open_target(path, LOG_TEXT, LOG_ERROR);
	assert_false(log_wants(LOG_WARNING));
	open_target("/dev/null", LOG_TEXT, LOG_NOTICE);
	assert_true(log_wants(LOG_NOTICE));
	log_notice("only for the other");
	assert_int_equal(slurp(path), 0);
	log_set_level(LOG_DEBUG);
	log_debug("for both");
	slurp(path);
	assert_int_equal(count_of("for both"), 1);
}

static void refuses_bad_targets(void **state)
{
	static const char *const bad[] = { "", "file", "syslog:", "syslog:localhost:514", "syslog:127.0.0.1", "syslog:127.0.0.1:0",
					   "syslog:[::1:514", "syslog:]:5", "syslog:/nonexistent/socket", "/nonexistent/dir/file",
					   "syslog:1.1.1.1:70000" };
	char err[200];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		err[0] = '\0';
		assert_int_equal(log_open(bad[i], LOG_TEXT, LOG_INFO, err, sizeof(err)), -1);
		assert_non_null(strstr(err, bad[i]));
	}
}

static void files_are_private_and_reopened(void **state)
{
	char old[100];
	struct stat st;

	snprintf(old, sizeof(old), "%s.1", path);
	open_target(path, LOG_TEXT, LOG_INFO);
	assert_int_equal(log_start(), 0);
	log_info("first");
	assert_int_equal(rename(path, old), 0);
	log_info("second");
	log_reopen();
	log_info("third");
	stop();
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0137, 0);
	slurp(old);
	assert_int_equal(count_of("first\n") + count_of("second\n"), 2);
	slurp(path);
	assert_int_equal(count_of("\n"), 1);
	assert_int_equal(count_of("third\n"), 1);
	unlink(old);
}

static void *log_many(void *arg)
{
	for (int i = 0; i < 1000; i++)
		log_info("line %d of %s", i, (char *)arg);
	return NULL;
}

static void many_threads(void **state)
{
	static char names[4][8] = { "a", "b", "c", "d" };
	pthread_t ids[4];

	for (int started = 0; started < 2; started++) {
		open_target(path, LOG_TEXT, LOG_INFO);
		if (started)
			assert_int_equal(log_start(), 0);
		for (int i = 0; i < 4; i++)
			pthread_create(&ids[i], NULL, log_many, names[i]);
		log_reopen();
		for (int i = 0; i < 4; i++)
			pthread_join(ids[i], NULL);
		stop();
		slurp(path);
		assert_int_equal(count_of("\n"), 4000);
		assert_int_equal(count_of(" info line "), 4000);
		assert_int_equal(count_of(" 999 of d\n"), 1);
		log_close_all();
		unlink(path);
	}
}

static void a_full_disk_is_told_to_the_others(void **state)
{
	int64_t before = stat_sum(STAT_LOG_DROPPED);

	open_target("/dev/full", LOG_TEXT, LOG_INFO);
	open_target(path, LOG_TEXT, LOG_INFO);
	assert_int_equal(log_start(), 0);
	for (int i = 0; i < 100; i++)
		log_info("line");
	stop();
	slurp(path);
	assert_int_equal(count_of(" line\n"), 100);
	assert_int_equal(count_of("log target /dev/full takes nothing: No space left on device"), 1);
	assert_int_equal(stat_sum(STAT_LOG_DROPPED) - before, 100);
}

/* A pipe nobody reads: logging does not wait, stopping waits a second, nothing is lost uncounted. */
static void a_stuck_target_stops_nobody(void **state)
{
	int64_t before = stat_sum(STAT_LOG_DROPPED);
	uint64_t begin;
	char more[1000];

	memset(more, 'x', sizeof(more));
	more[sizeof(more) - 1] = '\0';
	assert_int_equal(mkfifo(path, 0600), 0);
	int fd = open(path, O_RDONLY | O_NONBLOCK);
	open_target(path, LOG_TEXT, LOG_INFO);
	assert_int_equal(log_start(), 0);
	for (int i = 0; i < 10000; i++)
		log_info("%s", more);
	assert_true(stat_sum(STAT_LOG_DROPPED) - before > 1000);
	begin = now_ms();
	log_stop();
	assert_in_range(now_ms() - begin, 900, 5000);

	ssize_t n = read(fd, content, sizeof(content) - 1);
	assert_true(n > 0);
	content[n] = '\0';
	assert_int_equal(stat_sum(STAT_LOG_DROPPED) - before + count_of(" info "), 10000);
	close(fd);
}

static void overflow_is_told_later(void **state)
{
	static struct job *j;
	struct log_rec r;

	/* a queue that was too full a while ago */
	open_target(path, LOG_TEXT, LOG_INFO);
	queue.complained_ms = 0;
	queue.lost = 7;
	log_begin(&r, LOG_INFO, "x");
	j = close_record(&r);
	queue.running = true;
	queue.bytes = QUEUE_BYTES_MAX;
	assert_true(queue_add(j));
	assert_int_equal(queue.lost, 8);
	queue.bytes = 0;
	queue.running = false;
	assert_int_equal(log_start(), 0);
	log_info("after");
	stop();
	slurp(path);
	assert_non_null(strstr(content, "8 log lines lost"));
	assert_int_equal(count_of(" after\n"), 1);
}

static int unix_server(const char *name)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	str_copy(un.sun_path, sizeof(un.sun_path), name);
	unlink(name);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

static void receive(int fd)
{
	ssize_t n = recv(fd, content, sizeof(content) - 1, 0);

	assert_true(n > 0);
	content[n] = '\0';
}

static void syslog_survives_its_daemon(void **state)
{
	int64_t before = stat_sum(STAT_LOG_DROPPED);
	char target[128], tail[64];
	int fd = unix_server(path);

	snprintf(target, sizeof(target), "syslog:%s", path);
	snprintf(tail, sizeof(tail), " mctunnel[%d]: error oh", (int)getpid());
	open_target(target, LOG_TEXT, LOG_INFO);
	log_error("oh");
	receive(fd);
	assert_int_equal(strncmp(content, "<27>", 4), 0);
	assert_string_equal(content + strlen("<27>Nov 23 02:19:00"), tail);
	close(fd);
	log_error("gone");
	assert_int_equal(stat_sum(STAT_LOG_DROPPED) - before, 1);
	fd = unix_server(path);
	log_info("back");
	receive(fd);
	assert_non_null(strstr(content, ": info back"));
	for (int i = 0; i < 1000; i++)
		log_info("flood"); /* the daemon's queue is short; nobody waits for it */
	assert_true(stat_sum(STAT_LOG_DROPPED) - before > 1);
	close(fd);
}

static void syslog_over_udp(void **state)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	char target[64];

	assert_int_equal(bind(fd, (struct sockaddr *)&in, len), 0);
	getsockname(fd, (struct sockaddr *)&in, &len);
	snprintf(target, sizeof(target), "syslog:127.0.0.1:%d", ntohs(in.sin_port));
	open_target(target, LOG_JSON, LOG_INFO);
	log_notice("over the wire");
	receive(fd);
	assert_int_equal(strncmp(content, "<29>", 4), 0);
	const char *o = strstr(content, "]: {");
	assert_non_null(o);
	json_decref(parse(o + 3, strlen(o + 3)));
	close(fd);
}

static void a_child_starts_its_own(void **state)
{
	int status;

#ifdef __SANITIZE_THREAD__
	skip(); /* it cannot follow a child that starts threads */
#endif
	open_target(path, LOG_TEXT, LOG_INFO);
	for (int round = 0; round < 5; round++) {
		assert_int_equal(log_start(), 0);
		log_info("parent");
		drain(); /* by now it has started, which is not to be interrupted by a fork() either */
		for (int i = 1; i < 100; i++)
			log_info("parent");
		pid_t pid = fork();
		if (pid == 0) {
			log_info("child");
			if (log_start() < 0)
				_exit(1);
			log_info("child");
			stop();
			log_info("child");
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		stop();
	}
	slurp(path);
	assert_int_equal(count_of(" parent\n"), 500);
	assert_int_equal(count_of(" child\n"), 15);
}

static void targets_may_change_while_running(void **state)
{
	char err[200];

	open_target(path, LOG_TEXT, LOG_INFO);
	assert_int_equal(log_start(), 0);
	log_info("as text");
	log_close_all();
	open_target(path, LOG_JSON, LOG_DEBUG);
	log_debug("as json");
	for (int i = 1; i < TARGETS_MAX; i++)
		open_target("/dev/null", LOG_JSON, LOG_INFO);
	assert_int_equal(log_open("/dev/null", LOG_JSON, LOG_INFO, err, sizeof(err)), -1);
	stop();
	slurp(path);
	assert_int_equal(count_of(" info as text\n"), 1);
	assert_int_equal(count_of("\"level\":\"debug\",\"event\":\"message\",\"text\":\"as json\"}\n"), 1);
}

static struct log_set *set_of(const char *target, enum log_format format, enum log_level level, int fd)
{
	struct log_set *s = log_set_new(false);
	char err[200];

	assert_int_equal(log_set_add(s, target, format, level, fd, err, sizeof(err)), 0);
	return s;
}

/* A record begun under the old targets and ended under the new, in another form, is whole there. */
static void targets_are_replaced_without_a_loss(void **state)
{
	int64_t dropped = stat_sum(STAT_LOG_DROPPED);
	char second[100];
	struct log_rec before, between;

	snprintf(second, sizeof(second), "%s.2", path);
	open_target(path, LOG_TEXT, LOG_INFO);
	assert_int_equal(log_start(), 0);
	struct log_set *s = set_of(second, LOG_JSON, LOG_DEBUG, LOG_OPEN);
	log_begin(&before, LOG_INFO, "before");
	log_begin(&between, LOG_INFO, "between");
	log_end(&before);
	log_debug("not yet");
	log_replace(s);
	log_end(&between);
	log_debug("after");
	stop();
	slurp(path);
	assert_int_equal(count_of("\n"), 1);
	assert_int_equal(count_of(" info before\n"), 1);
	slurp(second);
	assert_int_equal(count_of("\n"), 2);
	assert_int_equal(count_of("\"event\":\"between\"}\n") + count_of("\"text\":\"after\"}\n"), 2);
	assert_int_equal(stat_sum(STAT_LOG_DROPPED), dropped);
	unlink(second);
}

static void a_set_that_is_given_up_changes_nothing(void **state)
{
	struct log_rec r;
	char err[200];

	open_target(path, LOG_TEXT, LOG_INFO);
	struct log_set *s = set_of("/dev/null", LOG_JSON, LOG_DEBUG, LOG_OPEN);
	assert_int_equal(log_set_add(s, "/nowhere/log", LOG_TEXT, LOG_INFO, LOG_OPEN, err, sizeof(err)), -1);
	log_set_free(s);
	log_begin(&r, LOG_INFO, "still");
	log_end(&r);
	assert_int_equal(r.json_len, 0);
	assert_false(log_wants(LOG_DEBUG));
	slurp(path);
	assert_int_equal(count_of(" still\n"), 1);
}

/* Twice the same file, that cannot be opened any more. */
static void a_kept_target_goes_on(void **state)
{
	char old[100], err[200];

	snprintf(old, sizeof(old), "%s.1", path);
	open_target(path, LOG_TEXT, LOG_INFO);
	assert_int_equal(rename(path, old), 0);
	struct log_set *s = set_of(path, LOG_JSON, LOG_INFO, LOG_KEEP);
	assert_int_equal(log_set_add(s, path, LOG_TEXT, LOG_INFO, LOG_KEEP, err, sizeof(err)), 0);
	log_replace(s);
	log_info("kept");
	assert_int_equal(access(path, F_OK), -1);
	slurp(old);
	assert_int_equal(count_of("kept"), 2);
	unlink(old);
}

static void descriptors_are_renewed(void **state)
{
	char old[100];

	snprintf(old, sizeof(old), "%s.1", path);
	open_target(path, LOG_TEXT, LOG_INFO);
	log_set_level(LOG_DEBUG);
	assert_int_equal(log_start(), 0);
	log_debug("first");
	assert_int_equal(rename(path, old), 0);
	log_renew(set_of(path, LOG_JSON, LOG_INFO, open(path, O_WRONLY | O_CREAT | O_APPEND, 0600)));
	log_debug("second");
	stop();
	slurp(old);
	assert_int_equal(count_of("debug first\n"), 1);
	slurp(path);
	assert_int_equal(count_of("debug second\n"), 1);
	unlink(old);
}

static void links_are_not_followed_later(void **state)
{
	struct log_set *s = log_set_new(false);
	char err[200];

	assert_int_equal(symlink("/dev/null", path), 0);
	assert_int_equal(log_set_add(s, path, LOG_TEXT, LOG_INFO, LOG_OPEN, err, sizeof(err)), -1);
	assert_non_null(strstr(err, "a symbolic link"));
	log_set_free(s);
	open_target(path, LOG_TEXT, LOG_INFO);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(text_is_key_value),
		TEST(sentences_keep_to_one_line),
		TEST(json_is_valid_for_any_bytes),
		TEST(long_records_are_cut_and_say_so),
		TEST(levels),
		TEST(refuses_bad_targets),
		TEST(files_are_private_and_reopened),
		TEST(many_threads),
		TEST(a_full_disk_is_told_to_the_others),
		TEST(a_stuck_target_stops_nobody),
		TEST(overflow_is_told_later),
		TEST(syslog_survives_its_daemon),
		TEST(syslog_over_udp),
		TEST(a_child_starts_its_own),
		TEST(targets_may_change_while_running),
		TEST(targets_are_replaced_without_a_loss),
		TEST(a_set_that_is_given_up_changes_nothing),
		TEST(a_kept_target_goes_on),
		TEST(descriptors_are_renewed),
		TEST(links_are_not_followed_later),
	};

	pthread_atfork(lock_heap, unlock_heap, unlock_heap); /* before the log's: its locks are taken first */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
