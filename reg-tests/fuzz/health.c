/* Fuzzes the gRPC health server of a connection. The first byte's bits: 1, the bytes are frames, and the preface of HTTP/2 is put before them;
 * 2, they come one by one; 4, nothing is read from it until all have come. */
#include "mctunnel/proto/grpc_health.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/proto/h2_server.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int watches;
static enum health_status tunnel;

static enum health_status status(void *owner, const char *service)
{
	BUG_ON(strlen(service) >= GRPC_HEALTH_NAME_MAX);
	return service[0] == 't' ? tunnel : service[0] ? HEALTH_SERVICE_UNKNOWN : HEALTH_SERVING;
}

static void list(void *owner, struct health_list *l)
{
	char name[] = "t-A";
	for (int i = 0; i <= GRPC_HEALTH_LISTED; i++, name[2]++)
		if (!health_list_add(l, name, tunnel))
			return;
}

static void answered(void *owner, const char *service, enum health_status s)
{
}

static bool watch_begins(void *owner)
{
	return ++watches > 0;
}

static void watch_ends(void *owner)
{
	watches--;
}

static void drain(struct grpc_health *h)
{
	uint8_t out[100];
	while (grpc_health_output(h, out, sizeof out) > 0)
		;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct grpc_health_events events = {status, list, answered, watch_begins, watch_ends};
	struct grpc_health *h = size > 0 ? grpc_health_new(&events, NULL) : NULL;
	if (!h)
		return 0;
	size_t step = data[0] & 2 ? 1 : size;
	tunnel = HEALTH_SERVING;
	if (data[0] & 1)
		grpc_health_input(h, (const uint8_t *)H2_PREFACE, sizeof H2_PREFACE - 1);
	for (size_t at = 1; at < size; at += step) {
		grpc_health_input(h, data + at, size - at < step ? size - at : step);
		if (!(data[0] & 4))
			drain(h);
	}
	tunnel = HEALTH_NOT_SERVING;
	grpc_health_changed(h);
	drain(h);
	BUG_ON(grpc_health_wants_output(h) && !grpc_health_over(h));
	grpc_health_goaway(h, false);
	drain(h);
	grpc_health_free(h);
	BUG_ON(watches != 0);
	return 0;
}
