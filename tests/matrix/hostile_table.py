# SPDX-License-Identifier: Apache-2.0
"""The language of the tables in hostile/: reading a line, applying it, and what it expects.

    BASE FIELD OFFSET VALUE EXPECTED # what it would do to a naive reader

Words are separated by blanks; "…" holds blanks together. Numbers are expressions over the names
that the base exports, and `old`, what is at the place now.

BASE      an image of hostile_bases.py, with /none or /datastore for another references policy
FIELD     the field of the format
OFFSET    [FILE:]NUMBER   a byte of the target, or of another file of the base
          @PREFIX         the line of the descriptor that begins so
          @first @last    before the first line, after the last one
          @text           the whole descriptor
VALUE     u8 u16le u32le u64le u16be u32be u64be :NUMBER
          text:"…"        bytes, with the escapes of Python; in a descriptor the new line
          fill:BYTE*COUNT   repeat:COUNT*"…"
          blob:NAME       bytes that the base has prepared
          ++              between two of the last four: one behind the other
          cut             the file ends here
          gone            without the line, or the file
EXPECTED  &                         more of the same case follows on the next line
          refused:ERRNO[|ERRNO]:RE  not shown, with a reason that matches
          noimage                   not even a candidate
          or several of these, joined by `;`:
          same                      as if nothing had happened
          size:NUMBER               the disk is so large; what was not there before is zeros
          eio:START+LENGTH          exactly these bytes of the disk cannot be read
          zero:START+LENGTH         absent or zeros
          below:START+LENGTH        the parent's
          host:START+LENGTH@OFFSET  these bytes of a file, after the changes
          asis                      the disk is the target file
          alone:0|1                 the file is, or is not, handed over as it is
          absent:VIEW               there is no such view
"""

import ast
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

from shapes import UNIT

WORD = re.compile(r'(?:[^\s"]|"(?:[^"\\]|\\.)*")+')
INTEGERS = {
    "u8": "<B", "u16le": "<H", "u32le": "<I", "u64le": "<Q", "u16be": ">H", "u32be": ">I", "u64be": ">Q",
}  # fmt: skip
JOINED = re.compile(r"\+\+(?=(?:text|fill|repeat|blob):)")
MORE = "&"


@dataclass
class Change:
    offset: str
    value: str


@dataclass
class Case:
    table: str
    line: int
    base: str
    fields: list
    changes: list
    expected: str
    why: str

    @property
    def base_name(self):
        return self.base.partition("/")[0]

    @property
    def policy(self):
        return self.base.partition("/")[2]

    @property
    def name(self):
        return f"{self.table}-{self.line}-{self.base}-{self.fields[0]}".replace("/", "-")


def parse(path):
    cases, changes, fields = [], [], []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        words, at = [], 0
        for _ in range(5):
            found = WORD.search(line, at)
            assert found and not line[at : found.start()].strip(), f"{path.name}:{number}: {line}"
            words.append(found[0])
            at = found.end()
        base, name, offset, value, expected = words
        why = line[at:].strip()
        changes.append(Change(offset, value))
        fields.append(name)
        if expected == MORE:
            continue
        assert re.match(r"# \S", why), f"{path.name}:{number}: what would it do to a naive reader?"
        cases.append(Case(path.stem, number, base, fields, changes, expected, why))
        changes, fields = [], []
    assert not changes, f"{path.name}: the last case has no end"
    return cases


def load():
    return [case for path in sorted((Path(__file__).parent / "hostile").glob("*.table")) for case in parse(path)]


# ---- values ----


def unquote(text):
    if text.startswith('"'):
        assert text.endswith('"') and len(text) > 1, text
        return ast.literal_eval("b" + text)
    return text.encode()


class Workspace:
    """The files of a base while a case changes them."""

    def __init__(self, base):
        self.base = base
        self.files = dict(base.files)

    def writable(self, name):
        if isinstance(self.files[name], bytes):
            self.files[name] = bytearray(self.files[name])
        return self.files[name]

    def number(self, text, old=None):
        names = dict(self.base.symbols)
        if old is not None:
            names["old"] = old
        return eval(text, {"__builtins__": {}}, names)  # noqa: S307

    def file_of(self, offset):
        other = offset.rpartition(":")[0]
        return self.base.others[other] if other else self.base.target

    def place(self, offset):
        """The bytes of the file, and where in them."""
        name = self.file_of(offset)
        names = self.base.symbols | {"end": len(self.base.files[name])}
        at = eval(offset.rpartition(":")[2], {"__builtins__": {}}, names)  # noqa: S307
        return self.files[name], at

    def _value(self, text, at=None, data=None):
        parts = JOINED.split(text)
        if len(parts) > 1:
            return b"".join(self._value(part) for part in parts)
        kind, _, rest = text.partition(":")
        if kind in INTEGERS:
            fmt = INTEGERS[kind]
            size = struct.calcsize(fmt)
            old = struct.unpack(fmt, data[at : at + size].ljust(size, b"\0")) if data is not None else (None,)
            return struct.pack(fmt, self.number(rest, old[0]) % (1 << 8 * size))
        if kind == "text":
            return unquote(rest)
        if kind == "fill":
            byte, _, count = rest.partition("*")
            return bytes([self.number(byte)]) * self.number(count)
        if kind == "repeat":
            count, _, what = rest.partition("*")
            return unquote(what) * self.number(count)
        assert kind == "blob", text
        return self.base.blobs[rest]

    def apply(self, change):
        if change.offset.startswith("@"):
            self._apply_line(change.offset[1:], change.value)
            return
        name = self.file_of(change.offset)
        if change.value == "gone":
            del self.files[name]
            return
        self.writable(name)
        data, at = self.place(change.offset)
        if change.value == "cut":
            assert at < len(data)
            del data[at:]
            return
        new = self._value(change.value, at, data)
        assert bytes(data[at : at + len(new)]) != new, f"{change} changes nothing"
        data.extend(bytes(max(0, at - len(data))))
        data[at : at + len(new)] = new

    def _apply_line(self, where, value):
        where = unquote(where).decode()
        name, start, room = self.base.text
        data = self.writable(name)
        old = bytes(data[start : start + room] if room else data).rstrip(b"\0")
        new = None if value == "gone" else self._value(value)
        if where == "text":
            text = new
        elif where == "first":
            text = new + b"\n" + old
        elif where == "last":
            text = old + new + b"\n"
        else:
            lines = old.split(b"\n")
            index = [i for i, line in enumerate(lines) if line.startswith(where.encode())][0]
            lines[index : index + 1] = [] if new is None else [new]
            text = b"\n".join(lines)
        assert text != old, f"{where} {value} changes nothing"
        if room:
            assert len(text) <= room
            data[start : start + room] = text.ljust(room, b"\0")
        else:
            data[:] = text


# ---- expectations ----


@dataclass
class Refusal:
    errnos: list
    reason: str


@dataclass
class Disk:
    """What must be seen."""

    size: int
    data: bytearray
    units: set
    lost: list = field(default_factory=list)  # (start, end)
    alone: bool = None
    absent: set = field(default_factory=set)


def _range(space, text):
    start, _, length = text.rpartition("+")
    start = space.number(start)
    return start, start + space.number(length)


def _without(units, start, end):
    return {u for u in units if not start <= u * UNIT < (u + 1) * UNIT <= end}


def _touched(start, end):
    return set(range(start // UNIT, -(-end // UNIT)))


def _replace(disk, start, new):
    disk.data[start : start + len(new)] = new
    disk.units |= _touched(start, start + len(new))


def _apply(disk, space, word):
    kind, _, rest = word.partition(":")
    if kind == "same":
        return
    if kind == "alone":
        disk.alone = rest == "1"
    elif kind == "absent":
        disk.absent.add(rest)
    elif kind == "asis":
        disk.data = bytearray(space.files[space.base.target])
        disk.size = len(disk.data)
        disk.units = _touched(0, disk.size)
    elif kind == "size":
        disk.size = space.number(rest)
        disk.units = {u for u in disk.units if u * UNIT < disk.size}
        del disk.data[disk.size :]
    elif kind == "host":
        place, _, offset = rest.partition("@")
        start, end = _range(space, place)
        data, at = space.place(offset)
        _replace(disk, start, data[at : at + end - start])
    else:
        start, end = _range(space, rest)
        if kind == "eio":
            disk.lost.append((start, end))
            disk.units |= _touched(start, end)
        elif kind == "zero":
            disk.data[start:end] = bytes(end - start)
            disk.units = _without(disk.units, start, end)
        else:
            assert kind == "below", word
            _replace(disk, start, space.base.below[start:end])


def expectation(case, space):
    """None: no image."""
    kind, _, rest = case.expected.partition(":")
    if kind == "noimage":
        return None
    if kind == "refused":
        errnos, _, reason = rest.partition(":")
        assert reason, case.name
        return Refusal(errnos.split("|"), reason.strip('"'))
    base = space.base
    disk = Disk(len(base.disk), bytearray(base.disk), set(base.units))
    for word in case.expected.split(";"):
        _apply(disk, space, word)
    disk.lost.sort()
    return disk
