/* From files to one text: @include, line ends, byte order marks, and the map back to file and line. Also what is replaced inside
 * strings (${NAME}) and how relative paths are meant. Knows comments and strings just well enough not to be fooled by them. */
#include "mctunnel/conf/expand.h"

#include "mctunnel/base/mem.h"
#include "mctunnel/conf/files.h"
#include "mctunnel/conf/finding.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum inside { CODE, STRING, COMMENT };

struct frame { /* a file being expanded */
	const struct frame *up;
	const char *path; /* borrowed from the files */
	int line, since;  /* current line; where the string or comment began */
	int long_string;  /* where the first string over several lines began */
	enum inside inside;
};

struct expansion {
	struct expanded *out;
	struct files *files;
	struct findings *findings;
	unsigned includes; /* so far */
};

static void add_text(struct expanded *e, const char *text, size_t len)
{
	if (e->len + len + 1 > e->size) {
		e->size = (e->len + len + 1) * 2;
		e->text = xrealloc(e->text, e->size);
	}
	memcpy(e->text + e->len, text, len);
	e->len += len;
	e->text[e->len] = '\0';
}

static void add_span(struct expanded *e, const char *file, int line)
{
	e->spans = xrealloc(e->spans, (e->spans_n + 1) * sizeof(*e->spans));
	e->spans[e->spans_n++] = (struct span){ .first = e->lines + 1, .line = line, .file = file };
}

struct conf_where expand_where(const struct expanded *e, int line)
{
	size_t low = 0, high = e->spans_n;

	while (high - low > 1) {
		size_t mid = low + (high - low) / 2;
		if (e->spans[mid].first <= line)
			low = mid;
		else
			high = mid;
	}
	if (e->spans_n == 0)
		return (struct conf_where){ 0 };
	const struct span *s = &e->spans[low];
	return (struct conf_where){ .file = s->file, .line = s->line + (line > s->first ? line - s->first : 0) };
}

void expand_fini(struct expanded *e)
{
	free(e->text);
	free(e->spans);
	memset(e, 0, sizeof(*e));
}

static int complain(struct expansion *x, const char *file, int line, const char *sentence)
{
	alert_at(x->findings, (struct conf_where){ file, line }, "file", "%s", sentence);
	return -1;
}

/* Follows strings and comments over one line. */
static void follow(struct frame *fr, const char *p, const char *end)
{
	for (; p < end; p++) {
		if (fr->inside == STRING) {
			if (*p == '\\')
				p++;
			else if (*p == '"')
				fr->inside = CODE;
		} else if (fr->inside == COMMENT) {
			if (*p == '*' && p + 1 < end && p[1] == '/') {
				fr->inside = CODE;
				p++;
			}
		} else if (*p == '#' || (*p == '/' && p + 1 < end && p[1] == '/')) {
			return;
		} else if (*p == '"') {
			fr->inside = STRING;
			fr->since = fr->line;
		} else if (*p == '/' && p + 1 < end && p[1] == '*') {
			fr->inside = COMMENT;
			fr->since = fr->line;
			p++;
		}
	}
}

static bool is_include(const char *p, const char *end)
{
	static const char word[] = "@include";

	while (p < end && (*p == ' ' || *p == '\t'))
		p++;
	return (size_t)(end - p) >= sizeof(word) - 1 && memcmp(p, word, sizeof(word) - 1) == 0;
}

/* The path between the quotes of an @include line, malloc'ed; NULL when it does not look like one. */
static char *include_path(const char *p, const char *end)
{
	const char *open = memchr(p, '"', (size_t)(end - p));
	const char *close = open ? memchr(open + 1, '"', (size_t)(end - open - 1)) : NULL;

	if (!close || close == open + 1)
		return NULL;
	const char *at = memchr(p, '@', (size_t)(end - p));
	for (p = at + strlen("@include"); p < open; p++) {
		if (!isspace((unsigned char)*p))
			return NULL;
	}
	for (p = close + 1; p < end && (isspace((unsigned char)*p) || *p == ';'); p++)
		;
	if (p < end && *p != '#' && *p != '/')
		return NULL;
	return strndup(open + 1, (size_t)(close - open - 1));
}

static int expand_one(struct expansion *x, const char *path, const struct frame *up);

static int include(struct expansion *x, const struct frame *fr, const char *p, const char *end)
{
	char err[256], *written = include_path(p, end);

	if (++x->includes > EXPAND_MAX_INCLUDES) {
		free(written);
		return complain(x, fr->path, fr->line, "more than 1000 files are included");
	}
	if (!written)
		return complain(x, fr->path, fr->line, "@include needs a path in quotes: @include \"more.cfg\"");
	char *named = expand_env(written, err, sizeof(err));
	free(written);
	if (!named)
		return complain(x, fr->path, fr->line, err);
	char *path = named;
	const char *slash = strrchr(fr->path, '/');
	if (named[0] != '/' && slash)
		path = xasprintf("%.*s%s", (int)(slash - fr->path + 1), fr->path, named);
	int rc = expand_one(x, path, fr);
	if (path != named)
		free(path);
	free(named);
	add_span(x->out, fr->path, fr->line + 1);
	return rc;
}

static int expand_line(struct expansion *x, struct frame *fr, const char *p, const char *end)
{
	if (memchr(p, '\0', (size_t)(end - p)))
		return complain(x, fr->path, fr->line, "a NUL byte: this is not a text file");
	if (fr->inside == CODE && is_include(p, end))
		return include(x, fr, p, end);
	if (end > p && end[-1] == '\r')
		end--;
	follow(fr, p, end);
	if (fr->inside == STRING && fr->long_string == 0)
		fr->long_string = fr->since;
	add_text(x->out, p, (size_t)(end - p));
	add_text(x->out, "\n", 1);
	x->out->lines++;
	if (x->out->len > EXPAND_MAX_SIZE)
		return complain(x, fr->path, fr->line, "the configuration is larger than 32 MiB with all it includes");
	return 0;
}

static int expand_text(struct expansion *x, struct frame *fr, const char *p, const char *end)
{
	for (fr->line = 1; p < end; fr->line++) {
		const char *eol = memchr(p, '\n', (size_t)(end - p));
		if (!eol)
			eol = end;
		if (expand_line(x, fr, p, eol) < 0)
			return -1;
		p = eol + 1;
	}
	if (fr->inside == STRING)
		/* Where quotes are odd, the first string that left its line is the likely place. */
		return complain(x, fr->path, fr->long_string, "a string begins here and does not end in its line: is '\"' missing?");
	if (fr->inside == COMMENT)
		return complain(x, fr->path, fr->since, "a comment begins here and never ends: \"*/\" is missing");
	return 0;
}

/* A file may not include itself, however far up. */
static int check_frame(struct expansion *x, const char *path, const struct frame *up)
{
	int depth = 0;

	for (const struct frame *fr = up; fr; fr = fr->up, depth++) {
		if (fr->path == path)
			return complain(x, up->path, up->line, "this file includes itself: an include loop");
	}
	if (depth > EXPAND_MAX_DEPTH)
		return complain(x, up->path, up->line, "files include each other more than 10 deep");
	return 0;
}

static int cannot_read(struct expansion *x, const char *path, const struct frame *up, const char *why)
{
	struct conf_where at = { path, 0 };

	if (up)
		at = (struct conf_where){ up->path, up->line };
	alert_at(x->findings, at, "file", "\"%.256s\" cannot be read: %s", path, why);
	return -1;
}

static int expand_one(struct expansion *x, const char *path, const struct frame *up)
{
	size_t len;
	const char *why, *text = files_read(x->files, path, &len, &why);

	if (!text)
		return cannot_read(x, path, up, why);
	struct frame fr = { .up = up, .path = files_path(x->files, path) };
	if (check_frame(x, fr.path, up) < 0)
		return -1;
	if (len >= 2 && (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0))
		return complain(x, fr.path, 1, "this file is UTF-16: save it as UTF-8");
	size_t mark = len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
	add_span(x->out, fr.path, 1);
	return expand_text(x, &fr, text + mark, text + len);
}

int expand_file(struct expanded *e, struct files *files, const char *path, struct findings *f)
{
	struct expansion x = { .out = e, .files = files, .findings = f };

	memset(e, 0, sizeof(*e));
	add_text(e, "", 0);
	return expand_one(&x, path, NULL);
}

/* What stands for ${BODY}: a borrowed piece of text; NULL with a sentence in err. */
static const char *lookup(const char *body, size_t len, size_t *out_len, char *err, size_t errsize)
{
	char name[128];
	size_t n = 0;

	while (n < len && n < sizeof(name) - 1 && (isalnum((unsigned char)body[n]) || body[n] == '_'))
		n++;
	memcpy(name, body, n);
	name[n] = '\0';
	if (n == 0 || isdigit((unsigned char)name[0]) || (n < len && body[n] != '-')) {
		snprintf(err, errsize, "\"${%.*s}\" does not name an environment variable (\"$${\" stands for \"${\" itself)",
			 (int)(len < 64 ? len : 64), body);
		return NULL;
	}
	const char *value = getenv(name);
	if (!value && n == len) {
		snprintf(err, errsize, "the environment variable '%s' is not set (\"${%s-default}\" gives it a default)", name, name);
		return NULL;
	}
	*out_len = value ? strlen(value) : len - n - 1;
	return value ? value : body + n + 1;
}

char *expand_env(const char *text, char *err, size_t errsize)
{
	struct expanded out = { 0 };

	add_text(&out, "", 0);
	while (*text) {
		const char *dollar = strstr(text, "${");
		if (!dollar)
			break;
		if (dollar > text && dollar[-1] == '$') {
			add_text(&out, text, (size_t)(dollar - 1 - text));
			add_text(&out, "${", 2);
			text = dollar + 2;
			continue;
		}
		add_text(&out, text, (size_t)(dollar - text));
		const char *close = strchr(dollar, '}');
		size_t len = 0;
		if (!close)
			snprintf(err, errsize, "'}' is missing after \"${\"");
		const char *value = close ? lookup(dollar + 2, (size_t)(close - dollar - 2), &len, err, errsize) : NULL;
		if (!value) {
			free(out.text);
			return NULL;
		}
		add_text(&out, value, len);
		text = close + 1;
	}
	add_text(&out, text, strlen(text));
	return out.text;
}

static char *folder; /* owned, for ever */

void expand_remember_folder(void)
{
	if (!folder)
		folder = getcwd(NULL, 0);
}

char *expand_path(const char *file, const char *path)
{
	const char *slash = strrchr(file, '/');
	int dir = slash ? (int)(slash - file + 1) : 0;

	if (path[0] == '/')
		return xstrdup(path);
	if (file[0] == '/')
		return xasprintf("%.*s%s", dir, file, path);
	expand_remember_folder();
	return xasprintf("%s/%.*s%s", folder ? folder : ".", dir, file, path);
}
