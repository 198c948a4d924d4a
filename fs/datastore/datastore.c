/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate: every open of anything in the datastore happens here.
 *
 * openat2(2) keeps the lookup beneath the root whatever is renamed meanwhile. The file is first
 * opened O_PATH, which has no side effect on a device, FIFO or socket, and only then for real;
 * what the second open finds must be the same inode.
 */
#include "imgfs/datastore.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "content.h"
#include "gate.h"
#include "imgfs/cleanup.h"
#include "imgfs/log.h"
#include "imgfs/names.h"
#include "keeper.h"

static atomic_uint open_files;
static atomic_ullong next_serial = 1;

int datastore_open(
	struct datastore *ds, const char *path, enum reference_policy references, struct why *why)
{
	autofree char *canonical = realpath(path, NULL);

	if (!canonical)
		return why_set(why, -errno, "%s: %s", quote(path).text, strerror(errno));
	memset(ds, 0, sizeof(*ds));
	ds->keeper = keeper_new(DATASTORE_KEPT);
	if (!ds->keeper)
		return why_set(why, -ENOMEM, "out of memory");
	ds->root = open(canonical, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (ds->root < 0) {
		int err = -errno;

		keeper_free(ds->keeper);
		return why_set(why, err, "%s: %s", quote(path).text, strerror(-err));
	}
	ds->root_path = steal_ptr(canonical);
	ds->references = references;
	return 0;
}

void datastore_close(struct datastore *ds)
{
	close(ds->root);
	free(ds->root_path);
	keeper_free(ds->keeper);
}

/* A descriptor, or -errno. */
static int open_beneath(const struct datastore *ds, const char *path, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
	};
	long fd;

	if (!ds->follow_symlinks) {
		how.flags |= O_NOFOLLOW;
		how.resolve |= RESOLVE_NO_SYMLINKS;
	}
	/* EAGAIN: something was renamed during the lookup, so the kernel could not tell. */
	for (int tries = 0; tries < 8; tries++) {
		fd = syscall(SYS_openat2, ds->root, *path ? path : ".", &how, sizeof(how));
		if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
			break;
	}
	if (fd >= 0)
		return (int)fd;
	return errno == EAGAIN ? -EBUSY : -errno;
}

static const char *describe_type(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return "a directory";
	case S_IFLNK:
		return "a symbolic link (-o follow_symlinks allows those that stay in the "
		       "datastore)";
	case S_IFBLK:
	case S_IFCHR:
		return "a device";
	case S_IFIFO:
		return "a FIFO";
	case S_IFSOCK:
		return "a socket";
	default:
		return "not a regular file";
	}
}

static int explain_open(struct why *why, int err)
{
	switch (-err) {
	case ELOOP:
		return why_set(why, err,
			"a symbolic link is in the way "
			"(-o follow_symlinks allows those that stay in the datastore)");
	case EXDEV:
		return why_set(why, err, "it leads out of the datastore or to another file system");
	default:
		return why_set(why, err, "%s", strerror(-err));
	}
}

/* The regular file at path, opened for reading; its stat in *st. A descriptor, or -errno. */
static int open_regular(
	const struct datastore *ds, const char *path, struct stat *st, struct why *why)
{
	autoclose int look = open_beneath(ds, path, O_PATH);
	autoclose int fd = -1;
	struct stat opened;

	if (look < 0)
		return explain_open(why, look);
	if (fstat(look, st) < 0)
		return explain_open(why, -errno);
	if (!S_ISREG(st->st_mode))
		return why_set(why, -EINVAL, "it is %s", describe_type(st->st_mode));

	fd = open_beneath(ds, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return explain_open(why, fd);
	if (fstat(fd, &opened) < 0)
		return explain_open(why, -errno);
	if (opened.st_dev != st->st_dev || opened.st_ino != st->st_ino)
		return why_set(why, -EBUSY, "it was replaced while it was being opened");
	*st = opened;
	return steal_fd(&fd);
}

void file_state_from_stat(struct file_state *state, const struct stat *st)
{
	*state = (struct file_state) {
		.dev = st->st_dev,
		.ino = st->st_ino,
		.size = (uint64_t)st->st_size,
		.mtime = st->st_mtim,
		.ctime = st->st_ctim,
	};
}

static bool time_equal(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

bool file_state_equal(const struct file_state *a, const struct file_state *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
	       time_equal(&a->mtime, &b->mtime) && time_equal(&a->ctime, &b->ctime);
}

static void file_destroy(struct file *file)
{
	if (file->content)
		file->content->close(file);
	if (file->fd >= 0) {
		close(file->fd);
		atomic_fetch_sub(&open_files, 1);
	}
	free(file->path);
	free(file);
}

int file_set_path(struct file *file, const char *path)
{
	char *copy = strdup(path);

	if (!copy)
		return -ENOMEM;
	free(file->path);
	file->path = copy;
	return 0;
}

int gate_open(const struct datastore *ds, const char *path, struct file **file, struct why *why)
{
	struct file *f = calloc(1, sizeof(*f));
	struct stat st;

	if (!f)
		return why_set(why, -ENOMEM, "out of memory");
	f->fd = -1;
	f->refs = 1;
	f->path = strdup(path);
	if (!f->path) {
		file_destroy(f);
		return why_set(why, -ENOMEM, "out of memory");
	}
	if (atomic_fetch_add(&open_files, 1) >= DATASTORE_MAX_FILES) {
		atomic_fetch_sub(&open_files, 1);
		file_destroy(f);
		return why_set(why, -EMFILE, "%d files of the datastore are open already",
			DATASTORE_MAX_FILES);
	}
	f->fd = open_regular(ds, path, &st, why);
	if (f->fd < 0) {
		int err = f->fd;

		atomic_fetch_sub(&open_files, 1);
		file_destroy(f);
		return err;
	}
	f->serial = atomic_fetch_add(&next_serial, 1);
	file_state_from_stat(&f->state, &st);
	f->size = f->state.size;
	f->mode = st.st_mode;
	f->uid = st.st_uid;
	f->gid = st.st_gid;
	f->blocks = (uint64_t)st.st_blocks;
	*file = f;
	return 0;
}

int datastore_open_file(
	const struct datastore *ds, const char *path, struct file **file, struct why *why)
{
	const char *suffix = name_compression(path_name(path));
	int r = gate_open(ds, path, file, why);

	if (r == -ENOTDIR)
		return archive_open_file(ds, path, file, why);
	if (r < 0 || !suffix)
		return r;
	r = packed_set(ds, *file, suffix, why);
	if (r < 0) {
		file_unref(*file);
		*file = NULL;
	}
	return r;
}

int datastore_open_dir(const struct datastore *ds, const char *path)
{
	return open_beneath(ds, path, O_RDONLY | O_DIRECTORY);
}

int gate_stat(const struct datastore *ds, const char *path, struct stat *st)
{
	autoclose int fd = open_beneath(ds, path, O_PATH);

	if (fd < 0)
		return fd;
	return fstat(fd, st) < 0 ? -errno : 0;
}

int datastore_stat(const struct datastore *ds, const char *path, struct stat *st)
{
	int r = gate_stat(ds, path, st);

	return r == -ENOTDIR ? archive_stat(ds, path, st) : r;
}

int datastore_open_directory(
	const struct datastore *ds, const char *path, struct open_directory *directory)
{
	autoclose int fd = datastore_open_dir(ds, path);
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	*directory = (struct open_directory) { .fd = steal_fd(&fd), .device = st.st_dev };
	return 0;
}

int datastore_stat_in(const struct datastore *ds, const struct open_directory *directory,
	const char *path, const char *name, struct stat *st)
{
	/* A name without a slash that is no symbolic link leads nowhere else. */
	if (fstatat(directory->fd, name, st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st->st_mode) &&
		st->st_dev == directory->device)
		return 0;
	return datastore_stat(ds, path, st);
}

bool datastore_unchanged(
	const struct datastore *ds, const char *path, const struct file_state *state)
{
	struct file_state now;
	struct stat st;

	if (datastore_stat(ds, path, &st) < 0)
		return false;
	file_state_from_stat(&now, &st);
	return file_state_equal(&now, state);
}

struct file *file_ref(struct file *file)
{
	__atomic_fetch_add(&file->refs, 1, __ATOMIC_RELAXED);
	return file;
}

void file_unref(struct file *file)
{
	if (file && __atomic_sub_fetch(&file->refs, 1, __ATOMIC_ACQ_REL) == 0)
		file_destroy(file);
}
