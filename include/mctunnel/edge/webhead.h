/* Heads of HTTP messages as they go on: what concerns one connection only is taken out, what the other side must know of the client is put in. Text in, text out. */
#ifndef MCTUNNEL_EDGE_WEBHEAD_H
#define MCTUNNEL_EDGE_WEBHEAD_H

#include <stdbool.h>
#include <stddef.h>

struct http1_head;

#define WEBHEAD_ID 65     /* a request's id with its NUL */
#define WEBHEAD_EXTRA 1024 /* a head grows by no more than this, the path that replaces its own, and once more the client's X-Forwarded-For and Forwarded */

struct webhead_request {
	const struct http1_head *head; /* as it was parsed */
	int forwarded;                 /* enum forwarded */
	const char *client;            /* its address, without port; "unknown" */
	const char *host;              /* Host, where the client said none */
	const char *path;              /* instead of its own; NULL */
	const char *id;
	bool tls;
};
/* The head for the target, always HTTP/1.1. Bytes written; 0: it does not fit. */
size_t webhead_request(char *out, size_t size, const struct webhead_request *r);

struct webhead_answer {
	const struct http1_head *head;
	bool close;   /* the client is told that its connection ends */
	bool keep;    /* an HTTP/1.0 client is told that it does not */
	bool unchunk; /* chunks are undone: the body ends with the connection */
};
/* The head for the client, always HTTP/1.1. Bytes written; 0: it does not fit. */
size_t webhead_answer(char *out, size_t size, const struct webhead_answer *a);

/* The request's id: the client's, where listener.forwarded lets it say who it is and it is short and harmless; else a new one. */
void webhead_id(char out[WEBHEAD_ID], const struct http1_head *h, int forwarded);
/* Request or answer speaks of a login that is bound to the connection (NTLM, Negotiate): nobody else may use that from now on. */
bool webhead_binds(const struct http1_head *h);

#endif
