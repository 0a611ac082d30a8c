/* Fuzzes what a hub may say to an agent's link, after preface and SETTINGS: requests, resumes, data, credit, resets.
 * The first byte chooses the owners' habits and how the bytes are torn, the second what becomes of requests. */
#include "link_common.h"

static uint8_t manner;
static unsigned turn_of;

static void resume(int32_t stream, const struct h2_fields *f)
{
	uint8_t id[16];
	struct session *s = str_unhex(id, sizeof id, f->session) ? session_find(id) : NULL;
	if (!s) {
		link_refuse(fuzz.l, stream, REASON_LOST);
		session_bar(id, 1000);
		return;
	}
	if (manner & 1 && f->epoch > session_epoch(s))
		session_unlink(s, &fuzz.parked);
	session_resumed(s, fuzz.l, stream, f);
}

static void requested(void *arg, int32_t stream, const struct h2_fields *f)
{
	struct owner *o = &fuzz.owner[turn_of++ % OWNERS];
	if (f->resume) {
		resume(stream, f);
		return;
	}
	if (o->s) {
		session_abort(o->s, REASON_TARGET_REFUSED);
		o->s = NULL;
	}
	o->fin = false;
	o->s = session_accept(fuzz.l, stream, f, 30000, &owner_events, o);
	if (!o->s) {
		link_refuse(fuzz.l, stream, REASON_RESOURCES);
		return;
	}
	if (manner & 2)
		return; /* its target does not answer */
	session_established(o->s, "192.0.2.1:80");
	owner_write(o, (manner & 4) ? 16384 : 10);
	if (manner & 8)
		owner_fin(o);
}

static const struct link_events events = {
	.on_output = link_nothing, .on_hello = link_hello_came, .on_request = requested, .on_goaway = link_closing, .on_dead = link_died};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
	static const uint8_t settings[] = {0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 64, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0};
	if (size < 2)
		return 0;
	start(H2_AGENT, &events, data[0]);
	manner = data[1];
	turn_of = 0;
	hear(preface, sizeof preface - 1);
	hear(settings, sizeof settings);
	feed(data + 2, size - 2);
	finish();
	return 0;
}
