/* Templates: finds the references in a text. Holds nothing; who fills them in knows what the names mean. */
#include "mctunnel/base/template.h"

#include <ctype.h>
#include <string.h>

/* Bytes of a name at s. */
static size_t name_length(const char *s)
{
	size_t n = 0;

	while (isalnum((unsigned char)s[n]) || s[n] == '_')
		n++;
	return isdigit((unsigned char)s[0]) ? 0 : n;
}

static void reference(const char **at, struct template_piece *out)
{
	size_t n = name_length(*at + 2);
	bool good = n > 0 && (*at)[2 + n] == '}';

	*out = good ? (struct template_piece){ TEMPLATE_NAME, *at + 2, n } : (struct template_piece){ TEMPLATE_BAD, *at, 2 };
	*at += good ? n + 3 : 2;
}

bool template_next(const char **at, struct template_piece *out)
{
	const char *s = *at;
	size_t n = 0;

	if (*s == '\0')
		return false;
	if (strncmp(s, "${", 2) == 0) {
		reference(at, out);
		return true;
	}
	if (strncmp(s, "$${", 3) == 0) { /* the two bytes behind the first */
		*out = (struct template_piece){ TEMPLATE_TEXT, s + 1, 2 };
		*at += 3;
		return true;
	}
	while (s[n] && strncmp(s + n, "${", 2) != 0 && strncmp(s + n, "$${", 3) != 0)
		n++;
	*out = (struct template_piece){ TEMPLATE_TEXT, s, n };
	*at += n;
	return true;
}
