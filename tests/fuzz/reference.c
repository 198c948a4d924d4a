/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names that an image holds. The input is three lines: a letter of the policy and the path of
 * the image; the path of the file that holds the name; the name, to the end.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "imgfs/cleanup.h"
#include "imgfs/names.h"

/*
 * Is name one of top's family? A second opinion: both begin alike, and there top's stem ends (or
 * its delta's number begins) and a separator follows in name.
 */
static bool is_relative(const char *top, const char *name)
{
	for (size_t i = 0; top[i] == name[i] || strchr("-._@", name[i]); i++) {
		if (i > 0 && name[i] && strchr("-._@", name[i]) &&
			(top[i] == '.' || top[i] == '-' || top[i] == '\0'))
			return true;
		if (top[i] != name[i] || name[i] == '\0')
			return false;
	}
	return false;
}

static bool has_control_byte(const char *text)
{
	while (*text && (unsigned char)*text >= 0x20 && *text != 0x7f)
		text++;
	return *text != '\0';
}

static void check_path(const struct datastore *ds, const char *top, const char *path)
{
	const char *slash = strrchr(path, '/'), *top_slash = strrchr(top, '/');
	size_t directory = slash ? (size_t)(slash - path) : 0;

	fuzz_check(path[0] != '\0' && path[0] != '/' && !strstr(path, "//"));
	fuzz_check(path[strlen(path) - 1] != '/');
	for (const char *p = path; p; p = strchr(p, '/')) {
		p += *p == '/';
		fuzz_check(strncmp(p, "../", 3) != 0 && strcmp(p, "..") != 0);
	}
	fuzz_check(ds->references != REFERENCES_NONE);
	if (ds->references != REFERENCES_FAMILY)
		return;
	fuzz_check(directory == (top_slash ? (size_t)(top_slash - top) : 0));
	fuzz_check(strncmp(path, top, directory) == 0);
	fuzz_check(is_relative(top_slash ? top_slash + 1 : top, slash ? slash + 1 : path));
}

/* A line, terminated; *at is then behind its end. */
static char *take_line(const uint8_t **at, const uint8_t *end)
{
	const uint8_t *newline = memchr(*at, '\n', (size_t)(end - *at));
	const uint8_t *stop = newline ? newline : end;
	char *line = strndup((const char *)*at, (size_t)(stop - *at));

	fuzz_check(line != NULL);
	*at = newline ? newline + 1 : end;
	return line;
}

/* Paths of the datastore are what readdir gave: relative, and without these components. */
static bool is_possible(const char *path)
{
	for (const char *p = path; p; p = strchr(p, '/')) {
		size_t length;

		p += *p == '/' && p != path;
		length = strcspn(p, "/");
		if (length == 0 || strncmp(p, ".", length) == 0 || strncmp(p, "..", length) == 0)
			return false;
	}
	return true;
}

static void check_names(const char *name)
{
	size_t stem, length = strlen(name);
	const char *suffix = name_suffix(name);

	fuzz_check(suffix >= name && suffix <= name + length);
	fuzz_check(name_stem_length(name) <= length);
	fuzz_check(name_stem_length(name) == length || name_suffix_known(suffix));
	if (name_is_extent(name, &stem))
		fuzz_check(stem > 0 && stem < length && name[stem] == '-');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char root[] = "/srv/images";
	const uint8_t *at = data, *end = data + size;
	struct datastore ds = { .root = -1, .root_path = root };
	autofree char *top = take_line(&at, end);
	autofree char *from = take_line(&at, end);
	autofree char *path = NULL;
	struct why why = { "" };
	int r;

	if (top[0] == '\0' || !is_possible(top + 1) || !is_possible(from))
		return 0;
	ds.references = (enum reference_policy)((unsigned char)top[0] % 3);
	check_names(top + 1);
	check_names(from);
	r = reference_resolve(
		&ds, top + 1, from, (const char *)at, (size_t)(end - at), &path, &why);
	fuzz_check((r == 0) == (path != NULL));
	fuzz_check(r == 0 || ((r == -EPERM || r == -EINVAL) && why.text[0] != '\0'));
	if (r < 0)
		return 0;
	fuzz_check(has_control_byte(from) || !has_control_byte(path));
	check_path(&ds, top + 1, path);
	return 0;
}
