/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMGFS_TESTS_SURVEY_H
#define IMGFS_TESTS_SURVEY_H

#include "imgfs/image.h"

/*
 * Reads every view of the image, whatever fails, in long reads and again in short ones, and tells
 * what could not be read:
 *
 *	hole VIEW START END          what seeking says; it must have read as zeros
 *	read VIEW START END          was asked for
 *	bad VIEW START END ERRNO     failed, by sectors
 *
 * What could be read is in directory/VIEW, at its place. 0; -EBADMSG where seeking contradicts
 * itself or the bytes, or one read another (a line on stderr says how); -errno.
 */
int survey(struct image *image, const char *directory);

#endif
