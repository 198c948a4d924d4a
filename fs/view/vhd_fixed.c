/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fixed VHD view: the bytes of the disk, then a footer of 512 bytes. Follows Microsoft's
 * "Virtual Hard Disk Image Format Specification", version 1.0. It is what Azure takes, if the size
 * of the disk is a multiple of 1 MiB.
 */
#include <errno.h>

#include "imgfs/view.h"
#include "vhd_footer.h"

static int vhd_fixed_layout(struct view *view, struct why *why)
{
	uint8_t *footer;
	int r = vhd_check_size(view, why);

	if (r < 0)
		return r;
	view_add_guest(view, "disk", 0, view_disk_size(view));
	footer = view_add_bytes(view, "footer", VHD_FOOTER);
	if (!footer)
		return why_set(why, -ENOMEM, "out of memory");
	vhd_fill_footer(view, VHD_TYPE_FIXED, UINT64_MAX, footer);
	return 0;
}

const struct view_format view_format_vhd_fixed = {
	.name = "vhd-fixed",
	.suffix = "fixed.vhd",
	.as_is = "vhd",
	.as_is_variant = "fixed",
	.surely_fits = vhd_surely_fits,
	.layout = vhd_fixed_layout,
};
