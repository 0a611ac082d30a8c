/* Judges certificates, those that are here by OpenSSL's own verification, and those of which a ticket holds a note only. Owns the authorities and
 * their lists; the store in which OpenSSL has them as well belongs to the context. It knows no connection, and no file. */
#define _GNU_SOURCE
#include "mctunnel/net/tls_trust.h"

#include "mctunnel/net/tls_cert.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- whom we trust ---- */

static bool enter(struct tls_trust *t, X509 *cert)
{
	struct authority *a = realloc(t->authorities, (t->authorities_n + 1) * sizeof(*a));

	if (!a)
		return false;
	t->authorities = a;
	a += t->authorities_n++;
	memset(a, 0, sizeof(*a));
	atomic_init(&a->judged, 0);
	X509_up_ref(cert);
	a->cert = cert;
	a->crls = sk_X509_CRL_new_null();
	return a->crls && X509_digest(cert, EVP_sha256(), a->digest, NULL) == 1;
}

bool tls_trust_add(struct tls_trust *t, X509 *authority)
{
	return tls_cert_was_read_whole(authority) && X509_STORE_add_cert(t->store, authority) == 1 && enter(t, authority);
}

static bool is_odd(X509_CRL *crl)
{
	return X509_CRL_get_ext_by_NID(crl, NID_issuing_distribution_point, -1) >= 0 || X509_CRL_get_ext_by_critical(crl, 1, -1) >= 0;
}

/* Asked twice, for the first time there may have been no memory: without one of its lists an authority would vouch for too many. */
static bool has_signed(X509 *cert, X509_CRL *crl)
{
	EVP_PKEY *key = X509_get0_pubkey(cert);

	return X509_CRL_verify(crl, key) == 1 || X509_CRL_verify(crl, key) == 1;
}

/* Of two authorities of one name each gets what it has signed itself. */
static bool give_to_authorities(struct tls_trust *t, X509_CRL *crl)
{
	for (size_t i = 0; i < t->authorities_n; i++) {
		struct authority *a = &t->authorities[i];

		if (X509_NAME_cmp(X509_CRL_get_issuer(crl), X509_get_subject_name(a->cert)) != 0 || !has_signed(a->cert, crl))
			continue;
		if (sk_X509_CRL_push(a->crls, crl) <= 0)
			return false;
		X509_CRL_up_ref(crl);
		a->odd |= is_odd(crl);
	}
	ERR_clear_error();
	return true;
}

bool tls_trust_add_crl(struct tls_trust *t, X509_CRL *crl)
{
	return X509_STORE_add_crl(t->store, crl) == 1 && give_to_authorities(t, crl);
}

void tls_trust_check_crls(struct tls_trust *t)
{
	t->crl_check = true;
	X509_STORE_set_flags(t->store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
}

void tls_trust_fini(struct tls_trust *t)
{
	for (size_t i = 0; i < t->authorities_n; i++) {
		X509_free(t->authorities[i].cert);
		sk_X509_CRL_pop_free(t->authorities[i].crls, X509_CRL_free);
	}
	free(t->authorities);
}

/* ---- a certificate that is here ---- */

bool tls_trust_set_name(X509_VERIFY_PARAM *p, const char *name)
{
	X509_VERIFY_PARAM_set_hostflags(p, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return X509_VERIFY_PARAM_set1_ip_asc(p, name) == 1 || X509_VERIFY_PARAM_set1_host(p, name, 0) == 1;
}

bool tls_trust_passes(const struct tls_trust *t, X509 *cert, const char *purpose, const char *name)
{
	X509_STORE_CTX *x = X509_STORE_CTX_new();
	bool ok = x && X509_STORE_CTX_init(x, t->store, cert, NULL) == 1 &&
		  (!purpose || X509_STORE_CTX_set_default(x, purpose) == 1) && (!name || tls_trust_set_name(X509_STORE_CTX_get0_param(x), name)) &&
		  X509_verify_cert(x) == 1;

	X509_STORE_CTX_free(x);
	ERR_clear_error();
	return ok;
}

/* ---- the note of one ---- */

struct texts {
	char *p; /* owned */
	size_t len;
	bool failed;
};

static void add_text(void *arg, const char *text)
{
	struct texts *t = arg;
	size_t len = strlen(text) + 1;
	char *p = t->failed ? NULL : realloc(t->p, t->len + len);

	if (!p) {
		t->failed = true;
		return;
	}
	memcpy(p + t->len, text, len);
	t->p = p;
	t->len += len;
}

static bool take_serial(struct tls_peer *p, X509 *cert)
{
	const ASN1_INTEGER *serial = X509_get0_serialNumber(cert);
	uint8_t *at = p->serial;
	int len = i2d_ASN1_INTEGER(serial, NULL);

	if (len <= 0 || len > TLS_PEER_SERIAL)
		return false; /* then it is of no use for a ticket, nothing else */
	p->serial_len = (size_t)i2d_ASN1_INTEGER(serial, &at);
	return true;
}

/* NULL: none of ours, but one the peer has sent along. */
static struct authority *issuer_in(const struct tls_trust *t, X509_STORE_CTX *x)
{
	STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(x);
	X509 *issuer = sk_X509_value(chain, sk_X509_num(chain) > 1 ? 1 : 0);

	for (size_t i = 0; i < t->authorities_n; i++)
		if (X509_cmp(t->authorities[i].cert, issuer) == 0)
			return &t->authorities[i];
	return NULL;
}

struct tls_peer *tls_trust_note(const struct tls_trust *t, X509 *cert, X509_STORE_CTX *x)
{
	const struct authority *authority = x ? issuer_in(t, x) : NULL;
	struct texts texts = { .p = NULL };
	struct tls_peer *p = NULL;
	char subject[128];

	tls_cert_subject(cert, subject, sizeof(subject));
	add_text(&texts, subject);
	if (tls_cert_names(cert, add_text, &texts) && !texts.failed)
		p = tls_peer_new(texts.len);
	if (p) {
		memcpy(p->texts, texts.p, texts.len);
		p->since = tls_cert_time(X509_get0_notBefore(cert));
		p->until = tls_cert_time(X509_get0_notAfter(cert));
		p->proved = (int64_t)time(NULL);
		if (take_serial(p, cert) && authority)
			memcpy(p->authority, authority->digest, sizeof(p->authority));
	}
	free(texts.p);
	return p;
}

static bool in_force(X509_CRL *crl)
{
	const ASN1_TIME *next = X509_CRL_get0_nextUpdate(crl);

	return X509_cmp_current_time(X509_CRL_get0_lastUpdate(crl)) < 0 && (!next || X509_cmp_current_time(next) > 0);
}

static bool judge_authority(const struct tls_trust *t, const struct authority *a)
{
	int lists = sk_X509_CRL_num(a->crls);
	bool ok = !a->odd && (lists > 0 || !t->crl_check) && tls_trust_passes(t, a->cert, NULL, NULL);

	for (int i = 0; i < lists; i++)
		ok = ok && in_force(sk_X509_CRL_value(a->crls, i));
	return ok;
}

/* Once in a second, for all who come back in it. */
static bool authority_good(const struct tls_trust *t, struct authority *a, int64_t now)
{
	long long judged = atomic_load_explicit(&a->judged, memory_order_relaxed);

	if (judged / 2 != now) {
		judged = 2 * now + judge_authority(t, a);
		atomic_store_explicit(&a->judged, judged, memory_order_relaxed);
	}
	return judged % 2;
}

static bool revoked(const struct authority *a, const struct tls_peer *p)
{
	const unsigned char *at = p->serial;
	int lists = sk_X509_CRL_num(a->crls);
	ASN1_INTEGER *serial = lists > 0 ? d2i_ASN1_INTEGER(NULL, &at, (long)p->serial_len) : NULL;
	bool found = lists > 0 && !serial;
	X509_REVOKED *row;

	for (int i = 0; i < lists && !found; i++)
		found = X509_CRL_get0_by_serial(sk_X509_CRL_value(a->crls, i), &row, serial) != 0;
	ASN1_INTEGER_free(serial);
	ERR_clear_error();
	return found;
}

bool tls_trust_vouches(const struct tls_trust *t, const struct tls_peer *p, long life_s)
{
	int64_t now = (int64_t)time(NULL);

	if (now < p->since || now > p->until || now >= p->proved + life_s)
		return false;
	for (size_t i = 0; i < t->authorities_n; i++) {
		struct authority *a = &t->authorities[i];

		if (memcmp(a->digest, p->authority, sizeof(a->digest)) == 0)
			return authority_good(t, a, now) && !revoked(a, p);
	}
	return false;
}
