/* Basic authentication for proxies. The only file that knows <crypt.h>.
 * Owns the thread's memory of what has matched, so that a client's next request costs no hash, and the working space of crypt(3). A hash blocks the loop for milliseconds: after
 * one that was computed nothing is hashed for nine times as long, whoever asks, so that guessing cannot starve those who are in.
 * Does not know connections. */
#include "mctunnel/edge/webauth.h"

#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"
#include "mctunnel/conf/conf.h"

#include <crypt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define CREDENTIAL_MAX 256
#define REMEMBERED_MAX 1024 /* then all are forgotten */
#define REST 9              /* times as long as a hash took */

static _Thread_local struct {
	struct map *matched;     /* owned: by expected hash and credential */
	struct crypt_data *space; /* owned */
	uint64_t rest_until_us;
} here;

/* Not clock_us(), which stands still in a turn. */
static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int sextet(char c)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* Base64 of a text without NULs; false: it is none, or too long. */
static bool decode(char *out, size_t size, const char *in, size_t len)
{
	uint32_t bits = 0;
	size_t n = 0, have = 0;

	while (len > 0 && in[len - 1] == '=')
		len--;
	for (size_t i = 0; i < len; i++) {
		int v = sextet(in[i]);

		if (v < 0 || n + 1 >= size)
			return false;
		bits = bits << 6 | (uint32_t)v;
		have += 6;
		if (have < 8)
			continue;
		have -= 8;
		out[n++] = (char)(bits >> have);
		if (out[n - 1] == '\0')
			return false;
	}
	out[n] = '\0';
	return true;
}

/* Takes the same time wherever they differ. */
static bool same(const char *given, const char *expected)
{
	size_t n = strlen(given), m = strlen(expected);
	volatile unsigned differ = n != m;

	for (size_t i = 0; i < n; i++)
		differ |= (unsigned char)given[i] ^ (unsigned char)expected[m ? i % m : 0];
	return !differ;
}

static bool remembered(const char *key, size_t len)
{
	return here.matched && map_get(here.matched, key, len);
}

static void remember(const char *key, size_t len)
{
	static char yes;

	if (here.matched && map_count(here.matched) >= REMEMBERED_MAX) {
		map_free(here.matched);
		here.matched = NULL;
	}
	if (!here.matched)
		here.matched = map_new();
	map_set(here.matched, key, len, &yes);
}

/* crypt(3) gives the same error for what is no hash at all, which nobody's password has, and for want of memory. */
static enum webauth failed_hash(const char *expected)
{
	int kind = crypt_checksalt(expected);

	return kind == CRYPT_SALT_INVALID || kind == CRYPT_SALT_METHOD_DISABLED ? WEBAUTH_WRONG : WEBAUTH_RESOURCES;
}

static enum webauth check_hash(const char *expected, const char *password)
{
	char key[2 * CREDENTIAL_MAX];
	struct strbuf b;
	uint64_t began = now_us();
	const char *hash;

	strbuf_init(&b, key, sizeof(key));
	strbuf_add(&b, "%s %s", expected, password);
	if (!b.cut && remembered(key, b.len))
		return WEBAUTH_OK;
	if (began < here.rest_until_us)
		return WEBAUTH_LATER;
	if (!here.space)
		here.space = xcalloc(1, sizeof(*here.space));
	hash = crypt_r(password, expected, here.space);
	here.rest_until_us = now_us() + REST * (now_us() - began);
	if (!hash || hash[0] == '*')
		return failed_hash(expected);
	if (!same(hash, expected))
		return WEBAUTH_WRONG;
	if (!b.cut)
		remember(key, b.len);
	return WEBAUTH_OK;
}

static enum webauth check_user(const char *user, const char *name, const char *password)
{
	const char *colon = strchr(user, ':');

	if (!colon || strlen(name) != (size_t)(colon - user) || memcmp(user, name, strlen(name)) != 0)
		return WEBAUTH_WRONG;
	if (colon[1] == '$')
		return check_hash(colon + 1, password);
	return same(password, colon + 1) ? WEBAUTH_OK : WEBAUTH_WRONG;
}

enum webauth webauth_check(const struct conf_strings *users, const char *value, size_t len)
{
	char name[CREDENTIAL_MAX], *password;
	enum webauth result = WEBAUTH_WRONG;

	if (len < 6 || strncasecmp(value, "Basic ", 6) != 0)
		return WEBAUTH_WRONG;
	for (value += 6, len -= 6; len > 0 && *value == ' '; value++, len--)
		;
	if (!decode(name, sizeof(name), value, len))
		return WEBAUTH_WRONG;
	password = strchr(name, ':');
	if (!password)
		return WEBAUTH_WRONG;
	*password++ = '\0';
	for (size_t i = 0; i < users->n && result == WEBAUTH_WRONG; i++)
		result = check_user(users->v[i], name, password);
	explicit_bzero(name, sizeof(name));
	return result;
}

void webauth_thread_fini(void)
{
	map_free(here.matched);
	free(here.space);
	here.matched = NULL;
	here.space = NULL;
}
