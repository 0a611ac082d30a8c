/* Reads the keys that seal tickets of TLS sessions from a file's text. Owns nothing. What a key is for it does not know, but that it is
 * secret: neither a message nor the stack shall hold a part of one. */
#define _GNU_SOURCE
#include "mctunnel/conf/ticket_keys.h"

#include "mctunnel/base/str.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define LINE 200 /* more than a key in any spelling */

static int digit64(char c)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* Exactly a key, with its padding. */
static bool unbase64(uint8_t *out, const char *text)
{
	uint32_t bits = 0;
	size_t n = 0, have = 0;

	for (; *text && *text != '='; text++) {
		int d = digit64(*text);

		if (d < 0)
			return false;
		bits = bits << 6 | (uint32_t)d;
		have += 6;
		if (have < 8)
			continue;
		have -= 8;
		if (n == TICKET_KEY_BYTES)
			return false;
		out[n++] = (uint8_t)(bits >> have);
	}
	return n == TICKET_KEY_BYTES && strcmp(text, "=") == 0;
}

static bool read_key(uint8_t *out, const char *text)
{
	return strlen(text) == 2 * TICKET_KEY_BYTES ? str_unhex(out, TICKET_KEY_BYTES, text) : unbase64(out, text);
}

/* What a line says, without blanks and comment; false: too long to be a key. */
static bool take_line(char *out, const char *line, size_t len)
{
	const char *hash = memchr(line, '#', len), *end = hash ? hash : line + len;

	while (line < end && strchr(" \t\r", *line))
		line++;
	while (end > line && strchr(" \t\r", end[-1]))
		end--;
	if ((size_t)(end - line) >= LINE)
		return false;
	memcpy(out, line, (size_t)(end - line));
	out[end - line] = '\0';
	return true;
}

int ticket_keys_parse(const char *text, uint8_t out[][TICKET_KEY_BYTES], char *err, size_t errsize)
{
	char line[LINE];
	int n = 0, number = 0;
	bool good = true;

	while (*text && good && n <= TICKET_KEYS_MAX) {
		size_t len = strcspn(text, "\n");

		number++;
		good = take_line(line, text, len);
		if (good && line[0])
			good = n++ == TICKET_KEYS_MAX || read_key(out[n - 1], line);
		text += len + (text[len] == '\n');
	}
	explicit_bzero(line, sizeof(line));
	if (n > TICKET_KEYS_MAX) {
		snprintf(err, errsize, "line %d: there are more than %d keys", number, TICKET_KEYS_MAX);
		return -1;
	}
	if (!good)
		snprintf(err, errsize, "line %d is no key: 80 bytes as base64 (108 characters) or as hexadecimal digits (160)", number);
	else if (n == 0)
		snprintf(err, errsize, "there is no key in it (mctunnel-pki ticket-key makes one)");
	return good && n > 0 ? n : -1;
}
