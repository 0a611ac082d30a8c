/* doc/configuration.txt: prose about the language and the log here, everything about keys from the rows of schema.c,
 * the reasons from their table.
 * Owns the layout of the page, knows no key by name. */
#include "mctunnel/conf/reference.h"

#include "mctunnel/base/check_status.h"
#include "mctunnel/base/reason.h"
#include "mctunnel/base/str.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/schema.h"
#include "mctunnel/conf/value.h"

#include <string.h>

static const char prose[] =
	"                             mctunnel: configuration reference\n"
	"                             =================================\n"
	"\n"
	"This page is written by the program itself (mctunnel -dK), from the tables that it reads\n"
	"configurations with.\n"
	"\n"
	"\n"
	"1. Files\n"
	"--------\n"
	"\n"
	"    mctunnel -f FILE|DIRECTORY [-f ...]\n"
	"\n"
	"Of a directory, the files *.cfg are read, in the order of their names' bytes; names that begin\n"
	"with a dot are not. The groups global, defaults, hub and agent may stand once in all files\n"
	"together. The lists tunnels and listeners may stand in each file; they are put together. The\n"
	"order of sections is free.\n"
	"\n"
	"    mctunnel -c -f FILE\n"
	"\n"
	"reads and checks everything, and starts nothing. All findings of all files are shown in one run,\n"
	"up to 50 alerts:\n"
	"\n"
	"    FILE:LINE: [ALERT] listeners[0].bind: \"*:80\" is bound already as \"*:80\" at FILE:12\n"
	"\n"
	"An ALERT keeps the program from starting, a WARNING does not. Line 0 stands for the file as a\n"
	"whole. Elements of a list count from 0. Of a file with a mistake in its syntax only the first\n"
	"one is shown.\n"
	"\n"
	"\n"
	"2. Language\n"
	"-----------\n"
	"\n"
	"The syntax is libconfig's:\n"
	"\n"
	"    key = value;                    ':' may stand for '='; the ';' may be left out\n"
	"    group = { key = value; };       keys in a group are unique\n"
	"    list = ( { ... }, { ... } );    a list of groups; a comma behind the last one does no harm\n"
	"    array = [ \"a\", \"b\" ];           plain values of one type\n"
	"    # a comment, // another, /* and one over several lines */\n"
	"\n"
	"Strings stand in double quotes; \\\" \\\\ \\n \\t \\xHH stand for characters. Two strings after each\n"
	"other are one (not in a list, where a comma would be missing). Where a list of plain values is\n"
	"taken, a single one may be given without brackets.\n"
	"\n"
	"    @include \"more.cfg\"\n"
	"\n"
	"alone in a line is replaced by that file, which is looked for in the folder of the file that\n"
	"includes it; 10 deep at most.\n"
	"\n"
	"In every string \"${NAME}\" is replaced by an environment variable; one that is not set is an\n"
	"error. \"${NAME-default}\" takes the default instead. \"$${\" stands for \"${\" itself. A number may\n"
	"be written as a string, so that it can be a variable.\n"
	"\n"
	"Unknown keys are errors, not ignored. Keys that a later version will have are known and refused:\n"
	"see their status.\n"
	"\n"
	"Types:\n"
	"\n"
	"    NUMBER    a whole number.\n"
	"    TIME      a string with a unit: \"300ms\", \"5s\", \"2m\", \"1h\", \"1d\". A bare number is milliseconds.\n"
	"    SIZE      a string with a unit: \"64k\", \"16m\", \"1g\" (powers of 1024). A bare number is bytes.\n"
	"    WORD      one of the words listed.\n"
	"    MODE      the rights of a file as a string of octal digits: \"0660\".\n"
	"    STRING    any text without control characters, 1 to 255 characters unless said otherwise.\n"
	"    NAME      letters, digits, '.', '_' and '-'; 1 to 63 characters.\n"
	"    PATTERN   as NAME, and '*' for any characters.\n"
	"    PATH      a file. One that does not begin with '/' is looked for in the folder of the file that\n"
	"              it is written in.\n"
	"    ADDRESS   to listen on: \"*:8443\" (IPv6 and IPv4), \"127.0.0.1:80\", \"[::1]:80\", \"unix:/path\";\n"
	"              to dial: the same without \"*\", and \"host.name:443\".\n"
	"    ROUTE     \"TUNNEL/SERVICE\".\n"
	"    NETWORK   \"192.0.2.0/24\", \"2001:db8::/32\", a single address, or \"*\" for all.\n"
	"    PORTS     \"443\", or a range: \"8000-8099\".\n"
	"    STATUSES  \"200\", or a range: \"200-399\".\n"
	"    MATCH     a text that must be the same; with '*' in it, which stands for any characters, also\n"
	"              none; or, behind '~', a PCRE2 that is found in it: \"~^/api/\". An expression that\n"
	"              takes too many steps on a text, or a text of more than 8 KiB, is no match; a rule that\n"
	"              denies or rejects applies then.\n"
	"    TEMPLATE  a text in which \"${NAME}\" is what a group (?<NAME>...) of an expression of the same\n"
	"              rule has matched, not an environment variable.\n"
	"\n"
	"Where a key says that \"@FILE\" may stand for values, the lines of that file do: one value a line,\n"
	"without quotes; blank lines and what is behind a '#' at the start of a line or after a blank do not\n"
	"count. Values and files may be mixed: [ \"192.0.2.7\", \"@office.lst\" ]. A rule with a file in which\n"
	"there is nothing never applies.\n"
	"\n"
	"Files that are named here (certificates, keys, lists) are read once, at start and at each\n"
	"reload. A key says \"at start only\" when a reload does not change it.\n"
	"\n"
	"\n"
	"3. Sections\n"
	"-----------\n";

static const char log_prose[] =
	"\n\n"
	"4. Log\n"
	"------\n"
	"\n"
	"    TIME LEVEL EVENT key=value key=value ...\n"
	"\n"
	"Times are UTC. With format json the same facts are keys of an object; a value that is not known\n"
	"is - in text and null in JSON. Spans are milliseconds, -1 when it never came so far.\n"
	"\n"
	"After a rotation (logrotate: create, not copytruncate) HUP opens the files anew, also when the reload it\n"
	"asks for is refused. The master opens them, so this works with global.user and global.chroot too. A path\n"
	"that is a symbolic link is opened at start only.\n"
	"\n"
	"Events:\n"
	"\n"
	"    session          info     a session has ended, on hub and agent\n"
	"    session_start    debug    it has begun\n"
	"    link_up          notice   an agent's link serves; resumed: without a full TLS handshake\n"
	"    link_down        notice   it has ended; warning when nobody asked for that\n"
	"    link_refused     warning  the hub let nobody in (both sides), text says why\n"
	"    link_failed      warning  the agent could not reach a hub; count: failures since the last link\n"
	"    link_goaway      notice   the other side drains this link; the agent makes a new one\n"
	"    service_refused  warning  an agent offers what its tunnel does not list; the others work\n"
	"    check            warning  a health check brought a service down (on the agent, and on its hubs);\n"
	"                              notice when it is up\n"
	"    admin            notice   a command of the admin socket that changes something, or would have; who\n"
	"                              gave it, the level of its socket (rights), whether it was allowed\n"
	"    vip              notice   the role for the virtual address has changed (set vip)\n"
	"    lua              info     what a script wrote (mctunnel.log, c:log, print; the level is the script's)\n"
	"    lua_error        error    a function of a script failed: whom it was asked about is denied\n"
	"    services         notice   an agent offers other services now\n"
	"\n"
	"Of mode http each request is a session of its own. Without an event: start, stop, reloads, findings.\n"
	"\n"
	"Fields of session:\n"
	"\n"
	"    listener         where the client came in\n"
	"    client           its address\n"
	"    sni, cert        the server name it asked for, the name in its certificate, where known\n"
	"    method, host, path  of the request, the path as it came (modes http and connect)\n"
	"    status           what was answered, 0: nothing (modes http and connect)\n"
	"    route            the route taken, of a list (hub)\n"
	"    agent, target    who took the session, and the address it connected to\n"
	"    service, hub     which service, for which hub (agent)\n"
	"    queue            from the client's arrival to the choice of an agent (hub)\n"
	"    connect          from there until the target was connected\n"
	"    total            the whole session\n"
	"    up, down         bytes from the client, bytes to the client\n"
	"    sessions         those in the process / of the listener, this one included (hub)\n"
	"    end              two letters: who or what ended it, and in which state it was\n"
	"    reason           the same in one word, see below\n"
	"    text             more about the reason: why the target could not be reached (agent), what is wrong\n"
	"                     with a request, what a policy said, which route does not exist\n"
	"    request          of the request, as in X-Request-ID and in answers that are errors\n"
	"    id               of the session, the same on hub and agent\n"
	"\n"
	"First letter of end: - good order, C the client, c a timeout that is the client's, S the side of\n"
	"agent and target, s a timeout there, D the link, P denied, K stopped or killed, R resources or a\n"
	"limit, I a broken protocol, L sent elsewhere. Second letter: R before the client, or its request, was\n"
	"read whole, Q waiting for an agent, C connecting to the target, H waiting for the target's answer (mode\n"
	"http), D carrying data, L one direction had ended, - all was done.\n"
	"\n"
	"Reasons, of sessions and links, with the first letter:\n"
	"\n";

static void lines(FILE *out, const char *text)
{
	while (*text) {
		int len = (int)strcspn(text, "\n");
		fprintf(out, "    %.*s\n", len, text);
		text += len + (text[len] == '\n');
	}
}

static void words(FILE *out, const struct row *row)
{
	fputs("        One of:", out);
	for (const struct word *w = row->words; w->name; w++)
		fprintf(out, "%s \"%s\"%s", w == row->words ? "" : ",", w->name, w->later ? " (not in this version)" : "");
	fputs(".\n", out);
}

static void check_words(FILE *out)
{
	fputs("\nFields of check: service, target (agent), agent and tunnel (hub), state (UP or DOWN), status, code (of\n"
	      "HTTP or gRPC), text (what was found), ms (how long the check took; agent). Status says how far a check\n"
	      "came:\n\n",
	      out);
	for (int i = 0; i < CHECK_STATUS_COUNT; i++)
		fprintf(out, "    %-9s%s\n", check_status_word(i), check_status_text(i));
}

static void limits(FILE *out, const struct row *row)
{
	char low[32], high[32];

	value_show(row->kind, row->min, low, sizeof(low));
	value_show(row->kind, row->max, high, sizeof(high));
	fprintf(out, "        From %s to %s.\n", low, high);
}

static void default_line(FILE *out, const struct row *row)
{
	if (row->required)
		fputs("        Required.", out);
	else if (row->inherit)
		fputs("        Default: as in section defaults.", out);
	else if (row->def_words)
		fprintf(out, "        Default: %s.", row->def_words);
	else if (row->def && (row->kind == KIND_INT || strcmp(row->def, "0") == 0))
		fprintf(out, "        Default: %s.", row->def);
	else if (row->def)
		fprintf(out, "        Default: \"%s\".", row->def);
	else
		fputs("        May be left out.", out);
	fputs(row->restart ? " At start only.\n" : "\n", out);
}

static void section(FILE *out, const struct section *s, const char *key);

static void key_line(FILE *out, const struct row *row, const char *key)
{
	const char *type = value_type(row->kind);

	if (row->many)
		fprintf(out, "\n    %s = %s or [ %s, ... ]\n", key, type, type);
	else if (row->kind == KIND_GROUP)
		fprintf(out, "\n    %s = { ... }\n", key);
	else if (row->kind == KIND_LIST)
		fprintf(out, "\n    %s = ( { ... }, ... )\n", key);
	else
		fprintf(out, "\n    %s = %s\n", key, type);
}

static void entry(FILE *out, const struct row *row, const char *prefix)
{
	char key[128];

	snprintf(key, sizeof(key), "%s.%s", prefix, row->name);
	key_line(out, row, key);
	str_paragraph(out, 8, row->help);
	if (row->later) {
		fputs("        Status: not available in this version; refused.\n", out);
		return;
	}
	if (row->words)
		words(out, row);
	if (row->kind == KIND_INT || row->kind == KIND_TIME || row->kind == KIND_SIZE)
		limits(out, row);
	default_line(out, row);
	if (!row->sub || row->inherit)
		return;
	if (row->sub->intro) {
		fputc('\n', out);
		str_paragraph(out, 8, row->sub->intro);
	}
	str_copy(key + strlen(key), sizeof(key) - strlen(key), row->kind == KIND_LIST ? "[]" : "");
	section(out, row->sub, key);
}

static void section(FILE *out, const struct section *s, const char *key)
{
	for (size_t i = 0; i < s->rows_n; i++)
		entry(out, &s->rows[i], key);
}

static void root_section(FILE *out, const struct row *row, size_t number)
{
	char key[64];

	snprintf(key, sizeof(key), "%s%s", row->name, row->kind == KIND_LIST ? "[]" : "");
	fprintf(out, "\n\n3.%zu. %s\n\n", number, row->name);
	str_paragraph(out, 0, row->sub->intro);
	if (row->sub->example) {
		fputc('\n', out);
		lines(out, row->sub->example);
	}
	section(out, row->sub, key);
}

static void log_section(FILE *out)
{
	fputs(log_prose, out);
	for (enum reason r = 0; r < REASON_COUNT; r++)
		fprintf(out, "    %c  %-20s%s\n", reason_letter(r), reason_word(r), reason_text(r));
	fputs("\nname_in_use: agents need certificates of different names. The second of one name is refused while\n"
	      "the first is up, and takes over when that one has gone.\n",
	      out);
	check_words(out);
}

void reference_write(FILE *out)
{
	fputs(prose, out);
	for (size_t i = 0; i < schema_root.rows_n; i++)
		root_section(out, &schema_root.rows[i], i + 1);
	log_section(out);
}

void conf_print_reference(void)
{
	reference_write(stdout);
}
