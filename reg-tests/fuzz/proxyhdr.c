/* Fuzzes the reading of PROXY headers. Whatever is accepted is accepted at once in whatever pieces it comes, and survives being built and read again. */
#include "mctunnel/proto/proxyhdr.h"

#include "mctunnel/base/bug.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void again(const struct proxyhdr *h)
{
	uint8_t out[PROXYHDR_MAX];
	struct proxyhdr back;
	size_t len = proxyhdr_build(out, h->version, &h->src, &h->dst, NULL);
	bool same_kind = IN6_IS_ADDR_V4MAPPED(&h->src.u.in6.sin6_addr) == IN6_IS_ADDR_V4MAPPED(&h->dst.u.in6.sin6_addr);

	BUG_ON(proxyhdr_parse(out, len, &back) != PROXYHDR_DONE || back.len != len);
	if (h->src.u.sa.sa_family == AF_INET || same_kind)
		BUG_ON(!back.known || addr_port(&back.src) != addr_port(&h->src) || addr_port(&back.dst) != addr_port(&h->dst));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proxyhdr whole, h;
	enum proxyhdr_result r = proxyhdr_parse(data, size, &whole);
	size_t n = 0;

	BUG_ON(r == PROXYHDR_BAD && !whole.why);
	if (r == PROXYHDR_MORE) {
		BUG_ON(whole.need <= size || whole.need > PROXYHDR_READ_MAX);
		return 0;
	}
	for (;;) {
		uint8_t *part = malloc(n ? n : 1); /* so that ASan sees every byte read beyond */
		enum proxyhdr_result one;

		memcpy(part, data, n);
		one = proxyhdr_parse(part, n, &h);
		free(part);
		if (one != PROXYHDR_MORE) {
			BUG_ON(one != r);
			break;
		}
		BUG_ON(h.need <= n || h.need > PROXYHDR_READ_MAX);
		BUG_ON(r == PROXYHDR_DONE && h.need > whole.len);
		n = h.need < size ? h.need : size;
	}
	if (r != PROXYHDR_DONE)
		return 0;
	BUG_ON(h.len != whole.len || h.known != whole.known || whole.len > size);
	if (h.known)
		again(&h);
	return 0;
}
