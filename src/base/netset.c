/* Sets of networks: a binary trie for each family whose nodes skip the bits that all networks below share. Owns its nodes; what the values mean is the caller's. */
#include "mctunnel/base/netset.h"

#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct network {
	uint8_t ip[16];
	unsigned bits;
	bool v6;
};

struct node {
	uint8_t ip[16];
	unsigned bits;
	uint32_t *values; /* owned; none: where two ways part */
	size_t values_n;
	struct node *child[2]; /* owned */
};

struct netset {
	struct node *root[2]; /* owned: IPv4, IPv6 */
};

struct netset *netset_new(void)
{
	return xcalloc(1, sizeof(struct netset));
}

/* As deep as an address has bits, at most. */
static void node_free(struct node *n)
{
	if (!n)
		return;
	node_free(n->child[0]);
	node_free(n->child[1]);
	free(n->values);
	free(n);
}

void netset_free(struct netset *s)
{
	if (!s)
		return;
	node_free(s->root[0]);
	node_free(s->root[1]);
	free(s);
}

static unsigned bit(const uint8_t *ip, unsigned i)
{
	return ip[i / 8] >> (7 - i % 8) & 1;
}

/* How many of the first max bits are the same. */
static unsigned common(const uint8_t *a, const uint8_t *b, unsigned max)
{
	unsigned i = 0;

	while (i + 8 <= max && a[i / 8] == b[i / 8])
		i += 8;
	while (i < max && bit(a, i) == bit(b, i))
		i++;
	return i;
}

static void clear_from(uint8_t *ip, unsigned bits)
{
	for (unsigned i = bits; i < 128; i++)
		ip[i / 8] &= (uint8_t)~(0x80u >> i % 8);
}

static bool host_bits(const struct network *n)
{
	uint8_t clean[16];

	memcpy(clean, n->ip, sizeof(clean));
	clear_from(clean, n->bits);
	return memcmp(clean, n->ip, sizeof(clean)) != 0;
}

static int refuse_host_bits(struct network *n, const char *text, char *err, size_t errsize)
{
	char shown[INET6_ADDRSTRLEN];

	clear_from(n->ip, n->bits);
	inet_ntop(n->v6 ? AF_INET6 : AF_INET, n->ip, shown, sizeof(shown));
	snprintf(err, errsize, "\"%.64s\" has bits set behind the prefix: \"%s/%u\" is the network, \"%.*s\" the address", text, shown, n->bits,
		 (int)strcspn(text, "/"), text);
	return -1;
}

static bool is_mapped(const uint8_t *ip)
{
	static const uint8_t head[12] = { [10] = 0xff, [11] = 0xff };

	return memcmp(ip, head, sizeof(head)) == 0;
}

/* The address alone; its bits are those of the family. */
static bool parse_ip(const char *text, struct network *n)
{
	memset(n, 0, sizeof(*n));
	n->v6 = strchr(text, ':') != NULL;
	n->bits = n->v6 ? 128 : 32;
	return inet_pton(n->v6 ? AF_INET6 : AF_INET, text, n->ip) == 1;
}

static int network_parse(struct network *n, const char *text, char *err, size_t errsize)
{
	const char *slash = strchr(text, '/');
	size_t len = slash ? (size_t)(slash - text) : strlen(text);
	char ip[INET6_ADDRSTRLEN];
	uint64_t bits;

	snprintf(ip, sizeof(ip), "%.*s", (int)(len < sizeof(ip) ? len : sizeof(ip) - 1), text);
	if (len >= sizeof(ip) || !parse_ip(ip, n)) {
		snprintf(err, errsize, "\"%.64s\" is no address or network: \"192.0.2.7\", \"192.0.2.0/24\" or \"2001:db8::/32\" is expected", text);
		return -1;
	}
	if (slash && !str_u64(slash + 1, n->bits, &bits)) {
		snprintf(err, errsize, "\"%.64s\": behind '/', a number of bits from 0 to %u is expected", text, n->bits);
		return -1;
	}
	if (slash)
		n->bits = (unsigned)bits;
	if (n->v6 && is_mapped(n->ip) && n->bits >= 96) {
		memmove(n->ip, n->ip + 12, 4);
		memset(n->ip + 4, 0, 12);
		n->bits -= 96;
		n->v6 = false;
	}
	return host_bits(n) ? refuse_host_bits(n, text, err, errsize) : 0;
}

static struct node *node_new(const uint8_t *ip, unsigned bits)
{
	struct node *n = xcalloc(1, sizeof(*n));

	memcpy(n->ip, ip, sizeof(n->ip));
	clear_from(n->ip, bits);
	n->bits = bits;
	return n;
}

/* The network's node; made when there is none. */
static struct node *place(struct node **at, const struct network *w)
{
	for (;;) {
		struct node *n = *at;

		if (!n)
			return *at = node_new(w->ip, w->bits);
		unsigned shared = common(n->ip, w->ip, n->bits < w->bits ? n->bits : w->bits);
		if (shared < n->bits) { /* n goes below a node of what is shared */
			struct node *fork = node_new(w->ip, shared);

			fork->child[bit(n->ip, shared)] = n;
			*at = n = fork;
		}
		if (shared == w->bits)
			return n;
		at = &n->child[bit(w->ip, shared)];
	}
}

static void insert(struct netset *s, const struct network *w, uint32_t value)
{
	struct node *n = place(&s->root[w->v6], w);

	n->values = xrealloc(n->values, (n->values_n + 1) * sizeof(*n->values));
	n->values[n->values_n++] = value;
}

int netset_add(struct netset *s, const char *text, uint32_t value, char *err, size_t errsize)
{
	struct network n;

	if (strcmp(text, "*") == 0) {
		insert(s, &(struct network){ .v6 = false }, value);
		insert(s, &(struct network){ .v6 = true }, value);
		return 0;
	}
	if (network_parse(&n, text, err, errsize) < 0)
		return -1;
	insert(s, &n, value);
	return 0;
}

static bool network_of(const struct addr *a, struct network *n)
{
	memset(n, 0, sizeof(*n));
	if (a->len == 0)
		return false;
	if (a->u.sa.sa_family == AF_INET) {
		memcpy(n->ip, &a->u.in4.sin_addr, 4);
		n->bits = 32;
		return true;
	}
	if (a->u.sa.sa_family != AF_INET6)
		return false;
	const uint8_t *ip = a->u.in6.sin6_addr.s6_addr;
	n->v6 = !is_mapped(ip);
	n->bits = n->v6 ? 128 : 32;
	memcpy(n->ip, n->v6 ? ip : ip + 12, n->bits / 8);
	return true;
}

/* The next node on the way to w that has values; NULL: no more. */
static const struct node *next_holder(const struct node *n, const struct network *w)
{
	for (; n; n = n->bits < w->bits ? n->child[bit(w->ip, n->bits)] : NULL) {
		if (n->bits > w->bits || common(n->ip, w->ip, n->bits) < n->bits)
			return NULL;
		if (n->values_n)
			return n;
	}
	return NULL;
}

static const struct node *first_holder(const struct netset *s, const struct network *w)
{
	return next_holder(s->root[w->v6], w);
}

bool netset_has(const struct netset *s, const struct addr *a)
{
	struct network w;

	return network_of(a, &w) && first_holder(s, &w);
}

bool netset_covers(const struct netset *s, const char *text)
{
	struct network w;
	char err[256];

	if (strcmp(text, "*") == 0)
		return first_holder(s, &(struct network){ .v6 = false }) && first_holder(s, &(struct network){ .v6 = true });
	return network_parse(&w, text, err, sizeof(err)) == 0 && first_holder(s, &w);
}

void netset_each(const struct netset *s, const struct addr *a, bool (*visit)(void *arg, uint32_t value), void *arg)
{
	struct network w;

	if (!network_of(a, &w))
		return;
	for (const struct node *n = first_holder(s, &w); n; n = n->bits < w.bits ? next_holder(n->child[bit(w.ip, n->bits)], &w) : NULL) {
		for (size_t i = 0; i < n->values_n; i++) {
			if (!visit(arg, n->values[i]))
				return;
		}
	}
}
