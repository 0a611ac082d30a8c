/* Contexts of TLS: the settings, what is read from files, and a count of who uses them. Owns OpenSSL's context, the trust and the keys of tickets.
 * What happens in a connection is tls.c's. */
#define _GNU_SOURCE
#include "mctunnel/base/bug.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/net/tls.h"
#include "mctunnel/net/tls_inside.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CIPHERS "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define GROUPS "X25519:P-256"
#define LINK_LIFE_S (7 * 24 * 3600) /* of what one full handshake has proved; RFC 8446 allows no more */
#define SITE_LIFE_S (12 * 3600)

void tls_context_init(struct tls *t)
{
	ERR_clear_error();
	atomic_init(&t->refs, 1);
	t->ctx = SSL_CTX_new(t->server ? TLS_server_method() : TLS_client_method());
	if (!t->ctx)
		die("cannot make a TLS context: %s", tls_openssl_reason());
	t->trust.store = SSL_CTX_get_cert_store(t->ctx);
	t->life_s = t->site ? SITE_LIFE_S : LINK_LIFE_S;
}

bool tls_context_set(struct tls *t)
{
	SSL_CTX *ctx = t->ctx;

	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_AUTO_RETRY |
					  SSL_MODE_NO_AUTO_CHAIN); /* else it is built and verified at every handshake */
	SSL_CTX_set_verify(ctx, t->insist ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT : t->ask ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
	return tls_hook(t) && SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1 && SSL_CTX_set_ciphersuites(ctx, CIPHERS) == 1 &&
	       SSL_CTX_set1_groups_list(ctx, GROUPS) == 1;
}

void tls_context_keys(struct tls *t, const struct tls_ticket_keys *keys)
{
	if (!keys || keys->n == 0)
		return;
	t->ticket_keys = xcalloc(keys->n, sizeof(*t->ticket_keys));
	t->ticket_keys_n = keys->n;
	memcpy(t->ticket_keys, keys->v, keys->n * sizeof(*t->ticket_keys));
}

bool tls_context_sessions(struct tls *t, const unsigned char *id, unsigned len)
{
	SSL_CTX_set_session_cache_mode(t->ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_timeout(t->ctx, t->life_s);
	return SSL_CTX_set_session_id_context(t->ctx, id, len) == 1 && SSL_CTX_set_num_tickets(t->ctx, 1) == 1;
}

/* ---- of links ---- */

static bool set_server(struct tls *t)
{
	static const unsigned char id[] = "mctunnel";

	return tls_context_sessions(t, id, sizeof(id) - 1);
}

static bool set_client(SSL_CTX *ctx)
{
	static const unsigned char ours[] = "\x0a" TLS_ALPN_LINK;

	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	return SSL_CTX_set_alpn_protos(ctx, ours, sizeof(ours) - 1) == 0;
}

static bool load_own(struct tls *t, const struct tls_files *f, struct tls_complaint *c)
{
	struct tls_own own;
	bool ok;

	if (tls_own_read(&own, f, c) < 0)
		return false;
	ok = tls_own_use(&own, t->ctx);
	if (!ok)
		tls_complain(c, f->cert_path, "the certificate cannot be used: %s", tls_openssl_reason());
	t->not_after = own.not_after;
	tls_own_fini(&own);
	return ok;
}

static struct tls *load(const struct tls_files *f, bool server, const struct tls_ticket_keys *keys, char *err, size_t errsize)
{
	struct tls_complaint c = { err, errsize };
	struct tls *t = xcalloc(1, sizeof(*t));

	t->server = server;
	t->ask = t->insist = true;
	tls_context_init(t);
	tls_context_keys(t, keys);
	if (!tls_context_set(t) || !(server ? set_server(t) : set_client(t->ctx)))
		snprintf(err, errsize, "TLS cannot be set up: %s", tls_openssl_reason());
	else if (load_own(t, f, &c) && tls_files_trust(f, &t->trust, server ? t->ctx : NULL, &c) == 0)
		return t;
	ERR_clear_error();
	tls_put(t);
	return NULL;
}

struct tls *tls_server(const struct tls_files *f, const struct tls_ticket_keys *keys, char *err, size_t errsize)
{
	return load(f, true, keys, err, errsize);
}

struct tls *tls_client(const struct tls_files *f, char *err, size_t errsize)
{
	return load(f, false, NULL, err, errsize);
}

struct tls *tls_probe(void)
{
	struct tls *t = xcalloc(1, sizeof(*t));

	t->probe = true;
	tls_context_init(t);
	if (!tls_hook(t) || SSL_CTX_set_min_proto_version(t->ctx, TLS1_VERSION) != 1 || SSL_CTX_set_cipher_list(t->ctx, "ALL:@SECLEVEL=0") != 1)
		die("cannot make a TLS context: %s", tls_openssl_reason());
	SSL_CTX_set_session_cache_mode(t->ctx, SSL_SESS_CACHE_OFF);
	return t;
}

int tls_check(const struct tls_files *f, bool server, char *err, size_t errsize)
{
	struct tls *t = load(f, server, NULL, err, errsize);

	tls_put(t);
	return t ? 0 : -1;
}

/* ---- life ---- */

struct tls *tls_get(struct tls *t)
{
	atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
	return t;
}

static void tls_free(struct aside *a)
{
	struct tls *t = container_of(a, struct tls, end);

	if (t->on_free)
		t->on_free(t);
	SSL_CTX_free(t->ctx);
	tls_trust_fini(&t->trust);
	OPENSSL_cleanse(t->ticket_keys, t->ticket_keys_n * sizeof(*t->ticket_keys));
	free(t->ticket_keys);
	free(t->alpn);
	free(t);
}

/* A site may have a thousand certificates. */
void tls_put(struct tls *t)
{
	if (t && atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) == 1)
		aside_run(&t->end, tls_free);
}

int64_t tls_cert_expires_in(const struct tls *t)
{
	return t->not_after - (int64_t)time(NULL);
}
