/* From files to a snapshot: libconfig parses (it is known here only), the rows of schema.c say where each setting goes.
 * Owns the trees while loading; what the values mean together is check.c's. */
#include "mctunnel/conf/conf.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/conf/check.h"
#include "mctunnel/conf/expand.h"
#include "mctunnel/conf/files.h"
#include "mctunnel/conf/finding.h"
#include "mctunnel/conf/lines.h"
#include "mctunnel/conf/listener_tls.h"
#include "mctunnel/conf/schema.h"
#include "mctunnel/conf/syntax.h"
#include "mctunnel/conf/value.h"

#include <dirent.h>
#include <libconfig.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_VALUES 1000    /* of one key, as written */
#define MAX_ENTRIES 100000 /* of one key, with the lines of files */
#define MAX_ELEMENTS 50000 /* of a list of groups */

struct source { /* one file of -f, with what it includes */
	config_t tree; /* first: a setting knows its tree, and that is its source */
	struct expanded text;
};

struct load {
	struct conf *conf;
	struct findings *findings;
	struct source **sources; /* owned, those that could be parsed */
	size_t sources_n;
	bool broken; /* some file could not be parsed: what is missing may be in there */
	char key[256]; /* of the setting at hand: "listeners[0].bind" */
};

static struct conf_where where(const config_setting_t *s)
{
	const struct source *src = (const struct source *)s->config;

	return expand_where(&src->text, (int)config_setting_source_line(s));
}

/* Goes one step down in the key; the return value takes it back up (key_back). */
static size_t key_down(struct load *l, const char *name, int index)
{
	size_t len = strlen(l->key);

	if (name)
		snprintf(l->key + len, sizeof(l->key) - len, "%s%s", len ? "." : "", name);
	else
		snprintf(l->key + len, sizeof(l->key) - len, "[%d]", index);
	return len;
}

static void key_back(struct load *l, size_t len)
{
	l->key[len] = '\0';
}

static const char *type_words(const config_setting_t *s)
{
	switch (config_setting_type(s)) {
	case CONFIG_TYPE_GROUP:
		return "a group";
	case CONFIG_TYPE_FLOAT:
		return "a number with a fraction";
	case CONFIG_TYPE_STRING:
		return "a string";
	case CONFIG_TYPE_BOOL:
		return "true or false";
	case CONFIG_TYPE_ARRAY:
	case CONFIG_TYPE_LIST:
		return "a list";
	}
	return "a number";
}

static void wrong_type(struct load *l, const struct row *row, const config_setting_t *s)
{
	alert_at(l->findings, where(s), l->key, "%s is expected, not %s", value_expected(row->kind), type_words(s));
}

/* A scalar as text, malloc'ed; NULL when it was refused. */
static char *scalar_text(struct load *l, const struct row *row, const config_setting_t *s)
{
	char err[256];
	int type = config_setting_type(s);

	if (value_takes_number(row->kind) && (type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64))
		return xasprintf("%lld", config_setting_get_int64(s));
	if (row->kind == KIND_BOOL && type == CONFIG_TYPE_BOOL)
		return xstrdup(config_setting_get_bool(s) ? "true" : "false");
	if (type != CONFIG_TYPE_STRING) {
		wrong_type(l, row, s);
		return NULL;
	}
	if (row->kind == KIND_TEMPLATE)
		return xstrdup(config_setting_get_string(s));
	char *text = expand_env(config_setting_get_string(s), err, sizeof(err));
	if (!text)
		alert_at(l->findings, where(s), l->key, "%s", err);
	return text;
}

static void set_value(struct load *l, const struct row *row, const char *text, struct conf_where at, void *field)
{
	char err[512];

	if (row->size)
		findings_mark(l->findings, field, at, l->key);
	if (value_parse(row, text, at.file, field, err, sizeof(err)) < 0)
		alert_at(l->findings, at, l->key, "%s", err);
}

static void load_scalar(struct load *l, const struct row *row, const config_setting_t *s, void *field)
{
	char *text = scalar_text(l, row, s);

	if (text)
		set_value(l, row, text, where(s), field);
	free(text);
}

struct entry { /* a value of a key that takes many */
	char *text; /* owned; NULL: it was refused */
	struct conf_where at;
	int index; /* in the list as written, -1: it is no list */
};

struct entries {
	struct entry *v; /* owned */
	size_t n, size;
	bool full;
};

static void add_entry(struct entries *e, struct entry entry)
{
	if (e->n == MAX_ENTRIES) {
		e->full = true;
		free(entry.text);
		return;
	}
	if (e->n == e->size) {
		e->size = e->size ? 2 * e->size : 8;
		e->v = xrealloc(e->v, e->size * sizeof(*e->v));
	}
	e->v[e->n++] = entry;
}

/* The lines of a file instead of "@FILE". */
static void add_file_entries(struct load *l, struct entries *e, const char *name, const config_setting_t *s, int index)
{
	char *path = expand_path(where(s).file, name);
	struct lines lines = { 0 };
	const char *why;

	lines.text = *name ? files_read(l->conf->files, path, &lines.len, &why) : NULL;
	struct conf_where at = { lines.text ? files_path(l->conf->files, path) : NULL, 0 };
	bool readable = lines.text && !memchr(lines.text, '\0', lines.len);
	if (*name == '\0')
		alert_at(l->findings, where(s), l->key, "the path of a file is missing behind '@'");
	else if (!lines.text)
		alert_at(l->findings, where(s), l->key, "\"%s\" cannot be read: %s", path, why);
	else if (!readable)
		alert_at(l->findings, at, l->key, "this file holds bytes 0x00: a list of lines is expected, in UTF-8");
	for (char *text; readable && !e->full && (text = lines_next(&lines));)
		add_entry(e, (struct entry){ text, { at.file, lines.line }, index });
	if (!readable)
		add_entry(e, (struct entry){ NULL, where(s), index }); /* not the same as an empty one */
	free(path);
}

static void add_entries(struct load *l, const struct row *row, struct entries *e, const config_setting_t *s, int index)
{
	char *text = scalar_text(l, row, s);

	if (row->list == LIST_NONE || !text || text[0] != '@') {
		add_entry(e, (struct entry){ text, where(s), index });
		return;
	}
	add_file_entries(l, e, text + 1, s, index);
	free(text);
}

static void set_entries(struct load *l, const struct row *row, const struct entries *e, char *v)
{
	for (size_t i = 0; i < e->n; i++) {
		size_t up = e->v[i].index >= 0 ? key_down(l, NULL, e->v[i].index) : strlen(l->key);
		if (e->v[i].text)
			set_value(l, row, e->v[i].text, e->v[i].at, v + i * value_size(row->kind));
		key_back(l, up);
		free(e->v[i].text);
	}
}

static void load_many(struct load *l, const struct row *row, const config_setting_t *s, char *base)
{
	bool list = config_setting_is_array(s) || config_setting_is_list(s);
	int n = list ? config_setting_length(s) : 1;
	struct entries e = { 0 };

	if (n == 0) {
		alert_at(l->findings, where(s), l->key, "the list is empty");
		return;
	}
	if (n > MAX_VALUES) {
		alert_at(l->findings, where(s), l->key, "%d values are too many: the maximum is %d%s", n, MAX_VALUES, row->list ? " (a file takes more: \"@FILE\")" : "");
		return;
	}
	for (int i = 0; i < n; i++) {
		size_t up = list ? key_down(l, NULL, i) : strlen(l->key);
		add_entries(l, row, &e, list ? config_setting_get_elem(s, (unsigned)i) : s, list ? i : -1);
		key_back(l, up);
	}
	if (e.full)
		alert_at(l->findings, where(s), l->key, "more than %d values are too many", MAX_ENTRIES);
	if (e.n == 0 && row->list == LIST_FILLED)
		alert_at(l->findings, where(s), l->key, "there is nothing in the list");
	char *v = xcalloc(e.n + 1, value_size(row->kind));
	*(void **)(base + row->offset) = v;
	*(size_t *)(base + row->count) = e.n;
	findings_mark(l->findings, base + row->offset, where(s), l->key);
	set_entries(l, row, &e, v);
	free(e.v);
}

static void load_default(const struct row *row, void *field)
{
	char err[256];

	if (row->def && value_parse(row, row->def, "", field, err, sizeof(err)) < 0)
		die("default of %s: %s", row->name, err);
}

static void set_place(struct load *l, const struct section *section, const config_setting_t *group, char *base)
{
	if (section->at == NO_PLACE)
		return;
	struct conf_where *at = (struct conf_where *)(base + section->at);
	*at = where(group);
	findings_mark(l->findings, at, *at, l->key);
}

static void load_group(struct load *l, const struct section *section, const config_setting_t *group, char *base, bool fill);

static void load_list(struct load *l, const struct row *row, const config_setting_t *const *lists, size_t lists_n, char *base)
{
	size_t total = 0, at = 0;

	for (size_t i = 0; i < lists_n; i++)
		total += (size_t)config_setting_length(lists[i]);
	if (total == 0)
		return;
	if (total > MAX_ELEMENTS) {
		alert_at(l->findings, where(lists[0]), l->key, "%zu elements are too many: the maximum is %d", total, MAX_ELEMENTS);
		return;
	}
	char *v = xcalloc(total, row->sub->size);
	*(void **)(base + row->offset) = v;
	*(size_t *)(base + row->count) = total;
	for (size_t i = 0; i < lists_n; i++) {
		for (int j = 0; j < config_setting_length(lists[i]); j++, at++) {
			config_setting_t *s = config_setting_get_elem(lists[i], (unsigned)j);
			size_t up = key_down(l, NULL, j);
			set_place(l, row->sub, s, v + at * row->sub->size);
			if (config_setting_is_group(s))
				load_group(l, row->sub, s, v + at * row->sub->size, true);
			else
				wrong_type(l, &(struct row){ .kind = KIND_GROUP }, s);
			key_back(l, up);
		}
	}
}

/* Right type for a group or list? An empty one of either bracket may be anything. */
static bool check_type(struct load *l, const struct row *row, const config_setting_t *s)
{
	bool ok = row->kind == KIND_GROUP ? config_setting_is_group(s) : config_setting_is_list(s) || (config_setting_is_array(s) && config_setting_length(s) == 0);

	if (!ok)
		wrong_type(l, row, s);
	else if (row->kind == KIND_LIST && row->required && config_setting_length(s) == 0)
		alert_at(l->findings, where(s), l->key, "the list is empty");
	return ok;
}

static void load_row(struct load *l, const struct row *row, const config_setting_t *s, char *base)
{
	if (row->later) {
		alert_at(l->findings, where(s), l->key, "not available in this version");
		return;
	}
	if ((row->kind == KIND_GROUP || row->kind == KIND_LIST) && !check_type(l, row, s))
		return;
	if (row->kind == KIND_GROUP)
		load_group(l, row->sub, s, base + row->offset, !row->inherit);
	else if (row->kind == KIND_LIST)
		load_list(l, row, &s, 1, base);
	else if (row->many)
		load_many(l, row, s, base);
	else
		load_scalar(l, row, s, base + row->offset);
}

/* The key is not there. */
static void miss_row(struct load *l, const struct row *row, const config_setting_t *group, char *base, bool fill)
{
	if (row->required && group)
		alert_at(l->findings, where(group), l->key, "'%s' is missing here", row->name);
	if (row->kind == KIND_GROUP && !row->inherit && fill)
		load_group(l, row->sub, NULL, base + row->offset, fill);
	else if (fill)
		load_default(row, base + row->offset);
}

static void unknown_key(struct load *l, const struct section *section, const config_setting_t *s)
{
	const char *name = config_setting_name(s);
	struct suggest g = { .word = name };
	size_t up = key_down(l, name, 0);

	for (size_t i = 0; i < section->rows_n; i++)
		suggest_try(&g, section->rows[i].name);
	alert_at(l->findings, where(s), l->key, "unknown key '%.64s'%s", name, suggest_text(&g));
	key_back(l, up);
}

/* group NULL: only the defaults. fill false: what is not given stays as it is. */
static void load_group(struct load *l, const struct section *section, const config_setting_t *group, char *base, bool fill)
{
	if (group)
		set_place(l, section, group, base);
	for (size_t i = 0; i < section->rows_n; i++) {
		const struct row *row = &section->rows[i];
		const config_setting_t *s = group ? config_setting_get_member(group, row->name) : NULL;
		size_t up = key_down(l, row->name, 0);
		if (row->inherit)
			memcpy(base + row->offset, &l->conf->defaults, row->size);
		if (s)
			load_row(l, row, s, base);
		else
			miss_row(l, row, group, base, fill);
		key_back(l, up);
	}
	for (int i = 0; group && i < config_setting_length(group); i++) {
		const config_setting_t *s = config_setting_get_elem((config_setting_t *)group, (unsigned)i);
		if (!schema_row(section, config_setting_name(s)))
			unknown_key(l, section, s);
	}
}

/* Of a group only the first stands; a second one in another file is an error that names both. */
static void load_section(struct load *l, const struct row *row, const config_setting_t **found, size_t n, char *base)
{
	for (size_t i = 1; i < n && row->kind == KIND_GROUP; i++) {
		struct conf_where first = where(found[0]);
		alert_at(l->findings, where(found[i]), row->name, "'%s' stands already at %s:%d", row->name, first.file, first.line);
	}
	if (row->kind == KIND_LIST)
		load_list(l, row, found, n, base);
	else
		load_group(l, row->sub, n ? found[0] : NULL, base + row->offset, true);
}

static void load_root_row(struct load *l, const struct row *row)
{
	const config_setting_t **found = xcalloc(l->sources_n + 1, sizeof(*found));
	size_t n = 0, up = key_down(l, row->name, 0);

	for (size_t i = 0; i < l->sources_n; i++) {
		config_setting_t *s = config_setting_get_member(config_root_setting(&l->sources[i]->tree), row->name);
		if (s && check_type(l, row, s))
			found[n++] = s;
	}
	bool optional = row->kind == KIND_GROUP && row->sub->at != NO_PLACE; /* hub, agent: not there, nothing to fill */
	if (n || !optional)
		load_section(l, row, found, n, (char *)l->conf);
	key_back(l, up);
	free(found);
}

static void load_roots(struct load *l)
{
	for (size_t i = 0; i < schema_root.rows_n; i++)
		load_root_row(l, &schema_root.rows[i]);
	l->conf->hub.set = l->conf->hub.at.file != NULL;
	l->conf->agent.set = l->conf->agent.at.file != NULL;
	for (size_t i = 0; i < l->sources_n; i++) {
		config_setting_t *root = config_root_setting(&l->sources[i]->tree);
		for (int j = 0; j < config_setting_length(root); j++) {
			config_setting_t *s = config_setting_get_elem(root, (unsigned)j);
			if (!schema_row(&schema_root, config_setting_name(s)))
				unknown_key(l, &schema_root, s);
		}
	}
}

static void source_free(struct source *src)
{
	config_destroy(&src->tree);
	expand_fini(&src->text);
	free(src);
}

static void report_parse(struct load *l, struct source *src)
{
	const char *text = config_error_text(&src->tree);
	struct conf_where at = expand_where(&src->text, config_error_line(&src->tree));

	if (text && strstr(text, "duplicate"))
		text = "a key of this group stands here a second time";
	alert_at(l->findings, at, "syntax", "%s", text ? text : "cannot be parsed");
}

static bool parse_source(struct load *l, struct source *src, const char *path)
{
	if (expand_file(&src->text, l->conf->files, path, l->findings) < 0)
		return false;
	if (syntax_check(&src->text, l->findings) < 0)
		return false;
	if (config_read_string(&src->tree, src->text.text) == CONFIG_TRUE)
		return true;
	report_parse(l, src);
	return false;
}

static void parse_file(struct load *l, const char *path)
{
	struct source *src = xcalloc(1, sizeof(*src));

	config_init(&src->tree);
	if (!parse_source(l, src, path)) {
		l->broken = true;
		source_free(src);
		return;
	}
	l->sources = xrealloc(l->sources, (l->sources_n + 1) * sizeof(*l->sources));
	l->sources[l->sources_n++] = src;
}

static void add_file(struct load *l, const char *path)
{
	files_add_root(l->conf->files, path);
	parse_file(l, path);
}

static int is_cfg(const struct dirent *d)
{
	size_t len = strlen(d->d_name);

	return d->d_name[0] != '.' && len > 4 && strcmp(d->d_name + len - 4, ".cfg") == 0;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void add_dir(struct load *l, const char *path)
{
	struct dirent **names = NULL;
	int n = scandir(path, &names, is_cfg, by_bytes);
	size_t len = strlen(path);

	if (n <= 0) {
		alert_at(l->findings, (struct conf_where){ path, 0 }, "file", "%s", n < 0 ? "the directory cannot be read" : "the directory holds no *.cfg file");
		l->broken = true;
	}
	for (int i = 0; i < n; i++) {
		char *file = xasprintf("%s%s%s", path, len && path[len - 1] == '/' ? "" : "/", names[i]->d_name);
		add_file(l, file);
		free(file);
		free(names[i]);
	}
	free(names);
}

static void add_path(struct load *l, const char *path)
{
	struct stat st;

	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		add_dir(l, path);
	else
		add_file(l, path);
}

static void begin(struct load *l, struct files *files, conf_report *report, void *arg)
{
	*l = (struct load){ .conf = xcalloc(1, sizeof(*l->conf)), .findings = findings_new(report, arg) };
	atomic_init(&l->conf->refs, 1);
	l->conf->files = files;
	expand_remember_folder();
}

/* All files have been parsed. */
static struct conf *finish(struct load *l, const char *first)
{
	load_roots(l);
	if (!l->broken)
		check_conf(l->conf, first, l->findings);
	bool bad = findings_alerts(l->findings) > 0;
	for (size_t i = 0; i < l->sources_n; i++)
		source_free(l->sources[i]);
	free(l->sources);
	findings_free(l->findings);
	if (!bad)
		return l->conf;
	conf_put(l->conf);
	return NULL;
}

struct conf *conf_load(const char *const *paths, size_t n, conf_report *report, void *arg)
{
	struct load l;

	begin(&l, files_new(), report, arg);
	for (size_t i = 0; i < n; i++)
		add_path(&l, paths[i]);
	return finish(&l, n ? paths[0] : "-");
}

struct conf *conf_load_files(struct files *files, conf_report *report, void *arg)
{
	size_t n = files_roots(files);
	struct load l;

	begin(&l, files, report, arg);
	for (size_t i = 0; i < n; i++)
		parse_file(&l, files_root(files, i));
	return finish(&l, n ? files_root(files, 0) : "-");
}

struct conf *conf_get(struct conf *c)
{
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	return c;
}

static void fini_section(const struct section *section, char *base);

static void fini_array(const struct row *row, char *base)
{
	char *v = *(char **)(base + row->offset);
	size_t n = *(size_t *)(base + row->count);
	size_t size = row->many ? value_size(row->kind) : row->sub->size;

	for (size_t i = 0; i < n; i++) {
		if (row->many)
			value_fini(row, v + i * size);
		else
			fini_section(row->sub, v + i * size);
	}
	free(v);
}

static void fini_section(const struct section *section, char *base)
{
	for (size_t i = 0; i < section->rows_n; i++) {
		const struct row *row = &section->rows[i];
		if (row->many || row->kind == KIND_LIST)
			fini_array(row, base);
		else if (row->kind == KIND_GROUP)
			fini_section(row->sub, base + row->offset);
		else if (row->size)
			value_fini(row, base + row->offset);
	}
}

static void conf_free(struct aside *a)
{
	struct conf *c = container_of(a, struct conf, end);

	for (size_t i = 0; i < c->listeners_n; i++)
		listener_tls_fini(&c->listeners[i].tls);
	fini_section(&schema_root, (char *)c);
	files_free(c->files);
	free(c);
}

/* With ten thousand rules too long for a turn, and the last one may be a session on any thread. */
void conf_put(struct conf *c)
{
	if (c && atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) == 1)
		aside_run(&c->end, conf_free);
}
