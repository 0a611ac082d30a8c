/* The pid file: an exclusive lock, with the process id as its content.
 * The lock, not the content, says whether an instance runs: a file left behind by a crash is simply taken over.
 * Owns one descriptor of the process. */
#define _GNU_SOURCE
#include "mctunnel/main/pidfile.h"

#include "mctunnel/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRIES_MAX 10

static int pid_fd = -1;
static char *pid_path; /* owned, absolute */

/* The previous owner may have removed the file between our open and our lock. */
static bool is_still_there(int fd, const char *path)
{
	struct stat held, there;

	return fstat(fd, &held) == 0 && stat(path, &there) == 0 && held.st_ino == there.st_ino && held.st_dev == there.st_dev;
}

static int refuse_second(int fd, const char *path, char *err, size_t errsize)
{
	char pid[24] = "";
	ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);

	pid[n > 0 ? n : 0] = '\0';
	pid[strcspn(pid, "\n")] = '\0';
	snprintf(err, errsize, "pid file %s: another instance is running (pid %s)", path, pid[0] ? pid : "unknown");
	close(fd);
	return -1;
}

static int open_locked(const char *path, char *err, size_t errsize)
{
	for (int i = 0; i < TRIES_MAX; i++) {
		int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);

		if (fd < 0)
			break;
		if (flock(fd, LOCK_EX | LOCK_NB) < 0)
			return refuse_second(fd, path, err, errsize);
		if (is_still_there(fd, path))
			return fd;
		close(fd);
	}
	snprintf(err, errsize, "pid file %s: %s", path, strerror(errno));
	return -1;
}

static int write_pid(int fd)
{
	char text[24];
	int len = snprintf(text, sizeof(text), "%ld\n", (long)getpid());

	return ftruncate(fd, 0) == 0 && pwrite(fd, text, (size_t)len, 0) == len ? 0 : -1;
}

int pidfile_take(const char *path, char *err, size_t errsize)
{
	int fd = open_locked(path, err, errsize);

	if (fd < 0)
		return -1;
	if (write_pid(fd) < 0) {
		snprintf(err, errsize, "pid file %s: cannot write: %s", path, strerror(errno));
		close(fd);
		return -1;
	}
	pid_fd = fd;
	pid_path = realpath(path, NULL);
	return 0;
}

void pidfile_drop(void)
{
	if (pid_fd < 0)
		return;
	if (pid_path)
		unlink(pid_path);
	pidfile_forget();
}

void pidfile_forget(void)
{
	if (pid_fd >= 0)
		close(pid_fd);
	pid_fd = -1;
	free(pid_path);
	pid_path = NULL;
}
