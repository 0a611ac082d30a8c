/* Fuzzes what a target answers to a health check by gRPC. The first byte's bits: 1, SETTINGS are put before the bytes; 2, they come one by one; 4, nothing is read
 * from the probe until all have come. */
#include "mctunnel/proto/grpc_probe.h"

#include "mctunnel/base/bug.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void drain(struct grpc_probe *p)
{
	uint8_t out[100];

	while (grpc_probe_output(p, out, sizeof(out)) > 0)
		;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t settings[9] = { [3] = 4 };
	struct grpc_probe *p = size > 0 ? grpc_probe_new("target.example:80", "x", 1000) : NULL;
	enum grpc_verdict v;
	uint32_t code;

	if (!p)
		return 0;
	size_t step = data[0] & 2 ? 1 : size;
	drain(p);
	if (data[0] & 1)
		grpc_probe_input(p, settings, sizeof(settings));
	for (size_t at = 1; at < size; at += step) {
		grpc_probe_input(p, data + at, size - at < step ? size - at : step);
		if (!(data[0] & 4))
			drain(p);
	}
	drain(p);
	v = grpc_probe_input(p, NULL, 0);
	BUG_ON((v == GRPC_WAITING) != (strlen(grpc_probe_text(p, &code)) == 0));
	BUG_ON(v == GRPC_SERVING && code != 0);
	grpc_probe_free(p);
	return 0;
}
