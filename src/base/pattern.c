/* Patterns: literals, globs and expressions (PCRE2, which is known here only). An expression is compiled once, by the JIT where the system lets it make code, and is
 * then only read. What a match needs besides (match data, the JIT's stack) belongs to the thread and ends with it. Texts are bytes: no locale, no UTF-8. */
#include "mctunnel/base/pattern.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/stat.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GROUPS_MAX 255       /* named or not */
#define TEXT_MAX_LEN 4096    /* of an expression */
#define MATCH_LIMIT 100000   /* steps */
#define DEPTH_LIMIT 20000    /* without the JIT */
#define HEAP_LIMIT_KIB 4096  /* the same */
#define STACK_MIN (32u << 10) /* of the JIT */
#define STACK_MAX (1u << 20)

struct group {
	char name[PATTERN_NAME_MAX + 1];
	uint32_t number;
};

struct pattern {
	enum pattern_kind kind;
	bool fold;
	char *text;  /* owned, as written */
	size_t len;
	pcre2_code *code;     /* owned; of REGEX */
	struct group *groups; /* owned */
	size_t groups_n;
};

struct bench { /* what a thread matches with */
	pcre2_match_data *data;
	pcre2_match_context *context;
	pcre2_jit_stack *stack; /* NULL: without the JIT */
};

static _Thread_local struct bench *own;
static _Thread_local uint64_t own_overruns, own_shortages;
static pthread_key_t at_exit;
static pthread_once_t key_made = PTHREAD_ONCE_INIT;

static void bench_free(void *arg)
{
	struct bench *b = arg;

	if (!b)
		return;
	pcre2_match_data_free(b->data);
	pcre2_match_context_free(b->context);
	pcre2_jit_stack_free(b->stack);
	free(b);
	own = NULL;
}

static void make_key(void)
{
	if (pthread_key_create(&at_exit, bench_free) != 0)
		die("no key for data of threads");
}

/* NULL: no memory. The JIT could go on with less of a stack, but would give up sooner, as long as the thread lives. */
static struct bench *bench_new(void)
{
	struct bench *b = calloc(1, sizeof(*b));
	uint32_t jit = 0;

	if (!b)
		return NULL;
	(void)pcre2_config(PCRE2_CONFIG_JIT, &jit);
	b->data = pcre2_match_data_create(GROUPS_MAX + 1, NULL);
	b->context = pcre2_match_context_create(NULL);
	b->stack = jit ? pcre2_jit_stack_create(STACK_MIN, STACK_MAX, NULL) : NULL;
	if (!b->data || !b->context || (jit && !b->stack)) {
		bench_free(b);
		return NULL;
	}
	pcre2_set_match_limit(b->context, MATCH_LIMIT);
	pcre2_set_depth_limit(b->context, DEPTH_LIMIT);
	pcre2_set_heap_limit(b->context, HEAP_LIMIT_KIB);
	if (b->stack)
		pcre2_jit_stack_assign(b->context, NULL, b->stack);
	return b;
}

static struct bench *bench_of_thread(void)
{
	if (own)
		return own;
	pthread_once(&key_made, make_key);
	own = bench_new();
	if (own)
		pthread_setspecific(at_exit, own);
	return own;
}

static int lower(char c)
{
	return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

static bool same(const struct pattern *p, char a, char b)
{
	return a == b || (p->fold && lower(a) == lower(b));
}

static bool match_literal(const struct pattern *p, const char *text, size_t len)
{
	if (len != p->len)
		return false;
	if (!p->fold)
		return memcmp(p->text, text, len) == 0;
	for (size_t i = 0; i < len; i++) {
		if (lower(p->text[i]) != lower(text[i]))
			return false;
	}
	return true;
}

/* On a mismatch the latest star takes one character more; an earlier star never has to, so the cost is bounded. */
static bool match_glob(const struct pattern *p, const char *text, size_t len)
{
	size_t i = 0, j = 0, after_star = 0, resume = 0;

	while (j < len) {
		if (i < p->len && p->text[i] == '*') {
			after_star = ++i;
			resume = j;
		} else if (i < p->len && same(p, p->text[i], text[j])) {
			i++;
			j++;
		} else if (after_star) {
			i = after_star;
			j = ++resume;
		} else {
			return false;
		}
	}
	while (i < p->len && p->text[i] == '*')
		i++;
	return i == p->len;
}

static void take(const struct pattern *p, const char *text, const struct bench *b, struct captures *c)
{
	const PCRE2_SIZE *at = pcre2_get_ovector_pointer(b->data);
	uint32_t pairs = pcre2_get_ovector_count(b->data);

	for (size_t i = 0; i < p->groups_n && c->n < PATTERN_CAPTURES; i++) {
		const struct group *g = &p->groups[i];
		struct capture *to = &c->v[c->n++];

		*to = (struct capture){ .name = g->name, .at = text };
		/* \K within a lookahead may put the end before the start */
		if (g->number >= pairs || at[2 * g->number] == PCRE2_UNSET || at[2 * g->number + 1] < at[2 * g->number])
			continue;
		to->at = text + at[2 * g->number];
		to->len = at[2 * g->number + 1] - at[2 * g->number];
	}
}

/* The limit of steps counts from each place where a match may begin: so the text has one as well. */
static bool match_regex(const struct pattern *p, const char *text, size_t len, struct captures *c)
{
	struct bench *b = bench_of_thread();
	int rc = PCRE2_ERROR_MATCHLIMIT;

	if (!b)
		rc = PCRE2_ERROR_NOMEMORY;
	else if (len <= PATTERN_TEXT_MAX)
		rc = pcre2_match(p->code, (PCRE2_SPTR)text, len, 0, 0, b->data, b->context);
	if (rc == PCRE2_ERROR_NOMEMORY) {
		own_shortages++;
	} else if (rc < 0 && rc != PCRE2_ERROR_NOMATCH) {
		own_overruns++;
		stat_add(STAT_PATTERN_OVERRUNS, 1);
	}
	if (rc >= 0 && c)
		take(p, text, b, c);
	return rc >= 0;
}

bool pattern_match(const struct pattern *p, const char *text, size_t len, struct captures *c)
{
	switch (p->kind) {
	case PATTERN_LITERAL:
		return match_literal(p, text, len);
	case PATTERN_GLOB:
		return match_glob(p, text, len);
	case PATTERN_REGEX:
		break;
	}
	return match_regex(p, text, len, c);
}

uint64_t pattern_overruns(void)
{
	return own_overruns;
}

uint64_t pattern_shortages(void)
{
	return own_shortages;
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = ((const struct group *)a)->number, y = ((const struct group *)b)->number;

	return x < y ? -1 : x > y;
}

static uint32_t info(const struct pattern *p, uint32_t what)
{
	uint32_t n = 0;

	BUG_ON(pcre2_pattern_info(p->code, what, &n) != 0);
	return n;
}

/* The named groups, in the order of the text. */
static int read_groups(struct pattern *p, char *err, size_t errsize)
{
	uint32_t n = info(p, PCRE2_INFO_NAMECOUNT), size = info(p, PCRE2_INFO_NAMEENTRYSIZE);
	PCRE2_SPTR table = NULL;

	if (info(p, PCRE2_INFO_CAPTURECOUNT) > GROUPS_MAX || n > PATTERN_CAPTURES) {
		snprintf(err, errsize, "the expression has too many groups: the maximum is %d, and %d with a name", GROUPS_MAX, PATTERN_CAPTURES);
		return -1;
	}
	if (n == 0)
		return 0;
	BUG_ON(pcre2_pattern_info(p->code, PCRE2_INFO_NAMETABLE, &table) != 0);
	p->groups = xcalloc(n, sizeof(*p->groups));
	for (uint32_t i = 0; i < n; i++, table += size) {
		struct group *g = &p->groups[i];

		g->number = (uint32_t)table[0] << 8 | table[1];
		snprintf(g->name, sizeof(g->name), "%s", (const char *)table + 2);
		if (i > 0 && strcmp(g->name, g[-1].name) == 0) { /* the table is sorted by name */
			snprintf(err, errsize, "two groups are called \"%s\"", g->name);
			return -1;
		}
	}
	p->groups_n = n;
	qsort(p->groups, n, sizeof(*p->groups), by_number);
	return 0;
}

static int compile(struct pattern *p, char *err, size_t errsize)
{
	const char *text = p->text + 1; /* behind '~' */
	uint32_t options = PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_UTF | PCRE2_NEVER_UCP | PCRE2_NEVER_BACKSLASH_C | (p->fold ? PCRE2_CASELESS : 0);
	char why[160] = "";
	PCRE2_SIZE at;
	int code;

	if (p->len == 1 || p->len > TEXT_MAX_LEN) {
		snprintf(err, errsize, p->len == 1 ? "the expression behind '~' is empty" : "the expression is too long");
		return -1;
	}
	p->code = pcre2_compile((PCRE2_SPTR)text, p->len - 1, options, &code, &at, NULL);
	if (!p->code && code == PCRE2_ERROR_HEAP_FAILED)
		die("out of memory");
	if (!p->code) {
		pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof(why));
		if (at < p->len - 1)
			snprintf(err, errsize, "the expression \"%.120s\" is wrong at character %zu, before \"%.20s\": %s", text, (size_t)at + 1, text + at, why);
		else
			snprintf(err, errsize, "the expression \"%.120s\" is wrong at its end: %s", text, why);
		return -1;
	}
	/* Where the system forbids code made at run time, expressions are interpreted. */
	(void)!pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE);
	return read_groups(p, err, errsize);
}

struct pattern *pattern_new(const char *text, bool fold, char *err, size_t errsize)
{
	struct pattern *p = xcalloc(1, sizeof(*p));

	p->text = xstrdup(text);
	p->len = strlen(text);
	p->fold = fold;
	p->kind = text[0] == '~' ? PATTERN_REGEX : strchr(text, '*') ? PATTERN_GLOB : PATTERN_LITERAL;
	if (p->kind != PATTERN_REGEX || compile(p, err, errsize) == 0)
		return p;
	pattern_free(p);
	return NULL;
}

void pattern_free(struct pattern *p)
{
	if (!p)
		return;
	pcre2_code_free(p->code);
	free(p->groups);
	free(p->text);
	free(p);
}

enum pattern_kind pattern_kind(const struct pattern *p)
{
	return p->kind;
}

const char *pattern_text(const struct pattern *p)
{
	return p->text;
}

const char *pattern_capture(const struct pattern *p, size_t i)
{
	return i < p->groups_n ? p->groups[i].name : NULL;
}
