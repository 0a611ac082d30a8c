/* Runs a fuzz target over files instead of under a fuzzer: every file of the folders (or the files) named on the command line.
 * Linked in place of libFuzzer's main(), so that what was found once is tested in every run. */
#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char current[4096]; /* in the core dump when it dies */
static unsigned ran;

static void run_file(const char *path)
{
	FILE *in = fopen(path, "rb");
	uint8_t *data;
	size_t size;
	struct stat st;

	if (!in || fstat(fileno(in), &st) < 0) {
		perror(path);
		exit(1);
	}
	data = malloc((size_t)st.st_size + 1); /* exactly sized below, so that ASan sees every byte read beyond */
	size = fread(data, 1, (size_t)st.st_size, in);
	fclose(in);
	data = realloc(data, size > 0 ? size : 1);
	snprintf(current, sizeof(current), "%s", path);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	ran++;
}

static void run(const char *path)
{
	DIR *dir = opendir(path);
	char file[4096];

	if (!dir) {
		run_file(path);
		return;
	}
	for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
		run_file(file);
	}
	closedir(dir);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		run(argv[i]);
	printf("%u inputs\n", ran);
	return 0;
}
