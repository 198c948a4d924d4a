/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text that describes a VMDK: which extents make the disk, and on what parent it stands.
 *
 * Parsing is a pure function over bytes; no file is opened and nothing in the text is believed
 * but its syntax. All slices point into the text, which must outlive the descriptor.
 */
#ifndef IMGFS_VMDK_DESCRIPTOR_H
#define IMGFS_VMDK_DESCRIPTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "imgfs/why.h"

#define VMDK_SECTOR 512u

/* Real ones have a few hundred bytes; 512 extent lines with the longest names fit. */
#define VMDK_DESCRIPTOR_MAX (1u << 20)

/* The parentCID of a disk without a parent. */
#define VMDK_NO_PARENT 0xffffffffu

struct vmdk_slice {
	const char *bytes; /* not terminated; NULL where the text does not have it */
	size_t length;
};

/* What the kind of disk lets expect, as far as it matters to a reader. */
enum vmdk_create_type {
	VMDK_CREATE_MISSING, /* no createType line */
	VMDK_CREATE_UNKNOWN,
	VMDK_CREATE_SINGLE, /* monolithicSparse, streamOptimized: one file with its descriptor */
	VMDK_CREATE_FILES,  /* extents are files, or are meant to be */
	VMDK_CREATE_DEVICE, /* a disk or LUN of the host */
};

enum vmdk_access {
	VMDK_RW,
	VMDK_RDONLY,
	VMDK_NOACCESS,
};

enum vmdk_extent_type {
	VMDK_FLAT,
	VMDK_SPARSE,
	VMDK_ZERO,
	VMDK_VMFS,
	VMDK_VMFSSPARSE,
	VMDK_SESPARSE,
	VMDK_VMFSRDM,
	VMDK_VMFSRAW,
};

struct vmdk_extent_line {
	unsigned line; /* counted from 1 */
	enum vmdk_access access;
	enum vmdk_extent_type type;
	uint64_t sectors; /* not 0 */
	struct vmdk_slice
		name;    /* bytes NULL where none is given; never empty where one is needed */
	uint64_t offset; /* sectors into the named file */
};

struct vmdk_descriptor {
	uint32_t version; /* 0 where the text does not say */
	bool has_cid;
	uint32_t cid;
	bool has_parent_cid;
	uint32_t parent_cid; /* VMDK_NO_PARENT where the text does not say */
	enum vmdk_create_type create_type;
	const char *variant; /* static: createType as it is usually spelt; NULL: not known */
	struct vmdk_slice create_name, parent_hint;
	bool encrypted;

	struct vmdk_extent_line *extents;
	size_t extent_count;
	uint64_t sectors; /* of all extents; fits into INT64_MAX bytes */
};

/*
 * Reads the text up to its end or its first NUL. 0; -EINVAL or -ENOTSUP with the line that is
 * wrong in the reason; -ENOMEM. After 0 vmdk_descriptor_free() is due.
 */
int vmdk_descriptor_parse(
	const void *text, size_t length, struct vmdk_descriptor *descriptor, struct why *why);
void vmdk_descriptor_free(struct vmdk_descriptor *descriptor);

/* Do these first bytes of a file look like a descriptor's? */
bool vmdk_descriptor_probe(const void *head, size_t length);

/*
 * May the text make some other reader open another file? Readers differ in where they look for
 * these words (one takes them from anywhere in the first 10 KiB), so anywhere counts.
 */
bool vmdk_descriptor_mentions_files(const void *bytes, size_t length);

#endif
