/* For tests of who looks for agents: adverts that are the test's, references to which are only counted, from 0, and links without anything behind them, as far
 * as all such tests have them alike. To be included once by a test. */
#include "mctunnel/tunnel/link.h"
#include "mctunnel/tunnel/registry.h"
#include "mctunnel/tunnel/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* n agents, edge-0 and so on; carried counts the sessions of each. */
static inline void name_agents(struct advert *a, atomic_uint *carried, int n)
{
	for (int i = 0; i < n; i++) {
		snprintf(a[i].name, sizeof(a[i].name), "edge-%d", i);
		a[i].instance[0] = (uint8_t)(i + 1);
		a[i].sessions = &carried[i];
	}
}

/* None carries a session any more, or is held by anybody. */
static inline void expect_idle_agents(const struct advert *a, int n)
{
	for (int i = 0; i < n; i++) {
		assert_int_equal(atomic_load(a[i].sessions), 0);
		assert_int_equal(atomic_load(&a[i].refs), 0);
	}
}

static inline bool is_avoided(const struct advert *a, const uint8_t (*avoid)[16], size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (memcmp(avoid[i], a->instance, 16) == 0)
			return true;
	}
	return false;
}

struct advert *advert_get(struct advert *a)
{
	atomic_fetch_add(&a->refs, 1);
	return a;
}

void advert_put(struct advert *a)
{
	if (a)
		assert_true(atomic_fetch_sub(&a->refs, 1) > 0);
}

struct link *registry_link(uint64_t id)
{
	return (struct link *)(uintptr_t)id;
}

bool link_can_open(const struct link *l)
{
	return true;
}

const char *session_id(const struct session *s)
{
	return "0123456789abcdef0123456789abcdef";
}

void session_leave(struct session *s)
{
}

void session_arrive(struct session *s)
{
}
