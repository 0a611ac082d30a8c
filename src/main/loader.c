/* The process that reads a configuration for a reload: it has the rights of the master, says what it found through a pipe, and leaves what
 * it has read in a sealed memfd. Owns both until it is over. Does not know what becomes of them. */
#define _GNU_SOURCE
#include "mctunnel/main/loader.h"

#include "mctunnel/base/clock.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/files.h"
#include "mctunnel/main/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEXT_MAX 15000 /* less than a pipe takes while nobody reads */
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

struct findings_text {
	char text[TEXT_MAX];
	size_t len;
};

static void note(void *arg, bool alert, const char *line)
{
	struct findings_text *f = arg;
	size_t len = strlen(line);

	if (f->len + len + 1 > sizeof(f->text))
		return;
	memcpy(f->text + f->len, line, len);
	f->len += len;
	f->text[f->len++] = '\n';
}

static int load(const char *const *paths, size_t n, int bundle, struct findings_text *f)
{
	struct conf *conf = conf_load(paths, n, note, f);
	int rc = conf && verify_conf(conf, note, f) == 0 ? 0 : 1;

	if (rc == 0 && files_pack(conf->files, bundle) < 0) {
		note(f, true, "[ALERT] no memory for what was read");
		rc = 1;
	}
	conf_put(conf);
	return rc;
}

static void run(const char *const *paths, size_t n, int pipe, int bundle)
{
	static struct findings_text f;
	int rc = load(paths, n, bundle, &f);

	if (write(pipe, f.text, f.len) < 0)
		rc = 1;
	_exit(rc);
}

int loader_start(struct loader *l, const char *const *paths, size_t n, void (*child)(void *arg), void *arg)
{
	int ends[2], bundle = memfd_create("configuration", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (bundle < 0)
		return -1;
	if (pipe2(ends, O_CLOEXEC) < 0) {
		close(bundle);
		return -1;
	}
	*l = (struct loader){ .pipe = ends[0], .bundle = bundle, .until_ms = clock_ms() + LOADER_MS, .pid = fork() };
	if (l->pid == 0) {
		child(arg);
		run(paths, n, ends[1], bundle);
	}
	close(ends[1]);
	if (l->pid > 0)
		return 0;
	l->pid = 0;
	close(ends[0]);
	close(bundle);
	return -1;
}

void loader_look(struct loader *l, uint64_t now)
{
	if (l->pid == 0 || l->expired || now < l->until_ms)
		return;
	l->expired = true;
	kill(l->pid, SIGKILL);
}

static char *read_text(int fd)
{
	char *text = xcalloc(1, TEXT_MAX + 1);
	size_t len = 0;
	ssize_t n;

	while (len < TEXT_MAX && (n = read(fd, text + len, TEXT_MAX - len)) != 0) {
		if (n > 0)
			len += (size_t)n;
		else if (errno != EINTR)
			break;
	}
	return text;
}

static char *what_went_wrong(const struct loader *l, int status)
{
	if (l->expired)
		return xasprintf("[ALERT] reading the configuration takes longer than %d s", LOADER_MS / 1000);
	if (WIFSIGNALED(status))
		return xasprintf("[ALERT] the process that read the configuration was killed by signal %d", WTERMSIG(status));
	return xasprintf("[ALERT] the configuration could not be read");
}

int loader_end(struct loader *l, int status, char **text)
{
	bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0 && fcntl(l->bundle, F_ADD_SEALS, SEALS) == 0;
	int bundle = good ? l->bundle : -1;

	*text = read_text(l->pipe);
	if (!good && (*text)[0] == '\0') {
		free(*text);
		*text = what_went_wrong(l, status);
	}
	close(l->pipe);
	if (!good)
		close(l->bundle);
	*l = (struct loader){ .pipe = -1, .bundle = -1 };
	return bundle;
}
