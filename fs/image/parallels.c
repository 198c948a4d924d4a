/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parallels' expandable disks (.hdd, .hds; ploop of OpenVZ) as a source. Follows
 * docs/interop/parallels.txt of QEMU. Header, little-endian ("Header"):
 *
 *   OFFSET SIZE
 *        0   16  magic "WithoutFreeSpace", or "WithouFreSpacExt"
 *       16    4  version, 2
 *       20    4  heads
 *       24    4  cylinders
 *       28    4  sectors of a cluster; 63 and 504 were usual once
 *       32    4  entries of the BAT
 *       36    8  virtual size in sectors; 4 bytes count with the first magic
 *       44    4  who has it open: 0x746f6e59 somebody, 0x312e3276 nobody, 0 is not said
 *       48    4  data: first sector; 0, with the first magic: right after the BAT
 *       52    4  flags: 1 nothing was ever written
 *       56    8  format extension: its sector; dirty bitmaps, which readers do not need
 *       64       BAT
 *
 * An entry of the BAT is the place of a cluster in the file, in sectors with the first magic and
 * in clusters with the second. 0: it is not there, and zeros.
 *
 * An image that somebody has open, or has not closed, is read as it is, which is what QEMU does:
 * nothing that a reader needs is ever in another place than the BAT. The flag is not looked at,
 * since QEMU does not take it away when it writes.
 *
 * What lies below a snapshot is only in the DiskDescriptor.xml beside it, and its own file looks
 * like a whole disk. By its name it can be told: the file of the disk that has no parent is called
 * NAME.hdd.0.{5fbaabe3-6958-40ff-92a7-860e329aab41}.hds, those of snapshots have other GUIDs.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cut.h"
#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/image.h"
#include "imgfs/names.h"
#include "imgfs/wire.h"

#define PRL_VERSION    16
#define PRL_CLUSTER    28
#define PRL_ENTRIES    32
#define PRL_SECTORS    36
#define PRL_IN_USE     44
#define PRL_DATA       48
#define PRL_HEADER     64 /* bytes; the BAT follows */

#define MAGIC_BYTES    16
#define MAGIC_SECTORS  "WithoutFreeSpace"
#define MAGIC_CLUSTERS "WithouFreSpacExt"
#define VERSION        2u
#define IN_USE         0x746f6e59u
#define SECTOR         512u

/* QEMU's limit. With it the place of an entry is below 2^63. */
#define CLUSTER_MAX_SECTORS (INT32_MAX / 513)

struct parallels {
	uint64_t cluster; /* bytes */
	uint64_t step;    /* bytes that an entry counts in */
	uint64_t blocks;  /* clusters of the disk */
	uint64_t data;    /* no cluster lies before */
	bool aligned;     /* and they are whole clusters apart from there */
};

static bool has_magic(const uint8_t *p, const char *magic)
{
	return memcmp(p, magic, MAGIC_BYTES) == 0;
}

static int parallels_probe(const struct probe *probe)
{
	if (probe->head_length < PRL_HEADER)
		return 0;
	return has_magic(probe->head, MAGIC_SECTORS) || has_magic(probe->head, MAGIC_CLUSTERS) ? 100
											       : 0;
}

/* ---- open ---- */

static int check_header(const uint8_t *p, struct why *why)
{
	uint32_t version = get_le32(p + PRL_VERSION);
	uint32_t cluster = get_le32(p + PRL_CLUSTER);

	if (!has_magic(p, MAGIC_SECTORS) && !has_magic(p, MAGIC_CLUSTERS))
		return why_set(why, -EINVAL, "it does not begin like a Parallels disk");
	if (version != VERSION)
		return why_set(why, -ENOTSUP, "its version %u is not known", version);
	if (cluster == 0 || cluster > CLUSTER_MAX_SECTORS)
		return why_set(why, -EINVAL, "its clusters have %u sectors", cluster);
	return 0;
}

/* Where the data begins. Disks from before there was the field have clusters anywhere. */
static int set_data(struct parallels *d, const uint8_t *p, uint64_t bat_end, struct why *why)
{
	d->data = (uint64_t)get_le32(p + PRL_DATA) * SECTOR;
	d->aligned = d->data != 0;
	if (!d->aligned)
		d->data = bat_end;
	if (d->data < bat_end)
		return why_set(why, -EINVAL, "its data begins inside its table");
	if (d->aligned && d->data % d->step != 0)
		return why_set(why, -EINVAL, "its data does not begin with a cluster");
	return 0;
}

static int parse_header(struct layer *layer, struct parallels *d, const uint8_t *p, struct why *why)
{
	uint64_t sectors = get_le64(p + PRL_SECTORS);
	uint64_t entries = get_le32(p + PRL_ENTRIES);
	uint64_t bat_end = PRL_HEADER + entries * 4;

	d->cluster = (uint64_t)get_le32(p + PRL_CLUSTER) * SECTOR;
	d->step = d->cluster;
	if (has_magic(p, MAGIC_SECTORS)) {
		sectors = (uint32_t)sectors;
		d->step = SECTOR;
	}
	if (sectors > INT64_MAX / SECTOR)
		return why_set(why, -EINVAL, "its virtual size is beyond 2^63");
	layer->size = sectors * SECTOR;
	d->blocks = div_ceil(layer->size, d->cluster);
	if (d->blocks > entries)
		return why_set(why, -EINVAL, "its table is too small for its size");
	if (bat_end > layer->file->size)
		return why_set(why, -EINVAL, "its table is not inside the file");
	return set_data(d, p, bat_end, why);
}

#define ROOT_GUID "{5fbaabe3-6958-40ff-92a7-860e329aab41}.hds"

/* A snapshot alone would have zeros where its parent has data. */
static int check_name(const struct layer *layer, struct why *why)
{
	const char *name = path_name(layer->file->path);
	size_t length = strlen(name), guid = strlen(ROOT_GUID);

	if (length < guid || name[length - guid] != '{' ||
		strcasecmp(name + length - strlen("}.hds"), "}.hds") != 0)
		return 0;
	if (strcasecmp(name + length - guid, ROOT_GUID) == 0)
		return 0;
	return why_set(why, -ENOTSUP,
		"by its name it is a snapshot, and its parent is not recorded in it");
}

static int parallels_open(struct layer *layer, struct why *why)
{
	autofree struct parallels *d = calloc(1, sizeof(*d));
	uint8_t p[PRL_HEADER];
	int r;

	if (!d)
		return why_set(why, -ENOMEM, "out of memory");
	r = file_read(layer->file, p, sizeof(p), 0);
	if (r == -ERANGE)
		return why_set(why, -EINVAL, "its header is cut short");
	if (r < 0)
		return why_set(why, r, "its header cannot be read");
	r = check_name(layer, why);
	if (r == 0)
		r = check_header(p, why);
	if (r == 0)
		r = parse_header(layer, d, p, why);
	if (r < 0)
		return r;
	/* QEMU would not open a copy for writing. */
	layer->standalone = get_le32(p + PRL_IN_USE) != IN_USE;
	layer->unit = d->cluster;
	layer->state = steal_ptr(d);
	return 0;
}

static void parallels_close(struct layer *layer)
{
	free(layer->state);
	layer->state = NULL;
}

/* ---- map ---- */

static enum extent_kind kind_of(const struct layer *layer, uint32_t entry, enum map_detail detail)
{
	const struct parallels *d = layer->state;
	uint64_t offset = entry * d->step;

	if (entry == 0)
		return EXTENT_ZERO;
	if (detail == MAP_KIND)
		return EXTENT_DATA;
	if (offset < d->data || offset >= layer->file->size ||
		(d->aligned && (offset - d->data) % d->cluster != 0))
		return EXTENT_DAMAGED;
	return EXTENT_DATA;
}

/* How many entries, from the first of the view on, continue what that one says. */
static uint64_t count_entries(const struct layer *layer, const struct table_view *t, uint64_t most,
	enum map_detail detail)
{
	const struct parallels *d = layer->state;
	uint32_t first = get_le32(t->bytes);
	enum extent_kind kind = kind_of(layer, first, detail);
	uint64_t i = 1;

	most = min_u64(most, t->length / 4);
	for (; i < most; i++) {
		uint32_t entry = get_le32(t->bytes + i * 4);

		if (kind_of(layer, entry, detail) != kind)
			break;
		if (kind == EXTENT_DATA && detail == MAP_PLACE &&
			entry * d->step != first * d->step + i * d->cluster)
			break;
	}
	return i;
}

static int parallels_map(const struct layer *layer, uint64_t offset, uint64_t length,
	enum map_detail detail, struct extent *e)
{
	const struct parallels *d = layer->state;
	uint64_t index = offset / d->cluster;
	uint64_t most = d->blocks - index;
	struct table_view t;
	uint32_t entry;
	uint64_t run;
	int r = table_get(layer, layer->file, PRL_HEADER + index * 4, 4, &t);

	if (r < 0)
		return r;
	if (detail == MAP_PLACE)
		most = min_u64(most, div_ceil(offset % d->cluster + length, d->cluster));
	entry = get_le32(t.bytes);
	run = count_entries(layer, &t, most, detail);
	table_done(layer, &t, detail);
	*e = (struct extent) {
		.start = index * d->cluster,
		.end = min_u64((index + run) * d->cluster, layer->size),
		.kind = kind_of(layer, entry, detail),
	};
	if (e->kind != EXTENT_DATA)
		return 0;
	e->file = layer->file;
	e->offset = entry * d->step;
	if (detail == MAP_PLACE)
		extent_cut(e, offset, layer->file->size);
	return 0;
}

static const char *const parallels_suffixes[] = { "hdd", "hds", NULL };

const struct image_format image_format_parallels = {
	.name = "parallels",
	.suffixes = parallels_suffixes,
	.probe = parallels_probe,
	.open = parallels_open,
	.map = parallels_map,
	.close = parallels_close,
};
