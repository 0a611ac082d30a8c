/* Fuzzes the reading of what a ticket remembers of its owner. Whatever is accepted has texts that end, and is packed to the same bytes again. */
#include "mctunnel/net/tls_peer.h"

#include "mctunnel/base/bug.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1), packed[TLS_PEER_PACKED]; /* so that ASan sees every byte read beyond */
	struct tls_peer *p;
	size_t total = 0;

	memcpy(copy, data, size);
	p = tls_peer_unpack(copy, size);
	free(copy);
	if (!p)
		return 0;
	for (size_t i = 0; tls_peer_text(p, i); i++)
		total += strlen(tls_peer_text(p, i)) + 1;
	BUG_ON(total != p->texts_len || p->serial_len > TLS_PEER_SERIAL);
	BUG_ON(tls_peer_pack(p, packed) != size || memcmp(packed, data, size) != 0);
	free(p);
	return 0;
}
