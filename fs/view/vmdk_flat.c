/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flat VMDK view, what ESXi runs and imports: NAME.vmdk, a descriptor, and NAME-flat.vmdk, the
 * bytes of the disk in whole sectors. Follows VMware's "Virtual Disk Format 1.1", "Simple Extents",
 * and for VMFS extents what ESXi writes: createType vmfs, and an extent line without an offset.
 *
 * The descriptor calls its extent by the name that the extent is shown by, which follows from the
 * descriptor's own. Readers open it, so that a name that they could misread has no such view.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "descriptor.h"
#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/names.h"
#include "imgfs/view.h"
#include "imgfs/wire.h"

#define SECTOR       512u
#define SUFFIX       ".vmdk"
#define EXTENT       "-flat.vmdk"
#define LONGEST_NAME 255

/* What holds for both files, so that there are both or neither. */
static int check_pair(const struct view *view, const char *name, struct why *why)
{
	if (view_disk_size(view) == 0)
		return why_set(why, -EFBIG, "a VMDK cannot have an empty extent");
	if (!descriptor_name_ok(name, strlen(name)))
		return why_set(
			why, -EFBIG, "the name of its extent does not fit into a VMDK descriptor");
	return 0;
}

/* The name that the descriptor is shown by, but for ".vmdk"; from malloc. */
static char *stem_of(const struct view *view)
{
	static const char flavour[] = ".flat";
	autofree char *path = NULL;
	const char *name;
	size_t length;
	char *stem;

	if (view->name) {
		size_t suffix = name_has_suffix(view->name, "vmdk") ? strlen(SUFFIX) : 0;

		return strndup(view->name, strlen(view->name) - suffix);
	}
	path = path_of_file(image_path(view->image));
	if (!path)
		return NULL;
	name = path_name(path);
	length = name_stem_length(name);
	stem = malloc(length + sizeof(flavour));
	if (stem)
		memcpy(mempcpy(stem, name, length), flavour, sizeof(flavour));
	return stem;
}

static int name_extent(const struct view *view, struct descriptor_extent *extent, struct why *why)
{
	autofree char *stem = stem_of(view);

	if (!stem)
		return why_set(why, -ENOMEM, "out of memory");
	if (strlen(stem) + strlen(EXTENT) > LONGEST_NAME)
		return why_set(why, -EFBIG, "the name of its extent would be too long");
	snprintf(extent->name, sizeof(extent->name), "%s%s", stem, EXTENT);
	return check_pair(view, extent->name, why);
}

/*
 * The map of the disk is nothing that this view needs, and with detect_zeroes it takes long to
 * find, so that the content ID is that of a size and a name.
 */
static uint64_t content_of(const struct view *view, const struct descriptor_extent *extent)
{
	uint8_t size[8];

	put_le64(size, view_disk_size(view));
	return XXH3_64bits_withSeed(
		extent->name, strlen(extent->name), XXH3_64bits(size, sizeof(size)));
}

static int flat_layout(struct view *view, struct why *why)
{
	struct descriptor_extent extent = { .type = "VMFS", .tail = "" };
	char text[DESCRIPTOR_BYTES];
	const char *create_type = "vmfs";
	uint8_t *bytes;
	size_t length;
	int r;

	if (view->options->monolithic_flat) {
		create_type = "monolithicFlat";
		extent.type = "FLAT";
		extent.tail = " 0";
	}
	r = name_extent(view, &extent, why);
	if (r < 0)
		return r;
	length = descriptor_write(view, create_type, &extent, content_of(view, &extent), text);
	bytes = view_add_bytes(view, "descriptor", length);
	if (!bytes)
		return why_set(why, -ENOMEM, "out of memory");
	memcpy(bytes, text, length);
	return 0;
}

static int extent_layout(struct view *view, struct why *why)
{
	int r = check_pair(view, view->name ? view->name : "x" EXTENT, why);

	if (r < 0)
		return r;
	if (image_size(view->image) % SECTOR != 0 || !view_add_source(view, "raw"))
		view_add_guest(view, "disk", 0, view_disk_size(view));
	return 0;
}

/* The names decide. */
static bool never_sure(uint64_t virtual_size)
{
	(void)virtual_size;
	return false;
}

static const struct view_format flat_extent = {
	.name = "vmdk-flat-extent",
	.suffix = "flat-flat.vmdk",
	.surely_fits = never_sure,
	.layout = extent_layout,
};

const struct view_format view_format_vmdk_flat = {
	.name = "vmdk-flat",
	.suffix = "flat.vmdk",
	.second = &flat_extent,
	.surely_fits = never_sure,
	.layout = flat_layout,
};
