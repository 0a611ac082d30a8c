/* For tests: a folder of files that a shell script makes, certificates as a rule. To be included once by a test. */
#include "mctunnel/base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static char dir[64];

/* name: as mkdtemp() wants it. The script finds the folder in $DIR. 0: all is there. */
static inline int folder_make(const char *name, const char *script)
{
	str_copy(dir, sizeof(dir), name);
	if (!mkdtemp(dir))
		return -1;
	setenv("DIR", dir, 1);
	return system(script);
}

static inline int folder_remove(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r '%s'", dir);
	return system(command);
}

/* What is in a file of it; the caller's to free. */
static inline char *slurp(const char *name)
{
	char path[128], *text = calloc(1, 65536);
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_true(fread(text, 1, 65535, f) > 0);
	fclose(f);
	return text;
}
