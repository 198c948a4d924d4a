/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMGFS_VIEW_VHD_FOOTER_H
#define IMGFS_VIEW_VHD_FOOTER_H

#include "imgfs/vhd.h"
#include "imgfs/view.h"

/* Hyper-V's own limit, and QEMU's. */
#define VHD_SIZE_MAX (2040ull << 30)

/* -EFBIG where the disk does not fit any VHD. */
int vhd_check_size(const struct view *view, struct why *why);

bool vhd_surely_fits(uint64_t virtual_size);

/* The footer of the view's disk, VHD_FOOTER bytes, zeroed before. */
void vhd_fill_footer(const struct view *view, uint32_t type, uint64_t header, uint8_t *p);

#endif
