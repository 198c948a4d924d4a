/* SPDX-License-Identifier: Apache-2.0 */
#include "imgfs/names.h"

#include <ctype.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "imgfs/image.h"

/* Suffixes that declare no format, and that a view's name drops all the same. */
static const char *const plain_suffixes[] = { "img", "dd", "iso", "ova" };

const char *name_suffix(const char *name)
{
	const char *dot = strrchr(name, '.');

	return dot && dot != name ? dot + 1 : name + strlen(name);
}

/* "disk.img" is shown as "disk.qcow2". */
bool name_suffix_known(const char *suffix)
{
	for (size_t i = 0; i < sizeof(plain_suffixes) / sizeof(plain_suffixes[0]); i++) {
		if (strcasecmp(suffix, plain_suffixes[i]) == 0)
			return true;
	}
	for (const struct image_format *const *f = image_formats; *f; f++) {
		for (const char *const *s = (*f)->suffixes; *s; s++) {
			if (strcasecmp(suffix, *s) == 0)
				return true;
		}
	}
	return false;
}

bool name_has_suffix(const char *name, const char *suffix)
{
	return strcasecmp(name_suffix(name), suffix) == 0;
}

/* Compressions that files have, whether this build reads them or not. */
static bool is_compression(const char *suffix)
{
	static const char *const known[] = { "gz", "xz", "zst", "bz2", "lz4", "lzma", "lz", "Z" };

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (strcasecmp(suffix, known[i]) == 0)
			return true;
	}
	return false;
}

/* Without its suffix, and without that suffix's dot. False: too long to be a name. */
static bool cut_suffix(const char *name, const char *suffix, char cut[NAME_MAX + 1])
{
	size_t length = (size_t)(suffix - name) - 1;

	if (length > NAME_MAX)
		return false;
	memcpy(cut, name, length);
	cut[length] = '\0';
	return true;
}

const char *name_compression(const char *name)
{
	const char *suffix = name_suffix(name);
	char inner[NAME_MAX + 1];

	if (!is_compression(suffix) || !cut_suffix(name, suffix, inner))
		return NULL;
	return name_suffix_known(name_suffix(inner)) ? suffix : NULL;
}

size_t name_stem_length(const char *name)
{
	const char *suffix = name_suffix(name);
	char inner[NAME_MAX + 1];

	if (name_compression(name) && cut_suffix(name, suffix, inner))
		return name_stem_length(inner);
	if (name_suffix_known(suffix))
		return (size_t)(suffix - name) - 1;
	return strlen(name);
}

/* Does text[0..length) end in '-', one of the letters, and three digits or more? */
static bool ends_in_number(const char *text, size_t length, const char *letters, size_t *before)
{
	size_t digits = 0;

	while (digits < length && isdigit((unsigned char)text[length - 1 - digits]))
		digits++;
	if (digits < 3 || digits + 2 > length)
		return false;
	if (!strchr(letters, tolower((unsigned char)text[length - digits - 1])))
		return false;
	if (text[length - digits - 2] != '-')
		return false;
	*before = length - digits - 2;
	return true;
}

bool name_is_extent(const char *name, size_t *stem)
{
	static const char *const words[] = { "-flat", "-delta", "-sesparse", "-ctk", "-rdm",
		"-rdmp", "-pt" };
	size_t length = name_stem_length(name);

	if (!name_has_suffix(name, "vmdk"))
		return false;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		size_t word = strlen(words[i]);

		if (length > word && strncasecmp(name + length - word, words[i], word) == 0) {
			*stem = length - word;
			return true;
		}
	}
	return ends_in_number(name, length, "sf", stem) && *stem > 0;
}

/* "disk-000001" is the first delta of "disk": VMware's snapshots share the disk's family. */
static size_t without_delta_number(const char *name, size_t length)
{
	if (length <= 7 || name[length - 7] != '-')
		return length;
	for (size_t i = length - 6; i < length; i++) {
		if (!isdigit((unsigned char)name[i]))
			return length;
	}
	return length - 7;
}

bool name_is_family(const char *top, const char *name)
{
	size_t stem = without_delta_number(top, name_stem_length(top));

	if (stem == 0 || strncmp(top, name, stem) != 0)
		return false;
	return name[stem] != '\0' && strchr("-._@", name[stem]) != NULL;
}

/* The part of path before the snapshot's name, a length. */
static size_t file_length(const char *path)
{
	const char *snapshot = strstr(path, SNAPSHOT_MARK);

	return snapshot ? (size_t)(snapshot - path) : strlen(path);
}

const char *path_name(const char *path)
{
	size_t start = file_length(path);

	while (start > 0 && path[start - 1] != '/')
		start--;
	return path + start;
}

char *path_of_file(const char *path)
{
	return strndup(path, file_length(path));
}

char *path_join(const char *directory, const char *name)
{
	size_t length = strlen(directory);
	char *path = malloc(length + strlen(name) + 2);

	if (!path)
		return NULL;
	memcpy(path, directory, length);
	if (length > 0)
		path[length++] = '/';
	strcpy(path + length, name);
	return path;
}
