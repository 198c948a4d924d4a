/* SPDX-License-Identifier: Apache-2.0 */
/* A view's life, and the regions that a format lays it out with. */
#include "imgfs/view.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "imgfs/checked.h"

uint64_t view_disk_size(const struct view *view)
{
	return round_up(image_size(view->image), 512);
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

void view_add_units(struct view *view, const char *name)
{
	add_region(view, name, REGION_UNITS, occupancy_count(view->occupancy) * OCCUPANCY_UNIT);
}

/* The source is what is asked for: hand it over as it is. */
static int lay_out_identity(struct view *view)
{
	view->identity = true;
	add_region(view, "file", REGION_FILE, image_file(view->image, 0)->state.size);
	return 0;
}

static int lay_out(struct view *view, struct why *why)
{
	const struct view_format *format = view->format;
	int r;

	if (image_is_standalone(view->image) &&
		strcmp(format->name, image_format_of(view->image)->name) == 0)
		return lay_out_identity(view);
	if (format->compact) {
		r = image_occupancy(view->image, &view->occupancy, why);
		if (r < 0)
			return r;
	}
	return format->layout(view, why);
}

int view_open(
	struct image *image, const struct view_format *format, struct view **view, struct why *why)
{
	struct view *v = calloc(1, sizeof(*v));
	int r;

	if (!v)
		return why_set(why, -ENOMEM, "out of memory");
	v->format = format;
	v->image = image_ref(image);
	r = lay_out(v, why);
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
		[REGION_UNITS] = "units",
		[REGION_FILE] = "file",
	};

	fprintf(out, "%s view, %" PRIu64 " bytes\n", view->format->name, view->size);
	for (size_t i = 0; i < view->region_count; i++) {
		const struct region *region = &view->regions[i];

		fprintf(out, "%16" PRIu64 " %16" PRIu64 "  %-5s  %s\n", region->start, region->end,
			kinds[region->kind], region->name);
	}
}
