/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VHD, as a source: fixed, dynamic and differencing disks. Follows Microsoft's "Virtual Hard Disk
 * Image Format Specification", version 1.0 of 2006. All numbers are big-endian.
 *
 * Footer, the last 512 bytes of the file ("Hard Disk Footer Format"); all but fixed disks have a
 * copy of it at the start:
 *
 *   OFFSET SIZE
 *        0    8  "conectix"
 *       12    4  version, 1 in the upper half
 *       16    8  where the header is (below); all ones in a fixed disk
 *       28    4  creator
 *       48    8  current size in bytes
 *       56    4  geometry: cylinders (2), heads, sectors per track
 *       60    4  type: 2 fixed, 3 dynamic, 4 differencing
 *       64    4  checksum: the complement of the sum of all other bytes
 *       68   16  unique id
 *
 * Header of 1024 bytes ("Dynamic Disk Header Format"):
 *
 *        0    8  "cxsparse"
 *       16    8  block allocation table: offset in the file
 *       24    4  version, 1 in the upper half
 *       28    4  block allocation table: entries
 *       32    4  bytes of a block, 2 MiB
 *       36    4  checksum
 *       40   16  unique id of the parent
 *       64  512  name of the parent, UTF-16
 *      576  192  8 locators of the parent: platform, -, bytes, -, offset (8)
 *
 * Entry b of the table is the sector where block b is, all ones where it is not there. A block is
 * preceded by a bitmap of its sectors, the first one in the highest bit, padded to whole sectors. A
 * sector whose bit is clear was never written: it is the parent's, or zeros. VirtualBox reads it
 * like that; QEMU ignores bitmaps, and 7-Zip takes a clear bit for an error. What is allocated are
 * the blocks: for the map of kinds no bitmap is read, since each is in a page of its own.
 *
 * How large is the disk? QEMU takes the product of the geometry, which the specification rounds
 * down, unless the creator is known to mean the current size. Virtual PC, whose habit that is,
 * records a current size that is larger by less than a cylinder, of sectors that its guest could
 * not see and that are zeros; Hyper-V, VirtualBox ("vbox") and libvhdi mean and use the current
 * size, and QEMU's own "qemu" makes both equal. So the current size never loses what a guest has
 * written and the product would, of every disk of VirtualBox's. The current size it is; a disk
 * for which QEMU would show another one is not served as it is.
 *
 * Likewise readers take the footer from either end. The last one counts, and its copy where the
 * last one is damaged; but then only of a dynamic disk, since what a fixed one begins with is its
 * guest's, and must not name files.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cut.h"
#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/image.h"
#include "imgfs/log.h"
#include "imgfs/utf16.h"
#include "imgfs/uuid.h"
#include "imgfs/vhd.h"
#include "imgfs/wire.h"

#define SECTOR         512u

#define PARENT_NAME    512u
#define LOCATORS       8
#define LOCATOR        24
#define LOCATOR_LENGTH 8
#define LOCATOR_OFFSET 16

#define PLATFORM_W2RU  0x57327275u /* "W2ru": relative, UTF-16 little-endian */
#define PLATFORM_MACX  0x4d616358u /* "MacX": a file: URL, UTF-8 */
#define LOCATOR_MAX    4096u       /* bytes; names have 1023 characters at most */

#define BLOCK_MAX      (1u << 31)

#define GEOMETRY_MAX   (65535ull * 16 * 255) /* sectors; larger disks have no geometry */

struct vhd {
	uint8_t id[UUID_BYTES], parent_id[UUID_BYTES];
	bool differencing;
	uint64_t data_end; /* of the file: the footer, or the end where it is missing */
	uint64_t block;    /* guest bytes; 0: a fixed disk, and nothing below counts */
	uint64_t bitmap;   /* bytes before a block */
	uint64_t header;   /* offset of the header */
	uint64_t table;    /* offset of the block allocation table */
	uint64_t entries;  /* of it that the disk needs */
};

static int vhd_probe(const struct probe *probe)
{
	if (probe->head_length >= 8 && memcmp(probe->head, "conectix", 8) == 0)
		return 100;
	return probe->tail && memcmp(probe->tail, "conectix", 8) == 0 ? 100 : 0;
}

/* ---- footers ---- */

static int check_footer(const uint8_t *p, struct why *why)
{
	if (memcmp(p, "conectix", 8) != 0)
		return why_set(why, -EINVAL, "it does not end with a footer: it may be cut short");
	if (get_be32(p + VHD_FOOTER_CHECKSUM) != vhd_checksum(p, VHD_FOOTER, VHD_FOOTER_CHECKSUM))
		return why_set(why, -EINVAL, "its footer is damaged: the checksum is wrong");
	return 0;
}

struct footers {
	uint8_t last[VHD_FOOTER];  /* the one that counts */
	uint8_t first[VHD_FOOTER]; /* what is at the start of the file */
	bool at_end;               /* false: the copy counts */
};

static int use_copy(const struct layer *layer, struct footers *f, int r, struct why *why)
{
	if (check_footer(f->first, NULL) < 0)
		return r;
	if (get_be32(f->first + VHD_FOOTER_TYPE) != VHD_TYPE_DYNAMIC) {
		why_prefix(why, "only its beginning says what it is");
		return r;
	}
	log_warning("%s: its footer is damaged or missing; the copy at its start counts",
		quote(layer->file->path).text);
	memcpy(f->last, f->first, VHD_FOOTER);
	f->at_end = false;
	return 0;
}

static int read_footers(const struct layer *layer, struct footers *f, struct why *why)
{
	uint64_t size = layer->file->size;
	int r;

	if (size < VHD_FOOTER)
		return why_set(why, -EINVAL, "it is too short for a footer");
	r = file_read(layer->file, f->last, VHD_FOOTER, size - VHD_FOOTER);
	if (r == 0)
		r = file_read(layer->file, f->first, VHD_FOOTER, 0);
	if (r < 0)
		return why_set(why, r, "its footer cannot be read");
	f->at_end = true;
	r = check_footer(f->last, why);
	return r < 0 ? use_copy(layer, f, r, why) : 0;
}

/* Does QEMU see a disk of this size? */
static bool size_is_plain(const uint8_t *p)
{
	static const char creators[][5] = { "win ", "qem2", "d2v ", "CTXS", "tap" };
	uint64_t sectors = (uint64_t)get_be16(p + VHD_FOOTER_CYLINDERS) * p[VHD_FOOTER_HEADS] *
			   p[VHD_FOOTER_TRACK];

	for (size_t i = 0; i < sizeof(creators) / sizeof(creators[0]); i++) {
		if (memcmp(p + VHD_FOOTER_CREATOR, creators[i], 4) == 0)
			return get_be64(p + VHD_FOOTER_SIZE) % SECTOR == 0;
	}
	if (sectors == GEOMETRY_MAX)
		return get_be64(p + VHD_FOOTER_SIZE) % SECTOR == 0;
	return sectors * SECTOR == get_be64(p + VHD_FOOTER_SIZE);
}

/* ---- the parent ---- */

static void use_slashes(char *name)
{
	for (; *name; name++) {
		if (*name == '\\')
			*name = '/';
	}
}

/* "file://./parent.vhd", as Xen writes it. The name alone, or -EINVAL for any other URL. */
static int name_of_url(const uint8_t *text, size_t length, char **name)
{
	static const char start[] = "file://./";
	size_t skip = sizeof(start) - 1;

	if (length <= skip || memcmp(text, start, skip) != 0)
		return -EINVAL;
	*name = strndup((const char *)text + skip, length - skip);
	return *name ? 0 : -ENOMEM;
}

/*
 * The name that the locators of this platform give, in *name; NULL where there is none to be had:
 * what is not a name is passed over, but not what cannot be read.
 */
static int read_locator(const struct layer *layer, const uint8_t *header, uint32_t platform,
	char **name, struct why *why)
{
	uint8_t text[LOCATOR_MAX];

	for (int i = 0; i < LOCATORS; i++) {
		const uint8_t *p = header + VHD_HEADER_LOCATORS + i * LOCATOR;
		uint32_t length = get_be32(p + LOCATOR_LENGTH);
		int r;

		if (get_be32(p) != platform || length == 0 || length > sizeof(text))
			continue;
		r = file_read(layer->file, text, length, get_be64(p + LOCATOR_OFFSET));
		if (r == 0 && platform == PLATFORM_MACX)
			r = name_of_url(text, length, name);
		else if (r == 0)
			r = utf16_decode(text, length, false, name);
		if (r < 0 && r != -ERANGE && r != -EINVAL)
			return why_set(why, r, "the name of its parent cannot be read");
		if (*name && **name)
			return 0;
		free(*name);
		*name = NULL;
	}
	return 0;
}

/* The last component of what the header calls the parent, which may be a path of another host. */
static int plain_name(const uint8_t *header, char **name, struct why *why)
{
	autofree char *path = NULL;
	const char *slash;
	int r = utf16_decode(header + VHD_HEADER_PARENT_NAME, PARENT_NAME, true, &path);

	if (r == -EINVAL)
		return 0;
	if (r == 0) {
		use_slashes(path);
		slash = strrchr(path, '/');
		*name = strdup(slash ? slash + 1 : path);
	}
	return *name ? 0 : why_set(why, -ENOMEM, "out of memory");
}

/*
 * A parent is named relative to its child, or absolute as some host had it. Only the former means
 * anything here; without one, a file of the recorded name beside the child is meant.
 */
static int find_name(const struct layer *layer, const uint8_t *header, char **name, struct why *why)
{
	int r = read_locator(layer, header, PLATFORM_W2RU, name, why);

	if (r == 0 && *name)
		use_slashes(*name);
	if (r == 0 && !*name)
		r = read_locator(layer, header, PLATFORM_MACX, name, why);
	if (r == 0 && !*name)
		r = plain_name(header, name, why);
	if (r == 0 && (!*name || !**name))
		r = why_set(why, -EINVAL, "it has a parent, but does not name it");
	return r;
}

static int set_parent(struct layer *layer, const uint8_t *header, struct why *why)
{
	autofree char *name = NULL;
	int r = find_name(layer, header, &name, why);

	return r < 0 ? r : layer_set_parent(layer, name, strlen(name), "vhd", why);
}

/* A child holds what differs from one certain disk. */
static int vhd_accept_parent(const struct layer *layer, const struct layer *parent, struct why *why)
{
	const struct vhd *child = layer->state;
	const struct vhd *v = parent->state;

	if (!uuid_equal(child->parent_id, v->id))
		return why_set(why, -EINVAL,
			"its parent is another disk than it was: the id is %s, not %s",
			uuid_text(v->id).text, uuid_text(child->parent_id).text);
	return 0;
}

/* ---- open ---- */

static int read_header(const struct layer *layer, uint64_t offset, uint8_t *p, struct why *why)
{
	int r = file_read(layer->file, p, VHD_HEADER, offset);

	if (r == -ERANGE)
		return why_set(why, -EINVAL, "its header is not inside the file");
	if (r < 0)
		return why_set(why, r, "its header cannot be read");
	if (memcmp(p, "cxsparse", 8) != 0)
		return why_set(why, -EINVAL, "its header is not where its footer says");
	if (get_be32(p + VHD_HEADER_CHECKSUM) != vhd_checksum(p, VHD_HEADER, VHD_HEADER_CHECKSUM))
		return why_set(why, -EINVAL, "its header is damaged: the checksum is wrong");
	if (get_be32(p + VHD_HEADER_VERSION) >> 16 != 1)
		return why_set(why, -ENOTSUP, "its header has the unknown version 0x%x",
			get_be32(p + VHD_HEADER_VERSION));
	return 0;
}

static bool overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
	return a < b + b_length && b < a + a_length;
}

static int set_blocks(struct layer *layer, struct vhd *v, const uint8_t *header, struct why *why)
{
	uint64_t sectors;

	v->block = get_be32(header + VHD_HEADER_BLOCK);
	v->table = get_be64(header + VHD_HEADER_TABLE);
	if (!is_power_of_two(v->block) || v->block < SECTOR || v->block > BLOCK_MAX)
		return why_set(
			why, -EINVAL, "its blocks have %llu bytes", (unsigned long long)v->block);
	sectors = v->block / SECTOR;
	v->bitmap = round_up(div_ceil(sectors, 8), SECTOR);
	v->entries = div_ceil(layer->size, v->block);
	if (v->entries > get_be32(header + VHD_HEADER_ENTRIES))
		return why_set(
			why, -EINVAL, "its block allocation table is too short for its size");
	if (v->table % 4 != 0 || !range_ok(v->table, v->entries * 4, v->data_end))
		return why_set(why, -EINVAL, "its block allocation table is not inside the file");
	if (overlap(v->table, v->entries * 4, 0, VHD_FOOTER) ||
		overlap(v->table, v->entries * 4, v->header, VHD_HEADER))
		return why_set(why, -EINVAL, "its block allocation table lies onto its header");
	layer->unit = v->block;
	return 0;
}

static int open_blocks(struct layer *layer, struct vhd *v, const struct footers *f, struct why *why)
{
	uint8_t header[VHD_HEADER];
	int r;

	v->header = get_be64(f->last + VHD_FOOTER_HEADER);
	r = read_header(layer, v->header, header, why);
	if (r == 0)
		r = set_blocks(layer, v, header, why);
	if (r < 0)
		return r;
	layer->standalone = !v->differencing && f->at_end && size_is_plain(f->last) &&
			    memcmp(f->first, f->last, VHD_FOOTER) == 0;
	layer->variant = v->differencing ? "differencing" : "dynamic";
	if (!v->differencing)
		return 0;
	memcpy(v->parent_id, header + VHD_HEADER_PARENT_ID, UUID_BYTES);
	return set_parent(layer, header, why);
}

static int open_fixed(
	struct layer *layer, const struct vhd *v, const struct footers *f, struct why *why)
{
	if (layer->size > v->data_end)
		return why_set(why, -EINVAL,
			"it should have %llu bytes before its footer, and has %llu",
			(unsigned long long)layer->size, (unsigned long long)v->data_end);
	/* A guest can write what looks like the first footer of a dynamic disk. */
	layer->standalone = layer->size == v->data_end && size_is_plain(f->last) &&
			    memcmp(f->first, "conectix", 8) != 0;
	layer->variant = "fixed";
	return 0;
}

static int vhd_open(struct layer *layer, struct why *why)
{
	autofree struct vhd *v = calloc(1, sizeof(*v));
	struct footers f;
	uint32_t type, version;
	int r;

	if (!v)
		return why_set(why, -ENOMEM, "out of memory");
	r = read_footers(layer, &f, why);
	if (r < 0)
		return r;
	version = get_be32(f.last + VHD_FOOTER_VERSION);
	type = get_be32(f.last + VHD_FOOTER_TYPE);
	if (version >> 16 != 1)
		return why_set(why, -ENOTSUP, "its version 0x%x is not known", version);
	if (type < VHD_TYPE_FIXED || type > VHD_TYPE_DIFFERENCING)
		return why_set(why, -ENOTSUP, "disks of type %u are not known", type);
	layer->size = get_be64(f.last + VHD_FOOTER_SIZE);
	memcpy(v->id, f.last + VHD_FOOTER_ID, UUID_BYTES);
	v->differencing = type == VHD_TYPE_DIFFERENCING;
	v->data_end = layer->file->size - (f.at_end ? VHD_FOOTER : 0);
	if (type == VHD_TYPE_FIXED)
		r = open_fixed(layer, v, &f, why);
	else
		r = open_blocks(layer, v, &f, why);
	if (r == 0)
		layer->state = steal_ptr(v);
	return r;
}

/* ---- map ---- */

static int map_fixed(
	const struct layer *layer, uint64_t offset, enum map_detail detail, struct extent *e)
{
	uint64_t start, end;
	int r;

	*e = (struct extent) {
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
	if (start > offset)
		e->kind = EXTENT_ZERO;
	e->end = min_u64(start > offset ? start : end, layer->size);
	return 0;
}

/* Can a block be there? Entries have 32 bits, so the sums are far from an overflow. */
static bool place_ok(const struct vhd *v, uint64_t place)
{
	uint64_t length = v->bitmap + v->block;

	return range_ok(place, v->bitmap, v->data_end) && !overlap(place, length, 0, VHD_FOOTER) &&
	       !overlap(place, length, v->header, VHD_HEADER) &&
	       !overlap(place, length, v->table, v->entries * 4);
}

/*
 * The end of the run of equal bits that starts at bit `first`, up to bit `end`. Bit 0 is the
 * highest of the first byte.
 */
static uint64_t bit_run(const uint8_t *bytes, uint64_t first, uint64_t end)
{
	uint8_t whole = bytes[first / 8] & (0x80 >> first % 8) ? 0xff : 0;
	uint64_t i = first;

	while (i < end) {
		if (i % 8 == 0 && bytes[i / 8] == whole)
			i += 8;
		else if ((bytes[i / 8] ^ whole) & (0x80 >> i % 8))
			return i;
		else
			i++;
	}
	return end;
}

/* In a block that is there: the run of sectors that are written, or not. */
static int map_block(const struct layer *layer, uint64_t place, uint64_t offset, struct extent *e)
{
	const struct vhd *v = layer->state;
	uint64_t base = offset - offset % v->block;
	uint64_t sector = offset % v->block / SECTOR;
	uint64_t byte = sector / 8;
	struct table_view t;
	uint64_t run;
	bool written;
	int r = table_get(layer, layer->file, place + byte, 1, &t);

	if (r < 0)
		return r;
	written = t.bytes[0] & (0x80 >> sector % 8);
	run = byte * 8 +
	      bit_run(t.bytes, sector % 8, min_u64(t.length * 8, v->block / SECTOR - byte * 8));
	table_put(layer, &t);
	*e = (struct extent) {
		.start = base + sector * SECTOR,
		.end = min_u64(base + run * SECTOR, layer->size),
		.kind = v->differencing ? EXTENT_BACKING : EXTENT_ZERO,
	};
	if (written) {
		e->kind = EXTENT_DATA;
		e->file = layer->file;
		e->offset = place + v->bitmap + sector * SECTOR;
		extent_cut(e, offset, v->data_end);
	}
	return 0;
}

/* How many entries, from the first of the view on, are there, or are not, as the first. */
static uint64_t count_entries(const struct table_view *t, uint64_t most)
{
	bool absent = get_be32(t->bytes) == VHD_ABSENT;
	uint64_t i = 1;

	most = min_u64(most, t->length / 4);
	while (i < most && (get_be32(t->bytes + i * 4) == VHD_ABSENT) == absent)
		i++;
	return i;
}

static int map_blocks(
	const struct layer *layer, uint64_t offset, enum map_detail detail, struct extent *e)
{
	const struct vhd *v = layer->state;
	uint64_t index = offset / v->block;
	uint64_t place, run = 1;
	struct table_view t;
	uint32_t entry;
	bool whole;
	int r = table_get(layer, layer->file, v->table + index * 4, 4, &t);

	if (r < 0)
		return r;
	entry = get_be32(t.bytes);
	whole = entry == VHD_ABSENT || detail == MAP_KIND;
	if (whole)
		run = count_entries(&t, v->entries - index);
	table_done(layer, &t, detail);
	place = (uint64_t)entry * SECTOR;
	if (!whole && place_ok(v, place))
		return map_block(layer, place, offset, e);
	*e = (struct extent) {
		.start = index * v->block,
		.end = min_u64((index + run) * v->block, layer->size),
		.kind = EXTENT_DAMAGED,
	};
	if (whole && entry != VHD_ABSENT)
		e->kind = EXTENT_DATA;
	else if (whole)
		e->kind = v->differencing ? EXTENT_BACKING : EXTENT_ZERO;
	return 0;
}

static int vhd_map(const struct layer *layer, uint64_t offset, uint64_t length,
	enum map_detail detail, struct extent *e)
{
	const struct vhd *v = layer->state;

	(void)length;
	if (v->block == 0)
		return map_fixed(layer, offset, detail, e);
	return map_blocks(layer, offset, detail, e);
}

static void vhd_close(struct layer *layer)
{
	free(layer->state);
	layer->state = NULL;
}

static const char *const vhd_suffixes[] = { "vhd", "vpc", NULL };

const struct image_format image_format_vhd = {
	.name = "vhd",
	.alias = "vpc",
	.suffixes = vhd_suffixes,
	.probe = vhd_probe,
	.open = vhd_open,
	.map = vhd_map,
	.close = vhd_close,
	.accept_parent = vhd_accept_parent,
};
