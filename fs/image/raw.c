/* SPDX-License-Identifier: Apache-2.0 */
/*
 * raw: the file is the disk. Its bytes are never looked at; a header that a guest has written
 * into its first sector means nothing here.
 */
#include "imgfs/image.h"

static int raw_probe(const struct probe *probe)
{
	(void)probe;
	return 1;
}

static int raw_open(struct layer *layer, struct why *why)
{
	(void)why;
	layer->size = layer->file->size;
	layer->standalone = true;
	return 0;
}

static int raw_map(const struct layer *layer, uint64_t offset, uint64_t length,
	enum map_detail detail, struct extent *extent)
{
	uint64_t start, end;
	int r;

	(void)length;
	*extent = (struct extent) {
		.start = offset,
		.end = layer->size,
		.kind = EXTENT_DATA,
		.file = layer->file,
		.offset = offset,
	};
	/* Reading a hole of a file is as cheap as finding it. */
	if (detail == MAP_PLACE)
		return 0;
	r = file_next_data(layer->file, offset, &start, &end);
	if (r < 0)
		return r;
	if (start > offset) {
		extent->kind = EXTENT_ZERO;
		extent->end = start;
	} else {
		extent->end = end;
	}
	return 0;
}

static const char *const raw_suffixes[] = { "raw", NULL };

const struct image_format image_format_raw = {
	.name = "raw",
	.suffixes = raw_suffixes,
	.probe = raw_probe,
	.open = raw_open,
	.map = raw_map,
};
