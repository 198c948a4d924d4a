/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VHDX, as a source: fixed, dynamic and differencing. Follows [MS-VHDX] of Microsoft.
 *
 *	 0       "vhdxfile", headers, region tables              vhdx/header.c
 *	 log     what must be written before anything is read    vhdx/log.c, vhdx/patches.c
 *	 regions the metadata: what the disk is like             vhdx/metadata.c, vhdx/locator.c
 *	         the block allocation table (BAT)                vhdx/map.c
 *	 blocks  payload of 1 to 256 MiB, sector bitmaps
 *
 * A log that is not empty is replayed in memory: nothing is ever written to a source. The
 * specification bids to refuse one without valid entries, and so it is done here.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "imgfs/image.h"
#include "imgfs/log.h"
#include "vhdx/vhdx.h"

#define PARTIAL_UNIT 65536u /* of the work that a map of sectors is */

static int vhdx_probe(const struct probe *probe)
{
	return probe->head_length >= 8 && memcmp(probe->head, "vhdxfile", 8) == 0 ? 100 : 0;
}

static int open_with(struct layer *layer, struct vhdx *v, struct why *why)
{
	struct vhdx_range locator = { 0 };
	int r = vhdx_read_header(layer, v, why);

	if (r == 0)
		r = vhdx_replay(layer, v, why);
	if (r == 0)
		r = vhdx_read_regions(layer, v, why);
	if (r == 0)
		r = vhdx_read_metadata(layer, v, &locator, why);
	if (r == 0 && v->differencing)
		r = vhdx_read_locator(layer, v, &locator, why);
	return r;
}

static void vhdx_free(struct vhdx *v)
{
	free(v->patches);
	free(v);
}

static int vhdx_open(struct layer *layer, struct why *why)
{
	struct vhdx *v = calloc(1, sizeof(*v));
	int r;

	if (!v)
		return why_set(why, -ENOMEM, "out of memory");
	r = open_with(layer, v, why);
	if (r < 0) {
		vhdx_free(v);
		return r;
	}
	layer->state = v;
	layer->unit = v->differencing ? PARTIAL_UNIT : v->block;
	/* Others cannot read a file whose log is not empty without writing to it. */
	layer->standalone = !v->differencing && v->log_empty;
	layer->variant = v->differencing      ? "differencing"
			 : v->leave_allocated ? "fixed"
					      : "dynamic";
	return 0;
}

static void vhdx_close(struct layer *layer)
{
	vhdx_free(layer->state);
	layer->state = NULL;
}

/* A child holds what differs from one certain state of its parent's data. */
static int vhdx_accept_parent(
	const struct layer *layer, const struct layer *parent, struct why *why)
{
	const struct vhdx *child = layer->state;
	const struct vhdx *v = parent->state;
	char guid[VHDX_LINKAGE];

	if (parent->format != layer->format)
		return why_set(why, -EINVAL, "its parent is %s, not vhdx", parent->format->name);
	if (v->sector != child->sector)
		return why_set(why, -EINVAL, "its parent has sectors of another size");
	snprintf(guid, sizeof(guid), "{%s}", uuid_text_le(v->data_guid).text);
	for (size_t i = 0; i < child->linkage_count; i++) {
		if (strcasecmp(child->linkages[i], guid) == 0)
			return 0;
	}
	return why_set(why, -EINVAL, "its parent has been modified since: its data is %s, not %s",
		guid, quote(child->linkages[0]).text);
}

static const char *const vhdx_suffixes[] = { "vhdx", "avhdx", NULL };

const struct image_format image_format_vhdx = {
	.name = "vhdx",
	.suffixes = vhdx_suffixes,
	.probe = vhdx_probe,
	.open = vhdx_open,
	.map = vhdx_map,
	.close = vhdx_close,
	.accept_parent = vhdx_accept_parent,
};
