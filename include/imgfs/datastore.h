/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The datastore: one directory tree, and the one gate through which anything in it is opened.
 *
 * Images are untrusted. A path may come from a directory listing (its names are whatever the
 * file system holds) or from a reference inside an image (a backing file, an extent, a parent,
 * a data file), which tenants write. Both end in datastore_open_file(); references pass
 * reference_resolve() before. Nothing else in the program opens a source.
 */
#ifndef IMGFS_DATASTORE_H
#define IMGFS_DATASTORE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#include "imgfs/why.h"

/* What an image whose format is declared may name; see reference_resolve(). */
enum reference_policy {
	REFERENCES_NONE,
	REFERENCES_FAMILY,
	REFERENCES_DATASTORE,
};

struct datastore {
	int root;        /* directory, O_PATH is not enough: it is also listed */
	char *root_path; /* canonical, absolute; only for names, never opened again */
	enum reference_policy references;
	bool follow_symlinks;
	struct keeper *keeper; /* what was found out about files */

	/* The caller's; outlives the open files. NULL: no compressed file can be opened. */
	struct cache *cache;

	/* May a compressed file that has no index be read from end to end to find one? */
	bool scan_gzip;

	/* As that of struct image_context, for a pass that takes long. NULL: never. */
	bool (*interrupted)(void);
};

struct cache;
struct content;
struct keeper;

/* Bytes that may be kept of what was found out about files that are not open. */
#define DATASTORE_KEPT (16u << 20)

/* The state of a file that must not change while a view of it is read. */
struct file_state {
	uint64_t dev, ino, size; /* size in bytes */
	struct timespec mtime, ctime;
};

/* An open source file. Immutable after the open; descriptors are read with pread only. */
struct file {
	int fd;
	uint64_t serial;         /* never reused in this process: the caches' key */
	char *path;              /* relative to the root */
	uint64_t size;           /* bytes that there are to read */
	struct file_state state; /* of what is in the descriptor, as it was at the open */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	uint64_t blocks; /* allocated for what is read, in units of 512 bytes */
	uint32_t refs;

	/* What is read are not simply the bytes of the descriptor. NULL: they are. */
	const struct content *content;
	void *content_state;
	uint64_t part; /* another number for each file that is a part of one descriptor's; or 0 */
};

/* Opens path as the root. 0 or -errno with the reason. */
int datastore_open(
	struct datastore *ds, const char *path, enum reference_policy references, struct why *why);
void datastore_close(struct datastore *ds);

/*
 * Opens the regular file at path, relative to the root, beneath the root: no symlinks (with
 * follow_symlinks: none that lead out), no magic links, no other file system, nothing that is
 * not a regular file. A path may go on in an archive (archive.h), and of a compressed
 * file (compression.h) what is in it is opened. *file has one reference. -ENOENT,
 * -EACCES, -ELOOP, -EXDEV, -EINVAL (not a regular file), -EMFILE (this process holds
 * DATASTORE_MAX_FILES already), ….
 */
int datastore_open_file(
	const struct datastore *ds, const char *path, struct file **file, struct why *why);

/* Opens the directory at path ("" is the root) for reading, by the same rules. fd or -errno. */
int datastore_open_dir(const struct datastore *ds, const char *path);

/*
 * lstat of the file at path by the same rules, following a symlink only where an open would.
 * Opens nothing but an O_PATH descriptor. Of a file in an archive it is the archive's, and to see
 * whether it is in there the archive is opened where that is not known. 0 or -errno.
 */
int datastore_stat(const struct datastore *ds, const char *path, struct stat *st);

/* A directory that is looked at name after name. */
struct open_directory {
	int fd; /* the caller's to close */
	dev_t device;
};

int datastore_open_directory(
	const struct datastore *ds, const char *path, struct open_directory *directory);

/*
 * As datastore_stat() of path, whose last component is `name` in the directory: one system call
 * where nothing unusual is there. It says what a name is now, and not that it may be opened: that
 * is for the open to find out.
 */
int datastore_stat_in(const struct datastore *ds, const struct open_directory *directory,
	const char *path, const char *name, struct stat *st);

/* Files open in this process at most, over all images; S3 of the policy. */
#define DATASTORE_MAX_FILES 400

/* Is the file at path in that state? False too where it cannot be seen. */
bool datastore_unchanged(
	const struct datastore *ds, const char *path, const struct file_state *state);

struct file *file_ref(struct file *file);
void file_unref(struct file *file);

/*
 * Reads exactly length bytes at offset, through short reads and EINTR. -ERANGE where the range
 * is not inside the file (nothing is read then, or the file has been truncated since).
 */
int file_read(const struct file *file, void *buffer, uint64_t length, uint64_t offset);

/*
 * Where is the byte at offset in the descriptor? *contiguous: so many follow it in both. False:
 * nowhere, only file_read() has it. offset < size.
 */
bool file_place(const struct file *file, uint64_t offset, uint64_t *at, uint64_t *contiguous);

/* The descriptor whose bytes are those of the file, from the first to the last; -1 for none. */
int file_descriptor(const struct file *file);

/* Bytes that will be asked for soon: the kernel may read them meanwhile. Only a hint. */
void file_will_need(const struct file *file, uint64_t offset, uint64_t length);

/* Are the two the same bytes of one inode? */
bool file_is_same(const struct file *a, const struct file *b);

/* 0 while the file is in the state of its open, -ESTALE when it is not, or -errno. */
int file_verify(const struct file *file);

/*
 * Does a QEMU hold the file so that it may write to it or change its size? Asks about the bytes
 * that QEMU locks (101 and 103 of its image locking) and takes no lock, so that imgfs never keeps
 * a virtual machine from starting. False where the file system cannot tell.
 */
bool file_in_use(const struct file *file);

void file_state_from_stat(struct file_state *state, const struct stat *st);
bool file_state_equal(const struct file_state *a, const struct file_state *b);

/*
 * Where is data in the file? Sets [*start, *end) to the first allocated range that ends after
 * offset, or both to the size where none follows. Preallocated (unwritten) space counts as
 * allocated: whether SEEK_HOLE says so depends on what the page cache holds at the moment, and
 * the size of a view must not. 0 or -errno.
 */
int file_next_data(const struct file *file, uint64_t offset, uint64_t *start, uint64_t *end);

/* References (policy S1, S2). */

#define REFERENCE_NAME_MAX 1023

/*
 * Turns a name that an image holds into a path relative to the root.
 *
 * name: length bytes, not necessarily terminated, as found in the image.
 * from: path of the file that holds the name; a relative name is taken from its directory.
 * top:  path of the image that is being opened; with REFERENCES_FAMILY, what is named must be
 *       beside it and be called like it (name_is_family()).
 *
 * The name must be 1..REFERENCE_NAME_MAX bytes without control bytes, must have no ".."
 * component, and if it is absolute must lie beneath the root. It is never taken for a protocol.
 * *path is the caller's to free. -EPERM (policy, the reason names the option that would allow
 * it), -EINVAL (not a usable name), -ENOMEM.
 */
int reference_resolve(const struct datastore *ds, const char *top, const char *from,
	const char *name, size_t length, char **path, struct why *why);

#endif
