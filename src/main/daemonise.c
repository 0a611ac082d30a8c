/* Going into the background in such a way that the one who asked learns how it went: the parent waits until the
 * program serves or has failed, and shows what it says on stderr until then.
 * Owns the pipe to the waiting parent. */
#define _GNU_SOURCE
#include "mctunnel/main/daemonise.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static int done_fd = -1;

static void pass_on(int from)
{
	char text[4096];
	ssize_t n;

	while ((n = read(from, text, sizeof(text))) > 0)
		if (write(STDERR_FILENO, text, (size_t)n) < 0)
			return;
}

static int status_of(pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return 1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static void wait_for(pid_t child, int done, int messages)
{
	struct pollfd p[2] = { { .fd = done, .events = POLLIN }, { .fd = messages, .events = POLLIN } };
	char byte;

	fcntl(messages, F_SETFL, O_NONBLOCK);
	while (p[0].revents == 0) {
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents)
			pass_on(messages);
		if (p[1].revents & POLLHUP)
			p[1].fd = -1;
	}
	if (read(done, &byte, 1) == 1)
		_exit(0);
	_exit(status_of(child));
}

/* stderr becomes a pipe to the parent: a worker that inherits it holds no terminal, and once the parent has gone
 * what is written there is lost, as with /dev/null. */
static void settle(int messages)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(messages, STDERR_FILENO);
	close(null);
	close(messages);
}

int daemonise_start(void)
{
	int done[2], messages[2];
	pid_t child;

	if (pipe2(done, O_CLOEXEC) < 0 || pipe2(messages, O_CLOEXEC) < 0)
		return -1;
	child = fork();
	if (child < 0)
		return -1;
	if (child > 0) {
		close(done[1]);
		close(messages[1]);
		wait_for(child, done[0], messages[0]);
	}
	close(done[0]);
	close(messages[0]);
	done_fd = done[1];
	settle(messages[1]);
	return 0;
}

void daemonise_done(void)
{
	int null;

	if (done_fd < 0)
		return;
	null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	dup2(null, STDERR_FILENO);
	close(null);
	if (write(done_fd, "", 1) == 1)
		daemonise_forget();
}

void daemonise_forget(void)
{
	if (done_fd >= 0)
		close(done_fd);
	done_fd = -1;
}
