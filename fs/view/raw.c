/* SPDX-License-Identifier: Apache-2.0 */
/* The raw view: the disk's bytes and nothing else; holes where nothing is allocated. */
#include "imgfs/view.h"

static int raw_layout(struct view *view, struct why *why)
{
	(void)why;
	view_add_guest(view, "disk", 0, image_size(view->image));
	return 0;
}

const struct view_format view_format_raw = {
	.name = "raw",
	.suffix = "raw",
	.always_fits = INT64_MAX,
	.layout = raw_layout,
};
