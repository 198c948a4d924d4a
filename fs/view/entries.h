/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMGFS_VIEW_ENTRIES_H
#define IMGFS_VIEW_ENTRIES_H

#include <string.h>

#include "imgfs/checked.h"
#include "imgfs/wire.h"

/*
 * The body of a view_table's fill: writes bytes [offset, offset + length) of a table of 32-bit
 * entries, one at a time; `put` is put_le32 or put_be32, `value` is computed from `index`.
 */
#define FILL_ENTRIES(put, value)                         \
	while (length > 0) {                             \
		uint64_t index = offset / 4;             \
		uint8_t bytes[4];                        \
		size_t skip = offset % 4;                \
		size_t take = min_u64(4 - skip, length); \
                                                         \
		put(bytes, (uint32_t)(value));           \
		memcpy(out, bytes + skip, take);         \
		out += take;                             \
		offset += take;                          \
		length -= take;                          \
	}

#endif
