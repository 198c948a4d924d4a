/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The footer of the two VHD views ("Hard Disk Footer Format"). No clock and no chance: the time is
 * that of the format's epoch, the id follows from the disk. The creator is Windows, whose disks all
 * readers take to have their current size; from most others QEMU takes the product of the geometry.
 */
#include "vhd_footer.h"

#include <errno.h>
#include <string.h>

#include "imgfs/checked.h"
#include "imgfs/wire.h"

#define SECTOR            512u
#define FEATURES_RESERVED 2u          /* always set */
#define CREATOR_VERSION   0x00060001u /* of Windows 7 */

struct geometry {
	uint16_t cylinders;
	uint8_t heads, track;
};

/* As the specification's appendix, "CHS Calculation", has it. */
static struct geometry geometry_of(uint64_t size)
{
	uint64_t sectors = min_u64(size / SECTOR, 65535ull * 16 * 255);
	uint64_t track = 255, heads = 16, tracks;

	if (sectors < 65535ull * 16 * 63) {
		track = 17;
		tracks = sectors / track;
		heads = max_u64(div_ceil(tracks, 1024), 4);
		if (tracks >= heads * 1024 || heads > 16) {
			track = 31;
			heads = 16;
			tracks = sectors / track;
		}
		if (tracks >= heads * 1024)
			track = 63;
	}
	tracks = sectors / track;
	return (struct geometry) { (uint16_t)(tracks / heads), (uint8_t)heads, (uint8_t)track };
}

int vhd_check_size(const struct view *view, struct why *why)
{
	uint64_t size = view_disk_size(view);

	if (size == 0)
		return why_set(why, -EFBIG, "a VHD cannot be empty");
	if (size > VHD_SIZE_MAX)
		return why_set(why, -EFBIG, "a VHD holds 2040 GiB at most");
	return 0;
}

bool vhd_surely_fits(uint64_t virtual_size)
{
	return virtual_size > 0 && virtual_size <= VHD_SIZE_MAX;
}

void vhd_fill_footer(const struct view *view, uint32_t type, uint64_t header, uint8_t *p)
{
	uint64_t size = view_disk_size(view);
	struct geometry g = geometry_of(size);

	memcpy(p, "conectix", 8);
	put_be32(p + VHD_FOOTER_FEATURES, FEATURES_RESERVED);
	put_be32(p + VHD_FOOTER_VERSION, VHD_VERSION);
	put_be64(p + VHD_FOOTER_HEADER, header);
	memcpy(p + VHD_FOOTER_CREATOR, "win ", 4);
	put_be32(p + VHD_FOOTER_CREATOR_VERSION, CREATOR_VERSION);
	memcpy(p + VHD_FOOTER_CREATOR_HOST, "Wi2k", 4);
	put_be64(p + VHD_FOOTER_ORIGINAL, size);
	put_be64(p + VHD_FOOTER_SIZE, size);
	put_be16(p + VHD_FOOTER_CYLINDERS, g.cylinders);
	p[VHD_FOOTER_HEADS] = g.heads;
	p[VHD_FOOTER_TRACK] = g.track;
	put_be32(p + VHD_FOOTER_TYPE, type);
	view_make_uuid(view, 1, p + VHD_FOOTER_ID);
	put_be32(p + VHD_FOOTER_CHECKSUM, vhd_checksum(p, VHD_FOOTER, VHD_FOOTER_CHECKSUM));
}
