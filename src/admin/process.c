/* Figures of the process: what Prometheus calls process_*. Owns two descriptors below /proc, opened while that can still be reached. */
#include "mctunnel/admin/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct {
	int statm; /* owned: /proc/self/statm, -1: none */
	DIR *fds;  /* owned: /proc/self/fd, or NULL */
	double started;
} me = { .statm = -1 };

static double wall_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

void process_init(void)
{
	me.started = wall_clock();
	me.statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	me.fds = opendir("/proc/self/fd");
}

void process_fini(void)
{
	if (me.statm >= 0)
		close(me.statm);
	if (me.fds)
		closedir(me.fds);
	me.statm = -1;
	me.fds = NULL;
}

double process_started(void)
{
	return me.started;
}

double process_uptime(void)
{
	double s = wall_clock() - me.started;

	return s > 0 ? s : 0; /* the clock may have been set */
}

double process_cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

int64_t process_resident(void)
{
	char text[128], *rest;
	ssize_t n = me.statm < 0 ? -1 : pread(me.statm, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return -1;
	text[n] = '\0';
	(void)strtoull(text, &rest, 10); /* the whole size comes first */
	return (int64_t)strtoull(rest, NULL, 10) * sysconf(_SC_PAGESIZE);
}

int64_t process_descriptors(void)
{
	struct stat st;
	int64_t n = 0;

	if (!me.fds)
		return -1;
	if (fstat(dirfd(me.fds), &st) == 0 && st.st_size > 0)
		return st.st_size; /* Linux 6.2 tells their number */
	rewinddir(me.fds);
	for (const struct dirent *e; (e = readdir(me.fds));)
		n += e->d_name[0] != '.';
	return n;
}

int64_t process_descriptors_max(void)
{
	struct rlimit r;

	return getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur != RLIM_INFINITY ? (int64_t)r.rlim_cur : -1;
}
