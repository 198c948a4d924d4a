/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long ago did a source change, and what follows from that?
 *
 * A change shows in the change time of a file, but not at once and not always. write(2) sets the
 * time before it copies the bytes, and nothing keeps a reader out meanwhile: a file may have its
 * final state and not yet all of its bytes. And where the time has the granularity of a clock
 * tick (10 ms at most; 2 s on some file systems), two changes within one tick look like one.
 */
#include <time.h>

#include "imgfs/age.h"

#define MILLISECONDS 1000000ll
#define SECONDS      (1000 * MILLISECONDS)

/* Two ticks: the next change has another time, and an ordinary write(2) has ended. */
#define SETTLED (20 * MILLISECONDS)

/* A long write(2) too has ended, and a coarse clock has gone on. */
#define OLD (3 * SECONDS)

/* A change that is yet to come by so much says that the clocks differ, and nothing else. */
#define SKEWED_SECONDS 10

struct timespec age_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now;
}

int64_t age_steady(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * SECONDS + now.tv_nsec;
}

int64_t age_at(struct timespec when, struct timespec changed)
{
	if (changed.tv_sec < when.tv_sec - 60 || changed.tv_sec > when.tv_sec + SKEWED_SECONDS)
		return OLD;
	return (when.tv_sec - changed.tv_sec) * SECONDS + when.tv_nsec - changed.tv_nsec;
}

bool age_is_old(int64_t age)
{
	return age >= OLD;
}

bool age_lets_keep(int64_t then, struct timespec changed)
{
	return age_is_old(then) || (then >= SETTLED && !age_is_old(age_at(age_clock(), changed)));
}

bool age_wait(struct timespec changed)
{
	int64_t left = SETTLED - age_at(age_clock(), changed);
	struct timespec pause = { 0 };

	if (left <= 0)
		return false;
	pause.tv_nsec = left < SETTLED ? left : SETTLED;
	nanosleep(&pause, NULL);
	return true;
}
