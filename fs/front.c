/* SPDX-License-Identifier: Apache-2.0 */
#include "front.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "abilities.h"
#include "imgfs/cleanup.h"
#include "imgfs/log.h"

/* For so long, in seconds, the kernel answers by itself. Stale numbers are refused at open. */
#define TIMEOUT 1.0

/* What this thread is at. */
static _Thread_local fuse_req_t request;

/* First of all in whatever may take long. */
static void begin(fuse_req_t req)
{
	request = req;
}

static struct front *front_of(fuse_req_t req)
{
	struct front *front = fuse_req_userdata(req);

	begin(req);
	if (front->ring_wanted && atomic_exchange(&front->ring_wanted, false))
		abilities_see_ring(req);
	return front;
}

/* Whom threads serve that lend a hand and have no request of their own. */
static _Atomic(struct fuse_session *) serving;

bool front_interrupted(void)
{
	struct fuse_session *session = atomic_load(&serving);

	return (request && fuse_req_interrupted(request)) ||
	       (session && fuse_session_exited(session));
}

/* Handles travel in fi->fh. */
static uint64_t to_fh(const void *p)
{
	return (uint64_t)(uintptr_t)p;
}

static void *from_fh(const struct fuse_file_info *fi)
{
	return (void *)(uintptr_t)fi->fh;
}

static void reply_error(fuse_req_t req, int r)
{
	fuse_reply_err(req, -r);
}

/*
 * Of a read only EIO and ESTALE come out: an NFS client would try again for ever on others, and
 * whoever copies a view must stop.
 */
static int read_error(int r)
{
	return r == -ESTALE ? r : -EIO;
}

static void front_init(void *userdata, struct fuse_conn_info *conn)
{
	const struct front *front = userdata;

	atomic_store(&serving, front->session);
	abilities_ask(userdata, conn);
}

/* ---- names ---- */

static void fill_entry(struct fuse_entry_param *e, const struct stat *st)
{
	*e = (struct fuse_entry_param) {
		.ino = st->st_ino,
		.attr = *st,
		.attr_timeout = TIMEOUT,
		.entry_timeout = TIMEOUT,
	};
}

static void front_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct front *front = front_of(req);
	struct fuse_entry_param e;
	struct stat st;
	int r = catalog_lookup(front->catalog, parent, name, &st);

	if (r < 0) {
		reply_error(req, r);
		return;
	}
	fill_entry(&e, &st);
	/* The kernel did not get the answer (an interrupted lookup), so it will not forget. */
	if (fuse_reply_entry(req, &e) == -ENOENT)
		catalog_forget(front->catalog, st.st_ino, 1);
}

static void front_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	catalog_forget(front_of(req)->catalog, ino, count);
	fuse_reply_none(req);
}

static void front_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		catalog_forget(front_of(req)->catalog, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

/*
 * The kernel asks by the handle before it reads from its cache what was read more than TIMEOUT
 * ago; if the sources have changed since, that read must not succeed.
 */
static void front_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;
	int r;

	if (fi) {
		st = *handle_stat(from_fh(fi));
		/* The kernel hands it to whoever reads. */
		r = image_verify(handle_view(from_fh(fi))->image);
		r = r < 0 ? read_error(r) : 0;
	} else {
		r = catalog_getattr(front_of(req)->catalog, ino, &st);
	}
	if (r < 0)
		reply_error(req, r);
	else
		fuse_reply_attr(req, &st, TIMEOUT);
}

static void front_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st;

	(void)ino;
	if (fstatvfs(front_of(req)->datastore->root, &st) < 0) {
		reply_error(req, -errno);
		return;
	}
	st.f_flag |= ST_RDONLY | ST_NOSUID;
	fuse_reply_statfs(req, &st);
}

/* ---- directories ---- */

static void front_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct front *front = front_of(req);
	struct listing *listing;
	int r = catalog_list(front->catalog, ino, &listing);

	if (r < 0) {
		reply_error(req, r);
		return;
	}
	fi->fh = to_fh(listing);
	if (fuse_reply_open(req, fi) == -ENOENT)
		listing_free(front->catalog, listing);
}

static void front_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	listing_free(front_of(req)->catalog, from_fh(fi));
	reply_error(req, 0);
}

/*
 * Offsets of a directory stream: 1 and 2 follow "." and "..", whose numbers nobody needs; then
 * those of the listing.
 */
#define DOTS 2

/* As libfuse has it: the bytes that the entry takes, whether or not there is room. */
static size_t add_entry(
	fuse_req_t req, const struct listing_entry *entry, off_t next, char *buffer, size_t room)
{
	struct stat st = {
		.st_ino = entry->id,
		.st_mode = entry->directory ? S_IFDIR : S_IFREG,
	};

	return fuse_add_direntry(req, buffer, room, entry->name, &st, next);
}

/* reader: at the entry; NULL for those that the kernel knows. */
static size_t add_entry_plus(fuse_req_t req, struct listing_reader *reader,
	const struct listing_entry *entry, off_t next, char *buffer, size_t room)
{
	struct fuse_entry_param e = {
		.attr = { .st_ino = entry->id, .st_mode = entry->directory ? S_IFDIR : S_IFREG },
	};
	struct stat st;
	/* What there is no room for is not looked up in vain. */
	size_t size = fuse_add_direntry_plus(req, NULL, 0, entry->name, NULL, 0);

	if (size > room)
		return size;
	if (reader && listing_read_attributes(reader, &st) == 0)
		fill_entry(&e, &st);
	return fuse_add_direntry_plus(req, buffer, room, entry->name, &e, next);
}

struct directory_buffer {
	fuse_req_t req;
	bool plus;
	char *bytes;
	size_t size, used;
};

/* False: full. */
static bool put_entry(struct directory_buffer *b, struct listing_reader *reader,
	const struct listing_entry *entry, off_t next)
{
	size_t room = b->size - b->used;
	size_t size =
		b->plus ? add_entry_plus(b->req, reader, entry, next, b->bytes + b->used, room)
			: add_entry(b->req, entry, next, b->bytes + b->used, room);

	if (size > room)
		return false;
	b->used += size;
	return true;
}

static int fill_directory(
	struct directory_buffer *b, fuse_ino_t ino, uint64_t offset, const struct listing *listing)
{
	struct listing_reader reader;
	struct listing_entry entry = { .directory = true, .id = ino };
	int r;

	for (; offset < DOTS; offset++) {
		entry.name = offset == 0 ? "." : "..";
		if (!put_entry(b, NULL, &entry, (off_t)offset + 1))
			return 0;
	}
	listing_read_begin(&reader, listing, offset - DOTS, b->plus);
	while ((r = listing_read_next(&reader, &entry)) == 1 &&
		put_entry(b, &reader, &entry, (off_t)reader.position + DOTS + 1))
		reader.position++;
	listing_read_end(&reader);
	/* What has been found is told first. */
	return r < 0 && b->used == 0 ? r : 0;
}

static void read_directory(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
	struct fuse_file_info *fi, bool plus)
{
	autofree char *bytes = malloc(size);
	struct directory_buffer buffer = { req, plus, bytes, size, 0 };
	int r;

	begin(req);
	r = bytes ? fill_directory(&buffer, ino, (uint64_t)offset, from_fh(fi)) : -ENOMEM;
	if (r < 0)
		reply_error(req, r);
	else
		fuse_reply_buf(req, bytes, buffer.used);
}

static void front_readdir(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	read_directory(req, ino, size, offset, fi, false);
}

static void front_readdirplus(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	read_directory(req, ino, size, offset, fi, true);
}

/* ---- files ---- */

static void close_handle(struct front *front, fuse_ino_t ino, struct handle *handle)
{
	catalog_close(front->catalog, handle);
	if (front->passthrough)
		passthrough_close(front->passthrough, ino);
}

/* Who reads it from now on? Sets what the answer says of that. 0 or -errno. */
static int choose_reader(
	struct front *front, fuse_ino_t ino, const struct handle *handle, struct fuse_file_info *fi)
{
	const struct view *view = handle_view(handle);
	int id = 0;

	if (front->passthrough)
		id = passthrough_open(front->passthrough, ino,
			view->identity ? file_descriptor(image_file(view->image, 0)) : -1);
	if (id > 0)
		abilities_answer_backing(fi, id);
	else if (id == 0)
		/* The number of a view stands for one state of its sources; so do its pages. */
		fi->keep_cache = handle_keeps_pages(handle);
	return id < 0 ? id : 0;
}

static void front_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct front *front = front_of(req);
	struct handle *handle;
	int r;

	if ((fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC)) {
		reply_error(req, -EROFS);
		return;
	}
	r = catalog_open(front->catalog, ino, &handle);
	if (r == 0) {
		r = choose_reader(front, ino, handle, fi);
		if (r < 0)
			catalog_close(front->catalog, handle);
	}
	if (r < 0) {
		reply_error(req, r);
		return;
	}
	fi->fh = to_fh(handle);
	if (fuse_reply_open(req, fi) == -ENOENT)
		close_handle(front, ino, handle);
}

static void front_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	close_handle(front_of(req), ino, from_fh(fi));
	reply_error(req, 0);
}

static pthread_key_t buffer_key;
static pthread_once_t buffer_once = PTHREAD_ONCE_INIT;

static void make_buffer_key(void)
{
	if (pthread_key_create(&buffer_key, free) != 0)
		abort();
}

/* A buffer of FRONT_READ_MAX bytes for each thread: a fresh one per read would fault in every page.
 */
static uint8_t *thread_buffer(void)
{
	uint8_t *buffer;

	pthread_once(&buffer_once, make_buffer_key);
	buffer = pthread_getspecific(buffer_key);
	if (buffer)
		return buffer;
	if (posix_memalign((void **)&buffer, 4096, FRONT_READ_MAX) != 0)
		return NULL;
	if (pthread_setspecific(buffer_key, buffer) != 0) {
		free(buffer);
		return NULL;
	}
	return buffer;
}

/* One piece of a plan as libfuse wants it. False: its bytes are not in one place. */
static bool piece_buffer(const struct piece *piece, struct fuse_buf *buffer)
{
	static const uint8_t zeros[FRONT_ZERO_COPY_MAX];
	uint64_t at, contiguous;

	*buffer = (struct fuse_buf) { .size = piece->length };
	switch (piece->kind) {
	case PIECE_FILE:
		if (!file_place(piece->file, piece->offset, &at, &contiguous) ||
			contiguous < piece->length)
			return false;
		buffer->flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK | FUSE_BUF_FD_RETRY;
		buffer->fd = piece->file->fd;
		buffer->pos = (off_t)at;
		break;
	case PIECE_MEMORY:
		buffer->mem = (void *)(uintptr_t)piece->bytes;
		break;
	case PIECE_ZERO:
		buffer->mem = (void *)(uintptr_t)zeros;
		break;
	}
	return true;
}

/* Replies from the pieces of the plan where they are; 1 where that cannot be, -errno. */
static int reply_plan(fuse_req_t req, const struct plan *plan)
{
	autofree struct fuse_bufvec *vector =
		calloc(1, sizeof(*vector) + plan->count * sizeof(vector->buf[0]));
	int r = image_verify(plan->view->image);

	if (r < 0)
		return r;
	if (!vector)
		return -ENOMEM;
	vector->count = plan->count;
	for (size_t i = 0; i < plan->count; i++) {
		if (!piece_buffer(&plan->pieces[i], &vector->buf[i]))
			return 1;
	}
	fuse_reply_data(req, vector, FUSE_BUF_SPLICE_MOVE);
	return 0;
}

static int read_copied(fuse_req_t req, const struct view *view, uint64_t offset, size_t size)
{
	uint8_t *buffer = abilities_ring_buffer(req, size);
	uint64_t done;
	int r = -ENOMEM;

	if (!buffer)
		buffer = thread_buffer();
	if (buffer)
		r = view_read(view, offset, size, buffer, &done);
	if (r == 0)
		fuse_reply_buf(req, (const char *)buffer, done);
	return r;
}

static int read_zero_copy(fuse_req_t req, const struct view *view, uint64_t offset, size_t size)
{
	struct plan plan;
	int r = view_plan(view, offset, size, &plan);

	if (r == 0 && plan.count == 0)
		fuse_reply_buf(req, NULL, 0);
	else if (r == 0)
		r = reply_plan(req, &plan);
	plan_release(&plan);
	return r == 1 ? read_copied(req, view, offset, size) : r;
}

static void front_read(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	const struct view *view = handle_view(from_fh(fi));
	int r;

	(void)ino;
	if (size > FRONT_READ_MAX)
		size = FRONT_READ_MAX;
	if (front_of(req)->zero_copy && size <= FRONT_ZERO_COPY_MAX)
		r = read_zero_copy(req, view, (uint64_t)offset, size);
	else
		r = read_copied(req, view, (uint64_t)offset, size);
	if (r < 0)
		reply_error(req, read_error(r));
}

static void front_lseek(
	fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	const struct view *view = handle_view(from_fh(fi));
	uint64_t found = 0;
	int r = -EINVAL, changed;

	(void)ino;
	begin(req);
	if (offset < 0)
		r = -ENXIO;
	else if (whence == SEEK_DATA)
		r = view_seek_data(view, (uint64_t)offset, &found);
	else if (whence == SEEK_HOLE)
		r = view_seek_hole(view, (uint64_t)offset, &found);
	changed = image_verify(view->image);
	if (changed < 0)
		r = changed;
	if (r == 0)
		fuse_reply_lseek(req, (off_t)found);
	else
		reply_error(req, r == -ENXIO || r == -EINVAL ? r : read_error(r));
}

/*
 * ---- whatever would write ----
 *
 * The mount is read-only, so the kernel refuses these by itself; they are here for a mount that
 * somebody remounted, and say EROFS where a missing operation would say ENOSYS.
 */

static void front_setattr(
	fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	(void)ino, (void)attr, (void)to_set, (void)fi;
	reply_error(req, -EROFS);
}

static void front_mknod(
	fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	(void)parent, (void)name, (void)mode, (void)rdev;
	reply_error(req, -EROFS);
}

static void front_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	(void)parent, (void)name, (void)mode;
	reply_error(req, -EROFS);
}

static void front_remove(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)parent, (void)name;
	reply_error(req, -EROFS);
}

static void front_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	(void)target, (void)parent, (void)name;
	reply_error(req, -EROFS);
}

static void front_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
	const char *new_name, unsigned flags)
{
	(void)parent, (void)name, (void)new_parent, (void)new_name, (void)flags;
	reply_error(req, -EROFS);
}

static void front_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
	(void)ino, (void)new_parent, (void)new_name;
	reply_error(req, -EROFS);
}

static void front_create(
	fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	(void)parent, (void)name, (void)mode, (void)fi;
	reply_error(req, -EROFS);
}

static void front_setxattr(
	fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	(void)ino, (void)name, (void)value, (void)size, (void)flags;
	reply_error(req, -EROFS);
}

static void front_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	(void)ino, (void)name;
	reply_error(req, -EROFS);
}

const struct fuse_lowlevel_ops front_operations = {
	.init = front_init,
	.lookup = front_lookup,
	.forget = front_forget,
	.forget_multi = front_forget_multi,
	.getattr = front_getattr,
	.statfs = front_statfs,
	.opendir = front_opendir,
	.readdir = front_readdir,
	.readdirplus = front_readdirplus,
	.releasedir = front_releasedir,
	.open = front_open,
	.read = front_read,
	.release = front_release,
	.lseek = front_lseek,

	.setattr = front_setattr,
	.mknod = front_mknod,
	.mkdir = front_mkdir,
	.unlink = front_remove,
	.rmdir = front_remove,
	.symlink = front_symlink,
	.rename = front_rename,
	.link = front_link,
	.create = front_create,
	.setxattr = front_setxattr,
	.removexattr = front_removexattr,
};
