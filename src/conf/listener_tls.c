/* TLS of listeners, as far as files and keys go: which certificates there are, and where the key of each is.
 * A folder is opened through conf/files, which remembers what was in it, so that the worker finds the same without rights. What is inside of
 * certificates is tls_files.c's: here a key is only looked for by the words a PEM text begins with. */
#include "mctunnel/conf/listener_tls.h"

#include "mctunnel/base/mem.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/files.h"
#include "mctunnel/conf/finding.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PAIRS_MAX 2000 /* of a folder: reading new ones takes the worker half a millisecond each, and it is not to be taken for hung */

struct look {
	struct files *files;
	struct findings *findings;
	struct conf_listener_tls *t;
	const void *field; /* where the path at hand was written */
};

static bool ends_in(const char *text, const char *end)
{
	size_t n = strlen(text), k = strlen(end);

	return n > k && strcmp(text + n - k, end) == 0;
}

/* NULL, after a finding, when it cannot be read or is empty. */
static const char *read_file(struct look *k, const char *path)
{
	const char *why, *text;
	size_t len;

	text = files_read(k->files, path, &len, &why);
	if (!text)
		alert_on(k->findings, k->field, &k->t->at, "\"%s\" cannot be read: %s%s", path, why,
			 strcmp(why, "is a directory") == 0 ? " (with a '/' at its end, what is in it is taken)" : "");
	else if (len == 0)
		alert_on(k->findings, k->field, &k->t->at, "\"%s\" is empty", path);
	return text && len > 0 ? text : NULL;
}

static char *beside(const char *cert)
{
	bool suffix = ends_in(cert, ".pem") || ends_in(cert, ".crt");

	return xasprintf("%.*s.key", (int)(strlen(cert) - (suffix ? 4 : 0)), cert);
}

static char *find_key(struct look *k, const char *cert, const char *text)
{
	const char *why;
	size_t len;
	char *path;

	if (k->t->key)
		return xstrdup(k->t->key);
	if (strstr(text, "PRIVATE KEY-----"))
		return xstrdup(cert);
	path = beside(cert);
	if (files_read(k->files, path, &len, &why))
		return path;
	alert_on(k->findings, k->field, &k->t->at, "\"%s\" holds no key, and \"%s\" cannot be read: %s", cert, path, why);
	free(path);
	return NULL;
}

static void add_pair(struct look *k, const char *cert)
{
	const char *text = read_file(k, cert);
	char *key = text ? find_key(k, cert, text) : NULL;
	struct conf_listener_tls *t = k->t;

	if (!key)
		return;
	if (files_world_readable(k->files, key))
		warn_on(k->findings, k->field, &t->at, "\"%s\" holds a key that others than its owner may read (chmod 600)", key);
	t->pairs = xrealloc(t->pairs, (t->pairs_n + 1) * sizeof(*t->pairs));
	t->pairs[t->pairs_n++] = (struct conf_pair){ .cert = xstrdup(cert), .key = key };
}

static void open_folder(struct look *k, const char *folder)
{
	const char *why, *names = files_list(k->files, folder, &why), *end;
	size_t found = 0;

	if (!names) {
		alert_on(k->findings, k->field, &k->t->at, "\"%s\" cannot be read: %s", folder, why);
		return;
	}
	for (; *names && found <= PAIRS_MAX; names = end + 1) {
		char *path;

		end = strchr(names, '\n');
		path = xasprintf("%s%.*s", folder, (int)(end - names), names);
		if ((ends_in(path, ".pem") || ends_in(path, ".crt")) && ++found <= PAIRS_MAX)
			add_pair(k, path);
		free(path);
	}
	if (found > PAIRS_MAX)
		alert_on(k->findings, k->field, &k->t->at, "\"%s\" holds more than %d certificates", folder, PAIRS_MAX);
	if (!found)
		alert_on(k->findings, k->field, &k->t->at, "there is no certificate in \"%s\" (*.pem or *.crt)", folder);
}

static void find_pairs(struct look *k)
{
	struct conf_listener_tls *t = k->t;

	for (size_t i = 0; i < t->cert.n; i++) {
		const char *path = t->cert.v[i];

		k->field = &t->cert.v[i];
		if (path && ends_in(path, "/"))
			open_folder(k, path);
		else if (path)
			add_pair(k, path);
	}
	k->field = &t->key;
	if (t->key && t->pairs_n > 1)
		alert_on(k->findings, &t->key, &t->at, "one key, but %zu certificates: leave it out, and put each key into its certificate's file or beside it as NAME.key", t->pairs_n);
	else if (t->key)
		(void)read_file(k, t->key);
}

static bool given(const struct look *k, const void *field)
{
	return findings_where(k->findings, field, NULL).file != NULL;
}

static void check_clients(struct look *k)
{
	struct conf_listener_tls *t = k->t;

	if (!given(k, &t->verify))
		t->verify = t->client_ca ? VERIFY_REQUIRED : VERIFY_NONE;
	if (t->verify != VERIFY_NONE && !t->client_ca)
		alert_on(k->findings, &t->verify, &t->at, "clients' certificates can only be checked with a client_ca");
	if (t->verify == VERIFY_NONE && t->client_ca)
		warn_on(k->findings, &t->client_ca, &t->at, "of no use while verify is \"none\"");
	if (t->crl && !t->client_ca)
		alert_on(k->findings, &t->crl, &t->at, "a revocation list belongs to a client_ca");
	k->field = &t->client_ca;
	if (t->client_ca)
		(void)read_file(k, t->client_ca);
	k->field = &t->crl;
	if (t->crl)
		(void)read_file(k, t->crl);
}

void listener_tls_check(struct conf *c, struct conf_listener *l, struct findings *f)
{
	struct look k = { .files = c->files, .findings = f, .t = &l->tls };

	if (!l->tls.at.file)
		return;
	if (l->mode == MODE_TLS)
		alert_on(f, &l->tls.at, NULL, "mode \"tls\" passes TLS on as it is: either another mode, or no tls here");
	find_pairs(&k);
	check_clients(&k);
}

void listener_tls_fini(struct conf_listener_tls *t)
{
	for (size_t i = 0; i < t->pairs_n; i++) {
		free(t->pairs[i].cert);
		free(t->pairs[i].key);
	}
	free(t->pairs);
}
