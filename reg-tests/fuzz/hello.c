/* Fuzzes the frames AGENT and HUB; the first byte picks one. What is accepted must survive being built and parsed again. */
#include "mctunnel/proto/hello.h"

#include "mctunnel/base/bug.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void agent(const char *json, size_t len)
{
	struct agent_hello h, again;
	char err[64], *back;

	if (hello_agent_parse(&h, json, len, err, sizeof(err)) != 0)
		return;
	back = hello_agent_build(&h, &len);
	BUG_ON(!back);
	if (len <= HELLO_SIZE_MAX) {
		BUG_ON(hello_agent_parse(&again, back, len, err, sizeof(err)) != 0);
		BUG_ON(again.services_n != h.services_n || strcmp(again.name, h.name) != 0);
		hello_agent_fini(&again);
	}
	free(back);
	hello_agent_fini(&h);
}

static void hub(const char *json, size_t len)
{
	struct hub_hello h, again;
	char err[64], *back;

	if (hello_hub_parse(&h, json, len, err, sizeof(err)) != 0)
		return;
	back = hello_hub_build(&h, &len);
	BUG_ON(!back);
	if (len <= HELLO_SIZE_MAX) {
		BUG_ON(hello_hub_parse(&again, back, len, err, sizeof(err)) != 0);
		BUG_ON(again.refused_n != h.refused_n || strcmp(again.name, h.name) != 0);
		hello_hub_fini(&again);
	}
	free(back);
	hello_hub_fini(&h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	if (data[0] & 1)
		agent((const char *)data + 1, size - 1);
	else
		hub((const char *)data + 1, size - 1);
	return 0;
}
