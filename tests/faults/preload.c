/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the daemon, which gets the stand-ins from LD_PRELOAD; IMGFS_FAULTS names the file of rules.
 *
 * Allocations fail for the program and its decoders. libfuse is left alone: what it answers where
 * it has no memory for a request is not imgfs's to choose.
 */
#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "inject_private.h"

#define MAX_RANGES 16

static struct {
	uintptr_t start, end;
} subjects[MAX_RANGES];
static unsigned subject_count;

bool inject_is_subject(const void *caller)
{
	for (unsigned i = 0; i < subject_count; i++) {
		if ((uintptr_t)caller - subjects[i].start < subjects[i].end - subjects[i].start)
			return true;
	}
	return false;
}

void *inject_counted(void *p)
{
	return p;
}

/* The program itself comes without a name. */
static bool is_subject_name(const char *name)
{
	return *name == '\0' || strstr(name, "/libz.so") || strstr(name, "/libzstd.so") ||
	       strstr(name, "/libdeflate.so");
}

static int note_object(struct dl_phdr_info *info, size_t size, void *unused)
{
	(void)size, (void)unused;
	if (!is_subject_name(info->dlpi_name))
		return 0;
	for (int i = 0; i < info->dlpi_phnum && subject_count < MAX_RANGES; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];

		if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X))
			continue;
		subjects[subject_count].start = info->dlpi_addr + segment->p_vaddr;
		subjects[subject_count].end = subjects[subject_count].start + segment->p_memsz;
		subject_count++;
	}
	return 0;
}

__attribute__((constructor)) static void use_file(void)
{
	const char *path = getenv("IMGFS_FAULTS");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *rules;

	if (fd < 0)
		return;
	rules = mmap(NULL, INJECT_KINDS * sizeof(struct inject_rule), PROT_READ | PROT_WRITE,
		MAP_SHARED, fd, 0);
	close(fd);
	if (rules == MAP_FAILED)
		abort();
	dl_iterate_phdr(note_object, NULL);
	inject_use_rules(rules);
}
