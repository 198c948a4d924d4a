/* SPDX-License-Identifier: Apache-2.0 */
/* An OVA. The checksums of its headers are made right, or hardly any input would get past them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"

#define BLOCK    512u
#define CHECKSUM 148u
#define MAGIC    257u

static void mend(uint8_t *header)
{
	char text[8];
	unsigned sum = 0;

	memset(header + CHECKSUM, ' ', sizeof(text));
	for (unsigned i = 0; i < BLOCK; i++)
		sum += header[i];
	snprintf(text, sizeof(text), "%06o", sum);
	memcpy(header + CHECKSUM, text, sizeof(text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *bytes = malloc(size + 1);

	fuzz_check(bytes != NULL);
	memcpy(bytes, data, size);
	for (size_t at = 0; at + BLOCK <= size; at += BLOCK) {
		if (memcmp(bytes + at + MAGIC, "ustar", 5) == 0)
			mend(bytes + at);
	}
	fuzz_begin();
	fuzz_file("disk.ova", bytes, size);
	fuzz_archive("disk.ova", data, size);
	free(bytes);
	return 0;
}
