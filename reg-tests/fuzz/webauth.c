/* Fuzzes credentials of strangers: the value of a field Authorization or Proxy-Authorization against users whose passwords are plain. Who is let in has said exactly a user's name and
 * password: the value is taken apart a second time here, by other means. */
#define _GNU_SOURCE
#include "edge/webauth.c"

#include "mctunnel/base/bug.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *users[] = { (char *)"admin:secret", (char *)"a:b:c", (char *)"empty:", (char *)":nameless", (char *)"\xfb\xef\xbe:\xff\xff", (char *)"nonsense" };

/* Bit by bit; false: not base64 as RFC 4648 has it, but for padding, of which there may be any. */
static bool bits_to_text(char *out, const uint8_t *in, size_t len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t bits = 0;

	while (len > 0 && in[len - 1] == '=')
		len--;
	memset(out, 0, len + 1);
	for (size_t i = 0; i < len; i++) {
		const char *at = in[i] ? strchr(digits, in[i]) : NULL;

		if (!at)
			return false;
		for (int bit = 5; bit >= 0; bit--, bits++)
			if ((at - digits) >> bit & 1)
				out[bits / 8] |= (char)(0x80 >> bits % 8);
	}
	out[bits / 8] = '\0';
	return strlen(out) == bits / 8;
}

static bool is_user(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	bool found = false;

	BUG_ON(!text);
	if (size > 6 && strncasecmp((const char *)data, "Basic ", 6) == 0) {
		for (data += 6, size -= 6; size > 0 && *data == ' '; data++, size--)
			;
		if (bits_to_text(text, data, size))
			for (size_t i = 0; i < 5; i++)
				found = found || strcmp(text, users[i]) == 0;
	}
	free(text);
	return found;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct conf_strings all = { users, sizeof(users) / sizeof(users[0]) };
	char *value;

	if (size > 2 * CREDENTIAL_MAX)
		return 0;
	value = malloc(size ? size : 1); /* no NUL behind: it lies in a head */
	BUG_ON(!value);
	memcpy(value, data, size);
	enum webauth result = webauth_check(&all, value, size);
	BUG_ON(result == WEBAUTH_LATER || (result == WEBAUTH_OK) != is_user(data, size));
	free(value);
	return 0;
}
