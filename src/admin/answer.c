/* Answers of the admin socket: the memory of a piece, tables and pairs in their three forms, and the journey from thread to thread.
 * An answer belongs to thread 0; while it is away it belongs to the thread it visits, and nobody else touches it but to mark it as
 * dropped. Does not know what is asked (commands.c) nor how text reaches the client (socket.c). */
#include "mctunnel/admin/answer.h"

#include "mctunnel/admin/command.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>

#define PIECE (48u << 10) /* full; a row more does not matter */
#define WAIT_MS 50
#define STEPS 16 /* calls without text in a row, then others have their turn */

static struct list queue; /* answers that are to be gone on with, see stand_in_line() */
static struct timer gate;

/* ---- the journey ---- */

static void on_again(struct timer *t);

struct answer *answer_new(void (*on_more)(void *), void *owner)
{
	struct answer *a = mem_calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->on_more = on_more;
	a->owner = owner;
	timer_init(&a->again, on_again);
	list_init(&a->node);
	return a;
}

static void answer_free(struct answer *a)
{
	timer_stop(&a->again);
	list_del(&a->node);
	if (queue.next && list_empty(&queue))
		timer_stop(&gate);
	if (a->data_free)
		a->data_free(a->data);
	if (!a->out || text_close(&a->text, a->out))
		free(a->text.v);
	free(a->line);
	free(a);
}

void answer_drop(struct answer *a)
{
	if (!a)
		return;
	a->dropped = true;
	if (!a->away)
		answer_free(a);
}

static bool piece_begin(struct answer *a)
{
	if (a->out)
		return true;
	free(a->text.v);
	a->out = text_open(&a->text);
	a->broken = !a->out;
	if (a->out)
		__fsetlocking(a->out, FSETLOCKING_BYCALLER); /* it has one user at a time */
	return a->out;
}

static void close_brackets(struct answer *a)
{
	if (a->form != FORM_JSON)
		return;
	if (a->columns || a->list)
		fprintf(a->out, "%s]\n", a->rows ? "\n" : "[");
	else if (a->pairs)
		fputs("\n}\n", a->out);
}

static void piece_end(struct answer *a)
{
	if (a->done && !a->broken) {
		close_brackets(a);
		fputc('\n', a->out); /* the empty line at the end of every answer */
	}
	if (!text_close(&a->text, a->out))
		a->broken = true;
	a->out = NULL;
	a->done |= a->broken;
}

/* One call of the command on the thread it asked for. */
static void step(struct answer *a)
{
	int next = a->command->next(a);

	a->done = next == ANSWER_DONE;
	if (!a->done)
		a->thread = next;
}

static bool has_text(const struct answer *a)
{
	return text_size(&a->text, a->out) > 0;
}

static bool produce(struct answer *a);

static void run_back(struct msg *m)
{
	struct answer *a = container_of(m, struct answer, msg);

	a->away = false;
	if (a->dropped) {
		answer_free(a);
		return;
	}
	if (a->done || has_text(a)) {
		piece_end(a);
		a->on_more(a->owner);
	} else if (produce(a)) {
		a->on_more(a->owner);
	}
}

static void run_away(struct msg *m)
{
	struct answer *a = container_of(m, struct answer, msg);

	step(a);
	a->msg.run = run_back;
	thread_post(0, &a->msg);
}

static void on_again(struct timer *t)
{
	struct answer *a = container_of(t, struct answer, again);

	a->thread = 0;
	if (produce(a))
		a->on_more(a->owner);
}

static void send_away(struct answer *a, int thread)
{
	a->away = true;
	a->msg.run = thread == 0 ? run_back : run_away;
	thread_post(thread, &a->msg);
}

static bool produce(struct answer *a)
{
	for (int i = 0; i < STEPS && a->thread == 0; i++) {
		step(a);
		if (a->done || has_text(a)) {
			piece_end(a);
			if (a->done || a->thread != ANSWER_WAIT)
				return true;
			a->thread = 0;
			return true;
		}
	}
	if (a->thread == ANSWER_WAIT)
		timer_start(&a->again, WAIT_MS);
	else
		send_away(a, a->thread);
	return false;
}

/* ---- the line: one piece a turn of the loop, however many and however fast the clients are ---- */

static void on_gate(struct timer *t)
{
	struct answer *a = list_first(&queue, struct answer, node);

	list_del(&a->node);
	if (!list_empty(&queue))
		timer_start(&gate, 0);
	if (a->thread > 0)
		send_away(a, a->thread);
	else if (produce(a))
		a->on_more(a->owner);
}

static void stand_in_line(struct answer *a)
{
	if (!queue.next) {
		list_init(&queue);
		timer_init(&gate, on_gate);
	}
	list_add(&queue, &a->node);
	if (!timer_running(&gate))
		timer_start(&gate, 0);
}

/* The first piece at once, so that short answers are quick. */
bool answer_more(struct answer *a)
{
	BUG_ON(a->away || a->done || thread_self() != 0);
	if (!piece_begin(a)) {
		a->done = true;
		return true;
	}
	if (a->begun) {
		stand_in_line(a);
		return false;
	}
	a->begun = true;
	return produce(a);
}

/* ---- for commands ---- */

bool answer_full(struct answer *a)
{
	return text_size(&a->text, a->out) >= PIECE;
}

int answer_next_thread(struct answer *a, bool over)
{
	if (!over)
		return thread_self();
	a->cursor = 0;
	return thread_self() + 1 < thread_count() ? thread_self() + 1 : ANSWER_DONE;
}

int answer_fail(struct answer *a)
{
	a->broken = true;
	return ANSWER_DONE;
}

void answer_table(struct answer *a, const char *const *columns)
{
	if (a->columns)
		return;
	a->columns = columns;
	while (columns[a->columns_n])
		a->columns_n++;
	if (a->form == FORM_JSON)
		return;
	for (int i = 0; i < a->columns_n; i++)
		fprintf(a->out, "%s%s", i == 0 ? "# " : a->form == FORM_CSV ? "," : "\t", columns[i]);
	fputc('\n', a->out);
}

/* What stands before a cell, and whether it is to be written at all. */
static void cell_begin(struct answer *a)
{
	BUG_ON(!a->columns);
	if (a->form != FORM_JSON) {
		if (a->column > 0)
			fputc(a->form == FORM_CSV ? ',' : '\t', a->out);
		return;
	}
	if (a->column == 0)
		fputs(a->rows ? ",\n{" : "[\n{", a->out);
	fprintf(a->out, "%s\"%s\":", a->column ? "," : "", a->columns[a->column]);
}

static void cell_end(struct answer *a)
{
	if (++a->column < a->columns_n)
		return;
	fputs(a->form == FORM_JSON ? "}" : "\n", a->out);
	a->column = 0;
	a->rows++;
}

static void put_csv(FILE *out, const char *value)
{
	if (!strpbrk(value, ",\"\n\r")) {
		fputs(value, out);
		return;
	}
	fputc('"', out);
	for (; *value; value++)
		fprintf(out, *value == '"' ? "\"\"" : "%c", *value);
	fputc('"', out);
}

/* One line, one column, whatever is in it. */
static void put_text(FILE *out, const char *value)
{
	static const char controls[] = "\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17\20\21\22\23\24\25\26\27\30\31\32\33\34\35\36\37\177";

	for (;;) {
		size_t len = strcspn(value, controls);

		fwrite(value, 1, len, out);
		if (!value[len])
			return;
		fputc('?', out);
		value += len + 1;
	}
}

void answer_str(struct answer *a, const char *value)
{
	cell_begin(a);
	if (a->form == FORM_JSON)
		str_json(a->out, value);
	else if (a->form == FORM_CSV)
		put_csv(a->out, value ? value : "");
	else
		put_text(a->out, value && *value ? value : "-");
	cell_end(a);
}

void answer_int(struct answer *a, int64_t value)
{
	char text[24];

	cell_begin(a);
	fwrite(text, 1, (size_t)snprintf(text, sizeof(text), "%" PRId64, value), a->out);
	cell_end(a);
}

void answer_float(struct answer *a, double value)
{
	cell_begin(a);
	fprintf(a->out, "%.3f", value);
	cell_end(a);
}

void answer_age(struct answer *a, uint64_t ms)
{
	unsigned long long s = ms / 1000;
	char text[32];

	if (a->form != FORM_TEXT) {
		answer_float(a, (double)ms / 1000);
		return;
	}
	if (s < 60)
		snprintf(text, sizeof(text), "%llu.%llus", s, (unsigned long long)ms % 1000 / 100);
	else if (s < 3600)
		snprintf(text, sizeof(text), "%llum%02llus", s / 60, s % 60);
	else if (s < 86400)
		snprintf(text, sizeof(text), "%lluh%02llum", s / 3600, s % 3600 / 60);
	else
		snprintf(text, sizeof(text), "%llud%02lluh", s / 86400, s % 86400 / 3600);
	answer_str(a, text);
}

static void key_begin(struct answer *a, const char *key)
{
	if (a->form == FORM_JSON) {
		fputs(a->pairs ? ",\n" : "{\n", a->out);
		str_json(a->out, key);
		fputs(": ", a->out);
	} else {
		fprintf(a->out, "%s: ", key);
	}
	a->pairs = true;
}

void answer_pair(struct answer *a, const char *key, const char *value)
{
	key_begin(a, key);
	if (a->form == FORM_JSON) {
		str_json(a->out, value);
		return;
	}
	put_text(a->out, value && *value ? value : "-");
	fputc('\n', a->out);
}

void answer_pair_int(struct answer *a, const char *key, int64_t value)
{
	key_begin(a, key);
	fprintf(a->out, "%" PRId64 "%s", value, a->form == FORM_JSON ? "" : "\n");
}

FILE *answer_pair_json(struct answer *a, const char *key)
{
	BUG_ON(a->form != FORM_JSON);
	key_begin(a, key);
	return a->out;
}

void answer_say(struct answer *a, bool error, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (a->numbers)
		fprintf(a->out, "[%d]: ", error ? 3 : 6);
	put_text(a->out, text);
	fputc('\n', a->out);
}

static void put_line(FILE *out, const char *line)
{
	put_text(out, line);
	fputc('\n', out);
}

void answer_list(struct answer *a)
{
	a->list = true;
}

FILE *answer_raw_json(struct answer *a)
{
	BUG_ON(!a->list || a->form != FORM_JSON);
	fputs(a->rows++ ? ",\n" : "[\n", a->out);
	return a->out;
}

void answer_raw(struct answer *a, const char *line)
{
	BUG_ON(!a->list);
	if (a->form == FORM_JSON) {
		fputs(line, answer_raw_json(a));
		return;
	}
	put_line(a->out, line);
	a->rows++;
}
