/* SPDX-License-Identifier: Apache-2.0 */
/* A content that is some windows of the descriptor: a file in an archive. */
#include "windows.h"

#include <errno.h>
#include <stdlib.h>

#include "content.h"
#include "imgfs/checked.h"

struct window {
	uint64_t start; /* where it begins in what is read */
	uint64_t offset;
};

struct windows {
	size_t count; /* none is empty */
	struct window v[];
};

static void windows_place(
	const struct file *file, uint64_t offset, uint64_t *at, uint64_t *contiguous)
{
	const struct windows *w = file->content_state;
	size_t low = 0, high = w->count - 1;
	uint64_t end;

	/* The last window that does not begin after offset. */
	while (low < high) {
		size_t middle = high - (high - low) / 2;

		if (w->v[middle].start <= offset)
			low = middle;
		else
			high = middle - 1;
	}
	end = low + 1 < w->count ? w->v[low + 1].start : file->size;
	*at = w->v[low].offset + (offset - w->v[low].start);
	*contiguous = end - offset;
}

static void windows_close(struct file *file)
{
	free(file->content_state);
}

static const struct content content_windows = {
	.place = windows_place,
	.close = windows_close,
};

int windows_set(struct file *file, const struct file_window *windows, size_t count)
{
	struct windows *w = malloc(sizeof(*w) + count * sizeof(w->v[0]));
	uint64_t size = 0;

	if (!w)
		return -ENOMEM;
	w->count = 0;
	for (size_t i = 0; i < count; i++) {
		const struct file_window *window = &windows[i];

		if (!range_ok(window->offset, window->length, file->state.size) ||
			size > INT64_MAX - window->length) {
			free(w);
			return -EINVAL;
		}
		if (window->length > 0)
			w->v[w->count++] = (struct window) { size, window->offset };
		size += window->length;
	}
	file->size = size;
	file->blocks = min_u64(file->blocks, div_ceil(size, 512));
	file->content = &content_windows;
	file->content_state = w;
	return 0;
}
