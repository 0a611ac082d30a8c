/* TLS of a listener, made from the contents its configuration came with: for the worker, which will use it, and for -c, which only wants to know whether it could.
 * Owns nothing. Which files there are was found out by conf/listener_tls. */
#include "mctunnel/main/site.h"

#include "mctunnel/base/mem.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/files.h"
#include "mctunnel/net/tls_site.h"

#include <stdlib.h>

static const char *content(const struct conf *c, const char *path)
{
	const char *why;
	size_t len;

	return path ? files_read(c->files, path, &len, &why) : NULL;
}

static void set_alpn(struct tls_site_options *o, const struct conf_listener *l)
{
	static const char *const http[] = { "h2", "http/1.1" };

	if (l->tls.alpn.n > 0) {
		o->alpn = (const char *const *)l->tls.alpn.v;
		o->alpn_n = l->tls.alpn.n;
	} else if (l->mode == MODE_HTTP) {
		o->alpn = http;
		o->alpn_n = 2;
	}
}

struct tls_site *site_make(const struct conf *c, const struct conf_listener *l, const struct tls_ticket_keys *keys, void (*tell)(void *, bool, const char *), void *arg)
{
	const struct conf_listener_tls *t = &l->tls;
	struct tls_site_cert *certs = xcalloc(t->pairs_n, sizeof(*certs));
	struct tls_site_options o = { .name = l->name,
				      .certs = certs,
				      .certs_n = t->pairs_n,
				      .min = t->min,
				      .ca_path = t->client_ca,
				      .ca = content(c, t->client_ca),
				      .crl_path = t->crl,
				      .crl = content(c, t->crl),
				      .ask = t->verify != VERIFY_NONE,
				      .insist = t->verify == VERIFY_REQUIRED,
				      .keys = keys };
	struct tls_site *s;

	for (size_t i = 0; i < t->pairs_n; i++) {
		const struct conf_pair *p = &t->pairs[i];

		certs[i] = (struct tls_site_cert){ .path = p->cert, .text = content(c, p->cert), .key_path = p->key, .key = content(c, p->key) };
	}
	set_alpn(&o, l);
	s = tls_site_new(&o, tell, arg);
	free(certs);
	return s;
}
