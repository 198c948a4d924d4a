/* SPDX-License-Identifier: Apache-2.0 */
/* Compressed units: read, unpacked once, kept in the cache. */
#include <errno.h>
#include <stdlib.h>

#include "image_private.h"
#include "imgfs/cache.h"
#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/crew.h"
#include "unpack.h"

int unit_read(const struct extent *extent, uint8_t **packed, size_t *length)
{
	/* packed_length is rounded up to sectors and may pass the end of the file. */
	uint64_t available = min_u64(extent->packed_length, extent->file->size - extent->offset);
	int r;

	*packed = malloc(available);
	if (!*packed)
		return -ENOMEM;
	*length = available;
	r = file_read(extent->file, *packed, available, extent->offset);
	return r == -ERANGE ? -ESTALE : r;
}

static int unpack_unit(void *buffer, size_t length, void *argument)
{
	const struct extent *extent = argument;
	autofree uint8_t *packed = NULL;
	size_t available;
	int r = unit_read(extent, &packed, &available);

	if (r < 0)
		return r;
	return unpack(extent->codec, packed, available, buffer, length, extent->need);
}

int image_unit_get(const struct image *image, const struct extent *extent, struct unit_view *unit)
{
	struct cache_key key = {
		.serial = extent->file->serial,
		.offset = extent->offset,
		/* Never 0, and different for different readings of one place. */
		.kind = 1 + (uint64_t)extent->codec + ((uint64_t)extent->unit << 3) +
			((uint64_t)extent->packed_length << 32),
		.need = extent->need,
	};
	struct cache_entry *entry;
	int r;

	r = cache_get(image_cache(image), &key, extent->unit, unpack_unit,
		(void *)(uintptr_t)extent, &entry);
	if (r < 0)
		return r;
	unit->bytes = cache_bytes(entry);
	unit->entry = entry;
	return 0;
}

void image_unit_put(const struct image *image, struct unit_view *unit)
{
	cache_put(image_cache(image), unit->entry);
}

struct units {
	const struct image *image;
	struct unit_request *requests;
};

static void get_one(void *argument, size_t index)
{
	const struct units *units = argument;
	struct unit_request *request = &units->requests[index];

	request->error = image_unit_get(units->image, request->extent, &request->unit);
}

void image_units_get(const struct image *image, struct unit_request *requests, size_t count)
{
	struct units units = { image, requests };

	crew_run(image->context->crew, count, get_one, &units);
}
