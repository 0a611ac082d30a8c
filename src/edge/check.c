/* Health checks of the agent's targets. A ward is a service with a check and what is known of it; it goes from one configuration to the next by its name, as long as the
 * target is the same. It belongs to one thread, whose watcher checks it: a timer and at most one probe. All threads hear of each change and read the
 * wards when they wish, under a lock that is taken a few times for each check.
 * Does not know what a change means for sessions and hubs. */
#include "mctunnel/edge/check.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/log.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/rnd.h"
#include "mctunnel/base/series.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/edge/probe.h"
#include "mctunnel/edge/standing.h"
#include "mctunnel/event/thread.h"
#include "mctunnel/net/tls.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_MS 50 /* the first checks are made within this */

struct ward { /* all under the lock, unless it says otherwise */
	unsigned refs; /* by all.wards, watchers and messages */
	unsigned thread;
	bool gone;                     /* no longer in all.wards */
	struct conf *conf;             /* shared */
	const struct conf_service *s;  /* of conf */
	struct watcher *watcher;       /* of its thread only */
	struct standing standing;
	struct probe_result why, last; /* why: of the check that made it what it is */
	uint64_t last_ms;
	uint64_t checks, failed, falls;
	char name[];
};

struct watcher {
	struct list node;
	struct ward *ward;            /* shared */
	struct conf *conf;            /* shared: what the probe was begun under */
	const struct conf_service *s; /* of conf */
	struct timer next, step;
	struct probe *probe; /* NULL: waits for next */
};

/* Of the process. */
static struct {
	pthread_mutex_t lock;
	unsigned users;
	unsigned next;     /* whose turn it is to take a ward */
	uint64_t moment;   /* grows with each change that somebody hears of, in the same breath */
	struct conf *conf; /* shared: the one that wards were made of */
	struct map *wards; /* owned, by name */
	struct tls *tls;   /* owned; NULL: nobody has needed it yet */
} all = { .lock = PTHREAD_MUTEX_INITIALIZER };

static _Thread_local struct {
	const struct check_events *ev;
	struct list watchers;
} here;

static void lock(void)
{
	pthread_mutex_lock(&all.lock);
}

static void unlock(void)
{
	pthread_mutex_unlock(&all.lock);
}

/* ---- wards ---- */

static void ward_put(struct ward *w)
{
	if (--w->refs > 0)
		return;
	conf_put(w->conf);
	free(w);
}

static void ward_set(struct ward *w, struct conf *conf, const struct conf_service *s)
{
	struct conf *old = w->conf;

	w->conf = conf_get(conf);
	w->s = s;
	conf_put(old);
}

static struct ward *ward_new(struct conf *conf, const struct conf_service *s, bool up)
{
	size_t size = strlen(s->name) + 1;
	struct ward *w = xcalloc(1, sizeof(*w) + size);

	memcpy(w->name, s->name, size);
	w->thread = all.next++ % (unsigned)thread_count();
	standing_init(&w->standing, &s->check, up, clock_ms());
	ward_set(w, conf, s);
	return w;
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static const struct conf_service *service_of(const struct conf *c, const char *name)
{
	for (size_t i = 0; c && i < c->agent.services_n; i++)
		if (strcmp(c->agent.services[i].name, name) == 0)
			return &c->agent.services[i];
	return NULL;
}

/* What was served until now without a check goes on: the check has to find something wrong first. */
static struct ward *ward_for(struct conf *conf, const struct conf_service *s)
{
	const struct conf_service *before = service_of(all.conf, s->name);
	struct ward *w = all.wards ? map_get_str(all.wards, s->name) : NULL;
	bool same = before && same_text(before->target.text, s->target.text);

	if (!w || !same)
		return ward_new(conf, s, same);
	if (w->standing.rise != s->check.rise || w->standing.fall != s->check.fall)
		standing_adapt(&w->standing, &s->check);
	ward_set(w, conf, s);
	return w;
}

static void drop_wards(struct map *wards, const struct map *kept)
{
	size_t pos = 0;

	for (struct ward *w; wards && (w = map_next(wards, &pos));) {
		w->gone = !kept || map_get_str(kept, w->name) != w;
		ward_put(w);
	}
	map_free(wards);
}

static void renew(struct conf *conf)
{
	struct map *old = all.wards, *wards = map_new();
	struct conf *before = all.conf;

	for (size_t i = 0; i < conf->agent.services_n; i++) {
		const struct conf_service *s = &conf->agent.services[i];

		if (s->check.type == CHECK_NONE)
			continue;
		if (s->check.type == CHECK_TLS && !all.tls)
			all.tls = tls_probe();
		struct ward *w = ward_for(conf, s);
		w->refs++;
		map_set_str(wards, s->name, w);
	}
	all.wards = wards;
	all.conf = conf_get(conf);
	all.moment++;
	drop_wards(old, wards);
	conf_put(before);
}

/* ---- changes ---- */

struct news {
	struct msg msg;
	char service[];
};

static void run_news(struct msg *m)
{
	struct news *n = container_of(m, struct news, msg);

	if (here.ev)
		here.ev->on_change(n->service);
	free(n);
}

static void tell_all(const struct ward *w)
{
	size_t size = strlen(w->name) + 1;

	for (int t = 0; t < thread_count(); t++) {
		struct news *n = xcalloc(1, sizeof(*n) + size);

		n->msg.run = run_news;
		memcpy(n->service, w->name, size);
		thread_post(t, &n->msg);
	}
}

static void log_change(const struct watcher *v, const struct probe_result *r, bool up)
{
	struct log_rec rec;

	log_begin(&rec, up ? LOG_NOTICE : LOG_WARNING, "check");
	log_str(&rec, "service", v->ward->name);
	log_str(&rec, "target", v->s->target.text);
	log_str(&rec, "state", up ? "UP" : "DOWN");
	log_str(&rec, "status", check_status_word(r->status));
	if (r->code)
		log_int(&rec, "code", r->code);
	log_str(&rec, "text", r->text[0] ? r->text : check_status_text(r->status));
	log_int(&rec, "ms", (int64_t)(r->took_us / 1000));
	log_end(&rec);
}

static void log_check(const struct watcher *v, const struct probe_result *r)
{
	log_debug("check of %s: %s %u %s (%llu us)", v->ward->name, check_status_word(r->status), r->code, r->text, (unsigned long long)r->took_us);
}

static void take_step(struct watcher *v)
{
	uint32_t ms;

	lock();
	ms = standing_next_step(&v->ward->standing, &v->ward->s->check, clock_ms());
	unlock();
	if (ms)
		timer_start(&v->step, ms);
	else
		timer_stop(&v->step);
}

static void on_step(struct timer *t)
{
	struct watcher *v = container_of(t, struct watcher, step);

	lock();
	all.moment++;
	unlock();
	tell_all(v->ward);
	take_step(v);
}

static void follow(struct watcher *v, enum standing_change change, const struct probe_result *r)
{
	bool up = change == STANDING_ROSE;

	log_change(v, r, up);
	if (change != STANDING_SAME)
		series_add(series_of(CHECK_CHANGES, v->ward->name, up ? "UP" : "DOWN"), 1);
	tell_all(v->ward);
	take_step(v);
}

/* Under the lock. While it is down, the newest reason is the one that counts. True: somebody should hear of it; *log: everybody. */
static bool note(struct ward *w, const struct probe_result *r, enum standing_change change, bool *log)
{
	int verdict = check_status_verdict(r->status);
	bool down = !standing_up(&w->standing), first = w->why.status == CHECK_INI && verdict >= 0;
	bool other = first || (down && verdict == 0 && r->status != w->why.status);

	w->last = *r;
	w->last_ms = clock_ms();
	w->falls += change == STANDING_FELL;
	if (change != STANDING_SAME || other)
		w->why = *r;
	*log = change != STANDING_SAME || (first && down);
	all.moment += *log || other;
	return *log || other;
}

/* ---- watchers ---- */

/* The next check, more or less in step with all others. */
static void plan(struct watcher *v, uint32_t pause)
{
	uint32_t slack = (uint32_t)((uint64_t)pause * v->s->check.jitter / 100);

	timer_start(&v->next, pause - slack + rnd_below(2 * slack + 1));
}

/* Without a check; the next one is to bring it back. */
static void condemn(struct watcher *v, const struct probe_result *r)
{
	struct standing *s = &v->ward->standing;
	bool log, up;
	uint32_t pause;

	lock();
	up = standing_up(s);
	if (up)
		note(v->ward, r, standing_condemn(s, clock_ms()), &log);
	pause = standing_pause(s, &v->s->check);
	unlock();
	if (!up)
		return;
	follow(v, STANDING_FELL, r);
	if (!v->probe)
		plan(v, pause);
}

static void on_result(void *arg, const struct probe_result *r)
{
	int verdict = check_status_verdict(r->status);
	enum standing_change change = STANDING_SAME;
	struct watcher *v = arg;
	struct ward *w = v->ward;
	bool news, log;
	uint32_t pause;

	v->probe = NULL;
	lock();
	if (verdict >= 0)
		change = standing_note(&w->standing, verdict > 0, clock_ms());
	w->checks++;
	w->failed += verdict == 0;
	news = note(w, r, change, &log);
	pause = standing_pause(&w->standing, &v->s->check);
	unlock();
	series_add(series_of(CHECKS, w->name, check_status_word(r->status)), 1);
	series_observe_us(series_of(CHECK_TIME, w->name), r->took_us);
	log_check(v, r);
	if (log)
		follow(v, change, r);
	else if (news)
		tell_all(w);
	plan(v, pause);
}

/* What the configuration says now. Returns the TLS context. */
static struct tls *adopt(struct watcher *v)
{
	struct conf *old = v->conf;
	struct tls *tls;

	lock();
	tls = all.tls;
	v->conf = conf_get(v->ward->conf);
	v->s = v->ward->s;
	unlock();
	conf_put(old);
	return tls;
}

static void on_next(struct timer *t)
{
	struct watcher *v = container_of(t, struct watcher, next);

	struct tls *tls = adopt(v);

	v->probe = probe_start(v->s, tls, on_result, v);
	if (!v->probe)
		on_result(v, &(struct probe_result){ .status = CHECK_SOCKERR, .text = "no memory" });
}

static void watcher_new(struct ward *w)
{
	struct watcher *v = xcalloc(1, sizeof(*v));

	w->refs++;
	w->watcher = v;
	v->ward = w;
	v->conf = conf_get(w->conf);
	v->s = w->s;
	timer_init(&v->next, on_next);
	timer_init(&v->step, on_step);
	timer_start(&v->next, rnd_below(FIRST_MS + 1));
	list_add(&here.watchers, &v->node);
}

static void watcher_free(struct watcher *v)
{
	if (v->probe)
		probe_cancel(v->probe);
	timer_stop(&v->next);
	timer_stop(&v->step);
	list_del(&v->node);
	conf_put(v->conf);
	lock();
	v->ward->watcher = NULL;
	ward_put(v->ward);
	unlock();
	free(v);
}

static bool same_strings(const struct conf_strings *a, const struct conf_strings *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->v[i], b->v[i]) != 0)
			return false;
	return true;
}

static bool same_question(const struct conf_service *a, const struct conf_service *b)
{
	const struct conf_check *x = &a->check, *y = &b->check;

	return a->send_proxy == b->send_proxy && x->type == y->type && x->interval == y->interval && x->fastinter == y->fastinter &&
	       x->downinter == y->downinter && x->timeout == y->timeout && same_text(x->path, y->path) && same_text(x->host, y->host) &&
	       same_text(x->method, y->method) && same_text(x->service, y->service) && same_strings(&x->expect, &y->expect);
}

/* A check under way goes on when the next one would be the same, so that reloads in a row cannot keep bad news away. */
static void watcher_renew(struct watcher *v)
{
	bool same;

	lock();
	same = same_question(v->s, v->ward->s);
	unlock();
	take_step(v);
	if (same)
		return;
	if (v->probe)
		probe_cancel(v->probe);
	v->probe = NULL;
	timer_start(&v->next, rnd_below(FIRST_MS + 1));
}

static void watch_new_ones(void)
{
	size_t pos = 0;

	lock();
	for (struct ward *w; (w = map_next(all.wards, &pos));)
		if (w->thread == (unsigned)thread_self() && !w->watcher)
			watcher_new(w);
	unlock();
}

static bool is_gone(const struct watcher *v)
{
	bool gone;

	lock();
	gone = v->ward->gone;
	unlock();
	return gone;
}

/* ---- for the owner ---- */

void check_prepare(struct conf *conf)
{
	lock();
	renew(conf);
	unlock();
}

void check_reload(void)
{
	list_for_each_safe(n, &here.watchers) {
		struct watcher *v = container_of(n, struct watcher, node);

		if (is_gone(v))
			watcher_free(v);
		else
			watcher_renew(v);
	}
	watch_new_ones();
}

void check_init(struct conf *conf, const struct check_events *ev)
{
	lock();
	if (all.users++ == 0)
		renew(conf);
	unlock();
	here.ev = ev;
	list_init(&here.watchers);
	watch_new_ones();
}

void check_stop(void)
{
	if (!here.ev)
		return;
	here.ev = NULL;
	while (!list_empty(&here.watchers))
		watcher_free(list_first(&here.watchers, struct watcher, node));
}

void check_fini(void)
{
	check_stop();
	lock();
	if (--all.users == 0) {
		drop_wards(all.wards, NULL);
		conf_put(all.conf);
		tls_put(all.tls);
		all.wards = NULL;
		all.conf = NULL;
		all.tls = NULL;
	}
	unlock();
}

/* The time of another thread may be a little ahead of ours. */
static void view(const struct ward *w, struct check_view *out)
{
	uint64_t now = clock_ms(), since = w->standing.since_ms;

	*out = (struct check_view){ .up = standing_up(&w->standing),
				    .why = w->why,
				    .last = w->last,
				    .since_ms = since < now ? since : now,
				    .last_ms = w->last_ms,
				    .health = w->standing.health,
				    .weight = standing_weight(&w->standing, &w->s->check, w->s->weight, now),
				    .checks = w->checks,
				    .failed = w->failed,
				    .falls = w->falls };
	standing_words(&w->standing, out->words, sizeof(out->words));
}

bool check_view(const char *service, struct check_view *out)
{
	const struct ward *w;

	memset(out, 0, sizeof(*out));
	lock();
	w = all.wards ? map_get_str(all.wards, service) : NULL;
	if (w)
		view(w, out);
	unlock();
	return w != NULL;
}

uint64_t check_survey(const struct conf *conf, void (*take)(void *arg, size_t service, const struct check_view *v), void *arg)
{
	uint64_t moment;

	lock();
	moment = all.moment;
	for (size_t i = 0; i < conf->agent.services_n; i++) {
		const struct ward *w = all.wards ? map_get_str(all.wards, conf->agent.services[i].name) : NULL;
		struct check_view v;

		if (!w)
			continue;
		view(w, &v);
		take(arg, i, &v);
	}
	unlock();
	return moment;
}

struct sentence {
	struct msg msg;
	struct ward *ward; /* shared */
	struct probe_result r;
};

static void run_sentence(struct msg *m)
{
	struct sentence *s = container_of(m, struct sentence, msg);

	if (s->ward->watcher)
		condemn(s->ward->watcher, &s->r);
	lock();
	ward_put(s->ward);
	unlock();
	free(s);
}

void check_condemn(const char *service, enum check_status status, const char *text)
{
	struct sentence *s = xcalloc(1, sizeof(*s));
	unsigned thread = 0;

	s->msg.run = run_sentence;
	s->r.status = status;
	str_copy(s->r.text, sizeof(s->r.text), text);
	lock();
	s->ward = all.wards ? map_get_str(all.wards, service) : NULL;
	if (s->ward) {
		s->ward->refs++;
		thread = s->ward->thread;
	}
	unlock();
	if (s->ward)
		thread_post((int)thread, &s->msg);
	else
		free(s);
}
