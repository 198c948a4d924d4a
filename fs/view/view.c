/* SPDX-License-Identifier: Apache-2.0 */
/* A view's life, and the regions that a format lays it out with. */
#include "imgfs/view.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "imgfs/checked.h"
#include "imgfs/uuid.h"

uint64_t view_disk_size(const struct view *view)
{
	return round_up(image_size(view->image), 512);
}

void view_make_uuid(const struct view *view, uint64_t number, uint8_t *uuid)
{
	const char *path = image_path(view->image);
	uint64_t disk = view->occupancy ? occupancy_hash(view->occupancy) : view_disk_size(view);

	uuid_from_hash(XXH3_64bits_withSeed(path, strlen(path), disk), number, uuid);
}

static struct region *add_region(
	struct view *view, const char *name, enum region_kind kind, uint64_t length)
{
	struct region *region;

	assert(view->region_count < VIEW_MAX_REGIONS);
	region = &view->regions[view->region_count];
	*region = (struct region) {
		.name = name,
		.start = view->size,
		.end = view->size + length,
		.kind = kind,
	};
	if (length > 0)
		view->region_count++;
	view->size += length;
	return region;
}

uint8_t *view_add_bytes(struct view *view, const char *name, size_t length)
{
	uint8_t *bytes = calloc(1, length);

	assert(length > 0);
	if (bytes)
		add_region(view, name, REGION_BYTES, length)->bytes = bytes;
	return bytes;
}

void view_add_table(
	struct view *view, const char *name, uint64_t length, const struct view_table *table)
{
	add_region(view, name, REGION_TABLE, length)->table = table;
}

void view_add_zero(struct view *view, const char *name, uint64_t length)
{
	add_region(view, name, REGION_ZERO, length);
}

void view_add_guest(struct view *view, const char *name, uint64_t guest, uint64_t length)
{
	add_region(view, name, REGION_GUEST, length)->guest = guest;
}

void view_add_blocks(struct view *view, const char *name, uint32_t lead)
{
	add_region(view, name, REGION_BLOCKS,
		occupancy_count(view->blocks) * (lead + view->block_size))
		->lead = lead;
}

void view_add_composed(
	struct view *view, const char *name, uint64_t length, const struct view_composer *composer)
{
	add_region(view, name, REGION_COMPOSED, length)->composer = composer;
}

bool view_add_source(struct view *view, const char *format)
{
	if (!image_is_standalone(view->image) ||
		strcmp(image_format_of(view->image)->name, format) != 0)
		return false;
	view->identity = true;
	add_region(view, "file", REGION_FILE, image_file(view->image, 0)->size);
	return true;
}

/* Blocks of `scale` units are occupied where any of those is. No block lies across two pages. */
static int merge_units(const struct occupancy *units, uint64_t scale, struct occupancy *blocks)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < occupancy_page_count(units); i++) {
		const struct occupancy_page *page = occupancy_page(units, i);
		uint64_t first = page->number * OCCUPANCY_PAGE_UNITS;
		uint64_t last = min_u64(first + OCCUPANCY_PAGE_UNITS, occupancy_units(units));
		uint64_t step = page->bits ? 1 : div_ceil(last - first, scale);

		for (uint64_t u = occupancy_next(units, first); r == 0 && u < last;
			u = occupancy_next(units, (u / scale + step) * scale))
			r = occupancy_add(blocks, u / scale * OCCUPANCY_UNIT,
				(u / scale + step) * OCCUPANCY_UNIT);
	}
	return r;
}

int view_use_blocks(struct view *view, uint64_t block_size, struct why *why)
{
	uint64_t scale = block_size / OCCUPANCY_UNIT;
	uint64_t count = div_ceil(occupancy_units(view->occupancy), scale);
	struct occupancy *blocks = occupancy_new(count * OCCUPANCY_UNIT);
	int r = blocks ? merge_units(view->occupancy, scale, blocks) : -ENOMEM;

	assert(scale > 0 && OCCUPANCY_PAGE_UNITS % scale == 0);
	if (r < 0) {
		occupancy_free(blocks);
		return why_set(why, r, "the map of its blocks takes too much memory");
	}
	occupancy_finish(blocks);
	occupancy_free(view->own_blocks);
	view->own_blocks = blocks;
	view->blocks = blocks;
	view->block_size = block_size;
	return 0;
}

/* Is the source what is asked for already? */
static bool is_as_is(const struct view_format *format, const struct image *image)
{
	const char *variant = image_variant(image);

	if (format->as_is_variant && (!variant || strcmp(variant, format->as_is_variant) != 0))
		return false;
	return format->as_is != NULL;
}

static int lay_out(struct view *view, struct why *why)
{
	const struct view_format *format = view->format;
	int r;

	if (is_as_is(format, view->image) && view_add_source(view, format->as_is))
		return 0;
	if (format->compact) {
		r = image_occupancy(view->image, &view->occupancy, why);
		if (r < 0)
			return r;
		view->blocks = view->occupancy;
		view->block_size = OCCUPANCY_UNIT;
	}
	return format->layout(view, why);
}

const struct view_options view_options_default = {
	.adapter = ADAPTER_LSILOGIC,
	.hardware_version = 4,
	.tools_version = INT32_MAX, /* not managed by the host */
	.sector_size = 512,
};

int view_open(
	struct image *image, const struct view_format *format, struct view **view, struct why *why)
{
	return view_open_as(image, format, NULL, &view_options_default, view, why);
}

int view_open_as(struct image *image, const struct view_format *format, const char *name,
	const struct view_options *options, struct view **view, struct why *why)
{
	struct view *v = calloc(1, sizeof(*v));
	int r;

	if (!v)
		return why_set(why, -ENOMEM, "out of memory");
	v->format = format;
	v->options = options;
	v->image = image_ref(image);
	v->name = name ? strdup(name) : NULL;
	r = name && !v->name ? why_set(why, -ENOMEM, "out of memory") : lay_out(v, why);
	if (r < 0) {
		view_close(v);
		return r;
	}
	*view = v;
	return 0;
}

void view_close(struct view *view)
{
	if (!view)
		return;
	for (size_t i = 0; i < view->region_count; i++)
		free(view->regions[i].bytes);
	free(view->params);
	free(view->name);
	occupancy_free(view->own_blocks);
	image_unref(view->image);
	free(view);
}

void view_dump(const struct view *view, FILE *out)
{
	static const char *const kinds[] = {
		[REGION_BYTES] = "bytes",
		[REGION_TABLE] = "table",
		[REGION_ZERO] = "zero",
		[REGION_GUEST] = "guest",
		[REGION_BLOCKS] = "blocks",
		[REGION_COMPOSED] = "made",
		[REGION_FILE] = "file",
	};

	fprintf(out, "%s view, %" PRIu64 " bytes\n", view->format->name, view->size);
	for (size_t i = 0; i < view->region_count; i++) {
		const struct region *region = &view->regions[i];

		fprintf(out, "%16" PRIu64 " %16" PRIu64 "  %-6s  %s\n", region->start, region->end,
			kinds[region->kind], region->name);
	}
}
