/* SPDX-License-Identifier: Apache-2.0 */
/* The sparse extent of an ESX snapshot. Its descriptor says the size that its header says. */
#include "driver.h"
#include "imgfs/wire.h"

#define CAPACITY 12

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t sectors = size >= CAPACITY + 4 ? get_le32(data + CAPACITY) : 1;

	fuzz_begin();
	fuzz_file("disk-delta.vmdk", data, size);
	/* No line can say 0; the header that does is then wrong. */
	fuzz_descriptor("VMFSSPARSE", sectors ? sectors : 1, "disk-delta.vmdk");
	fuzz_image("disk.vmdk", data, size);
	return 0;
}
