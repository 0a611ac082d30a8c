/* What a process may do: user, group, chroot, number of descriptors.
 * The names are looked up once, by the master, because a worker in a chroot cannot; what was found is kept for
 * every worker to come. */
#define _GNU_SOURCE
#include "mctunnel/main/privs.h"

#include "mctunnel/conf/conf.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/stat.h>
#include <unistd.h>

#define OTHER_FILES 1000 /* logs, event loops, metrics, handshakes under way */

static struct {
	bool set_user, set_group;
	const char *user, *chroot; /* borrowed from the configuration */
	uid_t uid;
	gid_t gid;
} wanted;

static int find_user(const char *name, char *err, size_t errsize)
{
	const struct passwd *pw = getpwnam(name);

	if (!pw) {
		snprintf(err, errsize, "global.user: there is no user '%s'", name);
		return -1;
	}
	wanted.set_user = wanted.set_group = true;
	wanted.user = name;
	wanted.uid = pw->pw_uid;
	wanted.gid = pw->pw_gid;
	return 0;
}

static int find_group(const char *name, char *err, size_t errsize)
{
	const struct group *gr = getgrnam(name);

	if (!gr) {
		snprintf(err, errsize, "global.group: there is no group '%s'", name);
		return -1;
	}
	wanted.set_group = true;
	wanted.gid = gr->gr_gid;
	return 0;
}

static int find_chroot(const char *path, char *err, size_t errsize)
{
	struct stat st;

	if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
		snprintf(err, errsize, "global.chroot: '%s' is not a folder", path);
		return -1;
	}
	wanted.chroot = path;
	return 0;
}

int privs_prepare(const struct conf *conf, char *err, size_t errsize)
{
	const struct conf_global *g = &conf->global;

	memset(&wanted, 0, sizeof(wanted));
	if (g->user && find_user(g->user, err, errsize) < 0)
		return -1;
	if (g->group && find_group(g->group, err, errsize) < 0)
		return -1;
	return g->chroot ? find_chroot(g->chroot, err, errsize) : 0;
}

int privs_possible(char *err, size_t errsize)
{
	const char *key = NULL;

	if (geteuid() == 0)
		return 0;
	if (wanted.chroot)
		key = "chroot";
	else if (wanted.set_user && wanted.uid != geteuid())
		key = "user";
	else if (wanted.set_group && wanted.gid != getegid())
		key = "group";
	if (!key)
		return 0;
	snprintf(err, errsize, "global.%s: only root can change it, and the program was not started as root", key);
	return -1;
}

static int failed(const char *what, char *err, size_t errsize)
{
	snprintf(err, errsize, "%s: %s", what, strerror(errno));
	return -1;
}

static int become_group(char *err, size_t errsize)
{
	if (geteuid() != 0)
		return 0;
	if (wanted.set_user ? initgroups(wanted.user, wanted.gid) < 0 : setgroups(1, &wanted.gid) < 0)
		return failed("cannot set the groups", err, errsize);
	if (setresgid(wanted.gid, wanted.gid, wanted.gid) < 0)
		return failed("cannot set the group", err, errsize);
	return 0;
}

/* Raw packets, other people's addresses: the master has made its listening sockets with them; whoever parses what comes from a network shall not. */
static int forget_raw(char *err, size_t errsize)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[2];
	uint32_t keep = ~(1u << CAP_NET_RAW | 1u << CAP_NET_ADMIN);

	if (syscall(SYS_capget, &head, caps) < 0)
		return failed("cannot read the capabilities", err, errsize);
	if (((caps[0].effective | caps[0].permitted | caps[0].inheritable) & ~keep) == 0)
		return 0; /* where capset is filtered, there are none either */
	caps[0].effective &= keep;
	caps[0].permitted &= keep;
	caps[0].inheritable &= keep;
	if (syscall(SYS_capset, &head, caps) < 0)
		return failed("cannot renounce capabilities", err, errsize);
	return 0;
}

int privs_drop(char *err, size_t errsize)
{
	gid_t gid = wanted.gid;

	if (wanted.set_group && become_group(err, errsize) < 0)
		return -1;
	if (wanted.chroot && (chroot(wanted.chroot) < 0 || chdir("/") < 0))
		return failed("cannot chroot", err, errsize);
	if (wanted.set_user && wanted.uid != geteuid() && setresuid(wanted.uid, wanted.uid, wanted.uid) < 0)
		return failed("cannot set the user", err, errsize);
	if (wanted.set_group && getegid() != gid)
		return failed("the group did not change", err, errsize);
	if (forget_raw(err, errsize) < 0)
		return -1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return failed("cannot renounce new privileges", err, errsize);
	/* The change of user has switched these off: core dumps, and reading of our own /proc/self. */
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	return 0;
}

static rlim_t files_needed(const struct conf *conf)
{
	rlim_t n = (rlim_t)conf->global.maxconn * 2 + OTHER_FILES;

	if (conf->hub.set)
		n += conf->hub.max_links;
	if (conf->agent.set)
		n += (rlim_t)conf->agent.hubs_n * conf->agent.links;
	return n;
}

int privs_raise_files(const struct conf *conf, char *err, size_t errsize)
{
	rlim_t need = files_needed(conf);
	struct rlimit has, more;

	if (getrlimit(RLIMIT_NOFILE, &has) < 0)
		return 0;
	more.rlim_cur = more.rlim_max = has.rlim_max > need ? has.rlim_max : need;
	if (more.rlim_max > has.rlim_max && setrlimit(RLIMIT_NOFILE, &more) == 0)
		return 0;
	has.rlim_cur = has.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &has) < 0)
		getrlimit(RLIMIT_NOFILE, &has);
	if (has.rlim_cur >= need)
		return 0;
	snprintf(err, errsize, "global.maxconn: %u sessions may need %llu descriptors, the limit of this process is %llu "
		 "(LimitNOFILE= or ulimit -n)", conf->global.maxconn, (unsigned long long)need, (unsigned long long)has.rlim_cur);
	return -1;
}
