/* LD_PRELOAD for the failover lab, where two hosts are network namespaces of one machine.
 * keepalived: the kernel tells of processes in the first network namespace only, so that one socket is opened there, where
 * MCTUNNEL_LAB_OUTSIDE leads.
 * mctunnel: both workers would have the same name, which track_process looks for host wide; MCTUNNEL_LAB_WORKER names this host's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

typedef int socket_call(int, int, int);
typedef int prctl_call(int, ...);

int socket(int domain, int type, int protocol)
{
	socket_call *real = (socket_call *)dlsym(RTLD_NEXT, "socket");
	const char *outside = getenv("MCTUNNEL_LAB_OUTSIDE");
	int here, there, fd;

	if (domain != AF_NETLINK || protocol != NETLINK_CONNECTOR)
		return real(domain, type, protocol);
	here = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	there = open(outside ? outside : "", O_RDONLY | O_CLOEXEC);
	if (here < 0 || there < 0 || setns(there, CLONE_NEWNET) < 0)
		return -1;
	fd = real(domain, type, protocol);
	if (setns(here, CLONE_NEWNET) < 0)
		abort();
	close(here);
	close(there);
	return fd;
}

int prctl(int option, ...)
{
	prctl_call *real = (prctl_call *)dlsym(RTLD_NEXT, "prctl");
	const char *name = getenv("MCTUNNEL_LAB_WORKER");
	unsigned long a[4];
	va_list ap;

	va_start(ap, option);
	for (int i = 0; i < 4; i++)
		a[i] = va_arg(ap, unsigned long);
	va_end(ap);
	if (option == PR_SET_NAME && name && strcmp((const char *)a[0], "mctunnel-worker") == 0)
		a[0] = (unsigned long)name;
	return real(option, a[0], a[1], a[2], a[3]);
}
