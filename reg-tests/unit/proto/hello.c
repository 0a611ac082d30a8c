/* The frames AGENT and HUB: what is built is parsed, what is wrong is refused with a sentence. */
#include "mctunnel/proto/hello.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../failing.h"

#define INSTANCE "\"instance\":\"000102030405060708090a0b0c0d0e0f\""
#define HEAD "{\"protocol\":1,\"agent\":\"edge-1\",\"tunnel\":\"site-a\",\"version\":\"1.0\"," INSTANCE ",\"draining\":false"
#define AGENT(services) HEAD ",\"services\":[" services "]}"
#define SERVICE(name) "{\"name\":\"" name "\",\"weight\":100,\"up\":true,\"maxconn\":0}"
#define HUB_HEAD "{\"protocol\":1,\"hub\":\"hub-a\",\"version\":\"1.0\"," INSTANCE ",\"accepted\":true,\"reason\":\"\",\"text\":\"\","
#define HUB_TIMES "\"retry_after_ms\":0,\"heartbeat_interval_ms\":1000,\"heartbeat_timeout_ms\":3000,\"resume_ms\":30000"

static void refuse_agent_bytes(const char *json, size_t len, const char *because)
{
	struct agent_hello h;
	char err[200] = "";
	char *exact = malloc(len ? len : 1); /* so that the sanitizer sees a byte too far */

	memcpy(exact, json, len);
	assert_int_equal(hello_agent_parse(&h, exact, len, err, sizeof(err)), -1);
	free(exact);
	if (!strstr(err, because))
		fail_msg("expected \"%s\", got \"%s\"", because, err);
	assert_null(h.services);
}

static void refuse_agent(const char *json, const char *because)
{
	refuse_agent_bytes(json, strlen(json), because);
}

static void accept_agent(const char *json, struct agent_hello *h)
{
	char err[200] = "";

	if (hello_agent_parse(h, json, strlen(json), err, sizeof(err)) != 0)
		fail_msg("refused: %s", err);
}

static void refuse_hub(const char *json, const char *because)
{
	struct hub_hello h;
	char err[200] = "";

	assert_int_equal(hello_hub_parse(&h, json, strlen(json), err, sizeof(err)), -1);
	if (!strstr(err, because))
		fail_msg("expected \"%s\", got \"%s\"", because, err);
	assert_null(h.refused);
}

static void test_agent_there_and_back(void **state)
{
	struct hello_service services[] = {
		{ .name = "web", .up = true },
		{ .name = "db-main", .weight = 256, .maxconn = UINT32_MAX, .status = "L7STS", .code = 503, .text = "HTTP 503", .since_ms = 123456789012 },
		{ .name = "a.b_c-D9", .weight = 100, .up = true, .maxconn = 7, .status = "L4OK" }
	};
	struct agent_hello h = { .name = "edge-1", .tunnel = "site-a", .version = "1.2.3", .instance = { 1, 0xff },
		                 .protocol = HELLO_PROTOCOL, .draining = true, .serial = 7, .services = services, .services_n = 3 };
	struct agent_hello back;
	size_t len;
	char *json = hello_agent_build(&h, &len), err[100];

	assert_non_null(json);
	assert_int_equal(len, strlen(json));
	assert_int_equal(hello_agent_parse(&back, json, len, err, sizeof(err)), 0);
	assert_string_equal(back.name, "edge-1");
	assert_string_equal(back.tunnel, "site-a");
	assert_string_equal(back.version, "1.2.3");
	assert_memory_equal(back.instance, h.instance, 16);
	assert_int_equal(back.protocol, HELLO_PROTOCOL);
	assert_true(back.draining);
	assert_int_equal(back.serial, 7);
	assert_int_equal(back.services_n, 3);
	for (size_t i = 0; i < 3; i++) {
		assert_string_equal(back.services[i].name, services[i].name);
		assert_int_equal(back.services[i].weight, services[i].weight);
		assert_int_equal(back.services[i].up, services[i].up);
		assert_int_equal(back.services[i].maxconn, services[i].maxconn);
		assert_string_equal(back.services[i].status, services[i].status);
		assert_string_equal(back.services[i].text, services[i].text);
		assert_int_equal(back.services[i].code, services[i].code);
		assert_int_equal(back.services[i].since_ms, services[i].since_ms);
	}
	hello_agent_fini(&back);
	free(json);
}

static void test_hub_there_and_back(void **state)
{
	char refused[][HELLO_NAME_MAX] = { "ssh", "telnet" };
	struct hub_hello h = { .name = "hub-a", .version = "1.2.3", .instance = { 9 }, .protocol = 1, .accepted = false,
		               .reason = "name_in_use", .text = "another one is up", .retry_after_ms = UINT32_MAX,
		               .heartbeat_interval_ms = 1000, .heartbeat_timeout_ms = 3000, .resume_ms = 30000,
		               .refused = refused, .refused_n = 2 };
	struct hub_hello back;
	size_t len;
	char *json = hello_hub_build(&h, &len), err[100];

	assert_non_null(json);
	assert_int_equal(hello_hub_parse(&back, json, len, err, sizeof(err)), 0);
	assert_string_equal(back.name, "hub-a");
	assert_string_equal(back.version, "1.2.3");
	assert_memory_equal(back.instance, h.instance, 16);
	assert_int_equal(back.protocol, 1);
	assert_false(back.accepted);
	assert_string_equal(back.reason, "name_in_use");
	assert_string_equal(back.text, "another one is up");
	assert_int_equal(back.retry_after_ms, UINT32_MAX);
	assert_int_equal(back.heartbeat_interval_ms, 1000);
	assert_int_equal(back.heartbeat_timeout_ms, 3000);
	assert_int_equal(back.resume_ms, 30000);
	assert_int_equal(back.refused_n, 2);
	assert_string_equal(back.refused[1], "telnet");
	hello_hub_fini(&back);
	free(json);
}

static void test_no_services_is_fine(void **state)
{
	struct agent_hello h;

	accept_agent(AGENT(""), &h);
	assert_int_equal(h.services_n, 0);
	hello_agent_fini(&h);
}

static void test_unknown_keys_are_ignored(void **state)
{
	struct agent_hello h;

	accept_agent(HEAD ",\"later\":{\"x\":[1,2.5,null,\"[[[[\"]},\"services\":[{\"name\":\"web\",\"weight\":1,\"up\":true,"
	                  "\"maxconn\":0,\"zone\":\"b\"}]}",
	             &h);
	assert_int_equal(h.services_n, 1);
	hello_agent_fini(&h);
}

static void test_text_that_is_not_ascii_is_still_built(void **state)
{
	struct hub_hello h = { .name = "hub-a", .version = "1", .protocol = 1, .heartbeat_interval_ms = 1, .heartbeat_timeout_ms = 1,
		               .text = "bad \xff\xfe\n name" };
	struct hub_hello back;
	size_t len;
	char *json = hello_hub_build(&h, &len), err[100];

	assert_int_equal(hello_hub_parse(&back, json, len, err, sizeof(err)), 0);
	assert_string_equal(back.text, "bad ??? name");
	hello_hub_fini(&back);
	free(json);
}

static void test_not_json(void **state)
{
	refuse_agent("", "not JSON");
	refuse_agent("{", "not JSON");
	refuse_agent("null", "not");
	refuse_agent("[]", "not an object");
	refuse_agent("\"agent\"", "not");
	refuse_agent(AGENT("") "x", "not JSON");
	refuse_agent(AGENT("") "{}", "not JSON");
	refuse_agent("\xff\xfe", "not JSON");
	refuse_agent("{\"agent\":\"\xc3\x28\"}", "not JSON");
	refuse_agent_bytes(AGENT(""), sizeof(AGENT("")), "not JSON"); /* its NUL included */
}

static void test_heartbeats_are_not_zero(void **state)
{
	refuse_hub(HUB_HEAD "\"retry_after_ms\":0,\"heartbeat_interval_ms\":0,\"heartbeat_timeout_ms\":1}", "heartbeat_interval_ms is not between");
	refuse_hub(HUB_HEAD "\"retry_after_ms\":0,\"heartbeat_interval_ms\":1,\"heartbeat_timeout_ms\":0}", "heartbeat_timeout_ms is not between");
}

static void test_missing_keys(void **state)
{
	refuse_agent("{}", "protocol is missing");
	refuse_agent("{\"protocol\":1}", "agent is missing");
	refuse_agent(HEAD "}", "services is missing");
	refuse_agent(AGENT("{\"name\":\"web\",\"up\":true,\"maxconn\":0}"), "weight is missing");
	refuse_agent(AGENT("{}"), "name is missing");
	refuse_hub("{}", "protocol is missing");
	refuse_hub(HUB_HEAD HUB_TIMES "}", "refused is missing");
}

static void test_kinds(void **state)
{
	refuse_agent("{\"protocol\":\"1\"}", "protocol is not a whole number");
	refuse_agent("{\"protocol\":1.0}", "protocol is not a whole number");
	refuse_agent("{\"protocol\":1,\"agent\":7}", "agent is not a name");
	refuse_agent(HEAD ",\"services\":{}}", "services is not a list");
	refuse_agent(AGENT("7"), "not an object");
	refuse_agent(AGENT("[]"), "not an object");
	refuse_agent(AGENT("null"), "not an object");
	refuse_agent(AGENT("{\"name\":\"web\",\"weight\":1,\"up\":1,\"maxconn\":0}"), "up is not true or false");
	refuse_hub(HUB_HEAD HUB_TIMES ",\"refused\":[7]}", "refused is not a name");
}

static void test_ranges(void **state)
{
	refuse_agent("{\"protocol\":0}", "protocol is not between");
	refuse_agent("{\"protocol\":-1}", "protocol is not between");
	refuse_agent("{\"protocol\":4294967296}", "protocol is not between");
	refuse_agent("{\"protocol\":99999999999999999999}", "not JSON");
	refuse_agent(AGENT("{\"name\":\"web\",\"weight\":257,\"up\":true,\"maxconn\":0}"), "weight is not between 0 and 256");
	refuse_agent(AGENT("{\"name\":\"web\",\"weight\":-1,\"up\":true,\"maxconn\":0}"), "weight is not between");
	refuse_agent(AGENT("{\"name\":\"web\",\"weight\":1,\"up\":true,\"maxconn\":4294967296}"), "maxconn is not between");
}

static void test_names(void **state)
{
	char json[600], name[80];

	refuse_agent(AGENT(SERVICE("")), "name is not a name");
	refuse_agent(AGENT(SERVICE("a b")), "name is not a name");
	refuse_agent(AGENT(SERVICE("a/b")), "name is not a name");
	refuse_agent(AGENT(SERVICE("a*")), "name is not a name");
	refuse_agent(AGENT(SERVICE("\xc3\xa9")), "name is not a name");
	refuse_agent(AGENT(SERVICE("a\\n")), "name is not a name");
	for (size_t len = 63; len <= 64; len++) {
		struct agent_hello h;
		char err[100];

		memset(name, 'n', len);
		name[len] = '\0';
		snprintf(json, sizeof(json), HEAD ",\"services\":[{\"name\":\"%s\",\"weight\":1,\"up\":true,\"maxconn\":0}]}", name);
		assert_int_equal(hello_agent_parse(&h, json, strlen(json), err, sizeof(err)), len == 63 ? 0 : -1);
		hello_agent_fini(&h);
	}
}

static void test_nul_in_a_string(void **state)
{
	static const char raw[] = "{\"protocol\":1,\"agent\":\"a\0b\"}";

	refuse_agent("{\"protocol\":1,\"agent\":\"a\\u0000b\"}", "not JSON");
	refuse_agent_bytes(raw, sizeof(raw) - 1, "not JSON");
}

static void test_instance(void **state)
{
	refuse_agent("{\"protocol\":1,\"agent\":\"a\",\"tunnel\":\"t\",\"version\":\"1\",\"instance\":\"00\"}", "instance is not 32");
	refuse_agent("{\"protocol\":1,\"agent\":\"a\",\"tunnel\":\"t\",\"version\":\"1\","
	             "\"instance\":\"000102030405060708090a0b0c0d0e0g\"}",
	             "instance is not 32");
	refuse_agent("{\"protocol\":1,\"agent\":\"a\",\"tunnel\":\"t\",\"version\":\"1\",\"instance\":7}", "instance is not 32");
}

static void test_texts(void **state)
{
	refuse_agent("{\"protocol\":1,\"agent\":\"a\",\"tunnel\":\"t\",\"version\":\"0123456789012345678901234567890123\"}",
	             "version is not a text of at most 31 bytes");
	refuse_agent("{\"protocol\":1,\"agent\":\"a\",\"tunnel\":\"t\",\"version\":\"1\\n2\"}", "version is not a text");
}

static void test_repetitions(void **state)
{
	refuse_agent(AGENT(SERVICE("web") "," SERVICE("ssh") "," SERVICE("web")), "service web is named twice");
	refuse_agent("{\"protocol\":1,\"protocol\":1}", "duplicate");
	refuse_hub(HUB_HEAD HUB_TIMES ",\"refused\":[\"a\",\"b\",\"a\"]}", "service a is named twice");
}

static void test_depth(void **state)
{
	char json[5000] = "{\"x\":";
	size_t len = strlen(json);

	memset(json + len, '[', 2000);
	memset(json + len + 2000, ']', 2000);
	json[len + 4000] = '}';
	refuse_agent(json, "nested deeper");
}

static char *many_services(size_t n)
{
	char *json = malloc(HELLO_SIZE_MAX * 4), *at = json;

	at += sprintf(at, "%s,\"services\":[", HEAD);
	for (size_t i = 0; i < n; i++)
		at += sprintf(at, "%s{\"name\":\"%zu\",\"weight\":1,\"up\":true,\"maxconn\":0}", i ? "," : "", i);
	sprintf(at, "]}");
	return json;
}

static void test_sizes(void **state)
{
	struct agent_hello h;
	char *json = many_services(HELLO_SERVICES_MAX);

	accept_agent(json, &h);
	assert_int_equal(h.services_n, HELLO_SERVICES_MAX);
	hello_agent_fini(&h);
	free(json);
	json = many_services(HELLO_SERVICES_MAX + 1);
	refuse_agent(json, "more than 4096 entries");
	memset(json, ' ', HELLO_SIZE_MAX + 1);
	refuse_agent_bytes(json, HELLO_SIZE_MAX + 1, "longer than");
	free(json);
}

static void test_no_memory_is_no_bad_frame(void **state)
{
	static const char agent[] = AGENT(SERVICE("web") "," SERVICE("db")), hub[] = "{\"protocol\":1,\"hub\":\"hub-a\",\"version\":\"1.0\"," INSTANCE ",\"accepted\":true,\"reason\":\"\",\"text\":\"\"," HUB_TIMES ",\"refused\":[\"ssh\"]}";

	for (int i = 0; i < 2; i++) {
		struct agent_hello a;
		struct hub_hello h;
		char err[200] = "";
		unsigned n = 0;
		bool failed;
		int rv;

		do {
			failing = ++n;
			rv = i ? hello_hub_parse(&h, hub, sizeof(hub) - 1, err, sizeof(err)) : hello_agent_parse(&a, agent, sizeof(agent) - 1, err, sizeof(err));
			failed = has_failed();
			assert_int_equal(rv, failed ? HELLO_STARVED : 0);
			if (failed)
				assert_string_equal(err, "out of memory");
			if (rv == 0 && i)
				hello_hub_fini(&h);
			else if (rv == 0)
				hello_agent_fini(&a);
		} while (failed);
		assert_true(n > 20);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_agent_there_and_back),
		cmocka_unit_test(test_hub_there_and_back),
		cmocka_unit_test(test_no_services_is_fine),
		cmocka_unit_test(test_unknown_keys_are_ignored),
		cmocka_unit_test(test_text_that_is_not_ascii_is_still_built),
		cmocka_unit_test(test_not_json),
		cmocka_unit_test(test_heartbeats_are_not_zero),
		cmocka_unit_test(test_missing_keys),
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_nul_in_a_string),
		cmocka_unit_test(test_instance),
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_repetitions),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_no_memory_is_no_bad_frame),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
