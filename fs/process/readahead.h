/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far the kernel reads ahead of whoever reads a view from end to end.
 *
 * Its default of 128 KiB is a request at a time, and each waits for the next. Some megabytes are
 * several requests at a time: on several processors, where units have to be unpacked. libfuse can
 * only ask for less than the default, so it is set where the kernel shows it, in sysfs.
 */
#ifndef IMGFS_READAHEAD_H
#define IMGFS_READAHEAD_H

/*
 * Opens the setting of the file system that is mounted there, without asking it anything. A
 * descriptor, or -errno: only root may, and sysfs may be elsewhere or read-only; -ENODEV where no
 * mount begins there, as for one that was handed over.
 */
int readahead_open(const char *mountpoint);

/*
 * Sets it, after FUSE_INIT was answered, which takes it back to the default; and closes the
 * descriptor. 0 or -errno.
 */
int readahead_raise(int fd);

#endif
