/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is where in a VHD, for who reads one and who makes one. Follows Microsoft's "Virtual Hard
 * Disk Image Format Specification", version 1.0. All numbers are big-endian.
 */
#ifndef IMGFS_VHD_H
#define IMGFS_VHD_H

#include <stddef.h>
#include <stdint.h>

/* The footer, and its copy at the start. */
#define VHD_FOOTER                 512u
#define VHD_FOOTER_FEATURES        8
#define VHD_FOOTER_VERSION         12
#define VHD_FOOTER_HEADER          16
#define VHD_FOOTER_TIME            24 /* seconds since 2000 */
#define VHD_FOOTER_CREATOR         28
#define VHD_FOOTER_CREATOR_VERSION 32
#define VHD_FOOTER_CREATOR_HOST    36
#define VHD_FOOTER_ORIGINAL        40
#define VHD_FOOTER_SIZE            48
#define VHD_FOOTER_CYLINDERS       56
#define VHD_FOOTER_HEADS           58
#define VHD_FOOTER_TRACK           59
#define VHD_FOOTER_TYPE            60
#define VHD_FOOTER_CHECKSUM        64
#define VHD_FOOTER_ID              68

/* The header of a disk that has blocks. */
#define VHD_HEADER             1024u
#define VHD_HEADER_NEXT        8
#define VHD_HEADER_TABLE       16
#define VHD_HEADER_VERSION     24
#define VHD_HEADER_ENTRIES     28
#define VHD_HEADER_BLOCK       32
#define VHD_HEADER_CHECKSUM    36
#define VHD_HEADER_PARENT_ID   40
#define VHD_HEADER_PARENT_NAME 64
#define VHD_HEADER_LOCATORS    576

#define VHD_VERSION            0x00010000u
#define VHD_TYPE_FIXED         2
#define VHD_TYPE_DYNAMIC       3
#define VHD_TYPE_DIFFERENCING  4

#define VHD_ABSENT             0xffffffffu /* as an entry of the table */

/* The complement of the sum of all bytes but the four of the checksum itself. */
static inline uint32_t vhd_checksum(const uint8_t *p, size_t length, size_t at)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < length; i++)
		sum += i >= at && i < at + 4 ? 0 : p[i];
	return ~sum;
}

#endif
