/* The log: records built by any thread, written by one.
 * Owns the targets and the queue between those who log and the writing thread. While that thread runs the
 * targets are its own: records, but also opening, closing and reopening, reach it as jobs in one queue, so a
 * target that blocks holds up nobody else. Without it (start, master, tests) a job is done at once by the caller.
 * It does not know what is logged, nor which files the configuration names. */
#define _GNU_SOURCE
#include "mctunnel/base/log.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/ring.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define TARGETS_MAX 8
#define BURST_MS 10 /* between two lines: more will follow ... */
#define GATHER_MS 2 /* ... and are waited for */
#define QUEUE_BYTES_MAX (4u << 20)
#define QUEUE_COUNT_MAX 32768u
#define STOP_MS 1000
#define COMPLAIN_MS 60000 /* at most one complaint a target in this time */
#define PATIENCE_MS 100   /* with a target that takes nothing, when no writing thread can wait for it */

#define REC_SIZE sizeof(((struct log_rec *)NULL)->text)
#define REC_ROOM (REC_SIZE - 24) /* for facts; the rest closes the record when it is cut */

/* ---- words ---- */

static const char *const level_words[] = { "alert", "error", "warning", "notice", "info", "debug" };
static const int syslog_severity[] = { 1, 3, 4, 5, 6, 7 };

#define LEVELS ((int)(sizeof(level_words) / sizeof(level_words[0])))
#define SYSLOG_DAEMON (3 << 3)

int log_level_parse(const char *word)
{
	for (int i = 0; i < LEVELS; i++) {
		if (strcmp(word, level_words[i]) == 0)
			return i;
	}
	return -1;
}

/* ---- state ---- */

enum target_kind { STREAM, APPENDED, DATAGRAM };

struct target {
	enum target_kind kind;
	enum log_format format;
	enum log_level level;
	int fd;       /* owned, but for STREAM; -1: a DATAGRAM that is to be connected again */
	char *name;   /* owned; as configured */
	bool midline; /* the last write failed inside a line */
	uint64_t lost, complained_ms;
	struct sockaddr_storage addr;
	socklen_t addr_len;
};

struct log_set {
	struct target *targets[TARGETS_MAX]; /* owned */
	int count;
	bool follow;
};

enum job_kind { JOB_RECORD, JOB_OPEN, JOB_REPLACE, JOB_RENEW, JOB_CLOSE, JOB_REOPEN, JOB_LEVEL };

struct job {
	struct job *next;
	enum job_kind kind;
	enum log_level level;
	struct target *target;      /* owned; JOB_OPEN */
	struct log_set *set;        /* owned; JOB_REPLACE, JOB_RENEW */
	size_t text_len, json_len;  /* 0: that form was not built */
	char bytes[];               /* text, then JSON, both with their newline */
};

/* What those who log must know of the targets. */
static struct {
	atomic_int level; /* the widest of all targets */
	atomic_uint forms;
	unsigned own;  /* forms of the targets in force; this and the next: only those who configure */
	int targets;
	bool emptied;  /* all were closed, and none opened since */
} front = { .level = LOG_INFO, .forms = 1u << LOG_TEXT, .own = 1u << LOG_TEXT };

/* Whoever performs jobs: the writing thread, or else callers under `alone`. */
static struct {
	pthread_mutex_t alone;
	struct target *targets[TARGETS_MAX]; /* owned */
	int count;
	struct target fallback; /* while there are no targets */
} back = {
	.alone = PTHREAD_MUTEX_INITIALIZER,
	.fallback = { .kind = STREAM, .format = LOG_TEXT, .level = LOG_INFO, .fd = 2, .name = (char *)"stderr" },
};

static struct {
	pthread_mutex_t lock; /* over all below; never held while writing */
	pthread_cond_t filled;
	pthread_t writer;
	bool running, stopping;
	struct job *head, **tail;
	struct job *current; /* owned; in the writer's hands */
	size_t bytes, count;
	uint64_t lost, complained_ms;
	uint64_t woken_ms; /* when the writer had to be woken */
} queue = { .lock = PTHREAD_MUTEX_INITIALIZER, .filled = PTHREAD_COND_INITIALIZER, .tail = &queue.head };

static _Thread_local bool is_writer;

/* For the admin socket, whatever the targets take. */
static bool kept(enum log_level level)
{
	return level <= LOG_NOTICE && ring_is_open();
}

bool log_wants(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&front.level, memory_order_relaxed) || kept(level);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- building records ---- */

/* One of the two forms of a record under construction. Empty: not wanted, nothing is added. */
struct sheet {
	enum log_format format;
	char *buf;
	size_t *len;
	bool *cut;
};

static struct sheet sheet_of(struct log_rec *r, enum log_format format)
{
	if (format == LOG_JSON)
		return (struct sheet){ format, r->json, &r->json_len, &r->json_cut };
	return (struct sheet){ format, r->text, &r->text_len, &r->text_cut };
}

static void add_within(struct sheet *s, const char *bytes, size_t len)
{
	BUG_ON(*s->len + len > REC_SIZE);
	memcpy(s->buf + *s->len, bytes, len);
	*s->len += len;
}

static bool add(struct sheet *s, const char *bytes, size_t len)
{
	if (*s->cut || *s->len + len > REC_ROOM) {
		*s->cut = true;
		return false;
	}
	add_within(s, bytes, len);
	return true;
}

static bool addf(struct sheet *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* All of it, or nothing and the record is cut. */
static bool addf(struct sheet *s, const char *fmt, ...)
{
	char bytes[256];
	va_list args;

	va_start(args, fmt);
	int len = vsnprintf(bytes, sizeof(bytes), fmt, args);
	va_end(args);
	if (len < 0 || (size_t)len >= sizeof(bytes)) /* keys and event names are ours, and short */
		*s->cut = true;
	return !*s->cut && add(s, bytes, (size_t)len);
}

/* Length of the UTF-8 character at s and its code point; 0 when it is not one. s ends in NUL. */
static size_t utf8_char(const unsigned char *s, uint32_t *point)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t len = s[0] < 0x80 ? 1 : s[0] >= 0xf0 && s[0] < 0xf8 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc0 ? 2 : 0;

	if (len == 0 || s[0] >= 0xf8)
		return 0;
	*point = len == 1 ? s[0] : s[0] & (0x7fu >> len);
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		*point = *point << 6 | (s[i] & 0x3f);
	}
	if (*point < least[len] || *point > 0x10ffff || (*point >= 0xd800 && *point <= 0xdfff))
		return 0;
	return len;
}

/* Also those above ASCII, which terminals obey as well. */
static bool is_control(uint32_t point)
{
	return point < 0x20 || (point >= 0x7f && point < 0xa0);
}

struct piece {
	char bytes[32];
	size_t len; /* as written */
};

static void escape_json(struct piece *p, const unsigned char *s, size_t len, uint32_t point)
{
	if (len == 0)
		p->len = (size_t)snprintf(p->bytes, sizeof(p->bytes), "\\ufffd");
	else if (is_control(point))
		p->len = (size_t)snprintf(p->bytes, sizeof(p->bytes), "\\u%04x", (unsigned)point);
	else
		p->len = (size_t)snprintf(p->bytes, sizeof(p->bytes), "%s%.*s", point == '"' || point == '\\' ? "\\" : "",
					  (int)len, s);
}

static void escape_text(struct piece *p, const unsigned char *s, size_t len, uint32_t point, bool quoted)
{
	p->len = 0;
	if (len == 0 || is_control(point)) {
		for (size_t i = 0; i < (len ? len : 1); i++)
			p->len += (size_t)snprintf(p->bytes + p->len, sizeof(p->bytes) - p->len, "\\x%02x", s[i]);
		return;
	}
	if (quoted && (point == '"' || point == '\\'))
		p->bytes[p->len++] = '\\';
	memcpy(p->bytes + p->len, s, len);
	p->len += len;
}

static void add_escaped(struct sheet *sheet, const char *value, bool quoted)
{
	const unsigned char *s = (const unsigned char *)value;

	while (*s) {
		struct piece p;
		uint32_t point = 0;
		size_t len = utf8_char(s, &point);

		if (sheet->format == LOG_JSON)
			escape_json(&p, s, len, point);
		else
			escape_text(&p, s, len, point, quoted);
		if (!add(sheet, p.bytes, p.len))
			return;
		s += len ? len : 1;
	}
}

static bool needs_quotes(const char *value)
{
	const unsigned char *s = (const unsigned char *)value;

	if (!*s)
		return true;
	while (*s) {
		uint32_t point = 0;
		size_t len = utf8_char(s, &point);

		if (len == 0 || is_control(point) || strchr(" \"=\\", (int)*s))
			return true;
		s += len;
	}
	return false;
}

/* The time, the level, and in JSON the event. */
static void open_record(struct log_rec *r, enum log_level level, const char *event)
{
	unsigned forms = atomic_load_explicit(&front.forms, memory_order_relaxed);
	struct sheet text = sheet_of(r, LOG_TEXT), json = sheet_of(r, LOG_JSON);
	char when[32];

	r->level = level;
	r->text_len = r->json_len = 0;
	r->text_cut = r->json_cut = false;
	if (!log_wants(level))
		return;
	if (kept(level))
		forms |= 1u << LOG_TEXT | 1u << LOG_JSON;
	clock_wall(when, sizeof(when));
	if (forms & 1u << LOG_TEXT)
		addf(&text, "%s %s ", when, level_words[level]);
	if (forms & 1u << LOG_JSON)
		addf(&json, "{\"time\":\"%s\",\"level\":\"%s\",\"event\":\"%s\"", when, level_words[level], event);
}

void log_begin(struct log_rec *r, enum log_level level, const char *event)
{
	struct sheet text = sheet_of(r, LOG_TEXT);

	open_record(r, level, event);
	if (r->text_len)
		addf(&text, "%s", event);
}

/* The key and what opens the value go in together or not at all, so that a cut never leaves half a fact. */
static void add_str(struct sheet *s, const char *key, const char *value)
{
	bool json = s->format == LOG_JSON;

	if (*s->len == 0)
		return;
	if (!value) {
		addf(s, json ? ",\"%s\":null" : " %s=-", key);
		return;
	}
	bool quoted = json || needs_quotes(value);
	if (!addf(s, json ? ",\"%s\":\"" : quoted ? " %s=\"" : " %s=", key))
		return;
	add_escaped(s, value, quoted);
	if (quoted)
		add_within(s, "\"", 1); /* also when the value was cut */
}

void log_str(struct log_rec *r, const char *key, const char *value)
{
	struct sheet text = sheet_of(r, LOG_TEXT), json = sheet_of(r, LOG_JSON);

	add_str(&text, key, value);
	add_str(&json, key, value);
}

static void add_int(struct sheet *s, const char *key, int64_t value)
{
	if (*s->len)
		addf(s, s->format == LOG_JSON ? ",\"%s\":%lld" : " %s=%lld", key, (long long)value);
}

void log_int(struct log_rec *r, const char *key, int64_t value)
{
	struct sheet text = sheet_of(r, LOG_TEXT), json = sheet_of(r, LOG_JSON);

	add_int(&text, key, value);
	add_int(&json, key, value);
}

static void close_sheet(struct sheet *s, const char *if_cut, const char *end)
{
	if (*s->len == 0)
		return;
	if (*s->cut)
		add_within(s, if_cut, strlen(if_cut));
	add_within(s, end, strlen(end));
}

/* NULL: nobody wants it, or there is no memory. */
static struct job *close_record(struct log_rec *r)
{
	struct sheet text = sheet_of(r, LOG_TEXT), json = sheet_of(r, LOG_JSON);

	if (r->text_len + r->json_len == 0)
		return NULL;
	close_sheet(&text, " cut=yes", "\n");
	close_sheet(&json, ",\"cut\":true", "}\n");

	struct job *j = malloc(sizeof(*j) + r->text_len + r->json_len);
	if (!j) {
		stat_add(STAT_LOG_DROPPED, 1);
		return NULL;
	}
	*j = (struct job){ .kind = JOB_RECORD, .level = r->level, .text_len = r->text_len, .json_len = r->json_len };
	memcpy(j->bytes, r->text, r->text_len);
	memcpy(j->bytes + r->text_len, r->json, r->json_len);
	return j;
}

static void sentence(struct log_rec *r, enum log_level level, const char *fmt, va_list args)
	__attribute__((format(printf, 3, 0)));

static void sentence(struct log_rec *r, enum log_level level, const char *fmt, va_list args)
{
	struct sheet text = sheet_of(r, LOG_TEXT), json = sheet_of(r, LOG_JSON);
	char line[REC_SIZE];
	bool cut = vsnprintf(line, sizeof(line), fmt, args) >= (int)sizeof(line);

	open_record(r, level, "message");
	if (r->text_len)
		add_escaped(&text, line, false);
	add_str(&json, "text", line);
	r->text_cut |= cut;
	r->json_cut |= cut;
}

/* ---- targets ---- */

static void complain(const struct target *about, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static bool may_complain(uint64_t *last_ms)
{
	uint64_t now = now_ms();

	if (*last_ms && now - *last_ms < COMPLAIN_MS)
		return false;
	*last_ms = now;
	return true;
}

/* One record less for this target. */
static void lose(struct target *t, int error)
{
	stat_add(STAT_LOG_DROPPED, 1);
	t->lost++;
	if (may_complain(&t->complained_ms))
		complain(t, "log target %s takes nothing: %s (%llu lines lost)", t->name, strerror(error),
			 (unsigned long long)t->lost);
}

static bool writable(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	return poll(&p, 1, ms) > 0;
}

/* write(2), which only the writing thread may find itself blocked in; log_stop() can tear it away from there. */
static ssize_t write_some(const struct target *t, const char *bytes, size_t len)
{
	ssize_t n;
	int before;

	if (!is_writer) {
		if (writable(t->fd, t->lost ? 0 : PATIENCE_MS))
			return write(t->fd, bytes, len);
		errno = EAGAIN;
		return -1;
	}
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &before);
	n = write(t->fd, bytes, len);
	if (n < 0 && errno == EAGAIN && poll(&(struct pollfd){ .fd = t->fd, .events = POLLOUT }, 1, STOP_MS) > 0)
		errno = EINTR; /* somebody else made our stdout non-blocking */
	pthread_setcancelstate(before, NULL);
	return n;
}

static int write_all(struct target *t, const char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = write_some(t, bytes, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : ENOSPC;
		t->midline = bytes[n - 1] != '\n';
		bytes += n;
		len -= (size_t)n;
	}
	return 0;
}

static void write_line(struct target *t, const char *line, size_t len)
{
	int error = t->midline ? write_all(t, "\n", 1) : 0;

	if (!error)
		error = write_all(t, line, len);
	if (error)
		lose(t, error);
	else
		t->lost = 0;
}

static int datagram_connect(struct target *t)
{
	int fd = socket(t->addr.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&t->addr, t->addr_len) < 0) {
		int error = errno;

		close(fd);
		errno = error;
		return -1;
	}
	t->fd = fd;
	return 0;
}

/* "<30>Nov 23 02:19:00 HOST mctunnel[7]: " (RFC 3164); to the local daemon without the host. */
static size_t datagram_head(const struct target *t, enum log_level level, char *head, size_t size)
{
	struct strbuf b;
	char when[32], host[65];
	struct tm tm;
	time_t now = time(NULL);

	localtime_r(&now, &tm);
	strftime(when, sizeof(when), "%b %e %H:%M:%S", &tm);
	strbuf_init(&b, head, size);
	strbuf_add(&b, "<%d>%s ", SYSLOG_DAEMON | syslog_severity[level], when);
	if (t->addr.ss_family != AF_UNIX && gethostname(host, sizeof(host)) == 0) {
		host[sizeof(host) - 1] = '\0';
		strbuf_add(&b, "%s ", host);
	}
	strbuf_add(&b, "mctunnel[%d]: ", (int)getpid());
	return b.len;
}

/* A daemon that was started anew has another socket behind the same address: connect once more, then give up. */
static int datagram_send(struct target *t, const char *bytes, size_t len)
{
	for (int attempt = 0; attempt < 2; attempt++) {
		if (t->fd < 0 && datagram_connect(t) < 0)
			return errno;
		if (send(t->fd, bytes, len, MSG_NOSIGNAL) >= 0)
			return 0;
		if (errno == EAGAIN || errno == ENOBUFS || errno == EMSGSIZE)
			return errno;
		int error = errno;
		close(t->fd);
		t->fd = -1;
		errno = error;
	}
	return errno;
}

static void send_line(struct target *t, enum log_level level, const char *line, size_t len)
{
	char bytes[REC_SIZE + 256];
	size_t head = datagram_head(t, level, bytes, sizeof(bytes) - REC_SIZE);
	const char *blank = t->format == LOG_TEXT ? memchr(line, ' ', len) : NULL;

	if (blank) { /* the head tells the time already */
		len -= (size_t)(blank + 1 - line);
		line = blank + 1;
	}
	memcpy(bytes + head, line, len);

	int error = datagram_send(t, bytes, head + len - 1); /* without the newline */
	if (error)
		lose(t, error);
	else
		t->lost = 0;
}

static void write_record(struct target *t, const struct job *j)
{
	const char *line = t->format == LOG_JSON ? j->bytes + j->text_len : j->bytes;
	size_t len = t->format == LOG_JSON ? j->json_len : j->text_len;

	if (j->level > t->level)
		return;
	if (len == 0) /* begun under other targets */
		stat_add(STAT_LOG_DROPPED, 1);
	else if (t->kind == DATAGRAM)
		send_line(t, j->level, line, len);
	else
		write_line(t, line, len);
}

static void write_to_all(const struct target *except, const struct job *j)
{
	if (back.count == 0 && except != &back.fallback)
		write_record(&back.fallback, j);
	for (int i = 0; i < back.count; i++) {
		if (back.targets[i] != except)
			write_record(back.targets[i], j);
	}
}

/* A warning of the log itself, to all targets but the one it is about (NULL: all). */
static void complain(const struct target *about, const char *fmt, ...)
{
	static _Thread_local bool complaining; /* others that fail meanwhile keep it to themselves */
	struct log_rec r;
	va_list args;

	if (complaining)
		return;
	va_start(args, fmt);
	sentence(&r, LOG_WARNING, fmt, args);
	va_end(args);

	struct job *j = close_record(&r);
	if (!j)
		return;
	complaining = true;
	write_to_all(about, j);
	complaining = false;
	free(j);
}

static int file_open(const char *path, bool follow)
{
	/* O_NONBLOCK only so that a FIFO nobody reads is refused instead of waited for */
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (follow ? 0 : O_NOFOLLOW), 0640);

	if (fd >= 0)
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	return fd;
}

static void target_free(struct target *t)
{
	if (!t)
		return;
	if (t->kind != STREAM && t->fd >= 0)
		close(t->fd);
	free(t->name);
	free(t);
}

/* Nothing was rotated. (Behind a chroot, or without the rights, the file could not be opened again.) */
static bool still_there(const struct target *t)
{
	struct stat by_name, by_fd;

	return stat(t->name, &by_name) == 0 && fstat(t->fd, &by_fd) == 0 && by_name.st_dev == by_fd.st_dev && by_name.st_ino == by_fd.st_ino;
}

static void target_reopen(struct target *t)
{
	if (t->kind != APPENDED || still_there(t))
		return;

	int fd = file_open(t->name, true);
	if (fd < 0) {
		complain(NULL, "log target %s cannot be reopened: %s; the old file is kept", t->name, strerror(errno));
		return;
	}
	close(t->fd);
	t->fd = fd;
	t->midline = false;
}

/* ---- jobs ---- */

static void close_targets(void)
{
	while (back.count > 0)
		target_free(back.targets[--back.count]);
}

static void set_free(struct log_set *s)
{
	while (s && s->count > 0)
		target_free(s->targets[--s->count]);
	free(s);
}

static void share_fd(struct target *to, const struct target *from)
{
	int fd = from->fd < 0 ? -1 : fcntl(from->fd, F_DUPFD_CLOEXEC, 3);

	if (fd < 0)
		return;
	if (to->fd >= 0)
		close(to->fd);
	to->fd = fd;
	to->midline |= from->midline;
}

/* By name, one descriptor each: two targets may be the same file. */
static void share_fds(struct target *const *to, int to_n, struct target *const *from, int from_n, bool only_missing)
{
	for (int i = 0; i < to_n; i++) {
		for (int k = 0; k < from_n && to[i]->kind != STREAM; k++) {
			if ((to[i]->fd < 0 || !only_missing) && strcmp(to[i]->name, from[k]->name) == 0)
				share_fd(to[i], from[k]);
		}
	}
}

static void replace_targets(struct log_set *s)
{
	share_fds(s->targets, s->count, back.targets, back.count, true);
	close_targets();
	memcpy(back.targets, s->targets, sizeof(back.targets));
	back.count = s->count;
	s->count = 0;
}

static void set_levels(enum log_level level)
{
	back.fallback.level = level;
	for (int i = 0; i < back.count; i++)
		back.targets[i]->level = level;
}

static void perform(struct job *j)
{
	switch (j->kind) {
	case JOB_RECORD:
		write_to_all(NULL, j);
		break;
	case JOB_OPEN:
		BUG_ON(back.count == TARGETS_MAX);
		back.targets[back.count++] = j->target;
		j->target = NULL;
		break;
	case JOB_REPLACE:
		replace_targets(j->set);
		break;
	case JOB_RENEW:
		share_fds(back.targets, back.count, j->set->targets, j->set->count, false);
		break;
	case JOB_CLOSE:
		close_targets();
		break;
	case JOB_REOPEN:
		for (int i = 0; i < back.count; i++)
			target_reopen(back.targets[i]);
		break;
	case JOB_LEVEL:
		set_levels(j->level);
		break;
	}
}

static void job_free(struct job *j)
{
	if (j) {
		target_free(j->target);
		set_free(j->set);
	}
	free(j);
}

static size_t job_bytes(const struct job *j)
{
	return sizeof(*j) + j->text_len + j->json_len;
}

/* Takes j unless there is no writing thread; under the lock. */
static bool queue_add(struct job *j)
{
	if (!queue.running)
		return false;
	if (j->kind == JOB_RECORD && (queue.bytes + job_bytes(j) > QUEUE_BYTES_MAX || queue.count >= QUEUE_COUNT_MAX)) {
		stat_add(STAT_LOG_DROPPED, 1);
		queue.lost++;
		job_free(j);
		return true;
	}
	if (!queue.head)
		pthread_cond_signal(&queue.filled);
	*queue.tail = j;
	queue.tail = &j->next;
	queue.bytes += job_bytes(j);
	queue.count++;
	return true;
}

static struct job *queue_take(void)
{
	struct job *j = queue.head;

	if (!j)
		return NULL;
	queue.head = j->next;
	if (!queue.head)
		queue.tail = &queue.head;
	queue.bytes -= job_bytes(j);
	queue.count--;
	return j;
}

static void submit(struct job *j)
{
	pthread_mutex_lock(&queue.lock);
	bool taken = queue_add(j);
	pthread_mutex_unlock(&queue.lock);
	if (taken)
		return;
	pthread_mutex_lock(&back.alone);
	perform(j);
	pthread_mutex_unlock(&back.alone);
	job_free(j);
}

static void submit_order(enum job_kind kind, enum log_level level, struct target *t)
{
	struct job *j = xcalloc(1, sizeof(*j));

	j->kind = kind;
	j->level = level;
	j->target = t;
	submit(j);
}

static void submit_set(enum job_kind kind, struct log_set *s)
{
	struct job *j = xcalloc(1, sizeof(*j));

	j->kind = kind;
	j->set = s;
	submit(j);
}

/* Not a record that was begun before the rings were open. */
static void keep(const struct job *j)
{
	if (!kept(j->level) || !j->text_len || !j->json_len)
		return;
	ring_keep(RING_EVENTS, j->bytes, j->text_len - 1, j->bytes + j->text_len, j->json_len - 1);
	if (j->level <= LOG_WARNING)
		ring_keep(RING_ERRORS, j->bytes, j->text_len - 1, j->bytes + j->text_len, j->json_len - 1);
}

void log_end(struct log_rec *r)
{
	struct job *j = close_record(r);

	if (!j)
		return;
	keep(j);
	submit(j);
}

void log_say(enum log_level level, const char *fmt, ...)
{
	struct log_rec r;
	va_list args;

	if (!log_wants(level))
		return;
	va_start(args, fmt);
	sentence(&r, level, fmt, args);
	va_end(args);
	log_end(&r);
}

/* ---- configuration ---- */

static int fail(char *err, size_t errsize, const char *target, const char *why)
{
	snprintf(err, errsize, "cannot open the log target \"%s\": %s", target, why);
	return -1;
}

/* "ADDRESS:PORT" or "[ADDRESS]:PORT" */
static int parse_udp(struct target *t, const char *spec)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&t->addr;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&t->addr;
	const char *colon = strrchr(spec, ':');
	char host[64];
	uint64_t port;

	if (!colon || !str_u64(colon + 1, 65535, &port) || port == 0)
		return -1;
	bool bracket = spec[0] == '[' && colon > spec + 1 && colon[-1] == ']';
	size_t len = (size_t)(colon - spec) - (bracket ? 2 : 0);
	if (len >= sizeof(host))
		return -1;
	memcpy(host, spec + (bracket ? 1 : 0), len);
	host[len] = '\0';
	if (!bracket && inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)port);
		t->addr_len = sizeof(*v4);
		return 0;
	}
	if (!bracket || inet_pton(AF_INET6, host, &v6->sin6_addr) != 1)
		return -1;
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons((uint16_t)port);
	t->addr_len = sizeof(*v6);
	return 0;
}

static int parse_syslog(struct target *t, const char *spec)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&t->addr;

	if (spec[0] != '/')
		return parse_udp(t, spec);
	un->sun_family = AF_UNIX;
	t->addr_len = sizeof(*un);
	return str_copy(un->sun_path, sizeof(un->sun_path), spec) ? 0 : -1;
}

/* What is wrong with it, or NULL. */
static const char *target_parse(struct target *t, const char *spec)
{
	t->name = xstrdup(spec);
	t->fd = -1;
	if (strcmp(spec, "stdout") == 0 || strcmp(spec, "stderr") == 0) {
		t->kind = STREAM;
		t->fd = strcmp(spec, "stdout") == 0 ? 1 : 2;
		return NULL;
	}
	if (spec[0] == '/') {
		t->kind = APPENDED;
		return NULL;
	}
	if (strncmp(spec, "syslog:", 7) != 0)
		return "not stdout, stderr, an absolute path or syslog:";
	t->kind = DATAGRAM;
	return parse_syslog(t, spec + 7) < 0 ? "not syslog:/PATH or syslog:ADDRESS:PORT" : NULL;
}

/* The reason when it cannot be opened, NULL when it is. */
static const char *target_open(struct target *t, bool follow)
{
	tzset(); /* while /etc can still be seen; a syslog target may come later */
	if (t->kind == DATAGRAM)
		return datagram_connect(t) < 0 ? strerror(errno) : NULL;
	if (t->kind == APPENDED)
		t->fd = file_open(t->name, follow);
	if (t->fd < 0 && errno == ELOOP && !follow)
		return "a symbolic link, which is followed only at start";
	return t->fd < 0 ? strerror(errno) : NULL;
}

/* NULL: the reason is in err. */
static struct target *target_new(const char *spec, int fd, bool follow, char *err, size_t errsize)
{
	struct target *t = xcalloc(1, sizeof(*t));
	const char *why = target_parse(t, spec);

	if (!why && fd == LOG_OPEN)
		why = target_open(t, follow);
	if (!why && fd >= 0 && t->kind != STREAM)
		t->fd = fd;
	else if (fd >= 0)
		close(fd);
	if (!why)
		return t;
	fail(err, errsize, spec, why);
	target_free(t);
	return NULL;
}

/* Tells those who log about one more target. */
static void front_add(enum log_format format, enum log_level level)
{
	bool first = front.emptied || front.targets == 0;
	int widest = first ? 0 : atomic_load(&front.level);

	front.own = (first ? 0 : front.own) | 1u << format;
	atomic_store(&front.level, (int)level > widest ? (int)level : widest);
	atomic_store(&front.forms, front.own);
	front.targets++;
	front.emptied = false;
}

int log_open(const char *target, enum log_format format, enum log_level level, char *err, size_t errsize)
{
	if (front.targets == TARGETS_MAX)
		return fail(err, errsize, target, "too many targets");

	struct target *t = target_new(target, LOG_OPEN, true, err, errsize);
	if (!t)
		return -1;
	t->format = format;
	t->level = level;
	submit_order(JOB_OPEN, level, t);
	front_add(format, level);
	return 0;
}

struct log_set *log_set_new(bool follow)
{
	struct log_set *s = xcalloc(1, sizeof(*s));

	s->follow = follow;
	return s;
}

/* From now on records are built in the new form as well, so that those under way fit when the set comes into force. */
int log_set_add(struct log_set *s, const char *target, enum log_format format, enum log_level level, int fd, char *err, size_t errsize)
{
	if (s->count == TARGETS_MAX) {
		if (fd >= 0)
			close(fd);
		return fail(err, errsize, target, "too many targets");
	}

	struct target *t = target_new(target, fd, s->follow, err, errsize);
	if (!t)
		return -1;
	t->format = format;
	t->level = level;
	s->targets[s->count++] = t;
	atomic_fetch_or(&front.forms, 1u << format);
	return 0;
}

int log_set_fd(const struct log_set *s, int i)
{
	return i < s->count && s->targets[i]->kind != STREAM ? s->targets[i]->fd : -1;
}

void log_set_free(struct log_set *s)
{
	if (!s)
		return;
	set_free(s);
	atomic_store(&front.forms, front.own);
}

/* Those who log are told afterwards: until then they build what the old targets need and, since log_set_add(), the new ones. */
void log_replace(struct log_set *s)
{
	struct { unsigned forms; int level, count; } next = { .count = s->count };

	for (int i = 0; i < s->count; i++) {
		next.forms |= 1u << s->targets[i]->format;
		if ((int)s->targets[i]->level > next.level)
			next.level = (int)s->targets[i]->level;
	}
	submit_set(JOB_REPLACE, s);
	front.own = next.forms;
	front.targets = next.count;
	front.emptied = false;
	atomic_store(&front.level, next.level);
	atomic_store(&front.forms, front.own);
}

void log_renew(struct log_set *s)
{
	submit_set(JOB_RENEW, s);
	atomic_store(&front.forms, front.own);
}

/* Until a target is opened again both forms are built, so that other threads' records fit whatever comes. */
void log_close_all(void)
{
	front.own = 1u << LOG_TEXT | 1u << LOG_JSON;
	atomic_store(&front.forms, front.own);
	front.targets = 0;
	front.emptied = true;
	submit_order(JOB_CLOSE, 0, NULL);
}

void log_reopen(void)
{
	submit_order(JOB_REOPEN, 0, NULL);
}

void log_set_level(enum log_level level)
{
	atomic_store(&front.level, (int)level);
	submit_order(JOB_LEVEL, level, NULL);
}

/* ---- the writing thread ---- */

/* Under the lock. Lines that come one after the other are worth waking for once, not each for itself. */
static void wait_for_jobs(void)
{
	static const struct timespec gather = { .tv_nsec = GATHER_MS * 1000000 };
	bool burst;

	if (queue.head || queue.stopping)
		return;
	while (!queue.head && !queue.stopping)
		pthread_cond_wait(&queue.filled, &queue.lock);
	burst = now_ms() - queue.woken_ms <= BURST_MS;
	queue.woken_ms = now_ms();
	if (!burst || queue.stopping)
		return;
	pthread_mutex_unlock(&queue.lock);
	nanosleep(&gather, NULL);
	pthread_mutex_lock(&queue.lock);
}

static struct job *next_job(uint64_t *lost)
{
	pthread_mutex_lock(&queue.lock);
	wait_for_jobs();
	struct job *j = queue_take();
	queue.current = j;
	if (!j)
		queue.running = false;
	*lost = queue.lost && may_complain(&queue.complained_ms) ? queue.lost : 0;
	queue.lost -= *lost;
	pthread_mutex_unlock(&queue.lock);
	return j;
}

static void *write_jobs(void *arg)
{
	struct job *j;
	uint64_t lost;

	is_writer = true;
	pthread_setname_np(pthread_self(), "log");
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	while ((j = next_job(&lost))) {
		if (lost)
			complain(NULL, "%llu log lines lost: the targets are too slow", (unsigned long long)lost);
		perform(j);
		pthread_mutex_lock(&queue.lock);
		queue.current = NULL;
		pthread_mutex_unlock(&queue.lock);
		job_free(j);
	}
	return NULL;
}

/* What is left belongs to nobody now. */
static void queue_clear(void)
{
	struct job *j;

	queue.running = queue.stopping = false;
	job_free(queue.current);
	queue.current = NULL;
	while ((j = queue_take()))
		job_free(j);
}

static void before_fork(void)
{
	pthread_mutex_lock(&back.alone);
	pthread_mutex_lock(&queue.lock);
}

static void after_fork_parent(void)
{
	pthread_mutex_unlock(&queue.lock);
	pthread_mutex_unlock(&back.alone);
}

/* The writing thread stays with the parent, and so do its jobs: the child writes by itself until it calls log_start(). */
static void after_fork_child(void)
{
	queue.current = NULL; /* may be half done: not ours to touch */
	pthread_cond_init(&queue.filled, NULL); /* whoever waited there is not here */
	queue_clear();
	after_fork_parent();
}

static int start_writer(void)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int error = pthread_create(&queue.writer, NULL, write_jobs, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error;
}

int log_start(void)
{
	static bool handlers;

	BUG_ON(queue.running);
	if (!handlers)
		pthread_atfork(before_fork, after_fork_parent, after_fork_child);
	handlers = true;
	pthread_mutex_lock(&queue.lock);
	queue.running = true;

	int error = start_writer();
	if (error)
		queue.running = false;
	pthread_mutex_unlock(&queue.lock);
	errno = error;
	return error ? -1 : 0;
}

static bool join_within(int ms)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	return pthread_timedjoin_np(queue.writer, NULL, &until) == 0;
}

void log_stop(void)
{
	pthread_mutex_lock(&queue.lock);
	bool running = queue.running;
	queue.stopping = true;
	if (running)
		pthread_cond_signal(&queue.filled);
	pthread_mutex_unlock(&queue.lock);
	if (running && !join_within(STOP_MS)) {
		pthread_cancel(queue.writer); /* stuck in a write */
		pthread_join(queue.writer, NULL);
	}
	pthread_mutex_lock(&queue.lock);
	stat_add(STAT_LOG_DROPPED, (int64_t)queue.count + (queue.current ? 1 : 0));
	queue_clear();
	pthread_mutex_unlock(&queue.lock);
}
