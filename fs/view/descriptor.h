/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text that describes a VMDK, for all flavours of VMDK views.
 *
 * Follows VMware's "Virtual Disk Format 1.1", "Layout Basics", and the readers that are stricter
 * than it: header keys, extents and ddb. lines in this order and nothing else between them but
 * comments and empty lines (VirtualBox); only ASCII, and no slash in an extent line (OpenStack);
 * version=1 as the first line that is no comment, and CID before parentCID (QEMU, which takes the
 * first text that it finds).
 */
#ifndef IMGFS_VIEW_DESCRIPTOR_H
#define IMGFS_VIEW_DESCRIPTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "imgfs/view.h"

/* What is set aside for it in files that hold more than it, in sectors of 512 bytes. */
#define DESCRIPTOR_SECTORS 20u
#define DESCRIPTOR_BYTES   (DESCRIPTOR_SECTORS * 512)

/* Names are of files: up to 255 bytes. */
#define EXTENT_NAME_MAX 256

/* How the extent line calls its file. */
struct descriptor_extent {
	const char *type; /* "SPARSE" */
	const char *tail; /* after the name in quotes: "", or an offset: " 0" */
	char name[EXTENT_NAME_MAX];
};

/*
 * Writes the text, terminated, into DESCRIPTOR_BYTES, and returns its length. The content ID is
 * made of `content`, a hash of whatever the disk is known by.
 */
size_t descriptor_write(const struct view *view, const char *create_type,
	const struct descriptor_extent *extent, uint64_t content, char *out);

/*
 * Can every reader tell the name from the text around it, and finds nothing in it but a name? Not
 * where it has quotes, slashes or bytes that are no printable ASCII.
 */
bool descriptor_name_ok(const char *name, size_t length);

/*
 * The name of the file itself, in whose descriptor it is: nobody opens it, so that another name
 * does where the image's is not plain.
 */
void descriptor_own_name(const struct view *view, struct descriptor_extent *extent);

#endif
