/* SPDX-License-Identifier: Apache-2.0 */
/* Which views a mount shows of every image, and under which suffixes. */
#ifndef IMGFS_CHOICE_H
#define IMGFS_CHOICE_H

#include <stddef.h>
#include <stdint.h>

#include "imgfs/view.h"
#include "imgfs/why.h"

#define CHOICES_MAX 32

/* What a name is made of before the suffix: the image's name with its own suffix or without. */
enum choice_base {
	BASE_ANY,
	BASE_STEM,  /* "a" of a.qcow2 */
	BASE_WHOLE, /* "a.qcow2" */
};

struct choice {
	const struct view_format *format;
	char suffix[32]; /* "raw", to be parted by a dot, or "-flat.vmdk" */

	/*
	 * A file whose bytes depend on its name is another file under each of its names, so there
	 * is a choice for each.
	 */
	enum choice_base base;
	uint64_t seed; /* of node numbers: differs where the bytes may */
};

struct choices {
	struct choice list[CHOICES_MAX];
	size_t count;
	struct view_options options; /* of all of them */
};

/* The views that a mount shows where nothing is said. */
#define CHOICES_DEFAULT "qcow2:raw:vmdk"

/*
 * Reads a list of suffixes, parted by colons, as -o views= has it. A word is the suffix of a view
 * format, or "vmdk" or "vhd", where `vmdk` and `vhd` say which of their flavours that is ("flat",
 * "fixed"; NULL: the usual one). choices->options must be set before. -EINVAL with the reason.
 */
int choices_parse(struct choices *choices, const char *list, const char *vmdk, const char *vhd,
	struct why *why);

#endif
