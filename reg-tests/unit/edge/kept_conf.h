/* For tests: stands in the place of conf_get() and conf_put(). A configuration is the test's, so references to it are only counted, from 0, and the last
 * one frees nothing. To be included once by a test. */
#include "mctunnel/conf/conf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct conf *conf_get(struct conf *c)
{
	atomic_fetch_add(&c->refs, 1);
	return c;
}

void conf_put(struct conf *c)
{
	if (c)
		assert_true(atomic_fetch_sub(&c->refs, 1) > 0);
}
