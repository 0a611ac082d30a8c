/* The one way the program reads files that the configuration names. Everything read is remembered, so that a
 * worker without rights (or in a chroot) can be given the same content, and a restart uses what was checked. */
#ifndef MCTUNNEL_CONF_FILES_H
#define MCTUNNEL_CONF_FILES_H

#include <stdbool.h>
#include <stddef.h>

struct files; /* a set of file contents by path */

struct files *files_new(void);          /* reads from the file system, remembers */
void files_free(struct files *f);

#define FILES_MAX_SIZE (16u << 20)

/* Content of a file (NUL-terminated behind *len), borrowed from f until files_free; reads it the first time only.
 * NULL: *why says it in words ("no such file", "is a directory", "larger than 16 MiB", "permission denied", ...). */
const char *files_read(struct files *f, const char *path, size_t *len, const char **why);

/* What is in a folder: names in order of their bytes, each with a newline behind it, without those that begin with a dot. Remembered and borrowed as a
 * file's content. path ends in '/'. NULL: *why says it in words. */
const char *files_list(struct files *f, const char *path, const char **why);

/* The remembered spelling of a path that was read: borrowed from f until files_free. NULL: never read. */
const char *files_path(const struct files *f, const char *path);

/* The files a configuration begins with, in order: what -f named, or what was found in a folder. */
void files_add_root(struct files *f, const char *path);
size_t files_roots(const struct files *f);
const char *files_root(const struct files *f, size_t i);

/* The bundle: everything that was read, in one descriptor (a memfd), for a process that may not read it itself. Unpacked it is a
 * set that reads nothing more: what is not in it is "not part of the bundle". -1 / NULL: errno; EBADMSG: those bytes are no bundle. */
int files_pack(const struct files *f, int fd) __attribute__((warn_unused_result));
struct files *files_unpack(int fd) __attribute__((warn_unused_result));

bool files_closed(const struct files *f); /* unpacked: what was checked once is not to be looked for on this machine again */

/* Others than the owner, root's group and ours may read it: a key must not be so. false for what was never read. */
bool files_world_readable(const struct files *f, const char *path);

#endif
