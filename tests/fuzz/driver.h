/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzzing harnesses share: a datastore that the input is written into, and everything
 * that a mount would do with an image in it, judged by what must hold whatever the bytes are.
 *
 * A harness is one function, LLVMFuzzerTestOneInput(). Linked with libFuzzer it is fuzz_NAME;
 * linked with replay.c it runs over files, the corpus of every test run.
 */
#ifndef IMGFS_FUZZ_DRIVER_H
#define IMGFS_FUZZ_DRIVER_H

#include <stddef.h>
#include <stdint.h>

#include "imgfs/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the process with a message, as a crash that libFuzzer keeps the input of. */
#define fuzz_check(condition)                                        \
	do {                                                         \
		if (!(condition))                                    \
			fuzz_failed(__FILE__, __LINE__, #condition); \
	} while (0)
_Noreturn void fuzz_failed(const char *file, int line, const char *condition);

/* Empties the datastore, of all but the files that stay. */
void fuzz_begin(void);

/* Puts a file into the datastore: for this input, or to stay there. name has no directory. */
void fuzz_file(const char *name, const void *bytes, size_t length);
void fuzz_file_stays(const char *name, const void *bytes, size_t length);

/* A VMDK descriptor "disk.vmdk" with one extent. */
void fuzz_descriptor(const char *type, uint64_t sectors, const char *extent);

/*
 * Opens the image as a mount does and reads it and its views, and those of its internal snapshots.
 * `data`: where to read.
 */
void fuzz_image(const char *name, const uint8_t *data, size_t size);

/* The same for the disks of an archive, and for what is in a compressed file. */
void fuzz_archive(const char *name, const uint8_t *data, size_t size);
void fuzz_compressed(const char *name, const uint8_t *data, size_t size);

/* ---- within the driver ---- */

struct dice {
	uint64_t state;
};

uint64_t roll(struct dice *dice, uint64_t limit); /* 0 .. limit - 1; 0 where limit is 0 */

/* reads.c: up to `reads` reads of the views of an image. */
void fuzz_views(struct image *image, struct dice *dice, unsigned reads);

#endif
