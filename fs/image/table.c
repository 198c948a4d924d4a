/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of images (L1, L2, grain directories and tables) are read by the page, through the
 * cache: no table is ever allocated because a header says how large it is.
 */
#include <errno.h>

#include "imgfs/cache.h"
#include "imgfs/checked.h"
#include "image_private.h"

#define TABLE_PAGE 16384u

struct page_source {
	const struct file *file;
	uint64_t offset;
};

static int read_page(void *buffer, size_t length, void *argument)
{
	const struct page_source *source = argument;
	int r = file_read(source->file, buffer, length, source->offset);

	/* The page is inside the file as it was opened, so the file has become shorter. */
	return r == -ERANGE ? -ESTALE : r;
}

int table_get(const struct layer *layer, const struct file *file, uint64_t offset, uint32_t need,
	struct table_view *view)
{
	struct page_source source = { .file = file, .offset = offset - offset % TABLE_PAGE };
	struct cache_key key = { .serial = file->serial, .offset = source.offset };
	struct cache_entry *entry;
	uint64_t length;
	int r;

	if (!range_ok(offset, need, file->size))
		return -ERANGE;
	length = min_u64(TABLE_PAGE, file->size - source.offset);
	r = cache_get(image_cache(layer->image), &key, length, read_page, &source, &entry);
	if (r < 0)
		return r;
	view->bytes = cache_bytes(entry) + (offset - source.offset);
	view->length = length - (offset - source.offset);
	view->entry = entry;
	return 0;
}

void table_put(const struct layer *layer, struct table_view *view)
{
	cache_put(image_cache(layer->image), view->entry);
}

void table_done(const struct layer *layer, struct table_view *view, enum map_detail detail)
{
	if (detail == MAP_KIND)
		cache_pass(image_cache(layer->image), view->entry);
	else
		table_put(layer, view);
}

void table_will_need(const struct file *file, uint64_t offset, uint64_t length)
{
	file_will_need(file, offset, length);
}
