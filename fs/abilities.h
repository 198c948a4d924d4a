/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this libfuse and this kernel can do: what is asked for when the kernel tells, and what not
 * every libfuse has. Which one it is was found out when this was built.
 */
#ifndef IMGFS_ABILITIES_H
#define IMGFS_ABILITIES_H

#include <stddef.h>
#include <stdint.h>

#include "front.h"

/* At FUSE_INIT. Takes back from front what cannot be, and says so. */
void abilities_ask(struct front *front, struct fuse_conn_info *conn);

/* The answer to an open: reads are the kernel's, from the backing file of that id. */
void abilities_answer_backing(struct fuse_file_info *fi, int id);

/* At the first request that is answered: did it come by a ring, which was asked for? Says why not.
 */
void abilities_see_ring(fuse_req_t req);

/* The reply's place in the ring that the request came by, of so many bytes; NULL for none. */
uint8_t *abilities_ring_buffer(fuse_req_t req, size_t size);

#endif
