/* Basic authentication: what is a credential, whose it is, and what a hash may cost. */
#include "edge/webauth.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static int hashes;
static bool no_memory;

/* As slow as the test says, and simple. */
static uint64_t slowness_us;

char *crypt_r(const char *password, const char *expected, struct crypt_data *space)
{
	uint64_t until = now_us() + slowness_us;

	hashes++;
	while (now_us() < until)
		;
	if (no_memory) {
		snprintf(space->output, sizeof(space->output), "*0");
		return space->output;
	}
	snprintf(space->output, sizeof(space->output), "$t$%s", password);
	return space->output;
}

static char *users_text[] = { "alice:secret", "bob:$t$pass:word", "carol:" };
static const struct conf_strings users = { users_text, 3 };

static enum webauth check(const char *value)
{
	return webauth_check(&users, value, strlen(value));
}

static void credentials_are_compared_whole(void **state)
{
	assert_int_equal(check("Basic YWxpY2U6c2VjcmV0"), WEBAUTH_OK);       /* alice:secret */
	assert_int_equal(check("basic   YWxpY2U6c2VjcmV0"), WEBAUTH_OK);
	assert_int_equal(check("Basic YWxpY2U6c2VjcmU="), WEBAUTH_WRONG);    /* alice:secre */
	assert_int_equal(check("Basic YWxpY2U6c2VjcmV0cw=="), WEBAUTH_WRONG); /* alice:secrets */
	assert_int_equal(check("Basic YWxpY2U6"), WEBAUTH_WRONG);            /* alice: */
	assert_int_equal(check("Basic YWxpOnNlY3JldA=="), WEBAUTH_WRONG);    /* ali:secret */
	assert_int_equal(check("Basic YWxpY2VzZWNyZXQ="), WEBAUTH_WRONG);    /* alicesecret */
	assert_int_equal(check("Basic YWxpY2U6c2VjcmV0AA=="), WEBAUTH_WRONG); /* with a NUL */
	assert_int_equal(check("Basic YWxp?2U6c2VjcmV0"), WEBAUTH_WRONG);
	assert_int_equal(check("Bearer YWxpY2U6c2VjcmV0"), WEBAUTH_WRONG);
	assert_int_equal(check("Basic "), WEBAUTH_WRONG);
	assert_int_equal(check("Basic"), WEBAUTH_WRONG);
	assert_int_equal(check(""), WEBAUTH_WRONG);
}

static void long_ones_are_none(void **state)
{
	char value[1024] = "Basic ";

	memset(value + 6, 'Y', sizeof(value) - 7);
	value[sizeof(value) - 1] = '\0';
	assert_int_equal(check(value), WEBAUTH_WRONG);
}

static void a_hash_is_computed_once(void **state)
{
	hashes = 0;
	for (int i = 0; i < 5; i++)
		assert_int_equal(check("Basic Ym9iOnBhc3M6d29yZA=="), WEBAUTH_OK); /* bob:pass:word */
	assert_int_equal(hashes, 1);
}

static void guessing_takes_a_tenth_of_the_time(void **state)
{
	uint64_t began = now_us();

	hashes = 0;
	slowness_us = 5000;
	here.rest_until_us = 0;
	assert_int_equal(check("Basic Ym9iOndyb25n"), WEBAUTH_WRONG); /* bob:wrong */
	assert_true(here.rest_until_us >= began + 10 * slowness_us);
	here.rest_until_us = UINT64_MAX; /* however slow this machine is */
	assert_int_equal(check("Basic Ym9iOndyb25n"), WEBAUTH_LATER);
	assert_int_equal(check("Basic Ym9iOnBhc3M6d29yZA=="), WEBAUTH_OK); /* who was in, is in */
	assert_int_equal(check("Basic YWxpY2U6c2VjcmV0"), WEBAUTH_OK);
	assert_int_equal(hashes, 1);
	here.rest_until_us = 0;
	assert_int_equal(check("Basic Ym9iOndyb25n"), WEBAUTH_WRONG);
	assert_int_equal(hashes, 2);
}

static void no_memory_is_no_wrong_password(void **state)
{
	static char *text[] = { "dora:$y$j9T$MGsFL2JIDwQB3Jki3Zsvv/$kw0A9ImiGU2u20SwSMf7SbicNfRUq0yB628DEJI8qc8", "emil:$nonsense$x" };
	const struct conf_strings some = { text, 2 };

	no_memory = true;
	here.rest_until_us = slowness_us = 0;
	assert_int_equal(webauth_check(&some, "Basic ZG9yYTpw", 14), WEBAUTH_RESOURCES); /* dora:p */
	here.rest_until_us = 0;
	assert_int_equal(webauth_check(&some, "Basic ZW1pbDpw", 14), WEBAUTH_WRONG); /* emil:p */
	no_memory = false;
}

static int tear_down(void **state)
{
	webauth_thread_fini();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(credentials_are_compared_whole),
		cmocka_unit_test(long_ones_are_none),
		cmocka_unit_test(a_hash_is_computed_once),
		cmocka_unit_test(guessing_takes_a_tenth_of_the_time),
		cmocka_unit_test(no_memory_is_no_wrong_password),
	};

	return cmocka_run_group_tests(tests, NULL, tear_down);
}
