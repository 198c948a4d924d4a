/* SPDX-License-Identifier: Apache-2.0 */
#include "abilities.h"

#include <errno.h>

#include "config.h"
#include "imgfs/log.h"

/* Reads ahead of several readers at a time; the kernel's default is 12. */
#define BACKGROUND_MAX 64

#if HAVE_PASSTHROUGH

/* Nothing that is stacked itself may be behind it; so an overlayfs can be put on the mount. */
static void init_passthrough(struct front *front, struct fuse_conn_info *conn)
{
	if (!front->passthrough)
		return;
	if (conn->capable & FUSE_CAP_PASSTHROUGH) {
		conn->want |= FUSE_CAP_PASSTHROUGH;
		conn->max_backing_stack_depth = FUSE_BACKING_STACKED_UNDER;
		return;
	}
	log_info("zero_copy without passthrough, which this kernel does not have");
	passthrough_free(front->passthrough);
	front->passthrough = NULL;
}

void abilities_answer_backing(struct fuse_file_info *fi, int id)
{
	fi->backing_id = id;
}

#else

static void init_passthrough(struct front *front, struct fuse_conn_info *conn)
{
	(void)front, (void)conn;
}

void abilities_answer_backing(struct fuse_file_info *fi, int id)
{
	(void)fi, (void)id;
}

#endif

#if HAVE_IO_URING

static void init_ring(struct front *front, const struct fuse_conn_info *conn)
{
	if (!front->ring_wanted || (conn->capable & FUSE_CAP_OVER_IO_URING))
		return;
	log_info("io_uring is not used: this kernel does not have it, or it is off (see "
		 "/sys/module/fuse/parameters/enable_uring)");
	front->ring_wanted = false;
}

/* The first request that is answered here. Only a library that has rings knows buffers in them. */
void abilities_see_ring(fuse_req_t req)
{
	if (fuse_req_is_uring(req))
		return;
	if (fuse_req_get_payload(req, &(char *) { NULL }, &(size_t) { 0 }, NULL) == -ENOTSUP)
		log_info("io_uring is not used: this libfuse was built without it");
	else
		log_info("io_uring is not used: libfuse could not start it");
}

/* The reply's place in the ring that the request came by, where it did; or NULL. */
uint8_t *abilities_ring_buffer(fuse_req_t req, size_t size)
{
	size_t room = 0;
	char *buffer;

	if (fuse_req_get_payload(req, &buffer, &room, NULL) < 0 || room < size)
		return NULL;
	return (uint8_t *)buffer;
}

#else

static void init_ring(struct front *front, const struct fuse_conn_info *conn)
{
	(void)front, (void)conn;
}

void abilities_see_ring(fuse_req_t req)
{
	(void)req;
}

uint8_t *abilities_ring_buffer(fuse_req_t req, size_t size)
{
	(void)req, (void)size;
	return NULL;
}

#endif

void abilities_ask(struct front *front, struct fuse_conn_info *conn)
{
	init_passthrough(front, conn);
	init_ring(front, conn);
	conn->max_write = front->zero_copy ? FRONT_ZERO_COPY_MAX : FRONT_READ_MAX;
	conn->max_background = BACKGROUND_MAX;
	conn->congestion_threshold = BACKGROUND_MAX * 3 / 4;
	if (front->slow_looks)
		conn->want &= ~(unsigned)FUSE_CAP_READDIRPLUS;
	if (conn->capable & FUSE_CAP_AUTO_INVAL_DATA)
		conn->want |= FUSE_CAP_AUTO_INVAL_DATA;
	/* Lookups and listings of one directory need not wait for each other. */
	if (conn->capable & FUSE_CAP_PARALLEL_DIROPS)
		conn->want |= FUSE_CAP_PARALLEL_DIROPS;
	if (conn->capable & FUSE_CAP_SPLICE_WRITE)
		conn->want |= FUSE_CAP_SPLICE_WRITE;
	if (conn->capable & FUSE_CAP_SPLICE_MOVE)
		conn->want |= FUSE_CAP_SPLICE_MOVE;
}
