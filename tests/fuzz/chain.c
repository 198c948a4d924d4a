/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image of several files: children and parents, data files, extents. The input is
 *
 *	=== NAME\n bytes \n=== NAME\n bytes …
 *
 * and the first file is the image. Names with a directory are left out.
 */
#include <string.h>

#include "driver.h"

#define FILES_MAX 20
#define NAME_MAX_ 40

static const char mark[] = "\n=== ";
#define MARK (sizeof(mark) - 1)

/* Takes a name and its line end from the front. False: there is none that will do. */
static bool take_name(const uint8_t **at, const uint8_t *end, char *name)
{
	const uint8_t *newline = memchr(*at, '\n', (size_t)(end - *at));
	size_t length = newline ? (size_t)(newline - *at) : 0;

	if (length == 0 || length >= NAME_MAX_ || **at == '.' || memchr(*at, '/', length) ||
		memchr(*at, '\0', length))
		return false;
	memcpy(name, *at, length);
	name[length] = '\0';
	*at = newline + 1;
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *at = data, *end = data + size;
	char first[NAME_MAX_] = "", name[NAME_MAX_];

	fuzz_begin();
	if (size < MARK || memcmp(data, mark + 1, MARK - 1) != 0)
		return 0;
	at += MARK - 1;
	for (unsigned i = 0; i < FILES_MAX && at < end; i++) {
		const uint8_t *next, *stop;

		if (!take_name(&at, end, name))
			break;
		next = memmem(at, (size_t)(end - at), mark, MARK);
		stop = next ? next : end;
		fuzz_file(name, at, (size_t)(stop - at));
		if (i == 0)
			strcpy(first, name);
		at = next ? next + MARK : end;
	}
	if (first[0])
		fuzz_image(first, data, size);
	return 0;
}
