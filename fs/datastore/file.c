/* SPDX-License-Identifier: Apache-2.0 */
/* An open source file: exact reads, "has it changed?", "is it in use?", and where it holds data. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "content.h"
#include "imgfs/checked.h"
#include "imgfs/datastore.h"

int descriptor_read(int fd, void *buffer, uint64_t length, uint64_t offset)
{
	uint8_t *to = buffer;

	while (length > 0) {
		ssize_t n = pread(fd, to, length, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ERANGE;
		to += n;
		offset += (uint64_t)n;
		length -= (uint64_t)n;
	}
	return 0;
}

bool file_place(const struct file *file, uint64_t offset, uint64_t *at, uint64_t *contiguous)
{
	if (!file->content) {
		*at = offset;
		*contiguous = file->size - offset;
		return true;
	}
	if (!file->content->place)
		return false;
	file->content->place(file, offset, at, contiguous);
	return true;
}

int file_descriptor(const struct file *file)
{
	return file->content ? -1 : file->fd;
}

int file_read(const struct file *file, void *buffer, uint64_t length, uint64_t offset)
{
	uint8_t *to = buffer;
	uint64_t at, contiguous;
	int r = 0;

	if (!range_ok(offset, length, file->size))
		return -ERANGE;
	if (file->content && file->content->read)
		return file->content->read(file, buffer, length, offset);
	while (r == 0 && length > 0) {
		file_place(file, offset, &at, &contiguous);
		contiguous = min_u64(contiguous, length);
		r = descriptor_read(file->fd, to, contiguous, at);
		to += contiguous;
		offset += contiguous;
		length -= contiguous;
	}
	return r;
}

void file_will_need(const struct file *file, uint64_t offset, uint64_t length)
{
	uint64_t at, contiguous;

	if (!range_ok(offset, length, file->size))
		return;
	while (length > 0 && file_place(file, offset, &at, &contiguous)) {
		contiguous = min_u64(contiguous, length);
		posix_fadvise(file->fd, (off_t)at, (off_t)contiguous, POSIX_FADV_WILLNEED);
		offset += contiguous;
		length -= contiguous;
	}
}

bool file_is_same(const struct file *a, const struct file *b)
{
	return a->state.dev == b->state.dev && a->state.ino == b->state.ino && a->part == b->part;
}

int file_verify(const struct file *file)
{
	struct file_state now;
	struct stat st;

	if (fstat(file->fd, &st) < 0)
		return -errno;
	file_state_from_stat(&now, &st);
	return file_state_equal(&now, &file->state) ? 0 : -ESTALE;
}

/* QEMU's file-posix driver: RAW_LOCK_PERM_BASE plus the number of the permission. */
#define QEMU_LOCK_WRITE  101
#define QEMU_LOCK_RESIZE 103

/* Would a write lock meet somebody's lock? Any will do: QEMU takes shared ones. */
static bool is_locked(const struct file *file, off_t byte)
{
	struct flock lock = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = byte,
		.l_len = 1,
	};

	return fcntl(file->fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

bool file_in_use(const struct file *file)
{
	return is_locked(file, QEMU_LOCK_WRITE) || is_locked(file, QEMU_LOCK_RESIZE);
}

/*
 * What SEEK_DATA and SEEK_HOLE say of the descriptor. A file system without them has no holes.
 * Offsets here and below are the descriptor's, and `size` is its size.
 */
static int next_sought(int fd, uint64_t size, uint64_t offset, uint64_t *start, uint64_t *end)
{
	off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
	off_t hole;

	*start = *end = size;
	if (data < 0 && errno == ENXIO)
		return 0;
	if (data < 0 && errno == EINVAL) {
		*start = offset;
		return 0;
	}
	if (data < 0)
		return -errno;
	hole = lseek(fd, data, SEEK_HOLE);
	if (hole < 0)
		return errno == ENXIO ? -ESTALE : -errno;
	*start = min_u64((uint64_t)data, size);
	*end = min_u64((uint64_t)hole, size);
	return 0;
}

/*
 * The next allocated extent, written or not, that begins before limit. 1 found, 0 none, or
 * -errno. A file system that has no such map knows of none.
 */
static int next_allocated(
	int fd, uint64_t size, uint64_t offset, uint64_t limit, uint64_t *start, uint64_t *end)
{
	union {
		struct fiemap map;
		uint8_t room[sizeof(struct fiemap) + sizeof(struct fiemap_extent)];
	} query = {
		.map = {
			.fm_start = offset,
			.fm_length = limit - offset,
			.fm_extent_count = 1,
		},
	};
	const struct fiemap_extent *extent = &query.map.fm_extents[0];

	if (ioctl(fd, FS_IOC_FIEMAP, &query) < 0)
		return errno == EOPNOTSUPP || errno == ENOTTY || errno == EINVAL ? 0 : -errno;
	if (query.map.fm_mapped_extents != 1)
		return 0;
	*start = max_u64(extent->fe_logical, offset);
	*end = min_u64(extent->fe_logical + extent->fe_length, size);
	return (*start < limit) && (*end > *start);
}

static int next_in_descriptor(
	int fd, uint64_t size, uint64_t offset, uint64_t *start, uint64_t *end)
{
	uint64_t allocated_start = 0, allocated_end = 0;
	int r = next_sought(fd, size, offset, start, end);

	if (r < 0 || *start == offset)
		return r;
	r = next_allocated(fd, size, offset, *start, &allocated_start, &allocated_end);
	if (r == 1) {
		*start = allocated_start;
		*end = allocated_end;
	}
	return r < 0 ? r : 0;
}

int file_next_data(const struct file *file, uint64_t offset, uint64_t *start, uint64_t *end)
{
	uint64_t at, contiguous;

	while (offset < file->size) {
		int r;

		if (!file_place(file, offset, &at, &contiguous)) {
			*start = offset;
			*end = file->size;
			return 0;
		}
		r = next_in_descriptor(file->fd, file->state.size, at, start, end);
		if (r < 0)
			return r;
		if (*start < at + contiguous) {
			*end = offset + (min_u64(*end, at + contiguous) - at);
			*start = offset + (*start - at);
			return 0;
		}
		offset += contiguous;
	}
	*start = *end = file->size;
	return 0;
}
