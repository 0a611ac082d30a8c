/* Reads what stands in a certificate: subject, names, times. Owns nothing. It knows neither files nor connections, and does not say whether a certificate
 * is any good. */
#define _GNU_SOURCE
#include "mctunnel/net/tls_cert.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

void tls_cert_subject(X509 *cert, char *buf, size_t size)
{
	BIO *b = cert ? BIO_new(BIO_s_mem()) : NULL;
	int n;

	buf[0] = 0;
	if (!b)
		return;
	X509_NAME_print_ex(b, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253);
	n = BIO_read(b, buf, (int)size - 1);
	buf[n > 0 ? n : 0] = 0;
	BIO_free(b);
}

int64_t tls_cert_time(const ASN1_TIME *a)
{
	struct tm tm;

	return a && ASN1_TIME_to_tm(a, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

/* A name with a NUL inside is a trick, not a name. */
static bool copy_name(const ASN1_STRING *s, char *buf, size_t size)
{
	const char *text = (const char *)ASN1_STRING_get0_data(s);
	int len = ASN1_STRING_length(s);

	if (len <= 0 || memchr(text, 0, (size_t)len) || (size_t)len >= size)
		return false;
	memcpy(buf, text, (size_t)len);
	buf[len] = 0;
	return true;
}

static bool common_name(X509 *cert, char *name, size_t size)
{
	X509_NAME *subject = X509_get_subject_name(cert);
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);

	return at >= 0 && copy_name(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)), name, size);
}

bool tls_cert_names(X509 *cert, void (*take)(void *arg, const char *name), void *arg)
{
	int critical;
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, &critical, NULL);
	bool any = false;
	char name[TLS_CERT_NAME];

	ERR_clear_error();
	if (!names && critical != -1) /* -1: there are none */
		return false;
	for (int k = 0; k < sk_GENERAL_NAME_num(names); k++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, k);

		if (g->type != GEN_DNS || !copy_name(g->d.dNSName, name, sizeof(name)))
			continue;
		any = true;
		take(arg, name);
	}
	GENERAL_NAMES_free(names);
	if (!any && common_name(cert, name, sizeof(name)))
		take(arg, name);
	return true;
}

/* Where OpenSSL has no memory to decode the key or the extensions of a certificate, or to see that it is signed by itself, it does not say so, and holds the certificate for
 * a bad one ever after: every peer would be refused. So all is asked for here, where it can be said; what a second certificate of the same bytes lacks as well is not for want
 * of memory. */
static bool is_whole(X509 *cert)
{
	return X509_get0_pubkey(cert) && X509_check_purpose(cert, -1, 0) == 1;
}

bool tls_cert_was_read_whole(X509 *cert)
{
	X509 *again = X509_dup(cert);
	bool same = again && is_whole(cert) == is_whole(again) && X509_get_extension_flags(cert) == X509_get_extension_flags(again);

	X509_free(again);
	ERR_clear_error();
	return same;
}
