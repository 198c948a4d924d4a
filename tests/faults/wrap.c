/* SPDX-License-Identifier: Apache-2.0 */
/* For test programs, which the linker gives stand-ins: allocations are counted, time is told. */
#include <stdatomic.h>
#include <time.h>

#include "inject_private.h"

static atomic_llong allocated;
static unsigned seconds_ahead;

void real_free(void *p) __asm__("__real_free");
void stand_in_free(void *p) __asm__("__wrap_free");
int real_clock_gettime(clockid_t clock, struct timespec *now) __asm__("__real_clock_gettime");
int stand_in_clock_gettime(clockid_t clock, struct timespec *now) __asm__("__wrap_clock_gettime");

/* The linker has put the stand-ins into the program and the core alone. */
bool inject_is_subject(const void *caller)
{
	(void)caller;
	return true;
}

void *inject_counted(void *p)
{
	if (p)
		atomic_fetch_add(&allocated, 1);
	return p;
}

void stand_in_free(void *p)
{
	if (p)
		atomic_fetch_sub(&allocated, 1);
	real_free(p);
}

int64_t inject_allocated(void)
{
	return atomic_load(&allocated);
}

int stand_in_clock_gettime(clockid_t clock, struct timespec *now)
{
	int r = real_clock_gettime(clock, now);

	if (r == 0)
		now->tv_sec += seconds_ahead;
	return r;
}

void inject_pass_time(unsigned seconds)
{
	seconds_ahead += seconds;
}
