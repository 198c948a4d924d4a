/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process shuts itself in before it reads the first byte of an image: whatever an image does
 * to it, what is left is a program that can read beneath one directory and answer the kernel.
 *
 * All of it is called while there is one thread, after the mount: what is given up here is what
 * mounting takes. Threads that are made later inherit it.
 */
#ifndef IMGFS_CONFINE_H
#define IMGFS_CONFINE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "imgfs/why.h"

struct confinement {
	int root; /* directory: all that may be opened is beneath it */

	bool change_user; /* to user, group and the groups of that user */
	uid_t user;
	gid_t group;

	uint64_t memory; /* bytes of data at most, stacks of threads included */
	bool clone_fd;   /* every thread opens /dev/fuse for itself */
	int orders;      /* the companion's socket, to hand it descriptors; -1 for none */

	/*
	 * Rings that libfuse makes to get requests by io_uring; 0 for none. What a ring is asked
	 * to do no filter of system calls sees, and a ring can be asked for files and sockets. So
	 * with rings seccomp is no bound for somebody who has taken the process over. What still
	 * is: no capabilities and none to come, Landlock (files beneath root alone; no TCP, no
	 * signals, no abstract sockets), no process (rings make none), and the limits. Rings can
	 * be restricted, but only by who makes them, and that is libfuse.
	 */
	unsigned rings;
};

/* Descriptors at most; S3 of the policy. The gate stays well below (DATASTORE_MAX_FILES). */
#define CONFINE_MAX_DESCRIPTORS 512

/*
 * All of the steps in their order. 0, or -errno with the reason: then the process is confined in
 * part and must end. A kernel without Landlock is no failure; a log line tells what holds.
 */
int confine(const struct confinement *confinement, struct why *why);

/* The steps, in the order in which confine() takes them. */

/*
 * Changes the user if that is asked for and gives up all capabilities; a root that stays root
 * keeps CAP_DAC_READ_SEARCH, since images belong to many users. Nothing that is executed or
 * inherited gives any of it back (PR_SET_NO_NEW_PRIVS).
 */
int confine_privileges(const struct confinement *confinement, struct why *why);

/*
 * No core dumps (they would hold tenants' data), `memory` of data, CONFINE_MAX_DESCRIPTORS and two
 * for each ring.
 */
int confine_resources(const struct confinement *confinement, struct why *why);

/*
 * Landlock: reading beneath root, no other file, no network, no signal to others, as far as the
 * kernel's version of it reaches. *abi is that version, 0 where there is none.
 */
int confine_files(const struct confinement *confinement, int *abi, struct why *why);

/* seccomp: the system calls that serving needs, and -EPERM for all others. */
int confine_calls(const struct confinement *confinement, struct why *why);

/*
 * Tries, from a thread of its own, what must not be possible any more, and prints what came of
 * each attempt. The number of attempts that were not refused, or -errno.
 */
int confine_selftest(int root);

#endif
