#!/usr/bin/env python3
"""A second reader of Duramen's formats, written from docs/FORMAT.md alone, with Python's standard library.

It reads the golden files of the repository, proves every checksum, hash and chain value in them, and compares formats
with each other: what is in the log must be in the segment, in the state, and in the snapshot.

    reader.py ROOT                 read everything below ROOT; exit 1 at the first thing that is wrong
    reader.py ROOT --dump FILE     print a golden file, byte for byte, as docs/FORMAT.md shows it
"""

import json
import struct
import sys
import zlib
from pathlib import Path


class Wrong(Exception):
    """Bytes that are not what the format says."""


def check(condition, what):
    if not condition:
        raise Wrong(what)


# BLAKE3, as its specification has it; plain hash and key derivation.

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT, CONTEXT, MATERIAL = 1, 2, 4, 8, 32, 64
MASK = 0xFFFFFFFF


def compress(chaining, block, counter, length, flags):
    state = list(chaining) + list(IV[:4]) + [counter & MASK, counter >> 32, length, flags]
    words = list(block)

    def mix(a, b, c, d, x, y):
        for add, first, second in ((x, 16, 12), (y, 8, 7)):
            state[a] = (state[a] + state[b] + add) & MASK
            turned = state[d] ^ state[a]
            state[d] = (turned >> first | turned << 32 - first) & MASK
            state[c] = (state[c] + state[d]) & MASK
            turned = state[b] ^ state[c]
            state[b] = (turned >> second | turned << 32 - second) & MASK

    for turn in range(7):
        mix(0, 4, 8, 12, words[0], words[1])
        mix(1, 5, 9, 13, words[2], words[3])
        mix(2, 6, 10, 14, words[4], words[5])
        mix(3, 7, 11, 15, words[6], words[7])
        mix(0, 5, 10, 15, words[8], words[9])
        mix(1, 6, 11, 12, words[10], words[11])
        mix(2, 7, 8, 13, words[12], words[13])
        mix(3, 4, 9, 14, words[14], words[15])
        words = [words[at] for at in PERMUTATION]
    return [state[at] ^ state[at + 8] for at in range(8)]


def blake3(data, key=IV, flags=0):
    def words(block):
        return struct.unpack("<16I", block.ljust(64, b"\0"))

    def chunk(number, piece, last):
        chaining = key
        blocks = [piece[at : at + 64] for at in range(0, len(piece), 64)] or [b""]
        for at, block in enumerate(blocks):
            here = flags | (CHUNK_START if at == 0 else 0)
            if at == len(blocks) - 1:
                here |= CHUNK_END | (ROOT if last else 0)
            chaining = compress(chaining, words(block), number, len(block), here)
        return chaining

    def tree(first, piece, last):
        if len(piece) <= 1024:
            return chunk(first, piece, last)
        left = 1024
        while left * 2 < len(piece):
            left *= 2
        pair = tree(first, piece[:left], False) + tree(first + left // 1024, piece[left:], False)
        return compress(key, pair, 0, 64, flags | PARENT | (ROOT if last else 0))

    return struct.pack("<8I", *tree(0, data, True))


def derive(context, data):
    key = struct.unpack("<8I", blake3(context.encode(), flags=CONTEXT))
    return blake3(data, key, MATERIAL)


def crc32c(data):
    crc = MASK
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ MASK


class Reader:
    """Takes fields off bytes, and notes what each one was."""

    def __init__(self, data, at=0, notes=None):
        self.data, self.at, self.notes = data, at, notes if notes is not None else []

    def left(self):
        return len(self.data) - self.at

    def take(self, count, note=None):
        check(count <= self.left(), f"{count} bytes are wanted at byte {self.at}, {self.left()} are left")
        taken = self.data[self.at : self.at + count]
        if note is not None and count:
            self.notes.append((self.at, taken, note))
        self.at += count
        return taken

    def number(self, form, note, show=str):
        at = self.at
        (value,) = struct.unpack(form, self.take(struct.calcsize(form)))
        self.notes.append((at, self.data[at : self.at], f"{note} {show(value)}"))
        return value

    def u8(self, note, show=str):
        return self.number("<B", note, show)

    def u16(self, note, show=str):
        return self.number("<H", note, show)

    def u32(self, note, show=str):
        return self.number("<I", note, show)

    def u64(self, note, show=str):
        return self.number("<Q", note, show)

    def i64(self, note):
        return self.number("<q", note)

    def text(self, note):
        length = self.u16(f"{note}: length")
        return self.take(length, f"{note}").decode()

    def option(self, note, read):
        flag = self.u8(f"{note}?")
        check(flag in (0, 1), "a flag is 0 or 1")
        return read() if flag else None

    def count(self, note, smallest):
        count = self.u32(f"{note}: count")
        check(count * smallest <= self.left(), f"{count} {note} don't fit")
        return count

    def magic(self, magic, version="<I", newest=1):
        check(self.take(len(magic), f'magic "{magic.decode()}"') == magic, f"it begins with {magic}")
        if version:
            found = self.number(version, "version")
            check(1 <= found <= newest, f"it has a version up to {newest}")
            return found

    def finish(self):
        check(self.left() == 0, f"{self.left()} bytes are behind the end")


def hexadecimal(value):
    return f"{value:08x}"


def sealed(data):
    """What a CRC-32 at the end covers."""
    check(len(data) >= 4, "it is too short")
    stored = struct.unpack("<I", data[-4:])[0]
    check(zlib.crc32(data[:-4]) == stored, "the checksum at its end is true")
    return data[:-4]


# Record batches.


def varint(reader, note, show=True):
    at, value, shift = reader.at, 0, 0
    while True:
        check(shift < 64, "a varint has at most 64 bits")
        byte = reader.take(1)[0]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    value = value >> 1 ^ -(value & 1)
    reader.notes.append((at, reader.data[at : reader.at], f"{note} {value}" if show else note))
    return value


def sized(reader, note):
    length = varint(reader, f"{note}: length")
    return None if length == -1 else reader.take(length, note)


def batch(data, notes=None):
    reader = Reader(data, notes=notes)
    check(reader.number(">q", "base offset") == 0, "it is normalised")
    check(reader.number(">i", "length of what follows") == len(data) - 12, "its length is its own")
    check(reader.number(">i", "leader epoch") == -1, "it is normalised")
    check(reader.number(">b", "magic") == 2, "it is a batch of version 2")
    checksum = reader.number(">I", "CRC-32C of what follows", hexadecimal)
    check(checksum == crc32c(data[reader.at :]), "its checksum is true")
    attributes = reader.number(">h", "attributes")
    check(attributes & ~15 == 0, "only known attributes")
    last = reader.number(">i", "last offset delta")
    base = reader.number(">q", "base timestamp")
    largest = reader.number(">q", "max timestamp")
    producer = reader.number(">q", "producer id")
    reader.number(">h", "producer epoch")
    reader.number(">i", "base sequence")
    count = reader.number(">i", "records")
    check(count >= 1 and last == count - 1, "offsets are dense")
    found = {"count": count, "producer": producer, "codec": attributes & 7, "records": [], "max": largest, "base": base}
    if found["codec"]:
        reader.take(reader.left(), "records, compressed")
        return found
    for number in range(count):
        length = varint(reader, "record: length")
        end = reader.at + length
        check(reader.take(1, "attributes") == b"\0", "a record has no attributes")
        time = base + varint(reader, "timestamp delta")
        check(varint(reader, "offset delta") == number, "offsets are dense")
        record = {"key": sized(reader, "key"), "value": sized(reader, "value"), "headers": []}
        for _ in range(varint(reader, "headers: count")):
            record["headers"].append((sized(reader, "header's key").decode(), sized(reader, "header's value")))
        check(reader.at == end, "a record ends where it says")
        record["time"] = largest if attributes & 8 else time
        found["records"].append(record)
    reader.finish()
    if not attributes & 8:
        check(max(record["time"] for record in found["records"]) == largest, "max timestamp is the largest")
    return found


# Log entries.

KINDS = ("blank", "membership", "append", "control", "rescue", "tick", "archived")
TIMED = ("append", "control", "rescue", "tick")
OPERATIONS = (
    None,
    "create_stream",
    "configure_stream",
    "trim_stream",
    "delete_stream",
    "commit_cursor",
    "delete_cursor",
    "set_fencing_token",
    "allocate_producer",
    "create_tenant",
    "create_restore_point",
    "delete_restore_point",
)


def config(reader, note):
    found = {"ack": reader.u8(f"{note}: ack")}
    found["age"] = reader.option(f"{note}: age", lambda: reader.u64("seconds"))
    found["bytes"] = reader.option(f"{note}: bytes", lambda: reader.u64("bytes"))
    for field, most in (("compression", 2), ("timestamps", 2), ("rescue", 2)):
        found[field] = reader.u8(f"{note}: {field}")
        check(found[field] <= most, f"{field} is known")
    check(found["ack"] <= 3, "ack is known")
    return found


def header(reader):
    found = {"stream": reader.u64("stream"), "records": reader.u32("records"), "bytes": reader.u32("bytes")}
    found["base"] = reader.i64("base timestamp")
    found["max"] = reader.i64("max timestamp")
    found["hash"] = reader.take(32, "hash")
    flags = reader.u8("flags")
    check(flags <= 7, "flags are known")
    if flags & 1:
        found["producer"] = (reader.u64("producer id"), reader.u16("producer epoch"), reader.u32("sequence"))
    if flags & 2:
        found["match"] = reader.u64("match offset")
    if flags & 4:
        found["token"] = reader.text("fencing token")
    check(found["records"] and found["bytes"], "a batch has records")
    return found


def operation(reader):
    kind = reader.u8("operation", lambda kind: f"{kind}: {OPERATIONS[kind].replace('_', ' ')}")
    found = {"op": OPERATIONS[kind]}
    if kind in (2, 3, 4, 5, 6, 7):
        found["stream"] = reader.u64("stream")
    if kind == 1:
        found["tenant"], found["name"] = reader.text("tenant"), reader.text("name")
        found["config"] = config(reader, "config")
    elif kind == 2:
        found["expected"], found["config"] = config(reader, "expected"), config(reader, "config")
    elif kind == 3:
        found["to"] = reader.u64("to")
    elif kind == 5:
        found["cursor"], found["offset"] = reader.text("cursor"), reader.u64("offset")
    elif kind == 6:
        found["cursor"] = reader.text("cursor")
    elif kind == 7:
        found["expected"] = reader.option("expected token", lambda: reader.text("token"))
        found["token"] = reader.option("token", lambda: reader.text("token"))
    elif kind == 9:
        found["tenant"] = reader.text("tenant")
    elif kind == 10:
        found["name"], found["time"] = reader.text("name"), reader.u64("time")
    elif kind == 11:
        found["name"] = reader.text("name")
    return found


def head(data, notes=None, at=0, end=None):
    reader = Reader(data[:end], at, notes)
    kind = KINDS[reader.u8("kind", lambda kind: f"{kind}: {KINDS[kind]}")]
    found = {"kind": kind, "time": reader.u64("time"), "batches": []}
    check((kind in TIMED) == (found["time"] != 0), "timed kinds have a time")
    if kind == "membership":
        reader.take(reader.u32("length"), "members")
    elif kind == "control":
        found.update(operation(reader))
    elif kind == "archived":
        found["manifest"], found["end"] = reader.u64("manifest"), reader.u64("end")
    elif kind in ("append", "rescue"):
        if kind == "rescue":
            found["origin"] = (reader.u64("origin: term"), reader.u64("origin: index"))
        count = reader.count("batches", 65)
        check(count >= 1, "it has batches")
        found["batches"] = [header(reader) for _ in range(count)]
    reader.finish()
    return found


def entry(data, notes=None):
    reader = Reader(data, notes=notes)
    length = reader.u32("head: length")
    start = reader.at
    check(length <= reader.left(), "the head is there")
    found = head(data, reader.notes, start, start + length)
    found["head"] = data[start : start + length]
    reader.at = start + length
    found["data"] = []
    for stated in found["batches"]:
        bytes_ = reader.take(stated["bytes"], "batch")
        check(derive("duramen 2026 batch", bytes_) == stated["hash"], "a batch has the hash of its header")
        read = batch(bytes_)
        check((read["count"], read["base"], read["max"]) == (stated["records"], stated["base"], stated["max"]), "header")
        found["data"].append(bytes_)
    reader.finish()
    return found


def log(root):
    """The golden log: every entry with its index, term, effective time, and the chain value after it."""
    folder = root / "crates/types/tests/golden"
    time, chain, entries = 0, derive("duramen 2026 genesis", struct.pack("<H", 1)), []
    for index, path in enumerate(sorted(folder.glob("entry-*.bin"))):
        found = entry(path.read_bytes())
        time = found["time"] or time
        term = 1 if index < 12 else 4
        leaf = struct.pack("<QQQI", index, term, time, len(found["head"])) + found["head"]
        leaf = derive("duramen 2026 leaf", leaf)
        chain = derive("duramen 2026 chain", chain + leaf)
        found.update(index=index, term=term, effective=time, leaf=leaf, chain=chain)
        entries.append(found)
    return entries


# Shard states and snapshots.


def stream(reader, version):
    found = {"id": reader.u64("stream: id"), "tenant": reader.text("tenant"), "name": reader.text("name")}
    found["config"] = config(reader, "config")
    for field in ("created", "last append", "next", "trimmed", "appended bytes"):
        found[field] = reader.u64(field)
    found["token"] = reader.option("fencing token", lambda: reader.text("token"))
    found["cursors"] = {}
    for _ in range(reader.count("cursors", 19)):
        name = reader.text("cursor")
        found["cursors"][name] = (reader.u64("offset"), reader.u64("committed"))
    found["producers"] = {}
    for _ in range(reader.count("producers", 35)):
        producer = reader.u64("producer")
        reader.u16("epoch")
        last_seen = reader.u64("last seen")
        batches = reader.u8("batches")
        check(1 <= batches <= 5, "a producer remembers 1 to 5 batches")
        found["producers"][producer] = [
            (
                reader.u32("sequence"),
                reader.u32("records"),
                reader.u64("base"),
                reader.u64("time") if version > 1 else last_seen,
            )
            for _ in range(batches)
        ]
    return found


def state(data, notes=None):
    body = sealed(data)
    reader = Reader(body, notes=notes)
    version = reader.magic(b"DURSTATE", newest=2)
    found = {"shard": reader.u16("shard")}
    found["applied"] = reader.option("applied", lambda: (reader.u64("index"), reader.u64("term")))
    found["time"], found["chain"] = reader.u64("time"), reader.take(32, "chain value")
    found["user end"] = reader.u64("user end")
    found["terms"] = [(reader.u64("term"), reader.u64("first index")) for _ in range(reader.count("terms", 16))]
    found["rescued"] = [
        (reader.u64("stream"), reader.u64("term"), reader.u64("index")) for _ in range(reader.count("rescued", 24))
    ]
    for name, value in (("tenants", "created"), ("restore points", "time")):
        found[name] = {reader.text("name"): reader.u64(value) for _ in range(reader.count(name, 11))}
    found["streams"] = {}
    for _ in range(reader.count("streams", 69)):
        read = stream(reader, version)
        found["streams"][read["id"]] = read
    reader.finish()
    Reader(data, len(body), reader.notes).u32("CRC-32 of all before", hexadecimal)
    return found


def frame_content(frame):
    """What is in a zstd frame of stored blocks with a content size of 4 bytes."""
    reader = Reader(frame)
    check(reader.take(4) == b"\x28\xb5\x2f\xfd" and reader.take(1) == b"\xa0", "a zstd frame of one segment")
    size, out = reader.u32("size"), b""
    while True:
        block = int.from_bytes(reader.take(3), "little")
        check(block >> 1 & 3 == 0, "a block that is stored as it is")
        out += reader.take(block >> 3)
        if block & 1:
            break
    reader.finish()
    check(len(out) == size, "the size that it states")
    return out


def snapshot(data, notes=None):
    check(blake3(data[:-32]) == data[-32:], "a snapshot ends with its hash")
    reader = Reader(data[:-32], notes=notes)
    reader.magic(b"DURASNAP")
    check(reader.u8("encryption") == 0, "it is not encrypted")
    shard = reader.u16("shard")
    found = {"archive": reader.take(16, "archive id")}
    found["branch"] = reader.take(reader.u8("branch: length"), "branch").decode()
    found["end"], found["chain"] = reader.u64("end"), reader.take(32, "chain value")
    raw, stored = reader.u64("raw length"), reader.u64("stored length")
    content = frame_content(reader.take(stored, "zstd frame of the state"))
    reader.finish()
    check(len(content) == raw, "the raw length is true")
    found["state"] = state(content)
    inside = found["state"]
    check((inside["shard"], inside["applied"][0] + 1, inside["chain"]) == (shard, found["end"], found["chain"]), "head")
    return found


# The WAL.

RECORDS = (None, "entry", "truncate", "displaced", "vote", "committed", "purged", "released", "displaced copy")


def wal_record(reader):
    length, stored = reader.u32("record: payload's length"), reader.u32("CRC-32", hexadecimal)
    start = reader.at
    found = {"shard": reader.u16("shard"), "kind": RECORDS[reader.u8("kind", lambda k: f"{k}: {RECORDS[k]}")]}
    found["id"] = (reader.u64("index"), reader.u64("term"))
    found["payload"] = reader.take(length, "payload")
    covered = struct.pack("<I", length) + reader.data[start : reader.at]
    check(zlib.crc32(covered) == stored, "a record's checksum is true")
    return found


def wal(data, notes=None):
    reader = Reader(data, notes=notes)
    reader.magic(b"DWAL", "<H")
    reader.u16("flags")
    segment = reader.take(16, "segment id")
    found = {"node": reader.u64("node"), "created": reader.u64("created"), "sequence": reader.u64("sequence")}
    expected = reader.u64("first frame")
    reader.u32("reserved")
    check(reader.u32("CRC-32 of the header", hexadecimal) == zlib.crc32(data[:60]), "the header's checksum is true")
    trailer_at = len(data) - 64
    found["sealed"] = data[trailer_at : trailer_at + 4] == b"DEND"
    end = len(data)
    if found["sealed"]:
        trailer = Reader(data, trailer_at)
        trailer.magic(b"DEND", "<H")
        trailer.u16("reserved")
        end, summary_at, first, last = (trailer.u64("position") for _ in range(4))
        length, crc = trailer.u32("summary: length"), trailer.u32("summary: CRC-32")
        check(trailer.take(12) == bytes(12), "reserved bytes are 0")
        covered = segment + struct.pack("<Q", trailer_at) + data[trailer_at : trailer_at + 60]
        check(zlib.crc32(covered) == trailer.u32("CRC-32"), "the trailer's checksum is true")
        check(zlib.crc32(data[summary_at : summary_at + length]) == crc, "the summary's checksum is true")
        found["summary"] = summary(data, Reader(data[: summary_at + length], summary_at))
        check(first == expected, "header and trailer agree")
    found["records"] = []
    at = 4096
    while at < end and data[at : at + 4] == b"DFRM":
        reader.at = at
        reader.take(4, 'magic "DFRM"')
        length, sequence = reader.u32("frame: length"), reader.u64("sequence")
        check(sequence == expected, "frames are numbered without a gap")
        reader.u64("synced through")
        count, body = reader.u32("records"), reader.u32("CRC-32 of the records", hexadecimal)
        reader.u32("reserved")
        covered = segment + struct.pack("<Q", at) + data[at : at + 36]
        check(reader.u32("CRC-32 of segment, position and header", hexadecimal) == zlib.crc32(covered), "frame header")
        check(zlib.crc32(data[reader.at : reader.at + length]) == body, "a frame's checksum is true")
        records = Reader(data[: reader.at + length], reader.at, reader.notes)
        for _ in range(count):
            found["records"].append(wal_record(records))
        records.finish()
        expected = sequence + 1
        at += -(-(40 + length) // 4096) * 4096
    if found["sealed"]:
        check((at, expected) == (end, last), "a sealed segment's frames reach to its footer")
    else:
        check(data[at:] == bytes(len(data) - at), "behind the last frame are zeros")
    return found


def leb128(reader):
    value, shift = 0, 0
    while True:
        byte = reader.take(1)[0]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value


def summary(data, reader):
    shards = {}
    for _ in range(reader.u16("shards")):
        shard, flags = reader.u16("shard"), reader.u8("flags")
        check(flags <= 15, "flags are known")
        found = {"runs": {}, "displaced": {}, "released": []}
        if flags & 1:
            found["truncated"] = reader.u64("truncated from")
        for flag, name in ((2, "committed"), (4, "purged")):
            if flags & flag:
                found[name] = (reader.u64("index"), reader.u64("term"))
        if flags & 8:
            found["vote"] = reader.take(reader.u32("vote: length"))
        for _ in range(reader.count("runs", 44)):
            first, term, size, at = (reader.u64("run") for _ in range(4))
            length, crc, count = (reader.u32("run") for _ in range(3))
            page = Reader(data[: at + length], at)
            check(zlib.crc32(data[at : at + length]) == crc, "a row page's checksum is true")
            position, total = 0, 0
            for index in range(first, first + count):
                position += leb128(page)
                payload = leb128(page)
                there = wal_record(Reader(data, position))
                check((there["id"], len(there["payload"])) == ((index, term), payload), "a row leads to its record")
                position += 27 + payload
                total += payload
                found["runs"][index] = term
            check(total == size, "a run's bytes add up")
            page.finish()
        for _ in range(reader.count("displaced", 28)):
            id_, at, length = (reader.u64("index"), reader.u64("term")), reader.u64("position"), reader.u32("length")
            found["displaced"][id_] = (at, length)
        found["released"] = [(reader.u64("index"), reader.u64("term")) for _ in range(reader.count("released", 16))]
        shards[shard] = found
    reader.finish()
    return shards


# Archived segments.


def part(reader):
    found = (reader.u64("position"), reader.u32("stored length"), reader.u32("raw length"), reader.u8("codec"))
    return found + (reader.u32("CRC-32"),)


def opened(data, place):
    position, stored, raw, codec, crc = place
    there = data[position : position + stored]
    check(len(there) == stored and zlib.crc32(there) == crc, "a part's checksum is true")
    check(codec == 0 and raw == stored, "this reader has no zstd: the part is stored")
    return there


def segment(data, notes=None):
    check(data[:16] == b"DURASEGM" + struct.pack("<II", 1, 0), "a segment's lead")
    base = len(data) - 324
    reader = Reader(data, base, notes)
    reader.magic(b"DURASEGT")
    check(reader.u8("encryption") == 0, "it is not encrypted")
    reader.u8("level")
    found = {"shard": reader.u16("shard"), "archive": reader.take(16, "archive id")}
    reader.take(16, "segment id")
    found["branch"] = reader.take(63 + 1, "branch: length, name, zeros")
    found["first"], found["end"] = reader.u64("first"), reader.u64("end")
    reader.u64("first time"), reader.u64("last time")
    before, after = reader.take(32, "chain before"), reader.take(32, "chain after")
    batches, records = reader.u64("batches"), reader.u64("records")
    reader.i64("min record timestamp"), reader.i64("max record timestamp")
    check(reader.u64("object length") == len(data), "its length is its own")
    directories = []
    for name in ("block", "entry", "stream"):
        at, length = reader.u64(f"{name} directory: position"), reader.u32("length")
        crc = reader.u32("CRC-32", hexadecimal)
        check(zlib.crc32(data[at : at + length]) == crc, "a directory's checksum is true")
        directories.append(Reader(data[: at + length], at))
    check(reader.take(16, "no key envelope") == bytes(16), "it has no key")
    check(reader.u32("CRC-32 of the trailer", hexadecimal) == zlib.crc32(data[base : base + 312]), "trailer")
    check(reader.take(8, 'magic "DURASEGZ"') == b"DURASEGZ", "its end")
    reader.finish()
    blocks, entries, streams = directories

    found["blocks"] = []
    for _ in range(blocks.count("blocks", 26)):
        raw, kind, count = Reader(opened(data, part(blocks))), blocks.u8("kind"), blocks.u32("batches")
        check(raw.count("batches", 40) == count, "a block has as many batches as its directory says")
        rows = [[raw.u64("row") for _ in range(4)] + [raw.u32("row"), raw.u32("row")] for _ in range(count)]
        found["blocks"].append((kind, [row + [raw.take(row[5])] for row in rows]))
        raw.finish()

    chain, found["entries"], seen = before, [], [0, 0]
    for _ in range(entries.count("pages", 73)):
        page = Reader(opened(data, part(entries)))
        first, count, time = entries.u64("first"), entries.u32("entries"), entries.u64("first time")
        check(entries.take(32) == chain, "a page begins with the chain value before it")
        for number in range(count):
            index, term, effective = page.u64("index"), page.u64("term"), page.u64("time")
            check(index == first + number and (number or effective == time), "entries are dense")
            bytes_ = page.take(page.u32("head: length"))
            read = head(bytes_)
            leaf = derive("duramen 2026 leaf", struct.pack("<QQQI", index, term, effective, len(bytes_)) + bytes_)
            chain = derive("duramen 2026 chain", chain + leaf)
            fates = []
            for stated in read["batches"]:
                outcome = page.u8("outcome")
                place, offset = stated["stream"], 0
                if outcome == 2:
                    check(1 <= page.u8("reason") <= 15, "a reason is known")
                else:
                    check(outcome in (0, 1, 3), "an outcome is known")
                    place = page.u64("stream") if outcome == 3 else place
                    offset = page.u64("base offset")
                block, slot = page.u32("block"), page.u32("row")
                kind, rows = found["blocks"][block]
                check((kind == 0) == (outcome in (0, 3)), "a batch is in a block of its kind")
                there = [place, index, effective, offset, stated["records"], stated["bytes"]]
                check(rows[slot][:6] == there, "a block has what the entry table says")
                check(derive("duramen 2026 batch", rows[slot][6]) == stated["hash"], "with the hash of its header")
                fates.append((outcome, place, offset))
                seen[0] += 1
                seen[1] += stated["records"] if outcome in (0, 3) else 0
            found["entries"].append({"index": index, "term": term, "head": bytes_, "fates": fates, "time": effective})
        page.finish()
    check(chain == after and seen == [batches, records], "chain value and totals are the trailer's")

    found["streams"] = []
    for _ in range(streams.count("pages", 41)):
        raw = Reader(opened(data, part(streams)))
        streams.u64("stream"), streams.u64("first offset")
        for _ in range(streams.u32("rows")):
            row = [raw.u64("row") for _ in range(3)] + [raw.u32("row") for _ in range(3)]
            row += [raw.i64("row") for _ in range(2)] + [raw.u64("row") for _ in range(2)]
            rows = found["blocks"][row[3]][1][row[4] : row[4] + row[5]]
            check(all(there[0] == row[0] for there in rows), "a stream's row leads to its batches")
            check((rows[0][3], rows[-1][3] + rows[-1][4]) == (row[1], row[2]), "and says their offsets")
            found["streams"].append(row)
        raw.finish()
    for directory in directories:
        directory.finish()
    found["chain"] = chain
    return found


# Framed and JSON objects.


def protobuf(data, notes=None, at=0):
    """Field number to its values: integers, or bytes."""
    reader, fields = Reader(data, at, notes), {}
    while reader.left():
        start = reader.at
        key = leb128(reader)
        if key & 7 == 0:
            value = leb128(reader)
            shown = value
        else:
            check(key & 7 == 2, "a wire type that is used")
            value = reader.take(leb128(reader))
            shown = f"{len(value)} bytes"
        reader.notes.append((start, data[start : reader.at], f"field {key >> 3}: {shown}"))
        fields.setdefault(key >> 3, []).append(value)
    return fields


def framed(data, magic, notes=None):
    body = sealed(data)
    reader = Reader(body, notes=notes)
    reader.magic(magic)
    check(reader.u32("length") == reader.left(), "its length is its own")
    fields = protobuf(body, reader.notes, reader.at)
    Reader(data, len(body), reader.notes).u32("CRC-32 of all before", hexadecimal)
    return fields


def document(data, kind):
    envelope = json.loads(data)
    check(list(envelope) == ["format", "version", "crc32", "body"], "an envelope")
    versions = (1, 2) if kind == "verdict" else (1,)
    check(envelope["format"] == f"duramen-{kind}" and envelope["version"] in versions, "its format")
    body = data[data.index(b'"body":') + 7 : data.rstrip().rindex(b"}")]
    check(int(envelope["crc32"], 16) == zlib.crc32(body), "the body's checksum is true")
    return envelope["body"]


def checkpoint(data):
    reader = Reader(sealed(data))
    reader.magic(b"DURCHKPT")
    reader.take(reader.u32("membership: length"))
    found = state(reader.take(reader.u32("state: length")))
    reader.finish()
    return found


def hot_index(data):
    rows, streams, stored = struct.unpack("<III", data[-12:])
    check(data[:8] == b"DURINDEX" and struct.unpack("<I", data[8:12]) == (2,), "a hot index file of version 2")
    first, end = struct.unpack("<QQ", data[16:32])
    at, items = 32, {}
    for kind, count in ((0, rows), (1, streams)):
        items[kind] = []
        for number in range(-(-count // 256)):
            held = min(256, count - 256 * number)
            page, crc = data[at : at + 48 * held], data[at + 48 * held : at + 48 * held + 4]
            place = struct.pack("<QBI", first, kind, number)
            check(struct.unpack("<I", crc) == (zlib.crc32(place + page),), "a page's checksum")
            items[kind] += [page[48 * n : 48 * n + 48] for n in range(held)]
            at += 48 * held + 4
    directory = data[at:-4]
    check(stored == zlib.crc32(data[:32] + directory), "the directory's checksum")
    begins = [struct.unpack("<Q", page[:8])[0] for page in items[1][::256]]
    check(directory[:-8] == struct.pack(f"<{len(begins)}Q", *begins), "the first stream of each page")
    at = 0
    for item in items[1]:
        begin, count = struct.unpack("<II", item[40:48])
        check(count == 0 or begin == at, "rows of streams follow each other")
        at += count
    check(at == rows and first < end, "all rows are some stream's")


# The golden files.


def everything(root):
    def read(crate, name):
        return (root / crate / "tests/golden" / name).read_bytes()

    check(blake3(b"").hex().startswith("af1349b9f5f9a1a6"), "this BLAKE3 is BLAKE3")
    for codec in ("none", "arrival", "gzip", "snappy", "lz4", "zstd"):
        batch(read("crates/types", f"batch-{codec}.bin"))

    entries = log(root)
    lines = read("crates/types", "chain.txt").decode().split("\n")
    for found, line in zip(entries, lines[1:]):
        expected = [str(found[field]) for field in ("index", "term", "effective")]
        check(line.split() == expected + [found["leaf"].hex(), found["chain"].hex()], f"chain of {found['index']}")
    check({found["kind"] for found in entries} == set(KINDS), "every kind of entry was read")
    check({found.get("op") for found in entries} >= set(OPERATIONS[1:]), "every operation was read")

    for name in ("empty", "data", "meta"):
        state(read("crates/state", f"state-{name}.bin"))

    sealed_segment = wal(read("crates/wal", "segment-sealed.wal"))
    open_segment = wal(read("crates/wal", "segment-open.wal"))
    check(sealed_segment["sealed"] and not open_segment["sealed"], "one is sealed, one is open")
    kinds = {record["kind"] for record in sealed_segment["records"] + open_segment["records"]}
    check(kinds == set(RECORDS[1:]), f"every kind of record was read: {kinds}")

    archived = segment(read("crates/archive", "segment-stored.bin"))
    check(archived["chain"] == entries[-1]["chain"], "the segment's chain value is the log's")
    for found, there in zip(entries, archived["entries"]):
        check((there["head"], there["term"]) == (found["head"], found["term"]), "the segment has the log's entries")
    taken = snapshot(read("crates/archive", "snapshot-stored.bin"))
    check(taken["chain"] == entries[taken["end"] - 1]["chain"], "the snapshot's chain value is the log's")
    for row in archived["streams"]:
        check(taken["state"]["streams"][row[0]]["next"] == row[2], "the state's tails are where the segment ends")

    for name, magic in (
        ("closed", b"DURCLOSE"),
        ("manifest", b"DURMANIF"),
        ("page", b"DURMPAGE"),
        ("checkpoint", b"DURCHECK"),
    ):
        framed(read("crates/archive", f"{name}.bin"), magic)
    page = read("crates/archive", "page.bin")
    reference = protobuf(framed(read("crates/archive", "checkpoint.bin"), b"DURCHECK")[2][0])
    check(reference[2][0] == blake3(page) and reference[1][0] == blake3(page)[:16], "a page is named by its hash")
    for name, kind in (
        ("archive", "archive"),
        ("branch-root", "branch"),
        ("branch-child", "branch"),
        ("owner", "owner"),
        ("hold", "hold"),
        ("verdict-v1", "verdict"),
        ("verdict", "verdict"),
    ):
        document(read("crates/archive", f"{name}.json"), kind)

    checkpoint(read("service", "0001.checkpoint"))
    hot_index(read("service", "0003.index"))
    for name in ("node", "restore", "activated"):
        check(json.loads(read("crates/wal", f"{name}.json"))["format_version"] == 1, f"{name}.json has version 1")
    print(f"read {len(entries)} log entries and every other golden file")


DUMPS = (
    ("batch-", batch),
    ("entry-", entry),
    ("state-", state),
    ("segment-stored", segment),
    ("segment-", wal),
    ("snapshot-", snapshot),
    ("closed", lambda data, notes: framed(data, b"DURCLOSE", notes)),
)


def dump(path):
    notes, data = [], path.read_bytes()
    read = next(read for prefix, read in DUMPS if path.name.startswith(prefix))
    read(data, notes)
    for at, bytes_, note in sorted(notes, key=lambda found: found[0]):
        for line in range(0, len(bytes_), 16):
            shown = bytes_[line : line + 16].hex(" ")
            print(f"{at + line:06x}  {shown:47}  {note if line == 0 else ''}".rstrip())


if __name__ == "__main__":
    top = Path(sys.argv[1])
    try:
        dump(top / sys.argv[3]) if sys.argv[2:3] == ["--dump"] else everything(top)
    except (Wrong, IndexError, KeyError, StopIteration, ValueError) as wrong:
        sys.exit(f"{type(wrong).__name__}: {wrong}")
