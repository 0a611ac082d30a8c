/* Errors of scripts as the log has them. Owns no text but that of a fault; does not know how errors come about. */
#include "mctunnel/script/fault.h"

#include "mctunnel/base/clock.h"
#include "mctunnel/base/log.h"
#include "mctunnel/base/str.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define BURST 20 /* lines at once, and one a second from then on */

void fault_clear(struct script_fault *f)
{
	f->file[0] = f->text[0] = f->trace[0] = '\0';
	f->line = 0;
}

void fault_place(struct script_fault *f, const char *file, int line)
{
	str_copy(f->file, sizeof(f->file), file);
	f->line = line;
}

void fault_text(struct script_fault *f, const char *text)
{
	str_copy(f->text, sizeof(f->text), text);
}

/* The number at s, and behind it ": "; NULL: there is none. */
static const char *skip_line(const char *s, int *line)
{
	char *end;
	long n = strtol(s, &end, 10);

	if (n <= 0 || n > INT_MAX || strncmp(end, ": ", 2) != 0)
		return NULL;
	*line = (int)n;
	return end + 2;
}

void fault_said(struct script_fault *f, const char *name, const char *text)
{
	size_t len = strlen(name);
	const char *rest = strncmp(text, name, len) == 0 && text[len] == ':' ? skip_line(text + len + 1, &f->line) : NULL;

	fault_text(f, rest ? rest : text);
}

void fault_syntax(struct script_fault *f, const char *file, const char *text)
{
	const char *colon = text, *rest = NULL;

	fault_place(f, file, 0);
	while (!rest && (colon = strchr(colon, ':')) != NULL)
		rest = skip_line(++colon, &f->line);
	fault_text(f, rest ? rest : text);
}

static bool may_log(struct fault_log *l)
{
	uint64_t now = clock_ms(), leaked = (now - l->ms) / 1000;

	if (leaked) {
		l->level = leaked > l->level ? 0 : l->level - (uint32_t)leaked;
		l->ms = now;
	}
	if (l->level < BURST) {
		l->level++;
		return true;
	}
	l->suppressed++;
	return false;
}

void fault_log(struct fault_log *l, const struct script_fault *f, const char *function, const char *listener, const char *id)
{
	struct log_rec r;

	if (!may_log(l))
		return;
	if (l->suppressed)
		log_error("%llu more errors of scripts were not logged", (unsigned long long)l->suppressed);
	l->suppressed = 0;
	log_begin(&r, LOG_ERROR, "lua_error");
	log_str(&r, "function", function);
	log_str(&r, "file", f->file);
	log_int(&r, "line", f->line);
	log_str(&r, "text", f->text);
	if (listener)
		log_str(&r, "listener", listener);
	if (id)
		log_str(&r, "id", id);
	log_str(&r, "trace", f->trace);
	log_end(&r);
}
