/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What may an image name? Tenants write these names, so the answer never depends on what the
 * named file holds, and a refused name is never looked up.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "imgfs/cleanup.h"
#include "imgfs/datastore.h"
#include "imgfs/log.h"
#include "imgfs/names.h"

static bool has_control_byte(const char *name, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
			return true;
	}
	return false;
}

static bool has_parent_component(const char *name)
{
	for (const char *p = name; p; p = strchr(p, '/')) {
		p += *p == '/';
		if (p[0] == '.' && p[1] == '.' && (p[2] == '/' || p[2] == '\0'))
			return true;
	}
	return false;
}

static size_t directory_length(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? (size_t)(slash - path) : 0;
}

/* Appends the components of name to path, without "." and empty ones. */
static void append_components(char *path, const char *name)
{
	size_t used = strlen(path);

	while (*name) {
		size_t length = strcspn(name, "/");

		if (length > 0 && !(length == 1 && name[0] == '.')) {
			if (used > 0)
				path[used++] = '/';
			memcpy(path + used, name, length);
			used += length;
			path[used] = '\0';
		}
		name += length;
		name += *name == '/';
	}
}

/* An absolute name counts only beneath the root; *name then becomes relative to it. */
static bool strip_root(const struct datastore *ds, const char **name)
{
	size_t length = strlen(ds->root_path);

	if (strcmp(ds->root_path, "/") == 0)
		length = 0;
	if (strncmp(*name, ds->root_path, length) != 0 || (*name)[length] != '/')
		return false;
	*name += length + 1;
	return true;
}

static int check_policy(
	const struct datastore *ds, const char *top, const char *path, struct why *why)
{
	size_t directory = directory_length(top);

	switch (ds->references) {
	case REFERENCES_DATASTORE:
		return 0;
	case REFERENCES_NONE:
		return why_set(why, -EPERM,
			"it names %s, and references=none (-o references=family or datastore "
			"would allow it)",
			quote(path).text);
	case REFERENCES_FAMILY:
		break;
	}
	if (directory_length(path) == directory && strncmp(path, top, directory) == 0 &&
		name_is_family(path_name(top), path_name(path)))
		return 0;
	return why_set(why, -EPERM,
		"it names %s, which is not of its own family (-o references=datastore would "
		"allow it)",
		quote(path).text);
}

int reference_resolve(const struct datastore *ds, const char *top, const char *from,
	const char *name, size_t length, char **path, struct why *why)
{
	struct quoted shown = quote_bytes(name, length);
	autofree char *text = NULL;
	autofree char *joined = NULL;
	const char *relative;
	int r;

	if (length == 0 || length > REFERENCE_NAME_MAX)
		return why_set(why, -EINVAL, "it names a file by %zu bytes", length);
	if (has_control_byte(name, length))
		return why_set(why, -EINVAL, "it names %s, with control bytes", shown.text);
	text = strndup(name, length);
	joined = calloc(1, strlen(from) + length + 2);
	if (!text || !joined)
		return why_set(why, -ENOMEM, "out of memory");
	if (has_parent_component(text))
		return why_set(why, -EPERM, "it names %s, with a '..' in it", shown.text);

	relative = text;
	if (text[0] != '/')
		memcpy(joined, from, directory_length(from));
	else if (!strip_root(ds, &relative))
		return why_set(why, -EPERM, "it names %s, outside the datastore", shown.text);
	append_components(joined, relative);
	if (joined[0] == '\0' || text[length - 1] == '/')
		return why_set(why, -EINVAL, "it names %s, which is no file", shown.text);

	r = check_policy(ds, top, joined, why);
	if (r < 0)
		return r;
	*path = steal_ptr(joined);
	return 0;
}
