/* SPDX-License-Identifier: Apache-2.0 */
/* What inject.c shares with wrap.c in a test program, and with preload.c in the daemon. */
#ifndef IMGFS_TEST_INJECT_PRIVATE_H
#define IMGFS_TEST_INJECT_PRIVATE_H

#include <stdbool.h>

#include "inject.h"

/* inject.c */

/* The rules are these from now on. */
void inject_use_rules(struct inject_rule *others);

/* Is it this call's turn? Sets errno where it is. fd: -1 where the call has none. */
bool inject_fails(enum inject_kind kind, int fd);

/* wrap.c or preload.c */

/* Do allocations fail for a caller at this address? */
bool inject_is_subject(const void *caller);

/* p is newly allocated. Returns p. */
void *inject_counted(void *p);

#endif
