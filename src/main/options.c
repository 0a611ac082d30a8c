/* The command line: one table makes the parser and the usage text.
 * Words are HAProxy's where HAProxy has them. Options are never bundled (-cq is unknown), as there.
 * It does not know what any option leads to. */
#include "mctunnel/main/options.h"

#include "mctunnel/base/mem.h"

#include <gnu/libc-version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef BUILT_WITH
#define BUILT_WITH "unknown"
#define BUILT_AS "unknown"
#endif

enum option_id {
	OPT_FILE,
	OPT_CHECK,
	OPT_DAEMON,
	OPT_PID_FILE,
	OPT_ONE,
	OPT_DEBUG,
	OPT_QUIET,
	OPT_VERSION,
	OPT_BUILD,
	OPT_REFERENCE,
	OPT_MANUAL,
	OPT_COMPLETION,
	OPT_LUA,
	OPT_HELP,
};

static const struct {
	enum option_id id;
	const char *name, *arg, *help;
} rows[] = {
	{ OPT_FILE, "-f", "FILE|DIR", "configuration file, or a folder whose *.cfg are read in order; repeatable" },
	{ OPT_CHECK, "-c", NULL, "check the configuration and exit: 0 when it is valid, else 1" },
	{ OPT_DAEMON, "-D", NULL, "run in the background; returns when the program is ready to serve" },
	{ OPT_PID_FILE, "-p", "FILE", "write the master's process id to FILE" },
	{ OPT_ONE, "-1", NULL, "one process, without a master (debuggers, tests)" },
	{ OPT_DEBUG, "-d", NULL, "log at level debug" },
	{ OPT_QUIET, "-q", NULL, "no warnings; with -c no output at all" },
	{ OPT_VERSION, "-v", NULL, "version" },
	{ OPT_BUILD, "-vv", NULL, "version, build options, libraries" },
	{ OPT_REFERENCE, "-dK", NULL, "all keys of the configuration, with their meaning" },
	{ OPT_MANUAL, "-dM", NULL, "all commands of the admin socket, with their meaning" },
	{ OPT_COMPLETION, "-dB", NULL, "bash completion for mctunnelctl" },
	{ OPT_LUA, "-l", "FILE ...", "ask a Lua script about a client that the words behind FILE describe (mctunnelctl lua)" },
	{ OPT_HELP, "-h", NULL, "this help" },
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

static void print_usage(FILE *out)
{
	fprintf(out, "mctunnel " MCTUNNEL_VERSION ": hub and agent for tunnels to sites behind NAT\n"
		     "Usage: mctunnel [options] -f FILE|DIR [-f FILE|DIR ...] [-- FILE ...]\n");
	for (size_t i = 0; i < ROWS; i++)
		fprintf(out, "  %-4s %-9s %s\n", rows[i].name, rows[i].arg ? rows[i].arg : "", rows[i].help);
	fprintf(out, "  --   FILE ...  all further words are configuration files\n"
		     "Signals to the master: TERM, INT stop at once; USR1 soft stop (drain, then exit); HUP reload.\n");
}

void options_print_usage(void)
{
	print_usage(stdout);
}

void options_print_version(bool libraries)
{
	printf("mctunnel version " MCTUNNEL_VERSION "\n");
	if (!libraries)
		return;
	printf("Built with:  %s\n", BUILT_WITH);
	printf("Built as:    %s\n", BUILT_AS);
	printf("C library:   glibc %s\n", gnu_get_libc_version());
	printf("Compiler:    %s\n", __VERSION__);
	printf("Event loop:  epoll\n");
}

static int refuse(const char *what, const char *word)
{
	fprintf(stderr, "mctunnel: %s '%s'\n", what, word);
	print_usage(stderr);
	return -1;
}

static void add_path(struct options *o, const char *path)
{
	o->paths = xrealloc(o->paths, (o->paths_n + 1) * sizeof(*o->paths));
	o->paths[o->paths_n++] = path;
}

static void apply(struct options *o, enum option_id id, const char *arg)
{
	switch (id) {
	case OPT_FILE: add_path(o, arg); break;
	case OPT_CHECK: o->check = true; break;
	case OPT_DAEMON: o->master.daemonise = true; break;
	case OPT_PID_FILE: o->master.pid_file = arg; break;
	case OPT_ONE: o->master.no_master = true; break;
	case OPT_DEBUG: o->debug = o->master.debug = true; break;
	case OPT_QUIET: o->quiet = o->master.quiet = true; break;
	case OPT_VERSION: o->version = 1; break;
	case OPT_BUILD: o->version = 2; break;
	case OPT_REFERENCE: o->reference = true; break;
	case OPT_MANUAL: o->manual = true; break;
	case OPT_COMPLETION: o->completion = true; break;
	case OPT_LUA: break;
	case OPT_HELP: o->help = true; break;
	}
}

static int find_row(const char *word)
{
	for (size_t i = 0; i < ROWS; i++)
		if (strcmp(rows[i].name, word) == 0)
			return (int)i;
	return -1;
}

static int parse_words(struct options *o, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		int row = find_row(argv[i]);

		if (strcmp(argv[i], "--") == 0) {
			while (++i < argc)
				add_path(o, argv[i]);
			return 0;
		}
		if (row < 0)
			return refuse("unknown option", argv[i]);
		if (rows[row].id == OPT_LUA) {
			o->lua = argv + i + 1;
			o->lua_n = argc - i - 1;
			return 0;
		}
		if (rows[row].arg && (i + 1 == argc || !argv[i + 1][0]))
			return refuse("a value is missing after", argv[i]);
		apply(o, rows[row].id, rows[row].arg ? argv[++i] : NULL);
	}
	return 0;
}

int options_parse(struct options *o, int argc, char **argv)
{
	*o = (struct options){ .master = { .argc = argc, .argv = argv } };
	if (argc < 2) {
		print_usage(stderr);
		return -1;
	}
	if (parse_words(o, argc, argv) < 0)
		return -1;
	if (o->help || o->version || o->reference || o->manual || o->completion || o->lua || o->paths_n > 0)
		return 0;
	return refuse("no configuration file was given; it takes", "-f FILE");
}

void options_fini(struct options *o)
{
	free(o->paths);
	*o = (struct options){ 0 };
}
