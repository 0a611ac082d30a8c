/* The last words about a session or a request: the line in the log, the count by reason, and the scripts that asked to hear of it.
 * Owns nothing. */
#include "mctunnel/edge/record.h"

#include "mctunnel/base/log.h"
#include "mctunnel/base/series.h"
#include "mctunnel/base/str.h"
#include "mctunnel/edge/policy.h"
#include "mctunnel/edge/trip.h"

static void log_who(struct log_rec *l, const struct record *r)
{
	log_str(l, "listener", r->listener);
	log_str(l, "client", r->client);
	if (r->sni)
		log_str(l, "sni", r->sni);
	if (r->cert)
		log_str(l, "cert", r->cert);
	if (r->method) {
		log_str(l, "method", r->method);
		log_str(l, "host", r->host);
		log_str(l, "path", r->path);
	}
	if (r->method || r->status)
		log_int(l, "status", r->status);
	log_str(l, "route", r->route);
	log_str(l, "agent", r->agent);
	log_str(l, "target", r->target);
}

static void log_how(struct log_rec *l, const struct record *r)
{
	char sessions[32], end[3] = { reason_letter(r->why), r->phase, '\0' };
	struct strbuf b;

	log_int(l, "queue", r->queue_ms);
	log_int(l, "connect", r->connect_ms);
	log_int(l, "total", r->total_ms);
	log_int(l, "up", (int64_t)r->up);
	log_int(l, "down", (int64_t)r->down);
	strbuf_init(&b, sessions, sizeof(sessions));
	strbuf_add(&b, "%u/%u", r->sessions, r->listener_sessions);
	log_str(l, "sessions", sessions);
	log_str(l, "end", end);
	log_str(l, "reason", reason_word(r->why));
	if (r->text && r->text[0])
		log_str(l, "text", r->text);
	if (r->request)
		log_str(l, "request", r->request);
	log_str(l, "id", r->id && r->id[0] ? r->id : NULL);
}

static void tell_scripts(const struct record *r)
{
	struct policy_end e = { .listener = r->listener, .client = r->client, .route = r->route, .tunnel = r->tunnel, .service = r->service, .agent = r->agent,
				.target = r->target, .id = r->id, .reason = reason_word(r->why), .sni = r->sni, .host = r->host, .up = r->up, .down = r->down,
				.queue_ms = r->queue_ms, .connect_ms = r->connect_ms, .total_ms = r->total_ms };

	policy_end(&e);
}

void record_trip(struct record *r, const struct trip_view *v)
{
	r->route = v->route;
	r->tunnel = v->tunnel;
	r->service = v->service;
	r->agent = v->agent;
	r->target = v->target;
	r->id = v->id;
	r->queue_ms = v->queue_ms;
	r->connect_ms = v->connect_ms;
}

void record_end(const struct record *r)
{
	struct log_rec l;

	series_add(series_of(SESSIONS, r->listener, r->tunnel, r->service, reason_word(r->why)), 1);
	if (policy_wants_ends())
		tell_scripts(r);
	if (!log_wants(LOG_INFO))
		return;
	log_begin(&l, LOG_INFO, "session");
	log_who(&l, r);
	log_how(&l, r);
	log_end(&l);
}
