/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-16 in images: names that Windows wrote. */
#ifndef IMGFS_UTF16_H
#define IMGFS_UTF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The text as UTF-8, up to its first NUL or to the end, in *text, from malloc. -EINVAL where it is
 * not UTF-16 (a lone surrogate, an odd number of bytes), -ENOMEM; *text is NULL then.
 */
int utf16_decode(const uint8_t *bytes, size_t length, bool big_endian, char **text);

#endif
