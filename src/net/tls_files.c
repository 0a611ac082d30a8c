/* Makes certificates, keys, authorities and lists of the revoked from PEM texts, and finds what is wrong with them, each time with the name of the file.
 * Owns nothing: what it reads is its caller's. It opens no file, and knows no connection. */
#define _GNU_SOURCE
#include "mctunnel/net/tls_files.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/str.h"
#include "mctunnel/net/tls_cert.h"
#include "mctunnel/net/tls_trust.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { DOUBT_DAYS = 14 };

void tls_complain(struct tls_complaint *c, const char *path, const char *fmt, ...)
{
	char what[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	snprintf(c->text, c->size, "%s: %s", path ? path : "-", what);
}

const char *tls_openssl_reason(void)
{
	const char *text = ERR_reason_error_string(ERR_peek_last_error());

	return text ? text : "unknown error";
}

/* ---- PEM ---- */

static BIO *pem(const char *text)
{
	BIO *b = BIO_new_mem_buf(text ? text : "", -1);

	if (!b)
		die("no memory for TLS");
	ERR_clear_error();
	return b;
}

/* The end of a PEM text is an "error" of its own; any other means a block that cannot be read. */
static bool pem_ended(void)
{
	unsigned long e = ERR_peek_last_error();
	bool end = ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE;

	if (end)
		ERR_clear_error();
	return end;
}

/* Reads every certificate of a text and hands each to `use` (which borrows it); the number read, or -1. */
static int each_cert(const char *text, bool (*use)(void *arg, X509 *cert, int i), void *arg)
{
	BIO *b = pem(text);
	bool good = true;
	int count = 0;
	X509 *cert;

	while (good && (cert = PEM_read_bio_X509(b, NULL, NULL, NULL))) {
		good = use(arg, cert, count++);
		X509_free(cert);
	}
	BIO_free(b);
	return good && pem_ended() ? count : -1;
}

static X509 *first_cert(const char *pem)
{
	BIO *b = pem ? BIO_new_mem_buf(pem, -1) : NULL;
	X509 *cert = b ? PEM_read_bio_X509(b, NULL, NULL, NULL) : NULL;

	BIO_free(b);
	ERR_clear_error();
	return cert;
}

/* ---- one's own ---- */

static bool take_own(void *arg, X509 *cert, int i)
{
	struct tls_own *o = arg;

	if (i == 0) {
		o->cert = cert;
		o->not_after = tls_cert_time(X509_get0_notAfter(cert));
	} else if (sk_X509_push(o->chain, cert) <= 0) {
		return false;
	}
	X509_up_ref(cert);
	return true;
}

static int read_cert(struct tls_own *o, const struct tls_files *f, struct tls_complaint *c)
{
	int n = each_cert(f->cert, take_own, o);

	if (n < 0)
		tls_complain(c, f->cert_path, "the certificate cannot be used: %s", tls_openssl_reason());
	else if (n == 0)
		tls_complain(c, f->cert_path, "there is no certificate in it (PEM expected)");
	return n > 0 ? 0 : -1;
}

static int no_password(char *buf, int size, int rwflag, void *asked)
{
	*(bool *)asked = true;
	return -1;
}

static int read_key(struct tls_own *o, const struct tls_files *f, struct tls_complaint *c)
{
	BIO *b = pem(f->key);
	bool encrypted = false;
	EVP_PKEY *key = PEM_read_bio_PrivateKey(b, NULL, no_password, &encrypted);

	BIO_free(b);
	if (key && X509_check_private_key(o->cert, key) == 1) {
		o->key = key;
		return 0;
	}
	if (key)
		tls_complain(c, f->key_path, "the key does not belong to the certificate in %s", f->cert_path ? f->cert_path : "-");
	else if (encrypted)
		tls_complain(c, f->key_path, "the key is encrypted; store it without a password, mode 0600");
	else if (!(f->key && strstr(f->key, "PRIVATE KEY-----")))
		tls_complain(c, f->key_path, "there is no private key in it (PEM expected)");
	else
		tls_complain(c, f->key_path, "the private key cannot be read: %s", tls_openssl_reason());
	EVP_PKEY_free(key);
	return -1;
}

int tls_own_read(struct tls_own *o, const struct tls_files *f, struct tls_complaint *c)
{
	memset(o, 0, sizeof(*o));
	o->chain = sk_X509_new_null();
	if (o->chain && read_cert(o, f, c) == 0 && read_key(o, f, c) == 0)
		return 0;
	if (!o->chain)
		tls_complain(c, f->cert_path, "no memory for it");
	tls_own_fini(o);
	return -1;
}

void tls_own_fini(struct tls_own *o)
{
	X509_free(o->cert);
	EVP_PKEY_free(o->key);
	sk_X509_pop_free(o->chain, X509_free);
	memset(o, 0, sizeof(*o));
}

bool tls_own_use(const struct tls_own *o, SSL_CTX *ctx)
{
	return SSL_CTX_use_cert_and_key(ctx, o->cert, o->key, o->chain, 1) == 1;
}

/* ---- whom to trust ---- */

struct trusting {
	struct tls_trust *t;
	SSL_CTX *names;
};

static bool take_authority(void *arg, X509 *cert, int i)
{
	struct trusting *t = arg;

	return tls_trust_add(t->t, cert) && (!t->names || SSL_CTX_add_client_CA(t->names, cert) == 1);
}

static int load_ca(const struct tls_files *f, struct trusting *t, struct tls_complaint *c)
{
	int n = each_cert(f->ca, take_authority, t);

	if (n < 0)
		tls_complain(c, f->ca_path, "a CA certificate cannot be used: %s", tls_openssl_reason());
	else if (n == 0)
		tls_complain(c, f->ca_path, "there is no CA certificate in it (PEM expected)");
	return n > 0 ? 0 : -1;
}

/* A list whose extensions it could not decode OpenSSL gives all the same: one for CAs only would count for all then. What went wrong stands in its queue of errors. */
static bool crl_was_read_whole(void)
{
	return ERR_peek_error() == 0;
}

static int use_crl(const struct tls_files *f, struct tls_trust *t, X509_CRL *crl, struct tls_complaint *c)
{
	int64_t end = tls_cert_time(X509_CRL_get0_nextUpdate(crl));

	if (end && end <= (int64_t)time(NULL)) {
		tls_complain(c, f->crl_path, "the revocation list (CRL) has expired: issue a new one");
		return -1;
	}
	if (!tls_trust_add_crl(t, crl)) {
		tls_complain(c, f->crl_path, "the revocation list (CRL) cannot be used: %s", tls_openssl_reason());
		return -1;
	}
	ERR_clear_error();
	return 0;
}

/* The lists read, or -1. */
static int each_crl(const struct tls_files *f, struct tls_trust *t, struct tls_complaint *c)
{
	BIO *b = pem(f->crl);
	bool whole = true;
	int n = 0, rc = 0;
	X509_CRL *crl;

	while (rc == 0 && whole && (crl = PEM_read_bio_X509_CRL(b, NULL, NULL, NULL))) {
		whole = crl_was_read_whole();
		rc = whole ? use_crl(f, t, crl, c) : 0;
		X509_CRL_free(crl);
		n++;
	}
	BIO_free(b);
	if (rc == 0 && (!whole || !pem_ended())) {
		tls_complain(c, f->crl_path, "the revocation list (CRL) cannot be read: %s", tls_openssl_reason());
		rc = -1;
	}
	return rc < 0 ? -1 : n;
}

static int load_crl(const struct tls_files *f, struct tls_trust *t, struct tls_complaint *c)
{
	int n = each_crl(f, t, c);

	if (n == 0)
		tls_complain(c, f->crl_path, "there is no revocation list (CRL) in it (PEM expected)");
	if (n <= 0)
		return -1;
	tls_trust_check_crls(t);
	return 0;
}

int tls_files_trust(const struct tls_files *f, struct tls_trust *t, SSL_CTX *names, struct tls_complaint *c)
{
	if (load_ca(f, &(struct trusting){ t, names }, c) < 0)
		return -1;
	return f->crl ? load_crl(f, t, c) : 0;
}

/* ---- what is told of them ---- */

static void describe_name(void *arg, const char *name)
{
	struct strbuf *b = arg;

	strbuf_add(b, "%s%s", b->len ? "," : "", name);
}

int tls_describe(const char *pem, struct tls_described *out)
{
	X509 *cert = first_cert(pem);
	struct strbuf b;

	memset(out, 0, sizeof(*out));
	if (!cert)
		return -1;
	strbuf_init(&b, out->names, sizeof(out->names));
	(void)tls_cert_names(cert, describe_name, &b);
	X509_NAME_get_text_by_NID(X509_get_issuer_name(cert), NID_commonName, out->issuer, sizeof(out->issuer));
	out->not_after = tls_cert_time(X509_get0_notAfter(cert));
	X509_free(cert);
	return 0;
}

static bool crl_of(const char *crls, const X509_NAME *authority)
{
	BIO *b = pem(crls);
	X509_CRL *crl;
	bool found = false;

	while (!found && (crl = PEM_read_bio_X509_CRL(b, NULL, NULL, NULL))) {
		found = X509_NAME_cmp(X509_CRL_get_issuer(crl), authority) == 0;
		X509_CRL_free(crl);
	}
	BIO_free(b);
	ERR_clear_error();
	return found;
}

bool tls_files_doubt_crl(const struct tls_files *f, char *text, size_t size)
{
	X509 *ca = f->crl ? first_cert(f->ca) : NULL;
	bool none = ca && !crl_of(f->crl, X509_get_subject_name(ca));

	if (none)
		snprintf(text, size, "%s: no revocation list (CRL) of the authority in %s: all its certificates will be refused", f->crl_path, f->ca_path);
	X509_free(ca);
	return none;
}

static void doubt(const struct tls_files *f, bool server, X509 *cert, struct strbuf *b)
{
	time_t now = time(NULL), from = (time_t)tls_cert_time(X509_get0_notBefore(cert)), end = (time_t)tls_cert_time(X509_get0_notAfter(cert));
	char day[32] = "";
	struct tm tm;

	if (gmtime_r(from > now ? &from : &end, &tm))
		strftime(day, sizeof(day), "%Y-%m-%d %H:%M UTC", &tm);
	if (end <= now)
		strbuf_add(b, "%s: the certificate expired at %s: the other side will refuse it; renew it", f->cert_path, day);
	else if (from > now)
		strbuf_add(b, "%s: the certificate is valid only from %s: the other side will refuse it; is the clock right?", f->cert_path, day);
	else if (X509_check_purpose(cert, server ? X509_PURPOSE_SSL_SERVER : X509_PURPOSE_SSL_CLIENT, 0) != 1)
		strbuf_add(b, "%s: the certificate is not meant for %s (extended key usage): the other side will refuse it", f->cert_path,
			   server ? "a server" : "an agent");
	else if (end - now < DOUBT_DAYS * 86400)
		strbuf_add(b, "%s: the certificate expires at %s: renew it", f->cert_path, day);
}

void tls_own_doubt(const struct tls_own *o, const struct tls_files *f, bool server, char *text, size_t size)
{
	struct strbuf b;

	strbuf_init(&b, text, size);
	doubt(f, server, o->cert, &b);
}

bool tls_doubt(const struct tls_files *f, bool server, char *text, size_t size)
{
	struct tls_own o = { .cert = first_cert(f->cert) };

	text[0] = 0;
	if (o.cert)
		tls_own_doubt(&o, f, server, text, size);
	X509_free(o.cert);
	return text[0] != 0 || tls_files_doubt_crl(f, text, size);
}
