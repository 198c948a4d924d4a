/* SPDX-License-Identifier: Apache-2.0 */
/* The view formats of this build, those that are the second file of another one after it. */
#ifndef IMGFS_TESTS_FORMATS_H
#define IMGFS_TESTS_FORMATS_H

#include <string.h>

#include "imgfs/view.h"

/* The index-th of them; NULL past the end. */
static inline const struct view_format *every_format(size_t index)
{
	for (size_t i = 0; view_formats[i]; i++) {
		if (index-- == 0)
			return view_formats[i];
		if (view_formats[i]->second && index-- == 0)
			return view_formats[i]->second;
	}
	return NULL;
}

static inline const struct view_format *format_called(const char *name)
{
	const struct view_format *format;

	for (size_t i = 0; (format = every_format(i)); i++) {
		if (strcmp(format->name, name) == 0)
			return format;
	}
	return NULL;
}

#endif
