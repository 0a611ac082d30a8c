/* Who may use a proxy (mode connect): Basic authentication (RFC 7617) against listener.users. */
#ifndef MCTUNNEL_EDGE_WEBAUTH_H
#define MCTUNNEL_EDGE_WEBAUTH_H

#include <stddef.h>

struct conf_strings;

enum webauth {
	WEBAUTH_OK,
	WEBAUTH_WRONG,
	WEBAUTH_LATER,    /* too many slow hashes are asked for just now */
	WEBAUTH_RESOURCES /* no memory to find out: some hashes take much */
};

/* users: "NAME:PASSWORD", the password plain or as crypt(3) has it ("$6$..."). value: of Proxy-Authorization. A hash that has matched is not computed again; others take no
 * more than a tenth of the thread's time. */
enum webauth webauth_check(const struct conf_strings *users, const char *value, size_t len);
void webauth_thread_fini(void);

#endif
