/* SPDX-License-Identifier: Apache-2.0 */
#include "descriptor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "imgfs/checked.h"
#include "imgfs/names.h"

/*
 * The geometry that a BIOS is told, by VMware's rules: of an IDE disk in tracks of 63 sectors and
 * cylinders of 16 heads, and of a SCSI disk in such of 255, as many as fit into the disk and into
 * the field for them.
 */
struct geometry {
	uint64_t cylinders, heads, sectors;
};

static const struct adapter {
	const char *name;
	uint64_t heads, cylinders_max;
} adapters[] = {
	[ADAPTER_LSILOGIC] = { "lsilogic", 255, 65535 },
	[ADAPTER_BUSLOGIC] = { "buslogic", 255, 65535 },
	[ADAPTER_IDE] = { "ide", 16, 16383 },
};

static struct geometry geometry_of(const struct adapter *adapter, uint64_t sectors)
{
	struct geometry g = { .heads = adapter->heads, .sectors = 63 };

	g.cylinders = sectors / (g.heads * g.sectors);
	g.cylinders = min_u64(max_u64(g.cylinders, 1), adapter->cylinders_max);
	return g;
}

/* Of other sectors than 512 bytes a guest must be told; open-vmdk's keys. */
static const char *sector_size_lines(const struct view_options *options, bool physical)
{
	if (options->sector_size != 4096)
		return "";
	return physical ? "ddb.physicalSectorSize = \"4096\"\n"
			: "ddb.logicalSectorSize = \"4096\"\n";
}

/* 0 and these two mean "none" or "see the long one" to some readers. */
static uint32_t short_content_id(uint64_t content)
{
	uint32_t cid = (uint32_t)content;

	return cid == 0 || cid >= 0xfffffffe ? 1 : cid;
}

size_t descriptor_write(const struct view *view, const char *create_type,
	const struct descriptor_extent *extent, uint64_t content, char *out)
{
	const struct view_options *options = view->options;
	const struct adapter *adapter = &adapters[options->adapter];
	uint64_t sectors = view_disk_size(view) / 512;
	struct geometry g = geometry_of(adapter, sectors);
	uint32_t cid = short_content_id(content);

	return (size_t)snprintf(out, DESCRIPTOR_BYTES,
		"# Disk DescriptorFile\n"
		"version=1\n"
		"encoding=\"UTF-8\"\n"
		"CID=%08" PRIx32 "\n"
		"parentCID=ffffffff\n"
		"isNativeSnapshot=\"no\"\n"
		"createType=\"%s\"\n"
		"\n"
		"# Extent description\n"
		"RW %" PRIu64 " %s \"%s\"%s\n"
		"\n"
		"# The Disk Data Base\n"
		"#DDB\n"
		"\n"
		"ddb.adapterType = \"%s\"\n"
		"ddb.geometry.cylinders = \"%" PRIu64 "\"\n"
		"ddb.geometry.heads = \"%" PRIu64 "\"\n"
		"ddb.geometry.sectors = \"%" PRIu64 "\"\n"
		"%s"
		"ddb.longContentID = \"%016" PRIx64 "%08" PRIx32 "%08" PRIx32 "\"\n"
		"%s"
		"ddb.toolsInstallType = \"4\"\n"
		"ddb.toolsVersion = \"%u\"\n"
		"ddb.virtualHWVersion = \"%u\"\n",
		cid, create_type, sectors, extent->type, extent->name, extent->tail, adapter->name,
		g.cylinders, g.heads, g.sectors, sector_size_lines(options, false), content,
		(uint32_t)(content >> 32), cid, sector_size_lines(options, true),
		options->tools_version, options->hardware_version);
}

/* ---- names ---- */

/* Keys whose values are files. Some readers find them anywhere in the text. */
static bool mentions_files(const char *name, size_t length)
{
	char text[EXTENT_NAME_MAX];

	snprintf(text, sizeof(text), "%.*s", (int)length, name);
	return strcasestr(text, "parentFileNameHint") || strcasestr(text, "changeTrackPath");
}

bool descriptor_name_ok(const char *name, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (name[i] < 0x20 || name[i] > 0x7e || name[i] == '"' || name[i] == '/')
			return false;
	}
	return length > 0 && length < EXTENT_NAME_MAX && !mentions_files(name, length);
}

void descriptor_own_name(const struct view *view, struct descriptor_extent *extent)
{
	const char *path = image_path(view->image);
	const char *slash = strrchr(path, '/');
	const char *file = slash ? slash + 1 : path;
	size_t length = name_stem_length(file);

	if (!descriptor_name_ok(file, length)) {
		file = "disk";
		length = 4;
	}
	snprintf(extent->name, sizeof(extent->name), "%.*s.vmdk", (int)length, file);
}
