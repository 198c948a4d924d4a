/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names of a directory's views. The input is a file name a line; with a '/' behind it, that
 * of a directory.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "fs/catalog/catalog_private.h"
#include "imgfs/cleanup.h"
#include "imgfs/names.h"

#define NAMES_MAX 64

struct directory {
	char *files[NAMES_MAX], *directories[NAMES_MAX];
	size_t file_count, directory_count;
};

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static size_t unique(char **names, size_t count)
{
	size_t kept = 0;

	qsort(names, count, sizeof(*names), compare);
	for (size_t i = 0; i < count; i++) {
		if (kept == 0 || strcmp(names[kept - 1], names[i]) != 0)
			names[kept++] = names[i];
	}
	return kept;
}

/* Cuts the text up. Names are what a file system can hold: up to 255 bytes. */
static void read_names(char *text, struct directory *d)
{
	for (char *name = strtok(text, "\n"); name; name = strtok(NULL, "\n")) {
		size_t length = strcspn(name, "/");
		bool is_directory = name[length] == '/';

		name[length] = '\0';
		if (length == 0 || length > 255)
			continue;
		if (is_directory && d->directory_count < NAMES_MAX)
			d->directories[d->directory_count++] = name;
		else if (!is_directory && d->file_count < NAMES_MAX)
			d->files[d->file_count++] = name;
	}
	d->file_count = unique(d->files, d->file_count);
	d->directory_count = unique(d->directories, d->directory_count);
}

static struct choices choices;

static void check_view_names(const struct directory *d, const struct naming *n)
{
	for (size_t i = 0; i < choices.count; i++) {
		const struct choice *choice = &choices.list[i];
		autofree char *name = NULL;
		char *found;
		size_t base;
		int r;

		if (choice->base == (n->whole ? BASE_STEM : BASE_WHOLE))
			continue;
		r = naming_view_name(n->file, n->whole, choice, &name);

		fuzz_check(r == 0 || r == -ENAMETOOLONG);
		if (r < 0)
			continue;
		fuzz_check(strlen(name) <= 255);
		fuzz_check(naming_ends_in(name, choice, &base) ||
			   name_has_suffix(name, choice->suffix));
		found = bsearch(&name, d->directories, d->directory_count,
				sizeof(d->directories[0]), compare)
				? name
				: NULL;
		fuzz_check(n->whole || !found);
	}
}

/* Two that are seen and have one stem keep their whole names. */
static void check_stems(const struct naming *a, const struct naming *b)
{
	size_t stem = name_stem_length(a->file);

	if (a->hidden || b->hidden || stem != name_stem_length(b->file))
		return;
	if (memcmp(a->file, b->file, stem) == 0)
		fuzz_check(a->whole && b->whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autofree char *text = strndup((const char *)data, size);
	struct naming naming[NAMES_MAX] = { 0 };
	struct directory d = { .file_count = 0 };
	struct naming_rules rules = { .choices = &choices };
	size_t stem;

	fuzz_check(text != NULL);
	fuzz_check(choices_parse(&choices, CHOICES_DEFAULT, NULL, NULL, NULL) == 0);
	read_names(text, &d);
	for (size_t i = 0; i < d.file_count; i++)
		naming[i].file = d.files[i];
	rules.directories = (const char *const *)d.directories;
	rules.directory_count = d.directory_count;
	fuzz_check(naming_decide(naming, d.file_count, &rules) == 0);
	for (size_t i = 0; i < d.file_count; i++) {
		if (naming[i].hidden)
			fuzz_check(d.files[i][0] == '.' || name_is_extent(d.files[i], &stem));
		else
			check_view_names(&d, &naming[i]);
		for (size_t j = i + 1; j < d.file_count; j++)
			check_stems(&naming[i], &naming[j]);
	}
	return 0;
}
