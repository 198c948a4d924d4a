/* SPDX-License-Identifier: Apache-2.0 */
/* The one place that says which API of libfuse main.c, front.c and abilities.c are written for. */
#ifndef IMGFS_FUSE_API_H
#define IMGFS_FUSE_API_H

#define FUSE_USE_VERSION 312

#include <fuse_lowlevel.h>

#endif
