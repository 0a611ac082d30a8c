/* What stands in a certificate. For net/tls*.c: OpenSSL's types are opaque here. */
#ifndef MCTUNNEL_NET_TLS_CERT_H
#define MCTUNNEL_NET_TLS_CERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct asn1_string_st;
struct x509_st;

#define TLS_CERT_NAME 256 /* bytes of a name, with its NUL; longer ones are none */

void tls_cert_subject(struct x509_st *cert, char *buf, size_t size); /* "CN=edge-1"; "" of NULL */

/* Every SAN DNS, or the CN when it has none. false: nobody knows, for they cannot be read; perhaps there is no memory. */
bool tls_cert_names(struct x509_st *cert, void (*take)(void *arg, const char *name), void *arg);

int64_t tls_cert_time(const struct asn1_string_st *t); /* seconds since the epoch; 0 of NULL */

/* OpenSSL had the memory to read it to its end. What it could not decode it holds for bad ever after, and does not say so. */
bool tls_cert_was_read_whole(struct x509_st *cert);

#endif
