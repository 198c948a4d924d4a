/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of archives, on top of support.h: a tar archive, header by header. */
#ifndef IMGFS_TEST_TAR_WRITER_H
#define IMGFS_TEST_TAR_WRITER_H

#include "support.h"

struct tar_writer {
	const char *name; /* of the archive */
	uint64_t at;
};

#define TAR_SIZE     124
#define TAR_CHECKSUM 148
#define TAR_TYPE     156

static inline void tar_header(uint8_t *h, const char *name, uint64_t size, char type)
{
	memset(h, 0, 512);
	memcpy(h, name, strlen(name) < 100 ? strlen(name) : 100);
	memcpy(h + 100, "0000644", 8);
	memcpy(h + 108, "0000000", 8);
	memcpy(h + 116, "0000000", 8);
	if (size < 8 * GIB) {
		snprintf((char *)h + TAR_SIZE, 12, "%011" PRIo64, size);
	} else {
		h[TAR_SIZE] = 0x80;
		put_be64(h + TAR_SIZE + 4, size);
	}
	memcpy(h + 136, "00000000000", 12);
	h[TAR_TYPE] = (uint8_t)type;
	memcpy(h + 257,
		"ustar\0"
		"00",
		8);
}

static inline void tar_put_header(struct tar_writer *w, uint8_t *h)
{
	unsigned sum = 0;

	memset(h + TAR_CHECKSUM, ' ', 8);
	for (int i = 0; i < 512; i++)
		sum += h[i];
	snprintf((char *)h + TAR_CHECKSUM, 8, "%06o", sum);
	store_poke(w->name, w->at, h, 512);
	w->at += 512;
}

/* Adds a member whose bytes are written by the caller, if they are not a hole; its offset. */
static inline uint64_t tar_add_hole(struct tar_writer *w, const char *name, uint64_t size)
{
	uint8_t h[512];
	uint64_t offset;

	tar_header(h, name, size, '0');
	tar_put_header(w, h);
	offset = w->at;
	w->at += round_up(size, 512);
	return offset;
}

static inline uint64_t tar_add(
	struct tar_writer *w, const char *name, const void *bytes, size_t length)
{
	uint64_t offset = tar_add_hole(w, name, length);

	store_poke(w->name, offset, bytes, length);
	return offset;
}

static inline void tar_add_text(struct tar_writer *w, const char *name, const char *text)
{
	tar_add(w, name, text, strlen(text));
}

static inline void tar_end(struct tar_writer *w)
{
	w->at += 1024;
	assert_true(store_truncate(w->name, w->at));
}

#define OVF_BEGIN                                                  \
	"<?xml version='1.0' encoding='UTF-8'?>\n"                 \
	"<Envelope xmlns='http://schemas.dmtf.org/ovf/envelope/1'" \
	" xmlns:ovf='http://schemas.dmtf.org/ovf/envelope/1'><References>\n"
#define OVF_MIDDLE "</References><DiskSection><Info>Disks</Info>\n"
#define OVF_END    "</DiskSection><VirtualSystem ovf:id='vm'/></Envelope>\n"

#endif
