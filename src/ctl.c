/* mctunnelctl: gives commands to the admin socket of a running mctunnel and shows the answers to people: tables aligned, refusals on stderr, the
 * exit status for scripts; and `top`, a live view. Knows the protocol and the look of answers (doc/management.txt), not what they mean:
 * every table the server has is shown the same way. Needs nothing but the C library, so that `check` is fast. */
#define _GNU_SOURCE
#include "mctunnel/base/str.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/run/mctunnel/admin.sock"
#define PATIENCE_MS 15000
#define CHECK_MS 2000
#define COLUMNS_MAX 128
#define CELL_MAX 22          /* columns of a cell, in top */
#define TOP_BYTES (1u << 20) /* of a table, in top */

enum { OK = 0, REFUSED = 1, NO_ANSWER = 2 };

static struct {
	const char *socket;
	bool json, colours;
	double watch; /* seconds; 0: once */
} options;

static char trouble[256]; /* why there is no answer */

/* ---- talking ---- */

static int no_answer(const char *what)
{
	snprintf(trouble, sizeof(trouble), "%s: %s: %s", options.socket, what, strerror(errno));
	return -1;
}

static int open_socket(void)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return no_answer("no socket");
	if (!str_copy(un.sun_path, sizeof(un.sun_path), options.socket)) {
		errno = ENAMETOOLONG;
		close(fd);
		return no_answer("cannot connect");
	}
	if (connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0)
		return fd;
	no_answer("cannot connect");
	close(fd);
	return -1;
}

static int send_all(int fd, const char *text, size_t len)
{
	while (len > 0) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return no_answer("cannot send");
		text += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

struct text {
	char *bytes; /* owned; ends in NUL */
	size_t len, size;
};

static void add(struct text *t, const char *bytes, size_t len)
{
	if (t->len + len + 1 > t->size) {
		t->size = (t->len + len + 1) * 2;
		t->bytes = realloc(t->bytes, t->size);
		if (!t->bytes)
			abort();
	}
	memcpy(t->bytes + t->len, bytes, len);
	t->len += len;
	t->bytes[t->len] = '\0';
}

/* Until the server closes, or there is more than max. */
static int receive(int fd, struct text *t, int patience_ms, size_t max)
{
	char bytes[65536];

	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int ready = poll(&p, 1, patience_ms);

		if (ready < 0 && errno == EINTR)
			continue;
		if (ready == 0)
			errno = ETIMEDOUT;
		ssize_t n = ready > 0 ? recv(fd, bytes, sizeof(bytes), 0) : -1;
		if (n < 0 && errno == ECONNRESET && t->len > 0)
			return 0;
		if (n < 0)
			return no_answer("no answer");
		if (n == 0 || t->len > max)
			return 0;
		add(t, bytes, (size_t)n);
	}
}

/* One line of commands and all that is said to it; the answers come with severities. 0 or -1 (trouble says why). */
static int ask(const char *commands, struct text *t, int patience_ms, size_t max)
{
	static const char head[] = "set severity-output number;";
	struct text line = { 0 };
	int fd = open_socket(), rc = -1;

	if (fd < 0)
		return -1;
	add(&line, head, sizeof(head) - 1);
	add(&line, commands, strlen(commands));
	add(&line, "\n", 1);
	t->len = 0;
	add(t, "", 0);
	if (send_all(fd, line.bytes, line.len) == 0)
		rc = receive(fd, t, patience_ms, max);
	free(line.bytes);
	close(fd);
	if (rc == 0 && t->len == 0) {
		errno = ECONNRESET;
		rc = no_answer("no answer");
	}
	if (rc == 0 && t->bytes[0] == '\n') /* the answer to the head */
		memmove(t->bytes, t->bytes + 1, t->len--);
	return rc;
}

/* ---- tables ---- */

struct table {
	char **cells; /* owned array; of cells borrowed from the text */
	size_t rows, columns, size;
	int width[COLUMNS_MAX];
	bool number[COLUMNS_MAX], shown[COLUMNS_MAX];
};

static const char *cell(const struct table *t, size_t row, size_t column)
{
	return t->cells[row * t->columns + column];
}

static void add_cell(struct table *t, char *text)
{
	if (t->rows * t->columns + t->columns + COLUMNS_MAX >= t->size) {
		t->size = t->size ? t->size * 2 : 4096;
		t->cells = realloc(t->cells, t->size * sizeof(*t->cells));
		if (!t->cells)
			abort();
	}
	t->cells[t->rows * t->columns] = text;
}

/* The next cell of a line, cut off in place; a CSV one may be quoted. */
static char *next_cell(char **rest, char divider)
{
	char *start = *rest, *out = start, *c = start;

	if (!c)
		return NULL;
	if (divider == ',' && *c == '"') {
		for (c++; *c && (*c != '"' || c[1] == '"'); c++) {
			c += *c == '"';
			*out++ = *c;
		}
		c += *c == '"';
	} else {
		c += strcspn(c, (char[]){ divider, '\0' });
		out = c;
	}
	*rest = *c ? c + 1 : NULL;
	*out = '\0';
	return start;
}

static size_t letters(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += (*s & 0xc0) != 0x80;
	return n;
}

static bool is_number(const char *s)
{
	size_t digits = strspn(s, "0123456789.-");

	return s[digits] == '\0' || strcmp(s + digits, "s") == 0 || (digits > 0 && strspn(s, "0123456789.dhms") == strlen(s));
}

static void add_row(struct table *t, char *line, char divider)
{
	char *cells[COLUMNS_MAX], *rest = line;
	size_t n = 0;

	while (n < COLUMNS_MAX && (cells[n] = next_cell(&rest, divider)))
		n++;
	if (t->columns == 0)
		t->columns = n;
	for (size_t i = 0; i < t->columns; i++) {
		if (i == 0)
			add_cell(t, NULL);
		t->cells[t->rows * t->columns + i] = i < n ? cells[i] : (char *)"";
	}
	t->rows++;
}

static void measure(struct table *t, bool hide_empty)
{
	for (size_t c = 0; c < t->columns; c++) {
		t->number[c] = t->rows > 1;
		t->shown[c] = !hide_empty;
		t->width[c] = 0;
		for (size_t r = 0; r < t->rows; r++) {
			const char *s = cell(t, r, c);
			int w = (int)letters(s);

			t->width[c] = w > t->width[c] ? w : t->width[c];
			if (r == 0)
				continue;
			t->number[c] = t->number[c] && is_number(s);
			t->shown[c] |= *s != '\0';
		}
	}
}

/* Lines "# a<TAB>b", or CSV; text is taken apart. */
static void parse_table(struct table *t, char *text)
{
	bool csv = !strchr(text, '\t');

	*t = (struct table){ 0 };
	text += 2;
	while (*text) {
		char *end = text + strcspn(text, "\n"), *next = *end ? end + 1 : end;

		*end = '\0';
		add_row(t, text, csv ? ',' : '\t');
		text = next;
	}
	measure(t, csv);
}

static const char *colour_of(const char *s)
{
	static const struct {
		const char *words, *code;
	} colours[] = {
		{ " UP OPEN up open ", "32" },
		{ " DOWN STOP ", "31" },
		{ " MAINT DRAIN FULL queue connect parked retiring dialling ", "33" },
	};
	char word[24];

	if (!options.colours || strlen(s) > 16)
		return NULL;
	snprintf(word, sizeof(word), " %s ", s);
	for (size_t i = 0; i < sizeof(colours) / sizeof(colours[0]); i++) {
		if (strstr(colours[i].words, word))
			return colours[i].code;
	}
	return NULL;
}

/* A row in at most so many columns of the terminal (0: as long as it is). */
static void print_row(const struct table *t, size_t row, int limit)
{
	int at = 0;

	for (size_t c = 0; c < t->columns; c++) {
		const char *s = cell(t, row, c), *colour = row ? colour_of(s) : options.colours ? "1" : NULL;
		int width = limit && t->width[c] > CELL_MAX ? CELL_MAX : t->width[c], gap = at ? 2 : 0;
		int pad = width > (int)letters(s) ? width - (int)letters(s) : 0;

		if (!t->shown[c])
			continue;
		if (limit && at + gap + width > limit)
			break;
		if (c + 1 == t->columns && !t->number[c])
			pad = 0;
		printf("%*s%*s", gap, "", t->number[c] ? pad : 0, "");
		printf(colour ? "\033[%sm%.*s\033[m" : "%s%.*s", colour ? colour : "", limit ? CELL_MAX : (int)strlen(s), s);
		printf("%*s", t->number[c] ? 0 : pad, "");
		at += gap + width;
	}
	fputs(limit ? "\033[K\n" : "\n", stdout);
}

/* ---- answers ---- */

/* Strips "[3]: "; true when it was a refusal. */
static bool take_severity(char **line)
{
	char *s = *line;

	if (s[0] != '[' || s[1] < '0' || s[1] > '7' || strncmp(s + 2, "]: ", 3) != 0)
		return false;
	*line = s + 5;
	return s[1] <= '4';
}

static bool print_lines(char *text)
{
	bool refused = false;

	while (*text) {
		char *end = text + strcspn(text, "\n"), *next = *end ? end + 1 : end, *line = text;

		*end = '\0';
		refused |= take_severity(&line);
		fprintf(refused ? stderr : stdout, "%s\n", line);
		text = next;
	}
	return refused;
}

/* One answer. true: it was a refusal. */
static bool print_answer(char *text)
{
	struct table t;

	if (options.json || strncmp(text, "# ", 2) != 0)
		return print_lines(text);
	parse_table(&t, text);
	for (size_t r = 0; r < t.rows; r++)
		print_row(&t, r, 0);
	free(t.cells);
	return false;
}

/* Answers end with an empty line each. */
static bool print_answers(char *text)
{
	bool refused = false;

	for (bool first = true; *text; first = false) {
		char *end = *text == '\n' ? text : strstr(text, "\n\n"), *next = end ? end + (*text == '\n' ? 1 : 2) : text + strlen(text);

		if (!first && *text != '\n')
			putchar('\n');
		if (end)
			*end = '\0';
		refused |= print_answer(text);
		text = next;
	}
	return refused;
}

static int say_trouble(void)
{
	fprintf(stderr, "mctunnelctl: %s\n", trouble);
	return NO_ANSWER;
}

/* Where the server has no memory for the rest, or dies, the connection ends before the empty line. */
static bool is_whole(const struct text *t)
{
	return t->len > 0 && t->bytes[t->len - 1] == '\n' && (t->len == 1 || t->bytes[t->len - 2] == '\n');
}

static int once(const char *commands)
{
	bool waits = strstr(commands, "wait") != NULL;
	struct text t = { 0 };
	bool whole;
	int rc = OK;

	if (ask(commands, &t, waits ? -1 : PATIENCE_MS, SIZE_MAX) < 0) {
		rc = say_trouble();
	} else {
		whole = is_whole(&t);
		if (print_answers(t.bytes))
			rc = REFUSED;
		fflush(stdout);
		if (!whole) {
			snprintf(trouble, sizeof(trouble), "%s: the answer is not whole", options.socket);
			rc = say_trouble();
		}
	}
	free(t.bytes);
	fflush(stdout);
	return rc;
}

static int watch(const char *commands)
{
	for (;;) {
		if (isatty(1))
			fputs("\033[H\033[2J", stdout);
		int rc = once(commands);
		if (rc == REFUSED)
			return rc;
		struct timespec pause = { (time_t)options.watch, (long)((options.watch - (double)(time_t)options.watch) * 1e9) };
		nanosleep(&pause, NULL);
		if (!isatty(1))
			putchar('\n');
	}
}

/* The health question: no tables, no waiting. */
static int check(void)
{
	struct text t = { 0 };
	bool healthy = ask("wait ready 0", &t, CHECK_MS, SIZE_MAX) == 0 && strncmp(t.bytes, "[6]: Ready.", 11) == 0;
	char *line = t.bytes;

	if (healthy) {
		puts("healthy");
	} else if (trouble[0]) {
		say_trouble();
	} else {
		take_severity(&line);
		fprintf(stderr, "mctunnelctl: %.*s\n", (int)strcspn(line, "\n"), line);
	}
	free(t.bytes);
	return healthy ? OK : REFUSED;
}

/* ---- top ---- */

static const struct view {
	char key;
	const char *name, *command;
	int sort; /* column at first */
} views[] = {
	{ 'a', "agents", "show agents", 4 },
	{ 's', "services", "show services", 0 },
	{ 'e', "sessions", "show sessions", 8 },
	{ 'l', "listeners", "show listeners", 3 },
	{ 't', "tunnels", "show tunnels", 6 },
	{ 'k', "links", "show links", 6 },
};
#define VIEWS (sizeof(views) / sizeof(views[0]))

static struct {
	struct termios before;
	bool changed;
	const struct view *view;
	int sort[VIEWS];
	bool descending, typing, paused;
	char filter[64];
	double up, down, opened, at;       /* totals at the last look */
	double up_rate, down_rate, open_rate;
} top = { .view = &views[0], .descending = true };

static volatile sig_atomic_t ended;

static void restore_terminal(void)
{
	if (!top.changed)
		return;
	top.changed = false;
	fputs("\033[?25h\033[?1049l", stdout);
	fflush(stdout);
	tcsetattr(0, TCSAFLUSH, &top.before);
}

static void on_end(int number)
{
	ended = number;
}

static void on_resize(int number)
{
}

static void set_signals(void)
{
	struct sigaction end = { .sa_handler = on_end }, resize = { .sa_handler = on_resize };

	sigaction(SIGINT, &end, NULL);
	sigaction(SIGTERM, &end, NULL);
	sigaction(SIGHUP, &end, NULL);
	sigaction(SIGWINCH, &resize, NULL);
}

static bool take_terminal(void)
{
	struct termios raw;

	if (!isatty(0) || !isatty(1) || tcgetattr(0, &top.before) < 0)
		return false;
	raw = top.before;
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	raw.c_cc[VMIN] = 0;
	raw.c_cc[VTIME] = 0;
	set_signals();
	top.changed = true;
	atexit(restore_terminal);
	at_quick_exit(restore_terminal); /* die() */
	tcsetattr(0, TCSAFLUSH, &raw);
	fputs("\033[?1049h\033[?25l", stdout);
	return true;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* The value behind "Key: ", "" when there is none; a copy in a static place for the moment. */
static const char *fact(const char *info, const char *key)
{
	static char value[4][80];
	static unsigned turn;
	char *out = value[turn++ % 4], wanted[48];
	const char *at;

	snprintf(wanted, sizeof(wanted), "\n%s: ", key);
	at = strstr(info, wanted);
	*out = '\0';
	if (at) {
		at += strlen(wanted);
		snprintf(out, sizeof(value[0]), "%.*s", (int)strcspn(at, "\n"), at);
	}
	return out;
}

static void note_rates(const char *info)
{
	double up = strtod(fact(info, "TotalBytesUp"), NULL), down = strtod(fact(info, "TotalBytesDown"), NULL);
	double opened = strtod(fact(info, "CumConns"), NULL), at = now(), span = at - top.at;

	if (top.at > 0 && span > 0.2 && up >= top.up && opened >= top.opened) {
		top.up_rate = (up - top.up) / span;
		top.down_rate = (down - top.down) / span;
		top.open_rate = (opened - top.opened) / span;
	}
	if (top.at == 0 || span > 0.2) {
		top.up = up;
		top.down = down;
		top.opened = opened;
		top.at = at;
	}
}

static const char *human(double n, char *buf, size_t size)
{
	static const char *const units[] = { "", "k", "M", "G", "T" };
	int i = 0;

	for (; n >= 1000 && i < 4; i++)
		n /= 1000;
	snprintf(buf, size, "%.*f%s", i ? 1 : 0, n, units[i]);
	return buf;
}

static void print_head(const char *info, int width)
{
	char up[32], down[32], line[512];

	note_rates(info);
	human(top.up_rate, up, sizeof(up));
	human(top.down_rate, down, sizeof(down));
	snprintf(line, sizeof(line), "mctunnel %.20s  %.20s %.60s  %.20s", fact(info, "Version"), fact(info, "Role"), fact(info, "Node"), fact(info, "State"));
	printf("%.*s\033[K\n", width, line);
	snprintf(line, sizeof(line), "vip %.20s  up %.30s  agents %.10s  links %.10s", fact(info, "Vip"), fact(info, "Uptime"), fact(info, "Agents"),
		 fact(info, "Links"));
	printf("%.*s\033[K\n", width, line);
	snprintf(line, sizeof(line), "sessions %.10s of %.10s  queue %.10s  parked %.10s  new %.1f/s  up %sB/s  down %sB/s", fact(info, "CurrConns"),
		 fact(info, "Maxconn"), fact(info, "Queue"), fact(info, "SessionsParked"), top.open_rate, up, down);
	printf("%.*s\033[K\n", width, line);
}

static const struct table *sorting;
static int sort_column;

/* Seconds of "5m10s", or a plain number. */
static double value_of(const char *s)
{
	static const struct {
		char unit;
		double seconds;
	} units[] = { { 'd', 86400 }, { 'h', 3600 }, { 'm', 60 }, { 's', 1 } };
	double total = 0;

	while (*s) {
		char *end;
		double n = strtod(s, &end), factor = 1;

		if (end == s)
			return -1;
		for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
			factor = *end == units[i].unit ? units[i].seconds : factor;
		total += n * factor;
		s = *end ? end + 1 : end;
	}
	return total;
}

static int compare(const void *a, const void *b)
{
	const char *x = cell(sorting, *(const size_t *)a, (size_t)sort_column), *y = cell(sorting, *(const size_t *)b, (size_t)sort_column);
	int order = strcmp(x, y);

	if (sorting->number[sort_column]) {
		double m = value_of(x), n = value_of(y);

		order = m < n ? -1 : m > n;
	}
	return top.descending ? -order : order;
}

static bool passes(const struct table *t, size_t row)
{
	if (!top.filter[0])
		return true;
	for (size_t c = 0; c < t->columns; c++) {
		if (strcasestr(cell(t, row, c), top.filter))
			return true;
	}
	return false;
}

static void print_body(struct table *t, int width, int height)
{
	size_t *order = calloc(t->rows + 1, sizeof(*order)), n = 0;
	int *sort = &top.sort[top.view - views];

	if (!order)
		return;
	for (size_t r = 1; r < t->rows; r++) {
		if (passes(t, r))
			order[n++] = r;
	}
	*sort = (*sort + (int)t->columns) % (int)t->columns;
	sorting = t;
	sort_column = *sort;
	qsort(order, n, sizeof(*order), compare);
	printf("\033[7m %s: %zu, by %s%s%s%s \033[m\033[K\n", top.view->name, n, cell(t, 0, (size_t)*sort), top.descending ? ", most first" : "",
	       top.filter[0] || top.typing ? ", with " : "", top.filter);
	print_row(t, 0, width);
	for (size_t i = 0; i < n && (int)i < height - 2; i++)
		print_row(t, order[i], width);
	free(order);
}

/* Two answers: the facts, and the table of the view. */
static void draw_answers(char *text, int width, int height)
{
	char *table = strstr(text, "\n\n");
	struct table t;

	if (table) {
		*table = '\0';
		table += 2;
	}
	print_head(text, width);
	if (!table || strncmp(table, "# ", 2) != 0) {
		printf("%.*s\n", table ? (int)strcspn(table, "\n") : 0, table ? table : "");
		return;
	}
	char *end = strstr(table, "\n\n");
	if (end)
		end[1] = '\0';
	parse_table(&t, table);
	print_body(&t, width, height - 5);
	free(t.cells);
}

static void draw(void)
{
	struct winsize size = { .ws_row = 24, .ws_col = 80 };
	struct text t = { 0 };
	char commands[64];

	ioctl(1, TIOCGWINSZ, &size);
	snprintf(commands, sizeof(commands), "show info;%s", top.view->command);
	printf("\033[H");
	if (ask(commands, &t, CHECK_MS, TOP_BYTES) < 0)
		printf("\033[2J%.*s\n", size.ws_col ? size.ws_col : 80, trouble);
	else
		draw_answers(t.bytes, size.ws_col ? size.ws_col : 80, size.ws_row ? size.ws_row : 24);
	printf("\033[J\033[%d;1H", size.ws_row);
	if (top.typing)
		printf("filter: %s_ (Enter: done)\033[K", top.filter);
	else
		printf("%.*s\033[K", size.ws_col ? size.ws_col - 1 : 79, top.paused ? "PAUSED: p goes on, q quits" :
		       "q quit  a agents  s services  e sessions  l listeners  t tunnels  k links  < > sort  r reverse  / filter  p pause");
	fflush(stdout);
	free(t.bytes);
}

static void type_filter(char key)
{
	size_t len = strlen(top.filter);

	if (key == '\n' || key == '\r' || key == 27)
		top.typing = false;
	else if ((key == 127 || key == 8) && len > 0)
		top.filter[len - 1] = '\0';
	else if (key >= ' ' && key < 127 && len + 1 < sizeof(top.filter))
		top.filter[len] = key;
	if (key == 27)
		top.filter[0] = '\0';
	else if (key >= ' ' && key < 127 && len + 1 < sizeof(top.filter))
		top.filter[len + 1] = '\0';
}

/* false: quit. */
static bool on_key(char key)
{
	if (top.typing) {
		type_filter(key);
		return true;
	}
	for (size_t i = 0; i < VIEWS; i++) {
		if (views[i].key == key)
			top.view = &views[i];
	}
	switch (key) {
	case 'q': return false;
	case '<': top.sort[top.view - views]--; break;
	case '>': top.sort[top.view - views]++; break;
	case 'r': top.descending = !top.descending; break;
	case 'p': top.paused = !top.paused; break;
	case '/':
		top.typing = true;
		top.filter[0] = '\0';
		break;
	}
	return true;
}

/* false: quit. Waits for a key for so long. */
static bool take_keys(int ms)
{
	struct pollfd p = { .fd = 0, .events = POLLIN };
	char keys[32];

	if (poll(&p, 1, ms) <= 0)
		return true;
	ssize_t n = read(0, keys, sizeof(keys));
	if (n <= 0)
		return errno == EINTR && n < 0;
	for (ssize_t i = 0; i < n; i++) {
		if (!on_key(keys[i]))
			return false;
	}
	return true;
}

static int run_top(void)
{
	int pause_ms = options.watch > 0 ? (int)(options.watch * 1000) : 1000;

	for (size_t i = 0; i < VIEWS; i++)
		top.sort[i] = views[i].sort;
	if (!take_terminal()) {
		fputs("mctunnelctl: top needs a terminal\n", stderr);
		return REFUSED;
	}
	do {
		draw();
	} while (!ended && take_keys(top.paused ? -1 : pause_ms) && !ended);
	return ended ? 128 + ended : OK;
}

/* ---- lua ---- */

/* The program itself tries a script, where the operator is: from beside this one, from ../sbin, or as the shell finds it. */
static int run_lua(int n, char **words)
{
	static const char *const places[] = { "mctunnel", "../sbin/mctunnel" };
	char **args = calloc((size_t)n + 4, sizeof(*args)), self[4096], path[4200];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int at = 0;

	if (!args)
		return NO_ANSWER;
	self[len > 0 ? len : 0] = '\0';
	char *slash = strrchr(self, '/');
	args[at++] = (char *)"mctunnel";
	args[at++] = (char *)"-l";
	for (int i = 0; i < n; i++)
		args[at++] = words[i];
	if (options.json)
		args[at] = (char *)"--json";
	for (size_t i = 0; slash && i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(path, sizeof(path), "%.*s/%s", (int)(slash - self), self, places[i]);
		execv(path, args);
	}
	execvp("mctunnel", args);
	fprintf(stderr, "mctunnelctl: cannot start mctunnel: %s\n", strerror(errno));
	free(args);
	return NO_ANSWER;
}

/* ---- the command line ---- */

static void usage(FILE *out)
{
	fputs("mctunnelctl " MCTUNNEL_VERSION ": commands for a running mctunnel\n"
	      "Usage: mctunnelctl [-s SOCKET] [--json] [--watch SECONDS] COMMAND...\n"
	      "  -s SOCKET        the admin socket; default: $MCTUNNEL_SOCKET, else " DEFAULT_SOCKET "\n"
	      "  --json           answers as JSON\n"
	      "  --watch SECONDS  again and again\n"
	      "  --help, --version\n"
	      "Commands: help lists those of the server; further:\n"
	      "  check            healthy (exit status 0) or not (1)\n"
	      "  top              a live view\n"
	      "  lua FILE ...     asks a Lua script about a client that the options behind FILE describe; without them: which there are\n"
	      "Exit status: 0 done, 1 refused or not found, 2 no answer.\n", out);
}

/* -1: go on; else the exit status. *at becomes the index of the first word of the command. */
static int parse_options(int argc, char **argv, int *at)
{
	const char *from_env = getenv("MCTUNNEL_SOCKET");
	int i = 1;

	options.socket = from_env && *from_env ? from_env : DEFAULT_SOCKET;
	for (; i < argc && argv[i][0] == '-'; i++) {
		bool more = i + 1 < argc;

		if (strcmp(argv[i], "-s") == 0 && more) {
			options.socket = argv[++i];
		} else if (strcmp(argv[i], "--json") == 0) {
			options.json = true;
		} else if (strcmp(argv[i], "--watch") == 0 && more && strtod(argv[i + 1], NULL) > 0) {
			options.watch = strtod(argv[++i], NULL);
		} else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			usage(stdout);
			return OK;
		} else if (strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-v") == 0) {
			puts("mctunnelctl version " MCTUNNEL_VERSION);
			return OK;
		} else {
			fprintf(stderr, "mctunnelctl: unknown option, or one without its value: %s\n", argv[i]);
			usage(stderr);
			return REFUSED;
		}
	}
	if (strncmp(options.socket, "unix:", 5) == 0)
		options.socket += 5;
	*at = i;
	return -1;
}

/* The words as one line; options may stand behind them too. */
/* The value of an option is one word, whatever is in it; other words may hold several, and commands divided by ';'. */
static void add_word(struct text *t, const char *word, bool value)
{
	for (; *word; word++) {
		if (value && strchr(" \t;\\", *word))
			add(t, "\\", 1);
		add(t, word, 1);
	}
}

static bool join(struct text *t, int argc, char **argv, int at)
{
	for (int first = at; at < argc; at++) {
		if (strcmp(argv[at], "--json") == 0) {
			options.json = true;
			continue;
		}
		if (strchr(argv[at], '\n')) {
			fputs("mctunnelctl: a command is one line\n", stderr);
			return false;
		}
		add(t, " ", t->len > 0);
		add_word(t, argv[at], at > first + 1 && strncmp(argv[at - 1], "--", 2) == 0);
	}
	if (options.json && !strstr(t->bytes, " json"))
		add(t, " json", 5);
	return true;
}

int main(int argc, char **argv)
{
	struct text commands = { 0 };
	int at, rc = parse_options(argc, argv, &at);

	if (rc >= 0)
		return rc;
	if (at == argc) {
		usage(stderr);
		return REFUSED;
	}
	options.colours = isatty(1) && !getenv("NO_COLOR");
	if (strcmp(argv[at], "check") == 0 && at + 1 == argc)
		return check();
	if (strcmp(argv[at], "top") == 0 && at + 1 == argc)
		return run_top();
	if (strcmp(argv[at], "lua") == 0)
		return run_lua(argc - at - 1, argv + at + 1);
	if (!join(&commands, argc, argv, at))
		return REFUSED;
	rc = options.watch > 0 ? watch(commands.bytes) : once(commands.bytes);
	free(commands.bytes);
	return rc;
}
