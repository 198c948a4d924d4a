/* SPDX-License-Identifier: Apache-2.0 */
/* What the command line says, as text and as values. */
#ifndef IMGFS_OPTIONS_H
#define IMGFS_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "imgfs/catalog.h"
#include "imgfs/datastore.h"
#include "imgfs/image.h"

/* As found. All of it is freed by options_free(). */
struct options {
	char *source;
	char *mountpoint;
	char *views, *layout, *vmdk, *vhd;
	char *flat_type, *adapter, *hw_version, *tools_version, *sector_size;
	int snapshots;
	int scan_gzip;
	char *references;
	char *cache_size;
	char *uid, *gid, *fmask, *dmask;
	char *in_use;
	char *run_as;
	char *sandbox;
	int follow_symlinks;
	int zero_copy;
	int detect_zeroes;
	int io_uring;
	char *io_uring_depth;
	int sandbox_selftest;
	int allow_other; /* 1 yes, 0 no, -1 as the user's rights suggest */
	struct format_rule *rules;
	size_t rule_count;
	bool bad; /* a line about it has been printed */
};

/* Read and found to make sense. */
struct settings {
	enum reference_policy references;
	struct catalog_options catalog;
	uint64_t cache_size; /* bytes */
	unsigned ring_depth; /* requests that a ring holds; 0 without io_uring */
	bool sandbox;

	bool run_as;
	uid_t run_as_user;
	gid_t run_as_group;
};

/* A line on standard error, where whoever starts the program is still listening. */
__attribute__((format(printf, 1, 2))) void complain(const char *fmt, ...);

/* -o format=GLOB:NAME and -o raw=GLOB. 0, or -1 out of memory; a bad value sets options->bad. */
int options_add_format(struct options *options, const char *value);
int options_add_raw(struct options *options, const char *glob);

/* -o io_uring and -o io_uring_q_depth=N, which libfuse is to see too. The same. */
int options_add_ring(struct options *options, const char *argument);

/* False after a line about what is wrong. */
bool options_read(const struct options *options, struct settings *settings);

void options_free(struct options *options);

void options_help(void);

#endif
