/* A configuration file with its @include lines replaced by what they name, as one text that remembers where each line came from. */
#ifndef MCTUNNEL_CONF_EXPAND_H
#define MCTUNNEL_CONF_EXPAND_H

#include "mctunnel/conf/conf.h"

struct findings;

#define EXPAND_MAX_DEPTH 10
#define EXPAND_MAX_INCLUDES 1000
#define EXPAND_MAX_SIZE (32u << 20)

struct span { /* from expanded line `first` on, lines are those of file from `line` on */
	int first, line;
	const char *file; /* borrowed from the files */
};

struct expanded {
	char *text; /* NUL-terminated, LF line ends; owned */
	size_t len, size;
	int lines;
	struct span *spans; /* owned */
	size_t spans_n;
};

/* Reads path and all it includes. Byte order marks and CR before LF go. What is wrong is reported; -1 then. e is to be freed either way. */
int expand_file(struct expanded *e, struct files *files, const char *path, struct findings *f) __attribute__((warn_unused_result));
void expand_fini(struct expanded *e);

struct conf_where expand_where(const struct expanded *e, int line);

/* Replaces ${NAME} and ${NAME-default} by the environment; "$${" stands for "${". The result is malloc'ed; NULL: a sentence in err. */
char *expand_env(const char *text, char *err, size_t errsize);

/* The folder that relative names of files are seen from: the one at the first call, also for children that have gone elsewhere. */
void expand_remember_folder(void);

/* path, seen from the folder of file, made absolute. malloc'ed. */
char *expand_path(const char *file, const char *path);

#endif
