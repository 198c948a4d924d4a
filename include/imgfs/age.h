/* SPDX-License-Identifier: Apache-2.0 */
/* How long ago did a source change? See age.c. */
#ifndef IMGFS_AGE_H
#define IMGFS_AGE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct timespec age_clock(void);

/* Nanoseconds from `changed`, the newest change time of the files of an image, to `when`. */
int64_t age_at(struct timespec when, struct timespec changed);

/* Did the change end long ago, so that what is learned now stays true until the next one? */
bool age_is_old(int64_t age);

/*
 * May what was learned when the sources had the age `then` be used again? What was learned right
 * after a change may not, and what was learned a little later only for a little while.
 */
bool age_lets_keep(int64_t then, struct timespec changed);

/* Nanoseconds of a clock that nobody sets. */
int64_t age_steady(void);

/* Waits, 20 ms at most, until the next change will have another time. False: no need to. */
bool age_wait(struct timespec changed);

#endif
