/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMGFS_INFLATER_H
#define IMGFS_INFLATER_H

#include <stdbool.h>
#include <stdint.h>

#include <zlib.h>

#include "imgfs/datastore.h"

/* What is wrong with the bytes, apart from what reading them says. */
#define DAMAGED        (-EBADMSG)

#define INFLATER_INPUT (64u << 10)

/* For inflater_start(): where a member begins, or in the middle of one. */
#define INFLATER_GZIP (MAX_WBITS + 16)
#define INFLATER_RAW  (-MAX_WBITS)

/* zlib's inflater, with a place in a file of gzip members. */
struct inflater {
	z_stream z;
	const struct file *file;
	uint64_t in;  /* of the byte after those that z has been given */
	uint64_t out; /* of the byte that comes next */
	bool raw;     /* the rest of a member; what follows it is in gzip's clothes again */
	bool begun;   /* z is in use */
	uint8_t input[INFLATER_INPUT];
};

int inflater_start(struct inflater *f, const struct file *file, int window_bits);
void inflater_stop(struct inflater *f);

/* Sees to it that z has input, if there is any left. 0 or -errno. */
int inflater_fill(struct inflater *f);

/* Of the first byte that z has not taken. */
uint64_t inflater_place(const struct inflater *f);

/* Behind the end of a member. 1: there is another; 0 only zeros follow, or nothing; -errno. */
int inflater_next_member(struct inflater *f);

/* Exactly the next length bytes. 0 or -errno. */
int inflater_read(struct inflater *f, uint8_t *bytes, uint64_t length);

#endif
