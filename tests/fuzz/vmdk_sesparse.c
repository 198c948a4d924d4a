/* SPDX-License-Identifier: Apache-2.0 */
/* The sparse extent of a snapshot on VMFS 6. Its descriptor says the size that its header says. */
#include "driver.h"
#include "imgfs/wire.h"

#define CAPACITY 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t sectors = size >= CAPACITY + 8 ? get_le64(data + CAPACITY) : 1;

	fuzz_begin();
	fuzz_file("disk-sesparse.vmdk", data, size);
	/* No line can say 0; the header that does is then wrong. */
	fuzz_descriptor("SESPARSE", sectors ? sectors : 1, "disk-sesparse.vmdk");
	fuzz_image("disk.vmdk", data, size);
	return 0;
}
