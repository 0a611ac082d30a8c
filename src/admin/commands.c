/* The table of commands, and everything that is made from it: the parser, `help`, doc/management.txt, the shell's completion.
 * Owns no state. What a command does is show.c's, views.c's and change.c's; how its words come and go socket.c's. */
#include "mctunnel/admin/commands.h"

#include "mctunnel/admin/answer.h"
#include "mctunnel/admin/change.h"
#include "mctunnel/admin/command.h"
#include "mctunnel/admin/explain.h"
#include "mctunnel/admin/show.h"
#include "mctunnel/admin/views.h"
#include "mctunnel/base/log.h"
#include "mctunnel/base/str.h"
#include "mctunnel/conf/finding.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static int help(struct answer *a);
static int prompt(struct answer *a);
static int quit(struct answer *a);
static int severity_output(struct answer *a);

#define USER ADMIN_USER
#define OPERATOR ADMIN_OPERATOR
#define ADMIN ADMIN_ADMIN
#define JSON COMMAND_JSON
#define CSV COMMAND_CSV
#define CHANGES COMMAND_CHANGES

static const struct command commands[] = {
	{ "help", "[COMMAND]", 0, 4, USER, 0, help, "Lists the commands that this socket's level allows, or those that begin with the words given." },
	{ "prompt", "", 0, 0, USER, 0, prompt, "Interactive use from here on: the connection stays open, '> ' asks for the next line." },
	{ "quit", "", 0, 0, USER, 0, quit, "Closes the connection." },

	{ "show info", "", 0, 0, USER, JSON, show_info, "The process: version, state, limits, totals." },
	{ "show stat", "", 0, 0, USER, JSON | CSV, view_stat, "Statistics of listeners, tunnels, agents and services (as TUNNEL/SERVICE) as CSV in HAProxy's columns; unused ones are empty, our own stand at the end." },
	{ "show tunnels", "", 0, 0, USER, JSON, view_tunnels, "Tunnels: status, agents and services that are up, sessions, bytes of ended sessions." },
	{ "show agents", "", 0, 0, USER, JSON, view_agents, "Agents that the configuration names, there or not: status, links, sessions, round trip, services." },
	{ "show links", "", 0, 0, OPERATOR, JSON, view_links, "Links, each with its ID, its peer, the thread that carries it, sessions, round trip, and the peer's certificate." },
	{ "show services", "", 0, 0, USER, JSON, view_services, "Services that agents offer, with status and weight; on an agent its own, with sessions and target. With a health check: its last result (on a hub the one that made it UP or DOWN), since when it is so, and why." },
	{ "show listeners", "", 0, 0, USER, JSON, view_listeners, "Listeners: OPEN, FULL or STOP, sessions, limits, totals, addresses, routes, the number of rules, the policy." },
	{ "show sessions", "[ID]", 0, 1, OPERATOR, JSON, view_sessions, "Sessions of this moment, or one of them with all that is known of it." },
	{ "show errors", "", 0, 0, OPERATOR, JSON, show_errors, "The last 64 records of the log of level warning and more important; before them, what a worker that died has left." },
	{ "show events", "", 0, 0, OPERATOR, JSON, show_events, "The last 256 records of the log of level notice and more important." },
	{ "show certs", "", 0, 0, USER, JSON, show_certs, "Certificates in use: names, issuer, end of validity, days left." },
	{ "show config", "", 0, 0, OPERATOR, JSON, show_config, "The values in force, defaults included; passwords are left out." },
	{ "show memory", "", 0, 0, USER, JSON, show_memory, "Pooled objects by kind, with their limits; kept: for reuse, as of the last seconds." },
	{ "show threads", "", 0, 0, USER, JSON, show_threads, "Threads: load, turns of the loop, messages taken, sessions of the engine, timers." },
	{ "show lua", "", 0, 0, USER, JSON, show_lua, "Scripts; on each thread the memory of its state, and for each function that they have registered calls, errors and time taken." },
	{ "show version", "", 0, 0, USER, JSON, show_version, "The version of the running program." },
	{ "show env", "", 0, 0, ADMIN, JSON, show_env, "The environment of the process." },

	{ "route", "[--listener NAME] [OPTION VALUE]...", 0, ANSWER_ARGS, USER, JSON, explain_route, "Which rule would apply to a client, by its number (from 0) and FILE:LINE, and where it would go now: its routes in order (UP; DOWN: its agents take no sessions; NONE: no agent offers it; UNKNOWN: no such tunnel; DENIED: the tunnel does not allow the service), a refusal or redirect with its status, and the policy that would be asked. Options: --src ADDRESS, --port N, --host NAME, --path PATH, --method WORD, --sni NAME, and as often as needed --alpn NAME, --header \"NAME: VALUE\"." },

	{ "enable listener", "NAME", 1, 1, ADMIN, CHANGES, change_listener_on, "A listener accepts again." },
	{ "disable listener", "NAME", 1, 1, ADMIN, CHANGES, change_listener_off, "A listener stops accepting; clients wait in the kernel's queue, sessions go on." },
	{ "enable tunnel", "NAME", 1, 1, ADMIN, CHANGES, change_tunnel_on, "A tunnel takes new sessions again." },
	{ "disable tunnel", "NAME", 1, 1, ADMIN, CHANGES, change_tunnel_off, "A tunnel takes no new sessions; clients wait for timeouts.queue or take the next route, sessions go on." },
	{ "enable agent", "NAME", 1, 1, ADMIN, CHANGES, change_agent_on, "An agent takes new sessions again, after drain or disable." },
	{ "disable agent", "NAME", 1, 1, ADMIN, CHANGES, change_agent_off, "An agent is out of service (MAINT): no new sessions, also when it comes back; sessions go on until they are shut down." },
	{ "enable service", "TUNNEL/SERVICE", 1, 1, ADMIN, CHANGES, change_service_on, "A service of a tunnel takes new sessions again." },
	{ "disable service", "TUNNEL/SERVICE", 1, 1, ADMIN, CHANGES, change_service_off, "A service of a tunnel takes no new sessions, whichever agent offers it; sessions go on." },
	{ "drain agent", "NAME", 1, 1, ADMIN, CHANGES, change_agent_drain, "An agent gets no new sessions; those it has go on. enable agent takes it back." },

	{ "shutdown session", "ID", 1, 1, ADMIN, CHANGES, kill_session, "Ends a session: both sides see a reset, the reason in the log is killed." },
	{ "shutdown sessions agent", "NAME", 1, 1, ADMIN, CHANGES, kill_sessions_agent, "Ends all sessions of an agent." },
	{ "shutdown sessions listener", "NAME", 1, 1, ADMIN, CHANGES, kill_sessions_listener, "Ends all sessions of a listener, and clients of it that wait." },
	{ "shutdown link", "ID", 1, 1, ADMIN, CHANGES, kill_link, "Closes a link; its sessions go on over another one, the agent dials anew." },

	{ "set maxconn", "N", 1, 1, ADMIN, CHANGES, set_maxconn, "The limit of sessions in the process, instead of global.maxconn, until it is restarted." },
	{ "set log level", "LEVEL", 1, 1, ADMIN, CHANGES, set_log_level, "The least important records that targets of the log take: alert, error, warning, notice, info, debug." },
	{ "set weight", "AGENT SERVICE N", 3, 3, ADMIN, CHANGES, change_weight, "The weight of a service of an agent, 0 to 256, instead of what the agent says; 0: no new sessions." },
	{ "set vip", "master|backup|fault", 1, 1, ADMIN, CHANGES, set_vip, "Tells which role this host has for the virtual address; for keepalived's notify script. Shown, logged and counted; with backup or fault, clients and links of an address that this host has no longer are reset, with master a stop waits for the address to move (global.vip_grace)." },
	{ "set severity-output", "none|number", 1, 1, USER, 0, severity_output, "Whether sentences begin with their severity on this connection: [3] a refusal, [6] a notice." },

	{ "reload", "", 0, 0, ADMIN, CHANGES, reload, "Reads the configuration again, whole: it takes effect between two turns of the loops, or is refused with the reasons and the old one stays. Nothing is dropped." },
	{ "reload certs", "", 0, 0, ADMIN, CHANGES, reload, "The same: certificates are read again with everything else; links that are up stay." },
	{ "stop", "", 0, 0, ADMIN, CHANGES, stop_now, "Ends the program at once, in good order." },
	{ "soft-stop", "", 0, 0, ADMIN, CHANGES, stop_softly, "Accepts no more, tells agents, and ends the program when the last session has ended, or after global.hard_stop_after." },
	{ "upgrade", "", 0, 0, ADMIN, CHANGES, not_available, "Starts the program's file anew without losing a session." },
	{ "clear counters", "", 0, 0, OPERATOR, CHANGES, clear_counters, "Totals shown here begin anew; metrics do not." },
	{ "wait ready", "[TIME]", 0, 1, USER, 0, wait_ready, "Answers as soon as the program serves; a refusal when it does not within the time (10 s)." },
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))
#define WORDS_MAX 48

static const char *const level_words[] = { "user", "operator", "admin" };

/* ---- words ---- */

char *commands_cut(char **rest)
{
	char *start = *rest, *c = start;

	if (!*start)
		return NULL;
	while (*c && *c != ';')
		c += *c == '\\' && c[1] ? 2 : 1;
	*rest = *c ? c + 1 : c;
	*c = '\0';
	return start;
}

/* Takes a word off, its escapes undone; NULL: none left. */
static char *cut_word(char **rest)
{
	char *c = *rest + strspn(*rest, " \t"), *start = c, *out = c;

	if (!*c)
		return NULL;
	while (*c && *c != ' ' && *c != '\t') {
		if (*c == '\\' && c[1])
			c++;
		*out++ = *c++;
	}
	*rest = *c ? c + 1 : c;
	*out = '\0';
	return start;
}

static int split(char *line, char **words)
{
	int n = 0;

	while (n < WORDS_MAX && (words[n] = cut_word(&line)))
		n++;
	return line[strspn(line, " \t")] && n == WORDS_MAX ? n + 1 : n;
}

/* How many words a command has, when those given begin with them; 0 when they do not. Shortened words count where that may be. */
static int match(const struct command *c, char **words, int n, bool exact)
{
	const char *w = c->words;
	int count = 0;

	for (; *w; count++) {
		size_t len = strcspn(w, " ");

		if (count == n)
			return 0;
		size_t given = strlen(words[count]);
		if (given > len || memcmp(words[count], w, given) != 0 || (exact && given != len))
			return 0;
		w += len + (w[len] == ' ');
	}
	return count;
}

/* The longest that matches word by word, else the only one that matches when words are shortened. */
static const struct command *find(char **words, int n, int *used)
{
	const struct command *found = NULL;
	int others = 0;

	*used = 0;
	for (size_t i = 0; i < COMMANDS; i++) {
		int count = match(&commands[i], words, n, true);

		if (count > *used) {
			found = &commands[i];
			*used = count;
		}
	}
	for (size_t i = 0; i < COMMANDS && *used == 0; i++) {
		int count = commands[i].flags & COMMAND_CHANGES ? 0 : match(&commands[i], words, n, false);

		if (count) {
			found = &commands[i];
			others += count;
		}
	}
	if (found && *used == 0) {
		*used = match(found, words, n, false);
		if (others != *used)
			found = NULL;
	}
	return found;
}

/* ---- typing errors ---- */

static bool begins(const struct command *c, const char *text)
{
	return strncmp(c->words, text, strlen(text)) == 0;
}

/* The beginning of what was typed that is as long as the command's words: arguments are no typing error. */
static unsigned distance(const struct command *c, const char *text)
{
	char head[64];
	size_t len = strlen(c->words);

	str_copy(head, sizeof(head), text);
	if (strlen(head) > len && head[len] == ' ')
		head[len] = '\0';
	return str_distance(head, c->words);
}

/* From here on it is another word. */
static unsigned too_far(const char *text)
{
	size_t len = strlen(text);

	return len < 4 ? 2 : len < 8 ? 3 : 4;
}

static bool near(const struct answer *a, const struct command *c, const char *text, unsigned best)
{
	return (int)c->level <= a->level && (begins(c, text) || (best < too_far(text) && distance(c, text) == best));
}

/* What they may have meant, from what their level allows. */
static void say_nearest(struct answer *a, const char *what, const char *text)
{
	unsigned best = UINT_MAX;
	bool any = false;

	for (size_t i = 0; i < COMMANDS; i++) {
		unsigned d = distance(&commands[i], text);

		best = d < best ? d : best;
	}
	for (size_t i = 0; i < COMMANDS; i++)
		any |= near(a, &commands[i], text, best);
	answer_say(a, true, "%s '%.80s'. %s", what, text, any ? "The nearest:" : "'help' lists all.");
	for (size_t i = 0; i < COMMANDS; i++) {
		const struct command *c = &commands[i];

		if (near(a, c, text, best))
			fprintf(a->out, "  %s%s%s\n", c->words, c->args[0] ? " " : "", c->args);
	}
}

/* The line is in argv[0]. */
static int unknown(struct answer *a)
{
	say_nearest(a, "Unknown command:", a->argv[0]);
	return ANSWER_DONE;
}

static int denied(struct answer *a)
{
	answer_say(a, true, "Permission denied");
	return ANSWER_DONE;
}

static int wrong_args(struct answer *a)
{
	const struct command *c = (const struct command *)a->data;

	answer_say(a, true, "Usage: %s%s%s%s", c->words, c->args[0] ? " " : "", c->args, c->flags & COMMAND_JSON ? " [json]" : "");
	return ANSWER_DONE;
}

static int sentence(struct answer *a)
{
	answer_say(a, true, "%s", a->argv[0]);
	return ANSWER_DONE;
}

static const struct command unknown_command = { .words = "", .args = "", .next = unknown };
static const struct command denied_command = { .words = "", .args = "", .next = denied };
static const struct command wrong_args_command = { .words = "", .args = "", .next = wrong_args };
static const struct command sentence_command = { .words = "", .args = "", .next = sentence };

/* ---- asking ---- */

static struct answer *make(const struct asker *k, const char *text, void (*on_more)(void *), void *owner)
{
	struct answer *a = answer_new(on_more, owner);

	if (!a)
		return NULL;
	a->state = k->state;
	a->level = k->level;
	a->numbers = k->numbers;
	a->line = strdup(text);
	if (a->line)
		return a;
	answer_drop(a);
	return NULL;
}

static void log_command(const struct asker *k, const char *text, bool allowed)
{
	struct log_rec r;

	log_begin(&r, LOG_NOTICE, "admin");
	log_str(&r, "command", text);
	log_str(&r, "allowed", allowed ? "yes" : "no");
	log_int(&r, "uid", k->uid);
	log_int(&r, "pid", k->pid);
	log_str(&r, "socket", k->where);
	if (k->uid < 0)
		log_str(&r, "from", k->who);
	log_str(&r, "rights", level_words[k->level]);
	log_end(&r);
}

/* The word behind a command that says how its answer shall look. */
static void take_form(struct answer *a)
{
	const struct command *c = a->command;
	const char *last = a->argc ? a->argv[a->argc - 1] : "";

	a->form = c->flags & COMMAND_CSV ? FORM_CSV : FORM_TEXT;
	if (c->flags & COMMAND_JSON && strcmp(last, "json") == 0) {
		a->form = FORM_JSON;
		a->argc--;
	} else if (c->flags & COMMAND_CSV && strcmp(last, "csv") == 0) {
		a->argc--;
	}
}

static void take_args(struct answer *a, char **words, int n)
{
	a->argc = n < ANSWER_ARGS ? n : ANSWER_ARGS;
	for (int i = 0; i < a->argc; i++)
		a->argv[i] = words[i];
	take_form(a);
	if (n <= ANSWER_ARGS && (unsigned)a->argc >= a->command->min && (unsigned)a->argc <= a->command->max)
		return;
	a->data = (void *)(uintptr_t)a->command;
	a->command = &wrong_args_command;
}

static void choose(struct answer *a, const struct asker *k, const char *text)
{
	char *words[WORDS_MAX + 1];
	int used, n = split(a->line, words);
	const struct command *c = n <= WORDS_MAX ? find(words, n, &used) : NULL;

	if (!c) {
		a->command = &unknown_command;
		memcpy(a->line, text, strlen(text) + 1); /* the words have been cut out of it */
		a->argv[0] = a->line;
		return;
	}
	bool allowed = (int)c->level <= k->level;
	if (c->flags & COMMAND_CHANGES)
		log_command(k, text, allowed);
	a->command = c;
	if (allowed)
		take_args(a, words + used, n - used);
	else
		a->command = &denied_command;
}

struct answer *commands_ask(const struct asker *k, const char *text, void (*on_more)(void *), void *owner)
{
	text += strspn(text, " \t");
	struct answer *a = make(k, text, on_more, owner);

	if (a)
		choose(a, k, text);
	return a;
}

struct answer *commands_refuse(const struct asker *k, const char *text, void (*on_more)(void *), void *owner)
{
	struct answer *a = make(k, text, on_more, owner);

	if (!a)
		return NULL;
	a->command = &sentence_command;
	a->argv[0] = a->line;
	return a;
}

/* ---- commands about the connection ---- */

static int prompt(struct answer *a)
{
	a->effect = EFFECT_PROMPT;
	return ANSWER_DONE;
}

static int quit(struct answer *a)
{
	a->effect = EFFECT_QUIT;
	return ANSWER_DONE;
}

static int severity_output(struct answer *a)
{
	if (strcmp(a->argv[0], "number") == 0)
		a->effect = EFFECT_NUMBERS;
	else if (strcmp(a->argv[0], "none") == 0)
		a->effect = EFFECT_PLAIN;
	else
		answer_say(a, true, "It is none or number.");
	return ANSWER_DONE;
}

static void join_words(const struct answer *a, struct strbuf *b)
{
	for (int i = 0; i < a->argc; i++)
		strbuf_add(b, "%s%s", i ? " " : "", a->argv[i]);
}

static int help(struct answer *a)
{
	char words[128], usage[96];
	struct strbuf b;
	int listed = 0;

	strbuf_init(&b, words, sizeof(words));
	join_words(a, &b);
	if (a->argc == 0)
		fprintf(a->out, "Commands of level %s; json behind those marked * gives JSON, ';' divides several:\n", level_words[a->level]);
	for (size_t i = 0; i < COMMANDS; i++) {
		const struct command *c = &commands[i];

		if ((int)c->level > a->level || !begins(c, words))
			continue;
		snprintf(usage, sizeof(usage), "%s%s%s%s", c->words, c->args[0] ? " " : "", c->args, c->flags & COMMAND_JSON ? " *" : "");
		fprintf(a->out, "  %-33s %s\n", usage, c->help);
		listed++;
	}
	if (listed == 0)
		say_nearest(a, "No command begins with", words);
	return ANSWER_DONE;
}

/* ---- the reference and the shell's completion ---- */

static const char prose[] =
	"                             mctunnel: management reference\n"
	"                             ==============================\n"
	"\n"
	"This page is written by the program itself (mctunnel -dM), from the table of its commands.\n"
	"\n"
	"\n"
	"1. The admin socket\n"
	"-------------------\n"
	"\n"
	"    global: { admin = ( { bind = \"unix:/run/mctunnel/admin.sock\"; mode = \"0660\"; level = \"admin\"; } ); };\n"
	"\n"
	"Who may write to the file may give commands; the level says which:\n"
	"\n"
	"    user      reads what is not confidential\n"
	"    operator  reads everything, and clears counters\n"
	"    admin     changes things, and reads the environment\n"
	"\n"
	"What is not allowed is answered \"Permission denied\". Each command that changes something, or would\n"
	"have, is logged (event admin, level notice) with the user id and process id of who gave it.\n"
	"\n"
	"The protocol is HAProxy's: one line, its answer, an empty line, and the connection is closed:\n"
	"\n"
	"    $ echo \"show info\" | socat stdio /run/mctunnel/admin.sock\n"
	"\n"
	"Several commands in one line are divided by ';' (\"\\;\" is a semicolon, \"\\ \" a blank within a word,\n"
	"\"\\\\\" a backslash), and each answer ends with an empty line. No answer holds an empty line before its\n"
	"end. A line has at most 4095 bytes; a longer one is refused at once. A connection that neither sends\n"
	"a command nor takes its answer for 10 seconds is closed. \"prompt\" makes it interactive: it stays\n"
	"open, without a limit of time between commands. At most 256 connections are served at a time,\n"
	"others wait. Commands that only show something may be shortened (\"show sess\").\n"
	"\n"
	"Tables are lines of cells divided by tabs, the first one begins with '#' and names the columns; a\n"
	"cell without a value is '-'. With the word json behind it a command answers with JSON: an array of\n"
	"objects for a table, an object for pairs. There, times (age) are seconds, and null stands for no\n"
	"value. show stat is CSV with HAProxy's columns. More columns may be added at the end.\n"
	"\n"
	"Long answers are made while they are read: each piece shows what was there when it was made.\n"
	"\n"
	"mctunnelctl speaks to the socket and shows tables aligned: see mctunnelctl(1).\n"
	"\n"
	"What enable, disable, drain and set have changed lasts until the worker is started again, but for\n"
	"the role of the virtual address, which lasts as long as the program.\n"
	"\n"
	"\n"
	"2. States\n"
	"---------\n"
	"\n"
	"    listener  OPEN  accepts      FULL  at a limit: clients wait in the kernel's queue\n"
	"              STOP  disabled: the same\n"
	"    tunnel    UP    an agent is there that takes sessions      DOWN  none\n"
	"              MAINT disabled\n"
	"    agent     UP    has links    DOWN  has none    MAINT disabled\n"
	"              DRAIN drained by command, or by itself because it stops: no new sessions\n"
	"    service   UP    DOWN (its check fails)    DRAIN, MAINT: by command, of itself, its agent, its tunnel\n"
	"    session   queue (waits for an agent)  connect (for the target)  open  half-closed  parked (has lost\n"
	"              its link and waits for another)\n"
	"    link      up; on an agent also dialling, handshake, greeting, retiring (replaced by another), leaving\n"
	"\n"
	"\n"
	"3. Commands\n"
	"-----------\n";

void commands_print_manual(FILE *out)
{
	fputs(prose, out);
	for (size_t i = 0; i < COMMANDS; i++) {
		const struct command *c = &commands[i];

		fprintf(out, "\n    %s%s%s%s\n", c->words, c->args[0] ? " " : "", c->args, c->flags & COMMAND_JSON ? " [json]" : "");
		str_paragraph(out, 8, c->help);
		if (c->next == not_available)
			fputs("        Status: not available in this version.\n", out);
		fprintf(out, "        Level: %s.\n", level_words[c->level]);
	}
}

/* What may follow each run of words, one line of a case each. */
static bool follows(size_t i, const char *prefix, size_t len)
{
	return strncmp(commands[i].words, prefix, len) == 0 && (commands[i].words[len] == ' ' || len == 0);
}

static void completion_case(FILE *out, const char *prefix, size_t len)
{
	fprintf(out, "\t\"%.*s\") words=\"", (int)len, prefix);
	for (size_t i = 0; i < COMMANDS; i++) {
		const char *next = commands[i].words + len + (len > 0);
		size_t word = follows(i, prefix, len) ? strcspn(next, " ") : 0;
		bool said = false;

		for (size_t k = 0; k < i; k++) {
			const char *other = commands[k].words + len + (len > 0);

			said |= follows(k, prefix, len) && strcspn(other, " ") == word && strncmp(other, next, word) == 0;
		}
		if (word && !said)
			fprintf(out, " %.*s", (int)word, next);
	}
	fputs(len ? " \" ;;\n" : " check lua top \" ;;\n", out);
}

static bool prefix_said(size_t i, size_t len)
{
	for (size_t k = 0; k < i; k++) {
		if (strncmp(commands[k].words, commands[i].words, len) == 0 && commands[k].words[len] == ' ')
			return true;
	}
	return false;
}

void commands_print_completion(FILE *out)
{
	fputs("# bash completion for mctunnelctl; written by mctunnel -dB from the table of commands\n"
	      "_mctunnelctl()\n{\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} said=\"\" words=\"\" i\n"
	      "\tfor ((i = 1; i < COMP_CWORD; i++)); do\n\t\tcase ${COMP_WORDS[i]} in\n"
	      "\t\t-s) ((i++)) ;;\n\t\t-*) ;;\n\t\t*) said=\"$said${said:+ }${COMP_WORDS[i]}\" ;;\n\t\tesac\n\tdone\n"
	      "\tcase $said in\n", out);
	completion_case(out, "", 0);
	for (size_t i = 0; i < COMMANDS; i++) {
		const char *w = commands[i].words;

		for (size_t len = strcspn(w, " "); w[len]; len += 1 + strcspn(w + len + 1, " ")) {
			if (!prefix_said(i, len))
				completion_case(out, w, len);
		}
	}
	fputs("\tesac\n\tcase $cur in\n\t-*) words=\"-s --json --watch --help --version\" ;;\n\tesac\n"
	      "\t# shellcheck disable=SC2207\n\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
	      "complete -F _mctunnelctl mctunnelctl\n", out);
}
