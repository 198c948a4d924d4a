# SPDX-License-Identifier: Apache-2.0
"""OVA: an OVF descriptor (DSP0243) and tar archives, by Python's tarfile or header by header."""

import io
import struct
import tarfile
from xml.sax.saxutils import quoteattr

BLOCK = 512
ENVELOPE = "http://schemas.dmtf.org/ovf/envelope/1"


def ovf(files, disks=None, *, prefix="ovf:", head=""):
    """The descriptor of files, [(href, {attribute: value})]; disks are numbers of them, else all."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        head,
        f'<Envelope xmlns="{ENVELOPE}" xmlns:ovf="{ENVELOPE}">',
        "<References>",
    ]
    for number, (href, attributes) in enumerate(files):
        more = "".join(f" {prefix}{k}={quoteattr(str(v))}" for k, v in attributes.items())
        lines.append(f'<File {prefix}id="file{number}" {prefix}href={quoteattr(href)}{more}/>')
    lines += ["</References>", "<DiskSection><Info>Virtual disks</Info>"]
    for number in range(len(files)) if disks is None else disks:
        lines.append(f'<Disk {prefix}diskId="disk{number}" {prefix}fileRef="file{number}" {prefix}capacity="1"/>')
    lines += ["</DiskSection>", '<VirtualSystem ovf:id="vm"><Info>A machine</Info></VirtualSystem>', "</Envelope>"]
    return "\n".join(line for line in lines if line).encode()


def write_tar(path, members, tar_format=tarfile.USTAR_FORMAT):
    """By tarfile: members are (name, bytes or path)."""
    with tarfile.open(path, "w", format=tar_format) as archive:
        for name, content in members:
            if isinstance(content, bytes):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                archive.add(content, arcname=name)


def header(name, size, *, kind=b"0", base256=False, prefix=b"", magic=b"ustar\x0000", link=b""):
    """512 bytes of a header, by the specification."""
    number = struct.pack(">IQ", 0x80000000, size) if base256 else b"%011o\0" % size
    raw = bytearray(BLOCK)
    for offset, field in (
        (0, name), (100, b"0000644\0"), (108, b"0000000\0"), (116, b"0000000\0"), (124, number),
        (136, b"00000000000\0"), (148, b" " * 8), (156, kind), (157, link), (257, magic), (345, prefix),
    ):  # fmt: skip
        raw[offset : offset + len(field)] = field
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def pax(records, kind=b"x"):
    """A pax header of "key=value" records."""
    body = b""
    for key, value in records:
        line = b" " + key + b"=" + value + b"\n"
        length = len(line) + 1
        while len(b"%d" % length) + len(line) != length:
            length += 1
        body += b"%d" % length + line
    return header(b"pax", len(body), kind=kind) + pad(body)


def long_name(name):
    """GNU's header for a name of any length."""
    return header(b"././@LongLink", len(name) + 1, kind=b"L", magic=b"ustar  \0") + pad(name + b"\0")


def pad(content):
    return content + bytes(-len(content) % BLOCK)


END = bytes(2 * BLOCK)


def windows(path):
    """{name: (offset, size)} as Python's tarfile has them."""
    with tarfile.open(path) as archive:
        return {m.name: (m.offset_data, m.size) for m in archive if m.isreg()}
