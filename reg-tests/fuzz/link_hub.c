/* Fuzzes what an agent may say to a hub's link, after its SETTINGS: answers, data, credit, resets on sessions in all their states.
 * The first byte chooses the owners' habits and how the bytes are torn, the second how the sessions begin. */
#include "link_common.h"

static void stranded(void *arg, struct list *node)
{
	session_park(session_of_node(node), &fuzz.parked);
}

static void requested(void *arg, int32_t stream, const struct h2_fields *f)
{
	BUG_ON(true); /* a hub is never asked */
}

static const struct link_events events = {.on_output = link_nothing,
					  .on_hello = link_hello_came,
					  .on_request = requested,
					  .on_goaway = link_closing,
					  .on_strand = stranded,
					  .on_dead = link_died};

/* Streams 1, 3, 5, ...: some with bytes, some ended, some given up. */
static void open_sessions(uint8_t how)
{
	static const struct session_about about = {.service = "web", .client = "203.0.113.9:4711", .local = "198.51.100.1:80", .listener = "front"};
	for (int i = 0; i < 4; i++) {
		struct owner *o = &fuzz.owner[i];
		if (!link_can_open(fuzz.l))
			return;
		o->s = session_open(fuzz.l, &about, 10000, 30000, &owner_events, o);
		BUG_ON(!o->s);
		owner_write(o, (how & 1) ? 16384 : 10);
		if (how & 2 << i)
			owner_fin(o);
		say();
	}
	if ((how & 0x40) && fuzz.owner[3].s) {
		session_abort(fuzz.owner[3].s, REASON_CLIENT_RESET);
		fuzz.owner[3].s = NULL;
	}
}

/* The sessions lost their link and go on here: a 200 must bring offsets. */
static void park_and_resume(void)
{
	link_down(fuzz.l, REASON_LINK_CLOSED, &fuzz.parked);
	link_free(fuzz.l);
	fuzz.dead = false;
	fuzz.l = link_new(H2_HUB, &events, NULL, 5);
	BUG_ON(!fuzz.l);
	while (!list_empty(&fuzz.parked) && session_resume(session_of_node(fuzz.parked.next), fuzz.l) == 0)
		say();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t settings[] = {0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0};
	if (size < 2)
		return 0;
	start(H2_HUB, &events, data[0]);
	hear(settings, sizeof settings);
	open_sessions(data[1]);
	if (data[1] & 0x20) {
		park_and_resume();
		hear(settings, sizeof settings);
	}
	feed(data + 2, size - 2);
	finish();
	return 0;
}
