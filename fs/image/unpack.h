/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMGFS_UNPACK_H
#define IMGFS_UNPACK_H

#include <stddef.h>
#include <stdint.h>

#include "imgfs/image.h"

/*
 * Unpacks one unit: `in` holds one stream and perhaps anything after it. out gets out_length
 * bytes; a stream that ends after `need` of them or later is whole, and the rest is zero. -EIO
 * for a stream that is damaged, too short, or of a codec that this build lacks; -ENOMEM.
 */
int unpack(enum codec codec, const uint8_t *in, size_t in_length, uint8_t *out, size_t out_length,
	size_t need);

#endif
