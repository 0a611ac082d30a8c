/* The grammar of libconfig's language, walked once to say what is wrong in words an operator can use: which bracket is open,
 * what lacks quotes, where an '=' or a comma is missing. Owns no tree; the values themselves are libconfig's to read. */
#include "mctunnel/conf/syntax.h"

#include "mctunnel/conf/expand.h"
#include "mctunnel/conf/finding.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum token { END, NAME, NUMBER, TEXT, BOOLEAN, EQUALS, COMMA, SEMICOLON, OPEN, CLOSE, WRONG };

struct scan {
	struct expanded *e;
	struct findings *findings;
	const char *p, *start; /* behind and at the current token */
	enum token token;
	int line; /* of start */
	int next_line;
	int text_line, text_end; /* the last string over several lines */
	int depth;
	bool failed;
};

/* The line itself and a caret below the place. */
static void quote(const struct scan *s, const char *at, char *out, size_t size)
{
	const char *bol = at, *eol = at + strcspn(at, "\n");
	char text[121], caret[121];
	size_t n = 0;

	while (bol > s->e->text && bol[-1] != '\n' && at - bol < 100)
		bol--;
	for (; bol + n < eol && n < sizeof(text) - 1; n++) {
		text[n] = (unsigned char)bol[n] < ' ' ? ' ' : bol[n];
		caret[n] = ' ';
	}
	text[n] = '\0';
	caret[at - bol] = '^';
	caret[at - bol + 1] = '\0';
	snprintf(out, size, "\n    | %s\n    | %s", text, caret);
}

static bool __attribute__((format(printf, 4, 5))) wrong_at(struct scan *s, int line, const char *at, const char *fmt, ...)
{
	char sentence[320], quoted[300];
	va_list ap;

	if (s->failed)
		return false;
	s->failed = true;
	va_start(ap, fmt);
	vsnprintf(sentence, sizeof(sentence), fmt, ap);
	va_end(ap);
	size_t len = strlen(sentence);
	if (s->text_line && s->text_end == line)
		snprintf(sentence + len, sizeof(sentence) - len, "; is a '\"' missing in line %d?", expand_where(s->e, s->text_line).line);
	quote(s, at, quoted, sizeof(quoted));
	alert_at(s->findings, expand_where(s->e, line), "syntax", "%s%s", sentence, quoted);
	return false;
}

#define wrong(s, ...) wrong_at(s, (s)->line, (s)->start, __VA_ARGS__)

static void skip_comment(struct scan *s)
{
	for (s->p += 2; *s->p && !(s->p[0] == '*' && s->p[1] == '/'); s->p++)
		s->next_line += *s->p == '\n';
	if (*s->p)
		s->p += 2;
}

static void skip_blanks(struct scan *s)
{
	for (;;) {
		if (*s->p == '\n')
			s->next_line++;
		if (*s->p && strchr(" \t\f\r\n", *s->p))
			s->p++;
		else if (*s->p == '#' || (s->p[0] == '/' && s->p[1] == '/'))
			s->p += strcspn(s->p, "\n");
		else if (s->p[0] == '/' && s->p[1] == '*')
			skip_comment(s);
		else
			return;
	}
}

static enum token scan_text(struct scan *s)
{
	for (s->p++; *s->p && *s->p != '"'; s->p++) {
		s->next_line += *s->p == '\n';
		if (*s->p != '\\' || s->p[1] == '\0')
			continue;
		s->p++;
		s->next_line += *s->p == '\n';
		if (strncmp(s->p, "x00", 3) == 0)
			wrong(s, "a string cannot hold a NUL byte (\\x00)");
	}
	if (*s->p)
		s->p++;
	if (s->next_line > s->line) {
		s->text_line = s->line;
		s->text_end = s->next_line;
	}
	if (s->p - s->start > SYNTAX_MAX_STRING)
		wrong(s, "a string has at most 64 KiB");
	return TEXT;
}

static bool is_word(char c)
{
	return isalnum((unsigned char)c) || c == '-' || c == '_' || c == '*';
}

static size_t word_len(const char *p)
{
	return strcspn(p, " \t\f\r\n=;,(){}[]\"");
}

/* true for exactly what libconfig reads as one number. */
static bool is_number(const char *p, size_t len)
{
	char text[64];
	char *end;

	if (len >= sizeof(text))
		return false;
	memcpy(text, p, len);
	text[len] = '\0';
	if (strncasecmp(text, "0x", 2) == 0)
		strtoull(text, &end, 16);
	else if (strpbrk(text, ".eE"))
		strtod(text, &end);
	else
		strtoll(text, &end, 10);
	if (end > text && end[0] == 'L' && !strpbrk(text, ".eE"))
		end += end[1] == 'L' ? 2 : 1;
	return end > text && *end == '\0';
}

/* libconfig would wrap what does not fit; refuse it here. */
static bool check_range(struct scan *s, size_t len)
{
	bool wide = memchr(s->start, 'L', len) != NULL;
	bool hex = strncasecmp(s->start, "0x", 2) == 0;

	if (!hex && (memchr(s->start, '.', len) || memchr(s->start, 'e', len) || memchr(s->start, 'E', len)))
		return true; /* no key takes it; the loader says so */
	errno = 0;
	long long v = strtoll(s->start, NULL, hex ? 16 : 10);
	if (errno == ERANGE)
		return wrong(s, "the number %.*s does not fit 64 bits", (int)(len < 40 ? len : 40), s->start);
	if (!wide && (v > INT_MAX || v < INT_MIN))
		return wrong(s, "the number %lld does not fit 32 bits: write a string with a unit, or %lldL", v, v);
	return true;
}

static enum token scan_number(struct scan *s)
{
	size_t len = word_len(s->p);
	const char *comment = memchr(s->p, '#', len);

	if (comment)
		len = (size_t)(comment - s->p);
	if (!is_number(s->p, len)) {
		wrong(s, "\"%.*s\" is not a number; a text needs quotes", (int)(len < 64 ? len : 64), s->p);
		return WRONG;
	}
	check_range(s, len);
	s->p += len;
	return NUMBER;
}

static enum token scan_word(struct scan *s)
{
	while (is_word(*s->p))
		s->p++;
	size_t len = (size_t)(s->p - s->start);
	if ((len == 4 && strncasecmp(s->start, "true", 4) == 0) || (len == 5 && strncasecmp(s->start, "false", 5) == 0))
		return BOOLEAN;
	return NAME;
}

static enum token scan_other(struct scan *s)
{
	unsigned char c = (unsigned char)*s->p;

	if (c == '@')
		wrong(s, "only \"@include\", alone at the beginning of a line, may begin with '@'");
	else if (strncmp(s->p, "\xe2\x80\x9c", 3) == 0 || strncmp(s->p, "\xe2\x80\x9d", 3) == 0)
		wrong(s, "typographic quotes: a string is written \"like this\"");
	else if (c == '\'')
		wrong(s, "a string is written in double quotes: \"like this\"");
	else if (c > ' ' && c < 0x7f)
		wrong(s, "unexpected '%c'; a text needs quotes", c);
	else
		wrong(s, "unexpected byte 0x%02x outside of a string", c);
	return WRONG;
}

static enum token scan_token(struct scan *s)
{
	char c = *s->p;

	if (c == '\0')
		return END;
	if (c == '"')
		return scan_text(s);
	if (isdigit((unsigned char)c) || ((c == '-' || c == '+' || c == '.') && s->p[1]))
		return scan_number(s);
	if (isalpha((unsigned char)c) || c == '*')
		return scan_word(s);
	s->p++;
	switch (c) {
	case '=':
	case ':':
		return EQUALS;
	case ',':
		return COMMA;
	case ';':
		return SEMICOLON;
	case '(':
	case '{':
	case '[':
		return OPEN;
	case ')':
	case '}':
	case ']':
		return CLOSE;
	}
	s->p--;
	return scan_other(s);
}

static enum token next(struct scan *s)
{
	skip_blanks(s);
	s->start = s->p;
	s->line = s->next_line;
	s->token = scan_token(s);
	if (s->failed)
		s->token = WRONG;
	return s->token;
}

static bool value(struct scan *s, bool in_list);
static bool settings(struct scan *s, const char *open, int line);

static int shown(const struct scan *s)
{
	size_t len = word_len(s->start);

	return (int)(len == 0 ? (*s->start ? 1 : 0) : len < 64 ? len : 64);
}

/* What stands where a value should. */
static bool no_value(struct scan *s)
{
	if (s->token == END)
		return wrong(s, "the file ends where a value is expected");
	if (s->token == NAME)
		return wrong(s, "a text needs quotes: \"%.*s\"", shown(s), s->start);
	return wrong(s, "a value is expected, not '%.*s'", shown(s), s->start);
}

static bool not_closed(struct scan *s, const char *open, int line)
{
	return wrong_at(s, line, open, "this '%c' is never closed", *open);
}

static bool closes(const char *open, const char *close)
{
	return (*open == '(' && *close == ')') || (*open == '[' && *close == ']') || (*open == '{' && *close == '}');
}

static bool mismatch(struct scan *s, const char *open, int line)
{
	struct conf_where at = expand_where(s->e, line);

	return wrong(s, "'%c' does not close the '%c' of line %d", *s->start, *open, at.line);
}

/* After an element of a list: a comma and on, or the end. A comma before the end is blanked out. */
static bool separator(struct scan *s, const char *open, int line, bool *end)
{
	*end = false;
	if (s->token == COMMA) {
		char *comma = s->e->text + (s->start - s->e->text);
		next(s);
		if (s->token == CLOSE)
			*comma = ' ';
	} else if (s->token == END) {
		return not_closed(s, open, line);
	} else if (s->token == SEMICOLON) {
		return wrong(s, "the elements of a list are separated by ',', not by ';'; or '%c' is missing before it", *open == '(' ? ')' : ']');
	} else if (s->token != CLOSE) {
		return wrong(s, "',' is missing between two elements of a list");
	}
	if (s->token != CLOSE)
		return true;
	*end = true;
	return closes(open, s->start) ? true : mismatch(s, open, line);
}

/* In [ ] libconfig wants values of one type. */
static bool check_element(struct scan *s, const char *open, enum token first)
{
	if (*open == '(')
		return true;
	if (s->token == OPEN)
		return wrong(s, "[ ] takes plain values only: a list of groups is written ( { ... }, { ... } )");
	if (s->token != first && s->token != END && s->token != WRONG)
		return wrong(s, "all values in [ ] must be of one type");
	return true;
}

static bool elements(struct scan *s, const char *open, int line)
{
	bool end = next(s) == CLOSE;
	enum token first = s->token;

	if (end && !closes(open, s->start))
		return mismatch(s, open, line);
	while (!end) {
		if (s->token == END)
			return not_closed(s, open, line);
		if (!check_element(s, open, first) || !value(s, true) || !separator(s, open, line, &end))
			return false;
	}
	next(s);
	return !s->failed;
}

static bool bracket(struct scan *s)
{
	const char *open = s->start;
	int line = s->line;

	if (++s->depth > SYNTAX_MAX_DEPTH)
		return wrong(s, "brackets are nested more than %d deep", SYNTAX_MAX_DEPTH);
	bool ok = *open == '{' ? (next(s), settings(s, open, line)) : elements(s, open, line);
	s->depth--;
	return ok;
}

/* The current token begins a value; afterwards it is the one behind it. */
static bool value(struct scan *s, bool in_list)
{
	switch (s->token) {
	case OPEN:
		return bracket(s);
	case TEXT:
		/* libconfig joins strings; in a list that is a forgotten comma. */
		while (next(s) == TEXT) {
			if (in_list)
				return wrong(s, "',' is missing between two strings of a list");
		}
		return !s->failed;
	case NUMBER:
	case BOOLEAN:
		next(s);
		return !s->failed;
	case WRONG:
		return false;
	default:
		return no_value(s);
	}
}

static bool setting(struct scan *s)
{
	const char *name = s->start;
	int line = s->line, len = (int)(s->p - s->start);

	if (len > 64)
		return wrong(s, "a key of %d letters", len);
	next(s);
	if (s->token == WRONG)
		return false;
	if (s->token != EQUALS)
		return wrong_at(s, line, name, "'=' is missing after '%.*s'", len, name);
	next(s);
	if (!value(s, false))
		return false;
	if (s->token == SEMICOLON || s->token == COMMA)
		next(s);
	return !s->failed;
}

static bool not_a_key(struct scan *s)
{
	if (s->token == SEMICOLON || s->token == COMMA)
		return wrong(s, "'%c' without anything before it", *s->start);
	if (s->token == CLOSE)
		return wrong(s, "'%c' closes nothing", *s->start);
	return wrong(s, "a key is expected, not '%.*s'", shown(s), s->start);
}

struct key {
	const char *name;
	size_t len;
	int line;
};

/* Remembers the key at hand among those of its group; a second one of the same name is wrong. */
static bool add_key(struct scan *s, struct key *keys, int n)
{
	size_t len = (size_t)(s->p - s->start);

	if (n >= SYNTAX_MAX_KEYS)
		return wrong(s, "more than %d keys in one group", SYNTAX_MAX_KEYS);
	for (int i = 0; i < n; i++) {
		if (keys[i].len != len || memcmp(keys[i].name, s->start, len) != 0)
			continue;
		struct conf_where at = expand_where(s->e, keys[i].line);
		return wrong(s, "'%.*s' stands already at %s:%d", (int)(len < 64 ? len : 64), s->start, at.file, at.line);
	}
	keys[n] = (struct key){ s->start, len, s->line };
	return true;
}

/* Settings up to the end of a group, or of the file when open is NULL. */
static bool settings(struct scan *s, const char *open, int line)
{
	struct key keys[SYNTAX_MAX_KEYS];

	for (int n = 0; s->token == NAME; n++) {
		if (!add_key(s, keys, n) || !setting(s))
			return false;
	}
	if (s->token == WRONG)
		return false;
	if (s->token == END)
		return open ? not_closed(s, open, line) : true;
	if (!open || s->token != CLOSE)
		return not_a_key(s);
	if (!closes(open, s->start))
		return mismatch(s, open, line);
	next(s);
	return !s->failed;
}

int syntax_check(struct expanded *e, struct findings *f)
{
	struct scan s = { .e = e, .findings = f, .p = e->text, .next_line = 1 };

	next(&s);
	return settings(&s, NULL, 0) && !s.failed ? 0 : -1;
}
