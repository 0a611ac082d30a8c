/* Contents of the files a configuration names, by path. Owns the copies; wipes them when they go, for some are keys.
 * Does not know what is in them. Opens without blocking and takes regular files only, so that a FIFO cannot hang -c. */
#include "mctunnel/conf/files.h"

#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUNDLE_MAX (512u << 20)

struct file {
	char *path, *data; /* owned */
	size_t len;
	bool world_readable;
};

struct files {
	struct map *by_path; /* struct file, owned */
	char **roots;        /* owned */
	size_t roots_n;
	bool closed; /* unpacked: the file system is not asked */
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
	for (size_t i = 0; i < f->roots_n; i++)
		free(f->roots[i]);
	free(f->roots);
	free(f);
}

void files_add_root(struct files *f, const char *path)
{
	f->roots = xrealloc(f->roots, (f->roots_n + 1) * sizeof(*f->roots));
	f->roots[f->roots_n++] = xstrdup(path);
}

size_t files_roots(const struct files *f)
{
	return f->roots_n;
}

const char *files_root(const struct files *f, size_t i)
{
	return f->roots[i];
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
	/* root's group and our own are nobody else: Kubernetes gives secrets to the group of the Pod */
	file->world_readable = (st.st_mode & S_IROTH) || ((st.st_mode & S_IRGRP) && st.st_gid != 0 && st.st_gid != getegid());
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

static int is_listed(const struct dirent *d)
{
	return d->d_name[0] != '.' && !strchr(d->d_name, '\n');
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void append_name(struct file *file, size_t *size, const char *name)
{
	size_t len = strlen(name);

	while (file->len + len + 2 > *size)
		grow(file, size);
	memcpy(file->data + file->len, name, len);
	file->len += len;
	file->data[file->len++] = '\n';
	file->data[file->len] = '\0';
}

static const char *load_folder(const char *path, struct file *file)
{
	struct dirent **names;
	int n = scandir(path, &names, is_listed, by_bytes);
	size_t size = 0;

	if (n < 0)
		return errno_words(errno);
	grow(file, &size);
	file->data[0] = '\0';
	for (int i = 0; i < n; i++) {
		if (file->len + 512 < FILES_MAX_SIZE)
			append_name(file, &size, names[i]->d_name);
		free(names[i]);
	}
	free(names);
	return NULL;
}

/* A folder's path ends in '/', which no file's can. */
static const char *remember(struct files *f, const char *path, const char *(*how)(const char *, struct file *), size_t *len, const char **why)
{
	struct file *file = map_get_str(f->by_path, path);

	if (!file && f->closed) {
		*why = "not part of the bundle";
		return NULL;
	}
	if (!file) {
		file = xcalloc(1, sizeof(*file));
		*why = how(path, file);
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

const char *files_read(struct files *f, const char *path, size_t *len, const char **why)
{
	return remember(f, path, load, len, why);
}

const char *files_list(struct files *f, const char *path, const char **why)
{
	size_t len;

	return remember(f, path, load_folder, &len, why);
}

const char *files_path(const struct files *f, const char *path)
{
	const struct file *file = map_get_str(f->by_path, path);

	return file ? file->path : NULL;
}

bool files_closed(const struct files *f)
{
	return f->closed;
}

bool files_world_readable(const struct files *f, const char *path)
{
	const struct file *file = map_get_str(f->by_path, path);

	return file && file->world_readable;
}

/* The bundle. Both sides are this program, but the reader trusts no length. */

static const char magic[8] = { 'm', 'c', 't', 'f', 'i', 'l', 'e', '1' };

struct head {
	char magic[8];
	uint32_t files, roots;
};

struct item { /* of a root only the path */
	uint32_t path_len, len, world_readable;
};

static int put(int fd, const void *data, size_t len)
{
	const char *at = data;

	while (len > 0) {
		ssize_t n = write(fd, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

static int put_item(int fd, const char *path, const struct file *file)
{
	struct item i = { .path_len = (uint32_t)strlen(path), .len = file ? (uint32_t)file->len : 0, .world_readable = file && file->world_readable };

	if (put(fd, &i, sizeof(i)) < 0 || put(fd, path, i.path_len) < 0)
		return -1;
	return file ? put(fd, file->data, file->len) : 0;
}

int files_pack(const struct files *f, int fd)
{
	struct head h = { .files = (uint32_t)map_count(f->by_path), .roots = (uint32_t)f->roots_n };
	size_t pos = 0;

	memcpy(h.magic, magic, sizeof(magic));
	if (put(fd, &h, sizeof(h)) < 0)
		return -1;
	for (const struct file *file; (file = map_next(f->by_path, &pos));) {
		if (put_item(fd, file->path, file) < 0)
			return -1;
	}
	for (size_t i = 0; i < f->roots_n; i++) {
		if (put_item(fd, f->roots[i], NULL) < 0)
			return -1;
	}
	return 0;
}

struct bytes {
	const char *at;
	size_t left;
};

static bool get(struct bytes *b, void *out, size_t len)
{
	if (len > b->left)
		return false;
	memcpy(out, b->at, len);
	b->at += len;
	b->left -= len;
	return true;
}

/* malloc'ed, NUL-terminated; NULL: not there. */
static char *get_text(struct bytes *b, size_t len)
{
	char *text;

	if (len > b->left)
		return NULL;
	text = xmalloc(len + 1);
	text[len] = '\0';
	get(b, text, len);
	return text;
}

static char *get_path(struct bytes *b, size_t len)
{
	char *path = get_text(b, len);

	if (path && path[0] && strlen(path) == len)
		return path;
	free(path);
	return NULL;
}

static bool get_file(struct files *f, struct bytes *b)
{
	struct file *file;
	struct item i;

	if (!get(b, &i, sizeof(i)) || i.len > FILES_MAX_SIZE)
		return false;
	file = xcalloc(1, sizeof(*file));
	file->path = get_path(b, i.path_len);
	file->data = file->path ? get_text(b, i.len) : NULL;
	file->len = file->data ? i.len : 0;
	file->world_readable = i.world_readable != 0;
	if (file->data && !map_get_str(f->by_path, file->path)) {
		map_set_str(f->by_path, file->path, file);
		return true;
	}
	file_free(file);
	return false;
}

static bool get_root(struct files *f, struct bytes *b)
{
	struct item i;
	char *path = get(b, &i, sizeof(i)) ? get_path(b, i.path_len) : NULL;

	if (path)
		files_add_root(f, path);
	free(path);
	return path != NULL;
}

static bool get_all(struct files *f, struct bytes *b)
{
	struct head h;

	if (!get(b, &h, sizeof(h)) || memcmp(h.magic, magic, sizeof(magic)) != 0)
		return false;
	for (uint32_t i = 0; i < h.files; i++) {
		if (!get_file(f, b))
			return false;
	}
	for (uint32_t i = 0; i < h.roots; i++) {
		if (!get_root(f, b))
			return false;
	}
	return b->left == 0;
}

struct files *files_unpack(int fd)
{
	struct stat st;
	struct files *f;
	void *all;

	if (fstat(fd, &st) < 0)
		return NULL;
	if (st.st_size <= 0 || st.st_size > (off_t)BUNDLE_MAX) {
		errno = EBADMSG;
		return NULL;
	}
	all = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (all == MAP_FAILED)
		return NULL;
	f = files_new();
	f->closed = true;
	if (!get_all(f, &(struct bytes){ all, (size_t)st.st_size })) {
		files_free(f);
		f = NULL;
		errno = EBADMSG;
	}
	munmap(all, (size_t)st.st_size);
	return f;
}
