/* Addresses: where to listen and where to dial. "*:8443", "127.0.0.1:80", "[::1]:80", "unix:/path",
 * "host.name:443" (only where a name can be dialled). */
#ifndef MCTUNNEL_BASE_ADDR_H
#define MCTUNNEL_BASE_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct addr {
	socklen_t len; /* 0: not an address yet (a name to resolve, or nothing) */
	union {
		struct sockaddr sa;
		struct sockaddr_in in4;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
	} u;
};

#define ADDR_TEXT 128 /* room for any addr_text() */

/* What an operator wrote. */
struct endpoint {
	char *text;       /* owned: as written */
	char *host;       /* owned: a name to resolve, else NULL */
	uint16_t port;    /* of host */
	bool any;         /* "*": IPv6 and IPv4 alike */
	struct addr addr; /* when host is NULL */
};

enum endpoint_use { ENDPOINT_BIND, ENDPOINT_DIAL };

/* Parses; on error returns -1 and a sentence in err that says what is wrong and how it should look. */
int endpoint_parse(struct endpoint *out, const char *text, enum endpoint_use use, char *err, size_t errsize)
    __attribute__((warn_unused_result));
void endpoint_fini(struct endpoint *e);

/* "192.0.2.1:80", "[::1]:80", "unix:/path" ("unix:" when unnamed), "-" when empty; IPv4-mapped IPv6 is shown as IPv4. Returns buf. */
const char *addr_text(const struct addr *a, char *buf, size_t size);
/* Without the port. */
const char *addr_host_text(const struct addr *a, char *buf, size_t size);
uint16_t addr_port(const struct addr *a);
bool addr_equal(const struct addr *a, const struct addr *b);
bool addr_same_host(const struct addr *a, const struct addr *b); /* whatever the ports; as addr_equal otherwise */
bool addr_is_loopback(const struct addr *a); /* 127.0.0.0/8, ::1 */
/* Parses a numeric address with port as addr_text() writes it; -1 when it is none. */
int addr_parse(struct addr *out, const char *text) __attribute__((warn_unused_result));

#endif
