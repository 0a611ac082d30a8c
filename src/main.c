/* mctunnel: hub and agent for tunnels to sites behind NAT.
 * The program's table of contents: read the command line, read and check the configuration, hand it to the master,
 * which starts the worker, where hub and agent live (src/main/master.c, src/main/worker.c). */
#include "mctunnel/admin/commands.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/main/master.h"
#include "mctunnel/main/options.h"
#include "mctunnel/main/verify.h"
#include "mctunnel/script/dryrun.h"

#include <signal.h>
#include <stdio.h>

static void print_finding(void *arg, bool alert, const char *line)
{
	const struct options *o = arg;

	if (!o->quiet || (alert && !o->check))
		fprintf(stderr, "%s\n", line);
}

static struct conf *load(const struct options *o)
{
	struct conf *conf = conf_load(o->paths, o->paths_n, print_finding, (void *)o);

	if (!conf || verify_conf(conf, print_finding, (void *)o) == 0)
		return conf;
	conf_put(conf);
	return NULL;
}

static int run(const struct options *o)
{
	struct conf *conf = load(o);
	struct master_options m = o->master;
	int rc = 0;

	m.paths = o->paths;
	m.paths_n = o->paths_n;
	if (!conf)
		return 1;
	if (!o->check)
		rc = master_run(conf, &m);
	else if (!o->quiet)
		puts("Configuration file is valid");
	conf_put(conf);
	return rc;
}

int main(int argc, char **argv)
{
	struct options o;
	int rc = 0;

	bug_catch_signals();
	signal(SIGPIPE, SIG_IGN);
	if (options_parse(&o, argc, argv) < 0)
		rc = 1;
	else if (o.help)
		options_print_usage();
	else if (o.version)
		options_print_version(o.version > 1);
	else if (o.reference)
		conf_print_reference();
	else if (o.manual)
		commands_print_manual(stdout);
	else if (o.completion)
		commands_print_completion(stdout);
	else if (o.lua)
		rc = dryrun(o.lua_n, o.lua);
	else
		rc = run(&o);
	options_fini(&o);
	return rc;
}
