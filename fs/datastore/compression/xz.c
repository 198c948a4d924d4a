/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xz (the .xz file format, 1.2.0): streams, each with an index of its blocks at its end. liblzma
 * reads the indexes and unpacks the blocks, whose checksums it verifies.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lzma.h>

#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/compression.h"

/* What is read to find the indexes, and what unpacking a block may take. */
#define READ_MAX   (64u << 20)
#define MEMORY_MAX (PACKED_BLOCK_MAX + (1u << 20))

#define BUFFER     16384u

static bool xz_probe(const uint8_t *head, size_t length)
{
	return length >= 6 && memcmp(head,
				      "\xfd"
				      "7zXZ",
				      6) == 0;
}

static int explain(lzma_ret ret, struct why *why)
{
	switch (ret) {
	case LZMA_MEM_ERROR:
		return why_set(why, -ENOMEM, "out of memory");
	case LZMA_MEMLIMIT_ERROR:
		return why_set(why, -ENOTSUP, "its index of blocks is of more than %u MiB",
			PACKED_INDEX_MAX >> 20);
	case LZMA_OPTIONS_ERROR:
		return why_set(why, -ENOTSUP, "it is of a kind of xz that liblzma does not know");
	default:
		return why_set(why, -EINVAL, "its xz headers are damaged");
	}
}

/* Gives the decoder what it asks for until it has the index. */
static int run(const struct file *file, lzma_stream *s, uint8_t *buffer, struct why *why)
{
	uint64_t at = 0, allowance = READ_MAX;
	lzma_ret ret = LZMA_OK;

	while (ret == LZMA_OK) {
		if (s->avail_in == 0) {
			uint64_t length = min_u64(BUFFER, file->state.size - at);
			int r = packed_read_stored(file, buffer, length, at);

			if (r < 0)
				return why_set(why, r, "reading it: %s", strerror(-r));
			if (length == 0 || length > allowance)
				return why_set(why, -EINVAL, "it has too many xz streams");
			allowance -= length;
			at += length;
			s->next_in = buffer;
			s->avail_in = length;
		}
		ret = lzma_code(s, LZMA_RUN);
		if (ret == LZMA_SEEK_NEEDED) {
			if (s->seek_pos > file->state.size)
				break;
			at = s->seek_pos;
			s->avail_in = 0;
			ret = LZMA_OK;
		}
	}
	return ret == LZMA_STREAM_END ? 0 : explain(ret, why);
}

static int read_index(const struct file *file, lzma_index **index, struct why *why)
{
	autofree uint8_t *buffer = malloc(BUFFER);
	lzma_stream s = LZMA_STREAM_INIT;
	lzma_ret ret;
	int r;

	*index = NULL;
	if (!buffer)
		return why_set(why, -ENOMEM, "out of memory");
	ret = lzma_file_info_decoder(&s, index, PACKED_INDEX_MAX, file->state.size);
	r = ret == LZMA_OK ? run(file, &s, buffer, why) : explain(ret, why);
	lzma_end(&s);
	return r;
}

static int check_blocks(const lzma_index *index, struct why *why)
{
	lzma_index_iter iter;

	for (int check = 0; check <= LZMA_CHECK_ID_MAX; check++) {
		if ((lzma_index_checks(index) >> check & 1) &&
			!lzma_check_is_supported((lzma_check)check))
			return why_set(why, -ENOTSUP, "its checksums are of an unknown kind");
	}
	lzma_index_iter_init(&iter, index);
	while (!lzma_index_iter_next(&iter, LZMA_INDEX_ITER_NONEMPTY_BLOCK)) {
		if (iter.block.uncompressed_size > PACKED_BLOCK_MAX)
			return why_set(why, -ENOTSUP,
				"it has a block of %llu MiB, and what is in a block cannot be read "
				"without all of it; xz -T0 or xz --block-size=16MiB makes smaller "
				"ones",
				(unsigned long long)iter.block.uncompressed_size >> 20);
	}
	return 0;
}

static int xz_open(const struct file *file, struct packed *packed, struct why *why)
{
	lzma_index *index;
	int r = read_index(file, &index, why);

	if (r < 0)
		return r;
	r = check_blocks(index, why);
	if (r == 0 && !packed_charge(packed, lzma_index_memused(index)))
		r = why_set(why, -ENOMEM, "the indexes of compressed files take too much memory");
	if (r < 0) {
		lzma_index_end(index, NULL);
		return r;
	}
	packed->size = lzma_index_uncompressed_size(index);
	packed->state = index;
	return 0;
}

static void xz_close(struct packed *packed)
{
	lzma_index_end(packed->state, NULL);
}

static void locate(const struct packed *packed, uint64_t offset, lzma_index_iter *iter)
{
	lzma_index_iter_init(iter, packed->state);
	lzma_index_iter_locate(iter, offset);
}

static void xz_find(const struct packed *packed, uint64_t offset, struct packed_block *block)
{
	lzma_index_iter iter;

	locate(packed, offset, &iter);
	block->start = iter.block.uncompressed_file_offset;
	block->length = iter.block.uncompressed_size;
}

/* A dictionary need not be larger than what is in the block: -9 asks for 64 MiB. */
static void shrink_dictionary(lzma_filter *filters, uint64_t content)
{
	for (; filters->id != LZMA_VLI_UNKNOWN; filters++) {
		lzma_options_lzma *options = filters->options;

		if (filters->id == LZMA_FILTER_LZMA2 && options->dict_size > content)
			options->dict_size = (uint32_t)max_u64(content, LZMA_DICT_SIZE_MIN);
	}
}

/* Reads the header of a block. Its filters are allocated where this is 0. */
static int read_header(
	const struct file *file, const lzma_index_iter *iter, lzma_block *b, lzma_filter *filters)
{
	uint8_t header[LZMA_BLOCK_HEADER_SIZE_MAX];
	uint64_t at = iter->block.compressed_file_offset;
	lzma_ret ret;
	int r = packed_read_stored(file, header, 1, at);

	if (r < 0)
		return r;
	if (header[0] == 0)
		return -EIO;
	*b = (lzma_block) {
		.version = 1,
		.check = iter->stream.flags->check,
		.header_size = lzma_block_header_size_decode(header[0]),
		.filters = filters,
	};
	if (b->header_size > iter->block.total_size)
		return -EIO;
	r = packed_read_stored(file, header, b->header_size, at);
	if (r < 0)
		return r;
	ret = lzma_block_header_decode(b, NULL, header);
	if (ret != LZMA_OK)
		return ret == LZMA_MEM_ERROR ? -ENOMEM : -EIO;
	shrink_dictionary(filters, iter->block.uncompressed_size);
	/* The index knows both sizes; the header need not, but may not know better. */
	if (lzma_block_compressed_size(b, iter->block.unpadded_size) == LZMA_OK &&
		(b->uncompressed_size == LZMA_VLI_UNKNOWN ||
			b->uncompressed_size == iter->block.uncompressed_size) &&
		lzma_raw_decoder_memusage(filters) <= MEMORY_MAX) {
		b->uncompressed_size = iter->block.uncompressed_size;
		return 0;
	}
	lzma_filters_free(filters, NULL);
	return -EIO;
}

/* Feeds the decoder with [at, end) of the file. */
static int decode(const struct file *file, lzma_stream *s, uint64_t at, uint64_t end)
{
	autofree uint8_t *buffer = malloc(BUFFER);
	lzma_ret ret = LZMA_OK;

	if (!buffer)
		return -ENOMEM;
	while (ret == LZMA_OK) {
		if (s->avail_in == 0 && at < end) {
			uint64_t length = min_u64(BUFFER, end - at);
			int r = packed_read_stored(file, buffer, length, at);

			if (r < 0)
				return r;
			at += length;
			s->next_in = buffer;
			s->avail_in = length;
		}
		/* With nothing more to give it says LZMA_BUF_ERROR the second time. */
		ret = lzma_code(s, LZMA_RUN);
	}
	if (ret == LZMA_STREAM_END && s->avail_out == 0)
		return 0;
	return ret == LZMA_MEM_ERROR ? -ENOMEM : -EIO;
}

static int xz_unpack(const struct packed *packed, const struct file *file,
	const struct packed_block *block, uint8_t *bytes)
{
	lzma_filter filters[LZMA_FILTERS_MAX + 1];
	lzma_stream s = LZMA_STREAM_INIT;
	lzma_index_iter iter;
	lzma_block b;
	uint64_t at;
	int r;

	locate(packed, block->start, &iter);
	r = read_header(file, &iter, &b, filters);
	if (r < 0)
		return r;
	at = iter.block.compressed_file_offset;
	s.next_out = bytes;
	s.avail_out = block->length;
	if (lzma_block_decoder(&s, &b) == LZMA_OK)
		r = decode(file, &s, at + b.header_size, at + iter.block.total_size);
	else
		r = -ENOMEM;
	lzma_end(&s);
	lzma_filters_free(filters, NULL);
	return r;
}

const struct compression compression_xz = {
	.name = "xz",
	.suffix = "xz",
	.probe = xz_probe,
	.open = xz_open,
	.find = xz_find,
	.unpack = xz_unpack,
	.close = xz_close,
};
