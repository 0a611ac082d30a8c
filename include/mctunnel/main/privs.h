/* Rights and limits of the processes. */
#ifndef MCTUNNEL_MAIN_PRIVS_H
#define MCTUNNEL_MAIN_PRIVS_H

#include <stdbool.h>
#include <stddef.h>

struct conf;

/* Looks up global.user, .group and .chroot while the file system is still all there. -1 with a sentence in err that begins with the key. */
int privs_prepare(const struct conf *conf, char *err, size_t errsize) __attribute__((warn_unused_result));

/* -1 when this process may not do what has been prepared (it is not root). */
int privs_possible(char *err, size_t errsize) __attribute__((warn_unused_result));

/* The worker, as the last step before it serves: chroot, group, user, no raw sockets, no new privileges. -1 with the reason in err. */
int privs_drop(char *err, size_t errsize) __attribute__((warn_unused_result));

/* Raises the limit on descriptors towards what the configuration can need. -1 with a sentence for a warning when it stays too low. */
int privs_raise_files(const struct conf *conf, char *err, size_t errsize) __attribute__((warn_unused_result));

#endif
