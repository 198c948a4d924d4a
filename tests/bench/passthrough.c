/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ceiling: one file, served as it is by the least that a FUSE server can do. Whatever imgfs
 * loses against it, translating costs.
 *
 *	passthrough FILE MOUNTPOINT
 *
 * The mount point is a file. Everything about the mount is as fs/main.c and fs/front.c have it:
 * the loop and its threads, the largest read, what is negotiated, how long the kernel may keep
 * what. PASSTHROUGH_BLOCK in the environment is the block size that stat(2) tells. Readahead is
 * set by whoever mounts both.
 */
#define FUSE_USE_VERSION 312

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define TIMEOUT  1.0
#define READ_MAX (1u << 20)

static int file;
static struct stat status;

static void pass_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->max_write = READ_MAX;
	conn->max_background = 64;
	conn->congestion_threshold = 48;
	conn->want |= conn->capable &
		      (FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
}

static void pass_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino, (void)fi;
	fuse_reply_attr(req, &status, TIMEOUT);
}

static void pass_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->keep_cache = 1;
	fuse_reply_open(req, fi);
}

static void pass_read(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	static _Thread_local char *buffer; /* lives as long as the thread: as long as we do */
	ssize_t got;

	(void)ino, (void)fi;
	if (!buffer && posix_memalign((void **)&buffer, 4096, READ_MAX) != 0) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	got = pread(file, buffer, size < READ_MAX ? size : READ_MAX, offset);
	if (got < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, buffer, (size_t)got);
}

static const struct fuse_lowlevel_ops operations = {
	.init = pass_init,
	.getattr = pass_getattr,
	.open = pass_open,
	.read = pass_read,
};

static int serve(struct fuse_args *args, const char *mountpoint)
{
	struct fuse_session *session =
		fuse_session_new(args, &operations, sizeof(operations), NULL);
	struct fuse_loop_config *loop = fuse_loop_cfg_create();
	int r = 1;

	if (!session || !loop || fuse_set_signal_handlers(session) != 0)
		return 1;
	if (fuse_session_mount(session, mountpoint) == 0) {
		r = fuse_session_loop_mt(session, loop) < 0;
		fuse_session_unmount(session);
	}
	fuse_remove_signal_handlers(session);
	fuse_session_destroy(session);
	fuse_loop_cfg_destroy(loop);
	return r;
}

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	const char *block = getenv("PASSTHROUGH_BLOCK");
	int r;

	if (argc != 3) {
		fprintf(stderr, "usage: %s FILE MOUNTPOINT\n", argv[0]);
		return 1;
	}
	file = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (file < 0 || fstat(file, &status) < 0) {
		perror(argv[1]);
		return 1;
	}
	status.st_ino = FUSE_ROOT_ID;
	if (block)
		status.st_blksize = atoi(block);
	if (fuse_opt_add_arg(&args, argv[0]) < 0 ||
		fuse_opt_add_arg(
			&args, "-oro,allow_other,default_permissions,subtype=passthrough") < 0)
		return 1;
	r = serve(&args, argv[2]);
	fuse_opt_free_args(&args);
	return r;
}
