# SPDX-License-Identifier: Apache-2.0
"""Two strict readers of VMDK descriptors, by the rules that they are known to have.

OpenStack: oslo.utils' VMDKInspector, which Glance, Nova and Cinder hold an image against before
they use it. VirtualBox: the parser of its VMDK backend. Both are written anew from what they check;
each raises Refused, with the rule in it, where the other program would refuse the disk.
"""

import re
import struct

SECTOR = 512


class Refused(Exception):
    pass


# ---- OpenStack ----

OPENSTACK_TYPES = ("monolithicSparse", "streamOptimized")
DIRECTORY_AT_END = (1 << 64) - 1


def openstack_text(text):
    """The descriptor of a disk, padded with NULs or not. Every line must be one that is known."""
    try:
        lines = text.rstrip(b"\0").decode("ascii").lower().split("\n")
    except UnicodeDecodeError:
        raise Refused("not ASCII") from None
    extents = []
    for line in (line.strip() for line in lines):
        if not line or line.startswith("#") or line.startswith("ddb"):
            continue
        if "=" in line and " " not in line.partition("=")[0]:
            continue
        if line.split(" ")[0] not in ("rw", "rdonly", "noaccess"):
            raise Refused(f"a line that is not known: {line}")
        extents.append(line)
    if any("/" in line for line in extents):
        raise Refused("an extent is somewhere else")
    if not extents:
        raise Refused("no extents")


def openstack_image(data):
    """A disk in one file, read from its start to its end: its virtual size."""
    magic, version, _, capacity, _, offset, length, _, _, directory = struct.unpack_from("<4sIIQQQQIQQ", data)
    if magic != b"KDMV":
        raise Refused("no VMDK in one file")
    if version not in (1, 2, 3):
        raise Refused("the version")
    if directory == DIRECTORY_AT_END:
        raise Refused("a footer, which cannot be seen from the start")
    if offset != 1:
        raise Refused("the descriptor is not in sector 1")
    text = data[SECTOR : SECTOR + min(length * SECTOR, (1 << 20) - 1)]
    openstack_text(text)
    create_type = re.search(rb'createType="([^"]{0,63})"', text)
    if not create_type or create_type[1].decode() not in OPENSTACK_TYPES:
        raise Refused("createType")
    return capacity * SECTOR


# ---- VirtualBox ----

VIRTUALBOX_LINES = 1100
FIRST_LINES = (
    "# Disk DescriptorFile", "# Disk Descriptor File", "#Disk Descriptor File", "#Disk DescriptorFile",
)  # fmt: skip
ACCESS = ("RW", "RDONLY", "NOACCESS")
GEOMETRY = tuple(f"ddb.geometry.{key}" for key in ("cylinders", "heads", "sectors"))


def virtualbox_lines(text):
    text = text.split(b"\0")[0].decode("utf-8")
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    if len(lines) >= VIRTUALBOX_LINES:
        raise Refused("too many lines")
    lines = [line.removesuffix("\r") for line in lines]
    if any("\r" in line for line in lines):
        raise Refused("an end of line that is none")
    if not lines or lines[0] not in FIRST_LINES:
        raise Refused("the first line")
    return lines


def virtualbox_sections(lines):
    """Header keys, then extents, then the data base: ([lines], [lines], [lines])."""
    sections = ([], [], [])
    for line in lines:
        if not line or line.startswith("#"):
            continue
        kind = 1 if line.startswith(ACCESS) else 2 if line.startswith("ddb.") else 0
        if any(sections[kind + 1 :]) or not all(sections[:kind]):
            raise Refused(f"not where it should be: {line}")
        sections[kind].append(line)
    return sections


def unquoted(value):
    value = value.lstrip(" \t")
    if not value.startswith('"'):
        return re.match(r"[^ \t]*", value)[0], ""
    inside, quote, rest = value[1:].partition('"')
    if not quote:
        raise Refused(f"quotes that are not closed: {value}")
    return inside, rest


def value_of(lines, key):
    """The value of the first line of the key, spaces before the equals sign or not."""
    for line in lines:
        found = re.match(rf"{re.escape(key)}[ \t]*=(.*)", line)
        if found:
            return found[1]
    return None


def number(text, what):
    if not re.fullmatch(r"\d+", text):
        raise Refused(f"{what}: {text}")
    return int(text)


def virtualbox_extent(line):
    """(access, sectors, type, name, offset) of one space between the words and no more."""
    words = re.match(r"(RW|RDONLY|NOACCESS) (\d+) (SPARSE|FLAT|ZERO|VMFS)(.*)", line)
    if not words:
        raise Refused(f"an extent: {line}")
    access, sectors, kind, rest = words.groups()
    if kind == "ZERO":
        if rest not in ("", " "):
            raise Refused(f"an extent: {line}")
        return access, int(sectors), kind, None, 0
    if not rest.startswith(" "):
        raise Refused(f"an extent: {line}")
    name, rest = unquoted(rest[1:])
    offset = 0
    if rest not in ("", " "):
        if not rest.startswith(" "):
            raise Refused(f"an extent: {line}")
        offset = number(rest[1:], "an offset")
    return access, int(sectors), kind, name, offset


def virtualbox_text(text, embedded):
    """(createType, extents, {key: value} of the data base)."""
    header, extents, database = virtualbox_sections(virtualbox_lines(text))
    version = value_of(header, "version")
    if version is None or number(version, "version") != 1:
        raise Refused("the version")
    create_type = value_of(header, "createType")
    if create_type is None:
        raise Refused("no createType")
    extents = [virtualbox_extent(line) for line in extents]
    if embedded and len(extents) != 1:
        raise Refused("more or less than one extent in one file")
    for key in GEOMETRY:
        value = value_of(database, key)
        if value is not None:
            number(unquoted(value)[0], key)
    pairs = (line.partition("=") for line in database)
    return unquoted(create_type)[0], extents, {key.rstrip(): unquoted(value)[0] for key, _, value in pairs}


def virtualbox_image(data):
    """A disk in one file. Its size is that of the extent line."""
    version, = struct.unpack_from("<I", data, 4)
    offset, length = struct.unpack_from("<QQ", data, 28)
    if version not in (1, 3):
        raise Refused("the version of the header")
    if data[73:77] != b"\n \r\n":
        raise Refused("the newline bytes")
    if length > 20480:
        raise Refused("the descriptor is too large")
    start = offset * SECTOR
    return virtualbox_text(data[start : start + length * SECTOR], True)
