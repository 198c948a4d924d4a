/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C (Castagnoli), which VHDX protects its headers, region tables and log with. */
#ifndef IMGFS_CRC32C_H
#define IMGFS_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Of the bytes that gave `crc` (0: none) followed by these. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t length);

#endif
