/* Fuzzes the whole way from a file's bytes to a snapshot and its release: includes, syntax, libconfig, values, checks, and rules made ready.
 * Whatever is refused must have been reported, and whatever is reported must name its place. */
#define _GNU_SOURCE
#include "mctunnel/conf/conf.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/tunnel/rules.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void hear(void *arg, bool alert, const char *line)
{
	unsigned *alerts = arg;

	*alerts += alert;
	BUG_ON(!strstr(line, alert ? ": [ALERT] " : ": [WARNING] "));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char path[64];
	const char *paths[] = { path };
	unsigned alerts = 0;
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	BUG_ON(fd < 0 || write(fd, data, size) != (ssize_t)size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	struct conf *c = conf_load(paths, 1, hear, &alerts);
	BUG_ON(!c != (alerts > 0));
	for (size_t i = 0; c && i < c->listeners_n; i++)
		rules_free(rules_new(&c->listeners[i])); /* which relies on what was checked */
	conf_put(c);
	close(fd);
	return 0;
}
