/* SPDX-License-Identifier: Apache-2.0 */
/* The raw view: the disk's bytes and nothing else; holes where nothing is allocated. */
#include "imgfs/view.h"

static int raw_layout(struct view *view, struct why *why)
{
	(void)why;
	view_add_guest(view, "disk", 0, image_size(view->image));
	return 0;
}

static bool raw_surely_fits(uint64_t virtual_size)
{
	(void)virtual_size;
	return true;
}

const struct view_format view_format_raw = {
	.name = "raw",
	.suffix = "raw",
	.as_is = "raw",
	.surely_fits = raw_surely_fits,
	.layout = raw_layout,
};
