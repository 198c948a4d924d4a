/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMGFS_TESTS_VIEWOPTION_H
#define IMGFS_TESTS_VIEWOPTION_H

#include <stdbool.h>

#include "imgfs/view.h"

/* Sets what OPTION=WORD says, in the words that a mount has for it; cuts the text in two. */
bool view_option_read(struct view_options *options, char *text);

#endif
