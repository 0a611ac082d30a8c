/* Fuzzes the reading of a ClientHello. Whatever is accepted says the same in whatever pieces it comes. */
#include "mctunnel/proto/sni.h"

#include "mctunnel/base/bug.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum sni_result parse(const uint8_t *data, size_t n, struct sni_hello *out)
{
	uint8_t *part = malloc(n ? n : 1); /* so that ASan sees every byte read beyond */
	enum sni_result r;

	memcpy(part, data, n);
	r = sni_parse(part, n, out);
	free(part);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sni_hello whole, h;
	enum sni_result r = parse(data, size, &whole), one;
	size_t n = 0;

	BUG_ON((r == SNI_BAD || r == SNI_NOT_TLS) != (whole.why != NULL));
	while ((one = parse(data, n, &h)) == SNI_MORE && n < size) {
		BUG_ON(h.need <= n || h.need > SNI_HELLO_MAX);
		n = h.need < size ? h.need : size;
	}
	BUG_ON(one != r);
	if (r == SNI_MORE)
		BUG_ON(whole.need <= size || whole.need > SNI_HELLO_MAX);
	if (r != SNI_DONE)
		return 0;
	BUG_ON(strcmp(h.name, whole.name) != 0 || h.alpn_n != whole.alpn_n || h.versions_n != whole.versions_n || h.versions_n > SNI_VERSIONS);
	for (size_t i = 0; i < h.alpn_n; i++)
		BUG_ON(strcmp(h.alpn[i], whole.alpn[i]) != 0 || h.alpn[i][0] == '\0');
	return 0;
}
