/* Certificates, keys, authorities and lists of the revoked, out of PEM texts. What is wrong is said in a sentence that names the file.
 * What comes after tls_doubt() is for net/tls*.c: OpenSSL's types are opaque here. */
#ifndef MCTUNNEL_NET_TLS_FILES_H
#define MCTUNNEL_NET_TLS_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct evp_pkey_st;
struct ssl_ctx_st;
struct stack_st_X509;
struct tls_trust;
struct x509_st;

/* PEM texts, not paths (paths are for messages only). */
struct tls_files {
	const char *cert_path, *cert;
	const char *key_path, *key;
	const char *ca_path, *ca;
	const char *crl_path, *crl; /* NULL: none */
};

/* The first certificate of a PEM text, for the admin socket. 0, or -1 when there is none. */
struct tls_described {
	char names[512];   /* SAN DNS, else the CN; divided by commas; cut when there are more */
	char issuer[128];  /* its CN */
	int64_t not_after; /* seconds since the epoch */
};
int tls_describe(const char *pem, struct tls_described *out) __attribute__((warn_unused_result));

/* What loads, and will be refused all the same, or soon: own certificate expired, not yet valid, not for this side, ending within two weeks;
 * no CRL of the CA. True with a sentence naming the file. */
bool tls_doubt(const struct tls_files *f, bool server, char *text, size_t size);

struct tls_complaint {
	char *text; /* written when something is wrong */
	size_t size;
};

struct tls_own { /* a certificate with its key, and the certificates that follow */
	struct x509_st *cert;
	struct evp_pkey_st *key;
	struct stack_st_X509 *chain;
	int64_t not_after; /* seconds since the epoch */
};

int tls_own_read(struct tls_own *o, const struct tls_files *f, struct tls_complaint *c) __attribute__((warn_unused_result)); /* 0, or -1 with a complaint and nothing to free */
void tls_own_fini(struct tls_own *o);
bool tls_own_use(const struct tls_own *o, struct ssl_ctx_st *ctx) __attribute__((warn_unused_result));
void tls_own_doubt(const struct tls_own *o, const struct tls_files *f, bool server, char *text, size_t size); /* "", or what tls_doubt() would say of it */

/* ca and, unless it is NULL, crl: 0, or -1 with a complaint. names: NULL, or who shall be told the names of the authorities (a server tells its clients). */
int tls_files_trust(const struct tls_files *f, struct tls_trust *t, struct ssl_ctx_st *names, struct tls_complaint *c) __attribute__((warn_unused_result));
bool tls_files_doubt_crl(const struct tls_files *f, char *text, size_t size);

void tls_complain(struct tls_complaint *c, const char *path, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
const char *tls_openssl_reason(void); /* of the last error, before it is cleared */

#endif
