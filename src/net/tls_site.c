/* Sites: contexts of TLS for clients of a listener, with many certificates, of which the client's server name chooses. Owns them; what the same files give is shared
 * by all sites, also with those of the next configuration. A site's connections are tls.c's. */
#define _GNU_SOURCE
#include "mctunnel/net/tls_site.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"
#include "mctunnel/net/tls.h"
#include "mctunnel/net/tls_cert.h"
#include "mctunnel/net/tls_inside.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CIPHERS_12                                                                                                                  \
	"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:" \
	"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
#define SITE_GROUPS "X25519:P-256:P-384"

enum { SITE_KINDS = 3 }; /* of keys (RSA, ECDSA, EdDSA) that a name may have certificates with */

enum { DIGEST_SIZE = 32 };

struct identity { /* a certificate with its key; the same files give the same one to all sites, also to those of the next configuration */
	unsigned refs;               /* under known.lock */
	uint8_t digest[DIGEST_SIZE]; /* of both texts */
	struct tls_own own;          /* owned */
};

struct site_cert {
	char *path;          /* owned */
	struct identity *id; /* shared; NULL: it could not be read */
};

struct site_name { /* what clients are shown that ask for a name */
	struct site_cert *certs[SITE_KINDS]; /* borrowed; the kinds of their keys differ */
	size_t n;
};

struct tls_site {
	struct tls tls; /* first; its context has the settings, the certificates are chosen for each client */
	struct site_cert *certs; /* owned */
	size_t certs_n;
	struct map *names; /* struct site_name, owned; "*.example.com" among them */
};

/* Of the process. OpenSSL takes half a millisecond to read a key: a reload must not stop a thread for a thousand of them that have not changed. */
static struct {
	pthread_mutex_t lock;
	struct map *by_digest; /* struct identity that some site has; NULL: none yet */
} known = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- the name a client asks for ---- */

/* NULL: the default. */
static const struct site_name *find_name(const struct tls_site *site, const char *sni)
{
	const struct site_name *found = sni[0] ? map_get_str(site->names, sni) : NULL;
	const char *dot = strchr(sni, '.');
	char wild[258] = "*";

	if (found || !dot || dot == sni)
		return found;
	str_copy(wild + 1, sizeof(wild) - 1, dot);
	return map_get_str(site->names, wild);
}

static bool choose_certs(struct tls *t, SSL *ssl, const char *sni)
{
	const struct site_name *name = find_name(container_of(t, struct tls_site, tls), sni);

	if (!name)
		return true;
	SSL_certs_clear(ssl);
	for (size_t i = 0; i < name->n; i++) {
		const struct tls_own *o = &name->certs[i]->id->own;

		if (SSL_use_cert_and_key(ssl, o->cert, o->key, o->chain, 1) != 1)
			return false;
	}
	return true;
}

/* ---- certificates that sites share ---- */

static void digest_of(const struct tls_files *f, uint8_t digest[DIGEST_SIZE])
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();

	if (!md || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1 || EVP_DigestUpdate(md, f->cert, strlen(f->cert) + 1) != 1 ||
	    EVP_DigestUpdate(md, f->key, strlen(f->key)) != 1 || EVP_DigestFinal_ex(md, digest, NULL) != 1)
		die("no memory for TLS");
	EVP_MD_CTX_free(md);
}

static struct identity *identity_find(const uint8_t digest[DIGEST_SIZE])
{
	struct identity *id;

	pthread_mutex_lock(&known.lock);
	id = known.by_digest ? map_get(known.by_digest, digest, DIGEST_SIZE) : NULL;
	if (id)
		id->refs++;
	pthread_mutex_unlock(&known.lock);
	return id;
}

/* Only one thread makes sites: nobody has entered the same meanwhile. */
static void identity_enter(struct identity *id)
{
	pthread_mutex_lock(&known.lock);
	if (!known.by_digest)
		known.by_digest = map_new();
	id->refs = 1;
	BUG_ON(map_set(known.by_digest, id->digest, sizeof(id->digest), id));
	pthread_mutex_unlock(&known.lock);
}

static void identity_free(struct identity *id)
{
	tls_own_fini(&id->own);
	free(id);
}

static void identity_put(struct identity *id)
{
	bool last;

	if (!id)
		return;
	pthread_mutex_lock(&known.lock);
	last = --id->refs == 0;
	if (last)
		map_del(known.by_digest, id->digest, sizeof(id->digest));
	if (last && map_count(known.by_digest) == 0) {
		map_free(known.by_digest);
		known.by_digest = NULL;
	}
	pthread_mutex_unlock(&known.lock);
	if (last)
		identity_free(id);
}

/* ---- loading ---- */

struct site_loading {
	struct tls_site *site;
	void (*tell)(void *arg, bool bad, const char *text);
	void *arg;
	const struct site_name *first; /* of the first certificate; NULL: it has no name */
	SSL_CTX *trial;                /* what OpenSSL would refuse later, is refused here */
	bool bad;
	char err[512];
};

static void tell(struct site_loading *s, bool bad, const char *text)
{
	s->bad |= bad;
	if (s->tell)
		s->tell(s->arg, bad, text);
}

static void enter_name(struct site_loading *s, const char *name, struct site_cert *c)
{
	struct site_name *n = map_get_str(s->site->names, name);
	char text[768];

	if (!n) {
		n = xcalloc(1, sizeof(*n));
		map_set_str(s->site->names, name, n);
	}
	for (size_t i = 0; i < n->n; i++) {
		if (n->certs[i] == c)
			return;
		if (EVP_PKEY_get_base_id(n->certs[i]->id->own.key) != EVP_PKEY_get_base_id(c->id->own.key))
			continue;
		snprintf(text, sizeof(text), "%s: %s already has the certificate for \"%s\"; this one is not used for it", c->path, n->certs[i]->path, name);
		tell(s, false, text);
		return;
	}
	if (n->n < SITE_KINDS)
		n->certs[n->n++] = c;
	if (!s->first && c == s->site->certs)
		s->first = n;
}

/* "www.example.com", "*.example.com"; what else stands in a certificate concerns no client. */
static bool site_host(char *out, size_t size, const char *name)
{
	bool star = name[0] == '*' && name[1] == '.';
	size_t skip = star ? 2 : 0;

	memcpy(out, "*.", skip);
	return str_host(out + skip, size - skip, name + skip, strlen(name + skip));
}

struct naming {
	struct site_loading *s;
	struct site_cert *c;
};

static void enter_host(void *arg, const char *raw)
{
	const struct naming *n = arg;
	char name[256];

	if (site_host(name, sizeof(name), raw))
		enter_name(n->s, name, n->c);
}

static struct identity *identity_read(struct site_loading *s, const struct tls_files *f, const uint8_t digest[DIGEST_SIZE])
{
	struct identity *id = xcalloc(1, sizeof(*id));
	struct tls_complaint c = { s->err, sizeof(s->err) };
	bool good;

	memcpy(id->digest, digest, sizeof(id->digest));
	good = tls_own_read(&id->own, f, &c) == 0;
	if (good && !tls_own_use(&id->own, s->trial)) {
		tls_complain(&c, f->cert_path, "the certificate cannot be used: %s", tls_openssl_reason());
		good = false;
	}
	if (good) {
		identity_enter(id);
		return id;
	}
	identity_free(id);
	return NULL;
}

static bool enter_names(struct site_loading *s, struct site_cert *c)
{
	struct tls_complaint said = { s->err, sizeof(s->err) };
	bool good = tls_cert_names(c->id->own.cert, enter_host, &(struct naming){ s, c });

	if (!good)
		tls_complain(&said, c->path, "its names cannot be read");
	return good;
}

static void load_site_cert(struct site_loading *s, const struct tls_site_cert *from, struct site_cert *c)
{
	struct tls_files f = { .cert_path = from->path, .cert = from->text, .key_path = from->key_path, .key = from->key };
	uint8_t digest[DIGEST_SIZE];
	char doubt[512] = "";
	bool bad;

	c->path = xstrdup(from->path);
	digest_of(&f, digest);
	c->id = identity_find(digest);
	if (!c->id)
		c->id = identity_read(s, &f, digest);
	if (c->id)
		tls_own_doubt(&c->id->own, &f, true, doubt, sizeof(doubt));
	bad = !c->id || !enter_names(s, c);
	if (bad || doubt[0])
		tell(s, bad, bad ? s->err : doubt);
	ERR_clear_error();
}

static bool use_default(struct site_loading *s)
{
	struct site_name only = { .certs = { &s->site->certs[0] }, .n = 1 };
	const struct site_name *n = s->first ? s->first : &only;
	bool ok = true;

	for (size_t i = 0; i < n->n; i++)
		ok = ok && tls_own_use(&n->certs[i]->id->own, s->site->tls.ctx);
	return ok;
}

static void load_site_files(struct site_loading *s, const struct tls_site_options *o)
{
	struct tls_files f = { .ca_path = o->ca_path, .ca = o->ca, .crl_path = o->crl_path, .crl = o->crl };
	struct tls_complaint c = { s->err, sizeof(s->err) };

	BUG_ON(o->certs_n == 0);
	s->site->certs = xcalloc(o->certs_n, sizeof(*s->site->certs));
	s->site->certs_n = o->certs_n;
	for (size_t i = 0; i < o->certs_n && !aside_closing(); i++)
		load_site_cert(s, &o->certs[i], &s->site->certs[i]);
	if (o->ca && tls_files_trust(&f, &s->site->tls.trust, s->site->tls.ctx, &c) < 0)
		tell(s, true, s->err);
	else if (o->ca && o->crl && tls_files_doubt_crl(&f, s->err, sizeof(s->err)))
		tell(s, false, s->err);
}

static void keep_alpn(struct tls *t, const struct tls_site_options *o)
{
	if (o->alpn_n == 0)
		return;
	t->alpn = xcalloc(o->alpn_n, TLS_ALPN_NAME + 1);
	for (size_t i = 0; i < o->alpn_n; i++) {
		size_t len = strlen(o->alpn[i]);

		BUG_ON(len == 0 || len > TLS_ALPN_NAME);
		t->alpn[t->alpn_len++] = (uint8_t)len;
		memcpy(t->alpn + t->alpn_len, o->alpn[i], len);
		t->alpn_len += len;
	}
}

/* Tickets are good for a listener of this name only, wherever the key is known. */
static bool set_site_sessions(struct tls *tls, const char *name)
{
	unsigned char id[EVP_MAX_MD_SIZE];
	unsigned len = 0;
	char text[256];

	snprintf(text, sizeof(text), "mctunnel listener %s", name);
	return EVP_Digest(text, strlen(text), id, &len, EVP_sha256(), NULL) == 1 && tls_context_sessions(tls, id, len);
}

static bool set_site(struct tls_site *site, const struct tls_site_options *o)
{
	SSL_CTX *ctx = site->tls.ctx;

	return tls_context_set(&site->tls) && set_site_sessions(&site->tls, o->name) &&
	       SSL_CTX_set_min_proto_version(ctx, o->min == 12 ? TLS1_2_VERSION : TLS1_3_VERSION) == 1 && SSL_CTX_set_cipher_list(ctx, CIPHERS_12) == 1 &&
	       SSL_CTX_set1_groups_list(ctx, SITE_GROUPS) == 1;
}

static void free_parts(struct tls *t)
{
	struct tls_site *site = container_of(t, struct tls_site, tls);
	size_t pos = 0;

	for (size_t i = 0; i < site->certs_n; i++) {
		free(site->certs[i].path);
		identity_put(site->certs[i].id);
	}
	for (struct site_name *n; (n = map_next(site->names, &pos));)
		free(n);
	map_free(site->names);
	free(site->certs);
}

static struct tls_site *empty_site(const struct tls_site_options *o)
{
	struct tls_site *s = xcalloc(1, sizeof(*s));

	s->tls.server = s->tls.site = true;
	s->tls.ask = o->ask;
	s->tls.insist = o->insist;
	s->tls.on_free = free_parts;
	s->tls.on_name = choose_certs;
	s->names = map_new();
	keep_alpn(&s->tls, o);
	tls_context_keys(&s->tls, o->keys);
	tls_context_init(&s->tls);
	return s;
}

struct tls_site *tls_site_new(const struct tls_site_options *o, void (*on_finding)(void *arg, bool bad, const char *text), void *arg)
{
	struct site_loading s = { .site = empty_site(o), .tell = on_finding, .arg = arg };

	s.trial = SSL_CTX_new(TLS_server_method());
	if (!s.trial)
		die("cannot make a TLS context: %s", tls_openssl_reason());
	load_site_files(&s, o);
	if (aside_closing())
		tell(&s, true, "the program is stopping");
	if (!s.bad && (!set_site(s.site, o) || !use_default(&s))) {
		snprintf(s.err, sizeof(s.err), "TLS cannot be set up: %s", tls_openssl_reason());
		tell(&s, true, s.err);
	}
	SSL_CTX_free(s.trial);
	ERR_clear_error();
	if (!s.bad)
		return s.site;
	tls_site_put(s.site);
	return NULL;
}

struct tls_site *tls_site_get(struct tls_site *s)
{
	tls_get(&s->tls);
	return s;
}

void tls_site_put(struct tls_site *s)
{
	if (s)
		tls_put(&s->tls);
}

const char *tls_site_cert(const struct tls_site *s, size_t i, int64_t *expires_in)
{
	if (i >= s->certs_n)
		return NULL;
	*expires_in = s->certs[i].id->own.not_after - (int64_t)time(NULL);
	return s->certs[i].path;
}

struct conn *tls_site_accept(struct tls_site *s, struct conn *plain, void (*on_event)(struct conn *), void *owner)
{
	return tls_accept(&s->tls, plain, on_event, owner);
}
