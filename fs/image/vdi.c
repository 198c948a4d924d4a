/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VDI, VirtualBox's own format, as a source: dynamic, fixed and differencing disks of header
 * version 1.1. There is no specification; the layout is what VirtualBox (VDICore.h) and QEMU
 * (block/vdi.c) both document. Little-endian:
 *
 *   OFFSET SIZE
 *       0   64  a text
 *      64    4  0xbeda107f
 *      68    4  version, 1 in the upper half, 1 in the lower
 *      72    4  bytes of the header from here on
 *      76    4  type: 1 dynamic, 2 fixed, 3 undo, 4 differencing
 *      80    4  flags
 *     340    4  block map: offset in the file
 *     344    4  blocks: offset in the file
 *     360    4  bytes of a sector
 *     368    8  virtual size in bytes
 *     376    4  bytes of a block, 1 MiB
 *     380    4  bytes that precede the data of each block, 0
 *     384    4  blocks of the disk
 *     388    4  blocks that are there
 *     392   16  UUID of the disk
 *     408   16  UUID of its state: another one after each use for writing
 *     424   16  UUID of the parent
 *     440   16  UUID of the state of the parent
 *
 * An entry of the map is the number of the block in the file. 0xffffffff: the block is not there
 * and is the parent's, or zeros. 0xfffffffe: it is zeros. A fixed disk has a map too.
 *
 * A child knows its parent by UUID alone; where its file is VirtualBox keeps in the settings of
 * the machine. So it is looked for (layer_find_parent()).
 *
 * Encryption leaves no trace here (VirtualBox keeps that in its settings, too), so an encrypted
 * disk cannot be told from one of noise.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cut.h"
#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/image.h"
#include "imgfs/uuid.h"
#include "imgfs/wire.h"

#define SECTOR            512u

#define VDI_MAGIC         64
#define VDI_VERSION       68
#define VDI_LENGTH        72
#define VDI_TYPE          76
#define VDI_FLAGS         80
#define VDI_MAP           340
#define VDI_DATA          344
#define VDI_SECTOR        360
#define VDI_SIZE          368
#define VDI_BLOCK         376
#define VDI_EXTRA         380
#define VDI_BLOCKS        384
#define VDI_ALLOCATED     388
#define VDI_ID            392
#define VDI_STATE         408
#define VDI_PARENT_ID     424
#define VDI_PARENT_STATE  440
#define VDI_HEADER        456 /* bytes in all, of the shortest one */

#define MAGIC             0xbeda107fu
#define VERSION           0x00010001u
#define LENGTH_MIN        (VDI_HEADER - VDI_LENGTH)

#define TYPE_DYNAMIC      1
#define TYPE_FIXED        2
#define TYPE_DIFFERENCING 4

/* How new blocks are to be written, and the type once more. */
#define FLAGS_KNOWN 0x00030101u

#define MAP_FREE    0xffffffffu
#define MAP_ZERO    0xfffffffeu

#define BLOCK_MIN   4096u
#define BLOCK_MAX   (1u << 31)
#define USUAL_BLOCK (1u << 20)

struct vdi {
	uint8_t id[UUID_BYTES], state[UUID_BYTES];
	uint8_t parent_id[UUID_BYTES], parent_state[UUID_BYTES];
	uint32_t type;
	uint64_t block;  /* guest bytes */
	uint64_t extra;  /* bytes before them in the file */
	uint64_t map;    /* offset of the block map */
	uint64_t blocks; /* of the disk */
	uint64_t data;   /* offset of block 0 */
};

static int vdi_probe(const struct probe *probe)
{
	return probe->head_length >= VDI_MAGIC + 4 && get_le32(probe->head + VDI_MAGIC) == MAGIC
		       ? 100
		       : 0;
}

/* ---- open ---- */

static int check_kind(const uint8_t *p, struct why *why)
{
	uint32_t version = get_le32(p + VDI_VERSION);
	uint32_t type = get_le32(p + VDI_TYPE);
	uint32_t flags = get_le32(p + VDI_FLAGS);

	if (get_le32(p + VDI_MAGIC) != MAGIC)
		return why_set(why, -EINVAL, "it does not begin like a VDI");
	if (version != VERSION)
		return why_set(why, -ENOTSUP, "its header has version %u.%u, not 1.1",
			version >> 16, version & 0xffff);
	if (get_le32(p + VDI_LENGTH) < LENGTH_MIN)
		return why_set(why, -EINVAL, "its header has %u bytes", get_le32(p + VDI_LENGTH));
	if (type != TYPE_DYNAMIC && type != TYPE_FIXED && type != TYPE_DIFFERENCING)
		return why_set(why, -ENOTSUP, "disks of type %u are not known", type);
	if (flags & ~FLAGS_KNOWN)
		return why_set(
			why, -ENOTSUP, "its header has flags that are not known (0x%x)", flags);
	if (get_le32(p + VDI_SECTOR) != SECTOR)
		return why_set(
			why, -ENOTSUP, "its sectors have %u bytes", get_le32(p + VDI_SECTOR));
	return 0;
}

static int check_geometry(
	const struct layer *layer, const struct vdi *v, uint64_t blocks, struct why *why)
{
	uint64_t map_end;

	if (!is_power_of_two(v->block) || v->block < BLOCK_MIN || v->block > BLOCK_MAX)
		return why_set(
			why, -EINVAL, "its blocks have %llu bytes", (unsigned long long)v->block);
	if (v->extra != 0 && !is_power_of_two(v->extra))
		return why_set(why, -EINVAL, "its blocks have %llu bytes before them",
			(unsigned long long)v->extra);
	if (v->blocks > blocks)
		return why_set(why, -EINVAL, "its block map is too short for its size");
	map_end = v->map + blocks * 4;
	if (v->map % 4 != 0 || v->map < VDI_HEADER || map_end > layer->file->size)
		return why_set(why, -EINVAL, "its block map is not inside the file");
	if (v->data < map_end)
		return why_set(why, -EINVAL, "its blocks begin inside the block map");
	return 0;
}

/* Do other readers see the same disk? QEMU takes usual blocks, VirtualBox no nil UUIDs. */
static bool is_plain(const struct layer *layer, const struct vdi *v, const uint8_t *p)
{
	return v->type != TYPE_DIFFERENCING && v->block == USUAL_BLOCK && v->extra == 0 &&
	       layer->size > 0 && layer->size % SECTOR == 0 && v->map % SECTOR == 0 &&
	       v->data % SECTOR == 0 && v->blocks == get_le32(p + VDI_BLOCKS) &&
	       get_le32(p + VDI_ALLOCATED) <= v->blocks && !uuid_is_nil(v->id) &&
	       !uuid_is_nil(v->state) && uuid_is_nil(v->parent_id) && uuid_is_nil(v->parent_state);
}

static int set_parent(struct layer *layer, const struct vdi *v, struct why *why)
{
	char what[64];

	if (uuid_is_nil(v->parent_id))
		return why_set(why, -EINVAL, "it has a parent, but does not tell its UUID");
	snprintf(what, sizeof(what), "the VDI with UUID %s", uuid_text_le(v->parent_id).text);
	return layer_find_parent(layer, what, why);
}

static int vdi_open(struct layer *layer, struct why *why)
{
	static const char *const variants[] = { [TYPE_DYNAMIC] = "dynamic",
		[TYPE_FIXED] = "fixed",
		[TYPE_DIFFERENCING] = "differencing" };
	autofree struct vdi *v = calloc(1, sizeof(*v));
	uint8_t p[VDI_HEADER];
	int r;

	if (!v)
		return why_set(why, -ENOMEM, "out of memory");
	r = file_read(layer->file, p, sizeof(p), 0);
	if (r < 0)
		return why_set(why, r == -ERANGE ? -EINVAL : r, "its header cannot be read");
	r = check_kind(p, why);
	if (r < 0)
		return r;
	layer->size = get_le64(p + VDI_SIZE);
	*v = (struct vdi) {
		.type = get_le32(p + VDI_TYPE),
		.block = get_le32(p + VDI_BLOCK),
		.extra = get_le32(p + VDI_EXTRA),
		.map = get_le32(p + VDI_MAP),
		.data = get_le32(p + VDI_DATA),
	};
	memcpy(v->id, p + VDI_ID, UUID_BYTES);
	memcpy(v->state, p + VDI_STATE, UUID_BYTES);
	memcpy(v->parent_id, p + VDI_PARENT_ID, UUID_BYTES);
	memcpy(v->parent_state, p + VDI_PARENT_STATE, UUID_BYTES);
	if (v->block > 0)
		v->blocks = div_ceil(layer->size, v->block);
	r = check_geometry(layer, v, get_le32(p + VDI_BLOCKS), why);
	if (r == 0 && v->type == TYPE_DIFFERENCING)
		r = set_parent(layer, v, why);
	if (r < 0)
		return r;
	layer->unit = v->block;
	layer->variant = variants[v->type];
	layer->standalone = is_plain(layer, v, p);
	layer->state = steal_ptr(v);
	return 0;
}

/* ---- the parent ---- */

static enum parent_match vdi_is_parent(const struct layer *layer, const struct probe *probe)
{
	const struct vdi *v = layer->state;

	if (probe->head_length < VDI_HEADER || vdi_probe(probe) == 0 ||
		get_le32(probe->head + VDI_VERSION) != VERSION ||
		!uuid_equal(probe->head + VDI_ID, v->parent_id))
		return PARENT_NOT;
	if (uuid_is_nil(v->parent_state) || uuid_equal(probe->head + VDI_STATE, v->parent_state))
		return PARENT_YES;
	return PARENT_CHANGED;
}

/* A child holds what differs from one certain state of its parent. */
static int vdi_accept_parent(const struct layer *layer, const struct layer *parent, struct why *why)
{
	const struct vdi *child = layer->state;
	const struct vdi *v = parent->state;

	if (!uuid_equal(child->parent_id, v->id))
		return why_set(why, -EINVAL, "its parent is another disk: its UUID is %s, not %s",
			uuid_text_le(v->id).text, uuid_text_le(child->parent_id).text);
	if (!uuid_is_nil(child->parent_state) && !uuid_equal(child->parent_state, v->state))
		return why_set(why, -EINVAL,
			"its parent has been modified since: the UUID of its state is %s, not %s",
			uuid_text_le(v->state).text, uuid_text_le(child->parent_state).text);
	return 0;
}

/* ---- map ---- */

static enum extent_kind kind_of(const struct vdi *v, uint32_t entry)
{
	if (entry == MAP_FREE)
		return v->type == TYPE_DIFFERENCING ? EXTENT_BACKING : EXTENT_ZERO;
	return entry == MAP_ZERO ? EXTENT_ZERO : EXTENT_DATA;
}

/* How many entries, from the first of the view on, continue what that one says. */
static uint64_t count_entries(
	const struct vdi *v, const struct table_view *t, uint64_t most, enum map_detail detail)
{
	uint32_t first = get_le32(t->bytes);
	enum extent_kind kind = kind_of(v, first);
	uint64_t i = 1;

	most = min_u64(most, t->length / 4);
	for (; i < most; i++) {
		uint32_t entry = get_le32(t->bytes + i * 4);

		if (kind_of(v, entry) != kind)
			break;
		if (kind == EXTENT_DATA && detail == MAP_PLACE &&
			(v->extra != 0 || entry != first + i))
			break;
	}
	return i;
}

static int vdi_map(const struct layer *layer, uint64_t offset, uint64_t length,
	enum map_detail detail, struct extent *e)
{
	const struct vdi *v = layer->state;
	uint64_t index = offset / v->block;
	uint64_t most = v->blocks - index;
	struct table_view t;
	uint32_t entry;
	uint64_t run;
	int r = table_get(layer, layer->file, v->map + index * 4, 4, &t);

	if (r < 0)
		return r;
	if (detail == MAP_PLACE)
		most = min_u64(most, div_ceil(offset % v->block + length, v->block));
	entry = get_le32(t.bytes);
	run = count_entries(v, &t, most, detail);
	table_done(layer, &t, detail);
	*e = (struct extent) {
		.start = index * v->block,
		.end = min_u64((index + run) * v->block, layer->size),
		.kind = kind_of(v, entry),
	};
	if (e->kind != EXTENT_DATA)
		return 0;
	e->file = layer->file;
	e->offset = v->data + entry * (v->block + v->extra) + v->extra;
	if (detail == MAP_PLACE)
		extent_cut(e, offset, layer->file->size);
	return 0;
}

static void vdi_close(struct layer *layer)
{
	free(layer->state);
	layer->state = NULL;
}

static const char *const vdi_suffixes[] = { "vdi", NULL };

const struct image_format image_format_vdi = {
	.name = "vdi",
	.suffixes = vdi_suffixes,
	.probe = vdi_probe,
	.open = vdi_open,
	.map = vdi_map,
	.close = vdi_close,
	.is_parent = vdi_is_parent,
	.accept_parent = vdi_accept_parent,
};
