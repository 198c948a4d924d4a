/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file as it is after a replay of its log. Only the places are kept: a page of the log is
 * read where it lies when it is asked for.
 *
 * A page of 4096 bytes lies in the log in three parts (2.3.1.3, 2.3.1.4): bytes 0 to 7 and 4092
 * to 4095 in the descriptor, the others in the data sector, at the offset that they have in the
 * page.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "imgfs/checked.h"
#include "vhdx.h"

enum { DESCRIPTOR_TRAILING = 4, DESCRIPTOR_LEADING = 8, DESCRIPTOR_BYTES = 32 };

/* Index of the first patch that ends after offset. */
static size_t find(const struct vhdx *v, uint64_t offset)
{
	size_t low = 0, high = v->patch_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (v->patches[middle].end > offset)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

const struct vhdx_patch *vhdx_find_patch(const struct vhdx *v, uint64_t offset)
{
	size_t i = find(v, offset);

	return i < v->patch_count ? &v->patches[i] : NULL;
}

static int make_room(struct vhdx *v)
{
	if (v->patch_count + 2 > VHDX_LOG_PATCHES)
		return -EFBIG;
	if (v->patches)
		return 0;
	v->patches = calloc(VHDX_LOG_PATCHES, sizeof(v->patches[0]));
	return v->patches ? 0 : -ENOMEM;
}

/* What the new one covers goes; of zeros that it covers in part the rest stays. */
int vhdx_add_patch(struct vhdx *v, struct vhdx_patch patch)
{
	struct vhdx_patch pieces[3];
	size_t low = find(v, patch.start), high, count = 0;
	int r = make_room(v);

	if (r < 0)
		return r;
	for (high = low; high < v->patch_count && v->patches[high].start < patch.end;)
		high++;
	if (low < high && v->patches[low].start < patch.start) {
		pieces[count] = v->patches[low];
		pieces[count++].end = patch.start;
	}
	pieces[count++] = patch;
	if (low < high && v->patches[high - 1].end > patch.end) {
		pieces[count] = v->patches[high - 1];
		pieces[count++].start = patch.end;
	}
	memmove(&v->patches[low + count], &v->patches[high],
		(v->patch_count - high) * sizeof(v->patches[0]));
	memcpy(&v->patches[low], pieces, count * sizeof(v->patches[0]));
	v->patch_count = v->patch_count - (high - low) + count;
	return 0;
}

/* ---- reading at the open ---- */

static int read_page(const struct file *file, const struct vhdx_patch *patch, uint8_t *page)
{
	uint8_t descriptor[DESCRIPTOR_BYTES];
	int r;

	memset(page, 0, VHDX_PAGE);
	if (!patch->sector)
		return 0;
	r = file_read(file, page, VHDX_PAGE, patch->sector);
	if (r == 0)
		r = file_read(file, descriptor, sizeof(descriptor), patch->descriptor);
	if (r == 0) {
		memcpy(page, descriptor + DESCRIPTOR_LEADING, 8);
		memcpy(page + VHDX_PAGE - 4, descriptor + DESCRIPTOR_TRAILING, 4);
	}
	return r;
}

/* Up to length bytes, as far as they come from one place. Returns how many, or -errno. */
static int64_t read_some(const struct file *file, const struct vhdx *v, uint8_t *buffer,
	uint64_t length, uint64_t offset)
{
	const struct vhdx_patch *patch = vhdx_find_patch(v, offset);
	uint8_t page[VHDX_PAGE];
	int r;

	if (patch && patch->start <= offset) {
		length = min_u64(length, VHDX_PAGE - offset % VHDX_PAGE);
		r = read_page(file, patch, page);
		memcpy(buffer, page + offset % VHDX_PAGE, length);
		return r < 0 ? r : (int64_t)length;
	}
	if (patch)
		length = min_u64(length, patch->start - offset);
	if (offset >= file->size) {
		memset(buffer, 0, length);
		return (int64_t)length;
	}
	length = min_u64(length, file->size - offset);
	r = file_read(file, buffer, length, offset);
	return r < 0 ? r : (int64_t)length;
}

int vhdx_read(const struct layer *layer, const struct vhdx *v, void *buffer, uint64_t length,
	uint64_t offset)
{
	uint8_t *out = buffer;

	if (!range_ok(offset, length, v->end))
		return -ERANGE;
	while (length > 0) {
		int64_t done = read_some(layer->file, v, out, length, offset);

		if (done < 0)
			return (int)done;
		out += done;
		offset += (uint64_t)done;
		length -= (uint64_t)done;
	}
	return 0;
}

/* ---- tables ---- */

/* The page of a patch, from the cache. */
static int table_page(const struct layer *layer, const struct vhdx_patch *patch, uint8_t *page)
{
	struct table_view view;
	int r;

	memset(page, 0, VHDX_PAGE);
	if (!patch->sector)
		return 0;
	r = table_get(layer, layer->file, patch->sector, 8, &view);
	if (r < 0)
		return r;
	memcpy(page, view.bytes, min_u64(view.length, VHDX_PAGE));
	table_put(layer, &view);
	r = table_get(layer, layer->file, patch->descriptor, 16, &view);
	if (r < 0)
		return r;
	memcpy(page, view.bytes + DESCRIPTOR_LEADING, 8);
	memcpy(page + VHDX_PAGE - 4, view.bytes + DESCRIPTOR_TRAILING, 4);
	table_put(layer, &view);
	return 0;
}

int vhdx_table_get(const struct layer *layer, uint64_t offset, struct vhdx_table *t)
{
	const struct vhdx *v = layer->state;
	const struct vhdx_patch *patch = vhdx_find_patch(v, offset);
	uint64_t skip = offset % VHDX_PAGE;
	int r;

	t->held = false;
	t->bytes = t->page + skip;
	t->length = VHDX_PAGE - skip;
	if (patch && patch->start <= offset)
		return table_page(layer, patch, t->page);
	if (!range_ok(offset, 8, v->end))
		return -ERANGE;
	/* What a replay would append is zeros; an entry that the end cuts is not there either. */
	if (!range_ok(offset, 8, layer->file->size)) {
		memset(t->page, 0, VHDX_PAGE);
		return 0;
	}
	r = table_get(layer, layer->file, offset, 8, &t->view);
	if (r < 0)
		return r;
	t->held = true;
	t->bytes = t->view.bytes;
	t->length = t->view.length;
	if (patch)
		t->length = min_u64(t->length, patch->start - offset);
	return 0;
}

void vhdx_table_done(const struct layer *layer, struct vhdx_table *t, enum map_detail detail)
{
	if (t->held)
		table_done(layer, &t->view, detail);
}
