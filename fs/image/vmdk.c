/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMDK, as a source. A disk is a list of extents, and a descriptor (a text) says which.
 *
 *	file begins with          is
 *	"KDMV"                    a hosted sparse extent with its descriptor inside: the whole disk;
 *	                          with capacity 0, only the container of a descriptor
 *	"COWD", 0xcafebabe        an extent of a snapshot, no disk without its descriptor
 *	text                      a descriptor; the extents are other files
 *
 * Follows VMware's "Virtual Disk Format 1.1". What the parts look like is in vmdk/: descriptor.c
 * (the text), hosted.c, cowd.c, sesparse.c, flat.c (the files), tables.c (what is common to the
 * sparse ones). Here they become a disk, and a disk finds its parent.
 *
 * All extents keep their place, those too that other readers drop: ZERO reads as zeros, RDONLY as
 * its file, and NOACCESS as zeros, for its bytes are withheld on purpose. A file that is an extent
 * is bytes: if it looks like a descriptor, that means nothing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/image.h"
#include "imgfs/log.h"
#include "imgfs/wire.h"
#include "vmdk/descriptor.h"
#include "vmdk/extent.h"

struct vmdk {
	bool has_cid;
	uint32_t cid, parent_cid;
	size_t extent_count;
	struct vmdk_extent extents[]; /* in the order of the disk, without gaps */
};

/* ---- probe ---- */

static int vmdk_probe(const struct probe *probe)
{
	if (probe->head_length >= 8) {
		uint32_t magic = get_le32(probe->head);

		if (magic == VMDK_HOSTED_MAGIC || magic == VMDK_UNFINISHED_MAGIC)
			return 100;
		/* A version below 256 tells it from a text that begins with a cow. */
		if (magic == VMDK_COWD_MAGIC && get_le32(probe->head + 4) < 256)
			return 100;
		if (get_le64(probe->head) == VMDK_SESPARSE_MAGIC)
			return 100;
	}
	return vmdk_descriptor_probe(probe->head, probe->head_length) ? 100 : 0;
}

/* ---- reading the descriptor ---- */

/* Holds the text that the slices of the descriptor point into. */
struct description {
	uint8_t *text;
	size_t length;
	struct vmdk_descriptor d;
};

static void description_free(struct description *description)
{
	vmdk_descriptor_free(&description->d);
	free(description->text);
}

static int read_description(const struct file *file, uint64_t offset, uint64_t length,
	struct description *description, struct why *why)
{
	int r;

	if (length > VMDK_DESCRIPTOR_MAX)
		return why_set(why, -EINVAL, "its descriptor is larger than %u KiB",
			VMDK_DESCRIPTOR_MAX >> 10);
	if (!range_ok(offset, length, file->size))
		return why_set(why, -EINVAL, "its descriptor is not inside the file");
	description->text = malloc(length + 1);
	if (!description->text)
		return why_set(why, -ENOMEM, "out of memory");
	r = file_read(file, description->text, length, offset);
	if (r < 0)
		return why_set(why, r, "its descriptor cannot be read");
	description->length = length;
	r = vmdk_descriptor_parse(description->text, length, &description->d, why);
	if (r < 0)
		why_prefix(why, "its descriptor");
	return r;
}

/* The descriptor inside a hosted sparse extent. */
static int read_embedded(const struct file *file, const struct vmdk_hosted_header *h,
	struct description *description, struct why *why)
{
	uint64_t offset, length;
	int r;

	if (!checked_mul(h->descriptor_offset, VMDK_SECTOR, &offset) ||
		!checked_mul(h->descriptor_size, VMDK_SECTOR, &length))
		return why_set(why, -EINVAL, "its descriptor is not inside the file");
	if (offset > 0 && length > 0) {
		r = read_description(file, offset, length, description, why);
		if (r < 0 || description->text[0] != '\0')
			return r;
	}
	return why_set(why, -ENOTSUP,
		"it is an extent of a split disk, without the descriptor of the disk");
}

/* What holds for a descriptor wherever it is. */
static int check_descriptor(const struct vmdk_descriptor *d, struct why *why)
{
	bool hint = d->parent_hint.length > 0;

	if (d->encrypted)
		return why_set(why, -ENOTSUP, "it is encrypted");
	if (d->parent_cid != VMDK_NO_PARENT && !hint)
		return why_set(why, -EINVAL, "it has a parent, but does not name it");
	if (d->parent_cid == VMDK_NO_PARENT && hint)
		return why_set(
			why, -EINVAL, "it names a parent, but its parentCID says that it has none");
	return 0;
}

/* ---- extents ---- */

/* Of a line whose extent has a file. NULL: no file of the datastore. */
static const struct vmdk_extent_kind *kind_of_file(enum vmdk_extent_type type)
{
	switch (type) {
	case VMDK_FLAT:
	case VMDK_VMFS:
		return &vmdk_flat;
	case VMDK_SPARSE:
		return &vmdk_hosted;
	case VMDK_VMFSSPARSE:
		return &vmdk_cowd;
	case VMDK_SESPARSE:
		return &vmdk_sesparse;
	default:
		return NULL;
	}
}

static bool starts_with(struct vmdk_slice s, const char *prefix)
{
	size_t length = strlen(prefix);

	return s.length >= length && memcmp(s.bytes, prefix, length) == 0;
}

/* The gate would refuse these names too, but not say why they can never work. */
static bool names_device(struct vmdk_slice name)
{
	return starts_with(name, "/dev/") || starts_with(name, "\\\\.\\");
}

/* A device in any extent spoils the disk, so nothing is opened before all lines are seen. */
static int check_lines(const struct vmdk_descriptor *d, struct why *why)
{
	if (d->extent_count == 0)
		return why_set(why, -EINVAL, "its descriptor has no extents");
	for (size_t i = 0; i < d->extent_count; i++) {
		const struct vmdk_extent_line *line = &d->extents[i];

		if (line->access == VMDK_NOACCESS || line->type == VMDK_ZERO)
			continue;
		if (!kind_of_file(line->type))
			return why_set(why, -ENOTSUP,
				"line %u: the extent is mapped to a device or LUN of a host",
				line->line);
		if (names_device(line->name))
			return why_set(why, -ENOTSUP, "line %u: the extent %s is a device",
				line->line, quote_bytes(line->name.bytes, line->name.length).text);
	}
	return 0;
}

static int open_extent(struct layer *layer, const struct vmdk_extent_line *line,
	struct vmdk_extent *x, struct why *why)
{
	struct file *file;
	int r;

	if (line->access == VMDK_NOACCESS || line->type == VMDK_ZERO) {
		x->kind = &vmdk_zero;
		return 0;
	}
	x->kind = kind_of_file(line->type);
	r = layer_open_file(layer, line->name.bytes, line->name.length, &file, why);
	if (r < 0)
		return r;
	x->file = file;
	if (!checked_mul(line->offset, VMDK_SECTOR, &x->offset))
		return why_set(why, -EINVAL, "line %u: the extent begins beyond 2^64", line->line);
	r = x->kind->open(layer, x, why);
	if (r < 0)
		why_prefix(why, "its extent %s",
			quote_bytes(line->name.bytes, line->name.length).text);
	return r;
}

static struct vmdk *vmdk_new(const struct vmdk_descriptor *d, size_t extent_count, struct why *why)
{
	struct vmdk *v = calloc(1, sizeof(*v) + extent_count * sizeof(v->extents[0]));

	if (!v) {
		why_set(why, -ENOMEM, "out of memory");
		return NULL;
	}
	v->has_cid = d->has_cid;
	v->cid = d->cid;
	v->parent_cid = d->parent_cid;
	v->extent_count = extent_count;
	for (size_t i = 0; i < extent_count; i++)
		v->extents[i].on_parent = d->parent_cid != VMDK_NO_PARENT;
	v->extents[extent_count - 1].last = true;
	return v;
}

static uint64_t smallest_grain(const struct vmdk *v)
{
	uint64_t smallest = 0;

	for (size_t i = 0; i < v->extent_count; i++) {
		uint64_t grain = v->extents[i].tables.grain;

		if (grain > 0 && (smallest == 0 || grain < smallest))
			smallest = grain;
	}
	return smallest;
}

/* The last step of every open: what is left can fail only for want of memory. */
static int finish(struct layer *layer, struct vmdk **v, const struct vmdk_descriptor *d,
	uint64_t size, struct why *why)
{
	if (d->parent_cid != VMDK_NO_PARENT) {
		int r = layer_set_parent(
			layer, d->parent_hint.bytes, d->parent_hint.length, "vmdk", why);
		if (r < 0)
			return r;
	}
	layer->size = size;
	layer->unit = smallest_grain(*v);
	layer->state = steal_ptr(*v);
	return 0;
}

/* ---- the two shapes of a disk ---- */

/* The extents are other files. */
static int open_described(struct layer *layer, const struct vmdk_descriptor *d, struct why *why)
{
	autofree struct vmdk *v = NULL;
	uint64_t end = 0;
	int r = check_descriptor(d, why);

	if (r < 0)
		return r;
	if (d->create_type == VMDK_CREATE_MISSING)
		return why_set(why, -EINVAL, "its descriptor has no createType");
	if (d->create_type == VMDK_CREATE_UNKNOWN)
		return why_set(why, -ENOTSUP, "disks of type %s are not known",
			quote_bytes(d->create_name.bytes, d->create_name.length).text);
	if (d->create_type == VMDK_CREATE_DEVICE)
		return why_set(why, -ENOTSUP, "it is a device or LUN of a host (%s), not files",
			quote_bytes(d->create_name.bytes, d->create_name.length).text);
	r = check_lines(d, why);
	if (r < 0)
		return r;
	v = vmdk_new(d, d->extent_count, why);
	if (!v)
		return -ENOMEM;
	for (size_t i = 0; i < d->extent_count; i++) {
		struct vmdk_extent *x = &v->extents[i];

		x->start = end;
		x->size = d->extents[i].sectors * VMDK_SECTOR;
		end += x->size;
		r = open_extent(layer, &d->extents[i], x, why);
		if (r < 0)
			return r;
	}
	layer->variant = d->variant;
	return finish(layer, &v, d, end, why);
}

/*
 * Is the file a disk by itself, for every reader? They look for the descriptor in different
 * places and trust different numbers, and some search the start of the file for names.
 */
static int is_standalone(const struct file *file, const struct vmdk_hosted_header *h,
	const struct description *description, uint64_t size, bool *standalone)
{
	const struct vmdk_descriptor *d = &description->d;
	uint8_t start[VMDK_SECTOR + 10240];
	uint64_t length = min_u64(sizeof(start), file->size);
	int r = file_read(file, start, length, 0);

	*standalone = r == 0 && h->regular && h->descriptor_offset == 1 &&
		      d->create_type == VMDK_CREATE_SINGLE && d->extent_count == 1 &&
		      d->extents[0].type == VMDK_SPARSE && d->extents[0].access == VMDK_RW &&
		      d->sectors * VMDK_SECTOR == size && d->parent_cid == VMDK_NO_PARENT &&
		      !vmdk_descriptor_mentions_files(description->text, description->length) &&
		      !vmdk_descriptor_mentions_files(start, length);
	return r;
}

/* What the file is; nothing certain where its header and its descriptor contradict each other. */
static const char *single_variant(const struct vmdk_extent *x, const struct vmdk_descriptor *d)
{
	const char *variant = x->tables.packed ? "streamOptimized" : "monolithicSparse";

	return d->variant && strcmp(d->variant, variant) == 0 ? d->variant : NULL;
}

/* The file is the one extent. What it holds counts, not the name in its own extent line. */
static int open_single(struct layer *layer, const struct vmdk_hosted_header *h,
	const struct description *description, struct why *why)
{
	const struct vmdk_descriptor *d = &description->d;
	autofree struct vmdk *v = NULL;
	struct vmdk_extent *x;
	int r = check_descriptor(d, why);

	if (r < 0)
		return r;
	v = vmdk_new(d, 1, why);
	if (!v)
		return -ENOMEM;
	x = &v->extents[0];
	x->kind = &vmdk_hosted;
	x->file = layer->file;
	r = x->kind->open(layer, x, why);
	if (r < 0)
		return r;
	if (d->extent_count > 0 && d->sectors * VMDK_SECTOR != x->size)
		log_warning("%s: its header says %llu sectors, which count, its descriptor %llu",
			quote(layer->file->path).text, (unsigned long long)(x->size / VMDK_SECTOR),
			(unsigned long long)d->sectors);
	r = is_standalone(layer->file, h, description, x->size, &layer->standalone);
	if (r < 0)
		return why_set(why, r, "its beginning cannot be read");
	layer->variant = single_variant(x, d);
	return finish(layer, &v, d, x->size, why);
}

/* ---- the format ---- */

static int open_hosted(struct layer *layer, struct why *why)
{
	struct description description cleanup_with(description_free) = { 0 };
	struct vmdk_hosted_header h;
	int r = vmdk_hosted_read(layer->file, &h, why);

	if (r == 0)
		r = read_embedded(layer->file, &h, &description, why);
	if (r < 0)
		return r;
	if (h.capacity == 0)
		return open_described(layer, &description.d, why);
	return open_single(layer, &h, &description, why);
}

static int open_text(struct layer *layer, struct why *why)
{
	struct description description cleanup_with(description_free) = { 0 };
	int r = read_description(layer->file, 0, layer->file->size, &description, why);

	if (r < 0)
		return r;
	return open_described(layer, &description.d, why);
}

static int vmdk_open(struct layer *layer, struct why *why)
{
	uint8_t magic[8] = { 0 };
	int r = file_read(layer->file, magic, min_u64(sizeof(magic), layer->file->size), 0);

	if (r < 0)
		return why_set(why, r, "its beginning cannot be read");
	if (get_le32(magic) == VMDK_HOSTED_MAGIC || get_le32(magic) == VMDK_UNFINISHED_MAGIC)
		return open_hosted(layer, why);
	if (get_le32(magic) == VMDK_COWD_MAGIC || get_le64(magic) == VMDK_SESPARSE_MAGIC)
		return why_set(why, -ENOTSUP,
			"it is an extent of a snapshot; the descriptor that names it is the disk");
	return open_text(layer, why);
}

/* The extent that holds offset: the last one that starts at or before it. */
static const struct vmdk_extent *find_extent(const struct vmdk *v, uint64_t offset)
{
	size_t low = 0, high = v->extent_count;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (v->extents[middle].start <= offset)
			low = middle;
		else
			high = middle;
	}
	return &v->extents[low];
}

static int vmdk_map(const struct layer *layer, uint64_t offset, uint64_t length,
	enum map_detail detail, struct extent *e)
{
	const struct vmdk_extent *x = find_extent(layer->state, offset);
	uint64_t inside = offset - x->start;
	int r = x->kind->map(layer, x, inside, min_u64(length, x->size - inside), detail, e);

	if (r < 0)
		return r;
	e->end = min_u64(e->end, x->size) + x->start;
	e->start += x->start;
	return 0;
}

static void vmdk_close(struct layer *layer)
{
	free(layer->state);
	layer->state = NULL;
}

/* A child holds what differs from one certain state of its parent: the one with this CID. */
static int vmdk_accept_parent(
	const struct layer *layer, const struct layer *parent, struct why *why)
{
	const struct vmdk *child = layer->state;
	const struct vmdk *v = parent->state;

	if (parent->format != layer->format)
		return why_set(why, -EINVAL, "its parent is %s, not vmdk", parent->format->name);
	if (!v->has_cid)
		return why_set(why, -EINVAL, "its parent has no CID");
	if (v->cid != child->parent_cid)
		return why_set(why, -EINVAL,
			"its parent has been modified since: the CID is %08x, not %08x", v->cid,
			child->parent_cid);
	return 0;
}

static const char *const vmdk_suffixes[] = { "vmdk", NULL };

const struct image_format image_format_vmdk = {
	.name = "vmdk",
	.suffixes = vmdk_suffixes,
	.probe = vmdk_probe,
	.open = vmdk_open,
	.map = vmdk_map,
	.close = vmdk_close,
	.accept_parent = vmdk_accept_parent,
};
