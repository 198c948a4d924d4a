/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMGFS_VIEW_ENTRIES_H
#define IMGFS_VIEW_ENTRIES_H

#include <string.h>

#include "imgfs/checked.h"
#include "imgfs/wire.h"

/*
 * The body of a view_table's fill: writes bytes [offset, offset + length) of a table of entries
 * of 32 (or 64) bits, one at a time; `put` is put_le32 or put_be32 (put_le64), `value` is computed
 * from `index`.
 */
#define FILL_ENTRIES(put, value)      FILL_ENTRIES_OF(4, put, (uint32_t)(value))
#define FILL_WIDE_ENTRIES(put, value) FILL_ENTRIES_OF(8, put, (uint64_t)(value))

#define FILL_ENTRIES_OF(width, put, value)                                 \
	while (length > 0) {                                               \
		__attribute__((unused)) uint64_t index = offset / (width); \
		uint8_t bytes[width];                                      \
		size_t skip = offset % (width);                            \
		size_t take = min_u64((width)-skip, length);               \
                                                                           \
		put(bytes, value);                                         \
		memcpy(out, bytes + skip, take);                           \
		out += take;                                               \
		offset += take;                                            \
		length -= take;                                            \
	}

#endif
