/* SPDX-License-Identifier: Apache-2.0 */
/* A compressed file; the first byte says of which kind, and what should be in it. */
#include "driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = { "disk.raw.gz", "disk.raw.xz", "disk.raw.zst",
		"disk.qcow2.gz", "disk.qcow2.xz", "disk.qcow2.zst" };
	const char *name;

	if (size == 0)
		return 0;
	name = names[data[0] % 6];
	fuzz_begin();
	fuzz_file(name, data + 1, size - 1);
	fuzz_compressed(name, data, size);
	return 0;
}
