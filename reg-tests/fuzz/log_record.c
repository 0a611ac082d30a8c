/* Fuzzes what strangers get into the log: names, addresses, reasons of agents, paths. The input is cut at NULs into values. A record is one line without control characters and in
 * UTF-8; as JSON it is one object whose strings are whole, and a value that was neither cut nor malformed comes back from it as it was. */
#define _GNU_SOURCE
#include "base/log.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { VALUES = 8 };

static const char *const keys[VALUES] = { "client", "sni", "host", "path", "reason", "text", "agent", "id" };

static bool is_clean(const char *s, size_t len)
{
	char line[REC_SIZE + 1];
	uint32_t point;

	memcpy(line, s, len);
	line[len] = '\0';
	for (size_t at = 0, n; at < len; at += n) {
		n = utf8_char((const unsigned char *)line + at, &point);
		if (n == 0 || is_control(point))
			return false;
	}
	return true;
}

/* Behind the opening quote, up to behind the closing one; undone into out. */
static const char *read_string(const char *at, char *out)
{
	for (; *at != '"'; at++) {
		unsigned code;

		BUG_ON((unsigned char)*at < 0x20);
		if (*at != '\\') {
			*out++ = *at;
			continue;
		}
		at++;
		if (*at == '"' || *at == '\\') {
			*out++ = *at;
			continue;
		}
		BUG_ON(*at != 'u' || sscanf(at + 1, "%4x", &code) != 1);
		at += 4;
		if (code >= 0x80 && code < 0x800) {
			*out++ = (char)(0xc0 | code >> 6);
			code = 0x80 | (code & 0x3f);
		}
		*out++ = (char)(code < 0x100 ? code : '?'); /* above: the sign for what was malformed */
	}
	*out = '\0';
	return at + 1;
}

static bool is_utf8(const char *s)
{
	uint32_t point;

	for (size_t n; *s; s += n) {
		n = utf8_char((const unsigned char *)s, &point);
		if (n == 0)
			return false;
	}
	return true;
}

/* {"key":"value",...}, of strings, numbers, true. */
static void check_json(const char *at, const char *const *values, bool cut)
{
	char key[REC_SIZE], value[REC_SIZE];
	int n = -3; /* time, level, event come first */

	BUG_ON(*at++ != '{');
	for (;; n++) {
		BUG_ON(*at++ != '"');
		at = read_string(at, key);
		BUG_ON(*at++ != ':');
		if (*at == '"')
			at = read_string(at + 1, value);
		else
			at += strspn(at, "true");
		if (n >= 0 && n < VALUES && strcmp(key, "cut") != 0) {
			BUG_ON(strcmp(key, keys[n]) != 0);
			BUG_ON(!cut && is_utf8(values[n]) && strcmp(value, values[n]) != 0);
		}
		if (*at == '}')
			break;
		BUG_ON(*at++ != ',');
	}
	BUG_ON(strcmp(at, "}\n") != 0 || (!cut && n != VALUES - 1));
}

static void check_job(const struct job *j, const char *const *values, bool cut)
{
	char json[REC_SIZE + 1];

	BUG_ON(j->text_len == 0 || j->json_len == 0 || j->text_len > REC_SIZE || j->json_len > REC_SIZE);
	BUG_ON(j->bytes[j->text_len - 1] != '\n' || !is_clean(j->bytes, j->text_len - 1));
	BUG_ON(!is_clean(j->bytes + j->text_len, j->json_len - 1));
	memcpy(json, j->bytes + j->text_len, j->json_len);
	json[j->json_len] = '\0';
	check_json(json, values, cut);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *values[VALUES];
	char *text = calloc(1, size + VALUES + 1), *at;
	struct log_rec r;
	struct job *j;

	BUG_ON(!text);
	memcpy(text, data, size);
	at = text;
	for (int i = 0; i < VALUES; i++) {
		values[i] = at;
		at += strlen(at);
		at += at < text + size;
	}
	atomic_store(&front.forms, 1u << LOG_TEXT | 1u << LOG_JSON);
	log_begin(&r, LOG_INFO, "session");
	for (int i = 0; i < VALUES; i++)
		log_str(&r, keys[i], values[i]);
	bool cut = r.json_cut;
	j = close_record(&r);
	BUG_ON(!j);
	check_job(j, values, cut);
	free(j);
	free(text);
	return 0;
}
