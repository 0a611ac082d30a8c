/* Keeps clients from using up all descriptors. The kernel gives the lowest number that is free, so that a number near the limit
 * tells how many are left. Owns nothing and counts nothing: the limit may be changed from outside at any time. */
#define _GNU_SOURCE
#include "mctunnel/net/reserve.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

bool reserve_has(int fd)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
	       (rlim_t)fd + RESERVE_DESCRIPTORS >= limit.rlim_cur;
}

bool reserve_only(int fd)
{
	int probe = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	bool only = probe < 0 || reserve_has(probe);

	if (probe >= 0)
		close(probe);
	return only;
}
