/* Who has lost links and not yet made them good. Owns a number for each agent that ever had a link; the configuration bounds who may have one.
 * Links come and go rarely, so a lock does. */
#include "mctunnel/edge/comeback.h"

#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/series.h"
#include "mctunnel/base/str.h"

#include <pthread.h>
#include <stdbool.h>

#define KEY_MAX 256

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct map *missing; /* owned: unsigned by "TUNNEL/AGENT" */

static unsigned *missing_of(const char *tunnel, const char *agent)
{
	char key[KEY_MAX];
	struct strbuf b;
	unsigned *n;

	strbuf_init(&b, key, sizeof(key));
	strbuf_add(&b, "%s/%s", tunnel, agent);
	if (!missing)
		missing = map_new();
	n = map_get_str(missing, key);
	if (!n) {
		n = xcalloc(1, sizeof(*n));
		map_set_str(missing, key, n);
	}
	return n;
}

void comeback_up(const char *tunnel, const char *agent)
{
	struct series *s = series_of(RECONNECTIONS, tunnel, agent);

	pthread_mutex_lock(&lock);
	unsigned *n = missing_of(tunnel, agent);
	bool back = *n > 0;
	*n -= back;
	pthread_mutex_unlock(&lock);
	series_add(s, back);
}

void comeback_lost(const char *tunnel, const char *agent)
{
	pthread_mutex_lock(&lock);
	++*missing_of(tunnel, agent);
	pthread_mutex_unlock(&lock);
}
