/* Contents of the files a configuration names, by path. Owns the copies; wipes them when they go, for some are keys.
 * Does not know what is in them. Opens without blocking and takes regular files only, so that a FIFO cannot hang -c. */
#include "mctunnel/conf/files.h"

#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct file {
	char *path, *data; /* owned */
	size_t len;
	bool world_readable;
};

struct files {
	struct map *by_path; /* struct file, owned */
};

struct files *files_new(void)
{
	struct files *f = xcalloc(1, sizeof(*f));

	f->by_path = map_new();
	return f;
}

static void file_free(struct file *file)
{
	if (file->data)
		explicit_bzero(file->data, file->len);
	free(file->data);
	free(file->path);
	free(file);
}

void files_free(struct files *f)
{
	size_t pos = 0;

	if (!f)
		return;
	for (struct file *file; (file = map_next(f->by_path, &pos));)
		file_free(file);
	map_free(f->by_path);
	free(f);
}

static const char *errno_words(int e)
{
	switch (e) {
	case ENOENT:
		return "no such file";
	case EACCES:
	case EPERM:
		return "permission denied";
	case EISDIR:
		return "is a directory";
	case ENOTDIR:
		return "a part of its path is not a directory";
	case ELOOP:
		return "too many symbolic links, perhaps a loop";
	case ENAMETOOLONG:
		return "its path is too long";
	case ENXIO:
		return "is not a regular file";
	}
	return strerror(e);
}

static const char *check_stat(int fd, struct file *file)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return errno_words(errno);
	if (S_ISDIR(st.st_mode))
		return "is a directory";
	if (!S_ISREG(st.st_mode))
		return "is not a regular file";
	if (st.st_size > (off_t)FILES_MAX_SIZE)
		return "larger than 16 MiB";
	file->world_readable = (st.st_mode & S_IROTH) || ((st.st_mode & S_IRGRP) && st.st_gid != 0);
	return NULL;
}

/* A grown copy of something secret must not leave the old one behind. */
static void grow(struct file *file, size_t *size)
{
	size_t bigger = *size ? *size * 2 : 8192;
	char *data = xmalloc(bigger);

	if (file->data) {
		memcpy(data, file->data, file->len);
		explicit_bzero(file->data, file->len);
		free(file->data);
	}
	file->data = data;
	*size = bigger;
}

static const char *read_all(int fd, struct file *file)
{
	size_t size = 0;

	for (;;) {
		if (file->len + 1 >= size)
			grow(file, &size);
		ssize_t n = read(fd, file->data + file->len, size - file->len - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno_words(errno);
		file->len += (size_t)n;
		file->data[file->len] = '\0';
		if (n == 0)
			return NULL;
		if (file->len > FILES_MAX_SIZE)
			return "larger than 16 MiB";
	}
}

static const char *load(const char *path, struct file *file)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);

	if (fd < 0)
		return errno_words(errno);
	const char *why = check_stat(fd, file);
	if (!why)
		why = read_all(fd, file);
	close(fd);
	return why;
}

const char *files_read(struct files *f, const char *path, size_t *len, const char **why)
{
	struct file *file = map_get_str(f->by_path, path);

	if (!file) {
		file = xcalloc(1, sizeof(*file));
		*why = load(path, file);
		if (*why) {
			file_free(file);
			return NULL;
		}
		file->path = xstrdup(path);
		map_set_str(f->by_path, path, file);
	}
	*len = file->len;
	return file->data;
}

const char *files_path(const struct files *f, const char *path)
{
	const struct file *file = map_get_str(f->by_path, path);

	return file ? file->path : NULL;
}

bool files_world_readable(const struct files *f, const char *path)
{
	const struct file *file = map_get_str(f->by_path, path);

	return file && file->world_readable;
}
