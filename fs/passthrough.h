/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which views the kernel reads by itself. FUSE passthrough: an open that is answered with the id
 * of a backing file is read from that file by the kernel, page cache, mmap and O_DIRECT included,
 * and this process hears nothing of it.
 *
 * The kernel has rules. All that has a node open at a time has it open in the same way, and with
 * the same id; and an id must stay registered until nobody uses it. So the first open of a node
 * decides, and what it has decided holds until the last handle is closed. The kernel lets go of a
 * handle before it tells, and takes one after it was told: to be the same for all that are
 * counted here is to be the same for all that the kernel has.
 */
#ifndef IMGFS_PASSTHROUGH_H
#define IMGFS_PASSTHROUGH_H

#include <stdint.h>

#include "process/companion.h"

struct passthrough;

/*
 * Files are registered by the companion, or where there is none by this process, with the
 * connection's descriptor. Both outlive it. NULL: out of memory.
 */
struct passthrough *passthrough_new(const struct companion *companion, int connection);
void passthrough_free(struct passthrough *passthrough);

/*
 * The node is opened; file is the descriptor of the file that it is, byte for byte, or -1 where
 * there is no such file. The id to answer with, or 0: the kernel asks this process for each read,
 * as it does where a file cannot be registered, which is logged once. Both need a
 * passthrough_close(). -ESTALE, -ENOMEM: cannot be opened.
 */
int passthrough_open(struct passthrough *passthrough, uint64_t node, int file);
void passthrough_close(struct passthrough *passthrough, uint64_t node);

#endif
