"""Damage to the content of binary formats, with correct checksums, so that readers do not stop at the header."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from random import Random
from typing import Any

from tests.fuzz.raw import MAGIC, mutate_bytes
from tests.fuzz.values import any_value, mutate_value

_PNG = b"\x89PNG\r\n\x1a\n"


def mutate_png(content: bytes, rng: Random) -> bytes:
    """Return a PNG with damaged chunks and correct checksums."""
    chunks = _chunks(content)
    if not chunks:
        return mutate_bytes(content, rng)
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(len(chunks))
        name, body = chunks[place]
        damage = rng.randrange(7)
        if damage == 0 and chunks[0][1]:
            head = bytearray(chunks[0][1])
            field = rng.randrange(7)
            if field < 2:
                head[4 * field : 4 * field + 4] = rng.choice((0, 1, 3, 17, 500, 20_000, 65_536, 2**31 - 1)).to_bytes(
                    4, "big"
                )
            elif len(head) >= 13:
                head[6 + field] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
            chunks[0] = chunks[0][0], bytes(head)
        elif damage == 1:
            chunks[place] = name, mutate_bytes(body, rng)
        elif damage == 2:
            chunks.insert(place, chunks[rng.randrange(len(chunks))])
        elif damage == 3:
            del chunks[place]
        elif damage == 4:
            chunks[place] = rng.choice((b"tRNS", b"PLTE", b"acTL", b"fcTL", b"fdAT", b"iCCP", b"zTXt", b"eXIf")), body
        elif damage == 5:
            kind = rng.choice(
                (b"tRNS", b"gAMA", b"sBIT", b"bKGD", b"pHYs", b"iTXt", b"zTXt", b"eXIf", b"cHRM", b"hIST")
            )
            chunks.insert(min(1, len(chunks)), (kind, rng.randbytes(rng.choice((0, 1, 2, 6, 32, 256, 1024)))))
        elif name == b"IDAT":
            try:
                pixels = zlib.decompress(body)
            except zlib.error:
                continue
            chunks[place] = name, zlib.compress(mutate_bytes(pixels, rng))
        if not chunks:
            break
    return _PNG + b"".join(
        len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big") for name, body in chunks
    )


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], len(_PNG)
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        found.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def mutate_tiff(content: bytes, rng: Random) -> bytes:
    """Return a TIFF one of whose directory entries has another tag, type, count or value."""
    data = bytearray(content)
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None or len(data) < 8:
        return mutate_bytes(content, rng)
    (start,) = struct.unpack_from(order + "I", data, 4)
    if start + 2 > len(data):
        return mutate_bytes(content, rng)
    (count,) = struct.unpack_from(order + "H", data, start)
    if not count or start + 2 + 12 * count > len(data):
        return mutate_bytes(content, rng)
    for _ in range(rng.choice((1, 1, 2))):
        entry = start + 2 + 12 * rng.randrange(count)
        field = rng.randrange(5)
        if field == 0:
            struct.pack_into(
                order + "H", data, entry, rng.choice((254, 256, 257, 258, 259, 262, 266, 277, 279, 317, 322))
            )
        elif field == 1:
            struct.pack_into(order + "H", data, entry + 2, rng.choice((0, 1, 2, 3, 4, 5, 7, 11, 12, 13, 16, 99)))
        elif field == 2:
            struct.pack_into(order + "I", data, entry + 4, rng.choice(MAGIC) % 2**32)
        else:
            struct.pack_into(order + "I", data, entry + 8, rng.choice((*MAGIC, 2, 3, 4, 5, 8, 32, 50_000)) % 2**32)
    return bytes(data)


_BOXES = b"moov trak mdia minf stbl edts dinf udta meta iprp ipco".split()


def mutate_boxes(content: bytes, rng: Random) -> bytes:
    """Return an MP4, MOV, AVIF or HEIC with a damaged box: its size, its type or a number inside."""
    boxes = _boxes(content)
    if not boxes:
        return mutate_bytes(content, rng)
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2))):
        # all but the pictures' own data
        start, size, _ = rng.choice([box for box in boxes if box[2] != b"mdat"] or boxes)
        damage = rng.randrange(6)
        if damage == 0:
            data[start : start + 4] = (rng.choice((*MAGIC, size + 1, size - 1, 8)) % 2**32).to_bytes(4, "big")
        elif damage == 1:
            data[start + 4 : start + 8] = rng.choice(boxes)[2]
        elif damage == 2 and size > 12:
            place = start + 8 + 4 * rng.randrange((size - 8) // 4)
            value = rng.choice((*MAGIC, 2, 3, 90, 1000, -1, -5))
            data[place : place + 4] = (value % 2**32).to_bytes(4, "big")
        elif damage == 3:
            inner = mutate_bytes(bytes(data[start + 8 : start + size]), rng)[: size - 8]
            data[start + 8 : start + 8 + len(inner)] = inner
        elif damage == 4:
            data[start + 4 : start + 8] = b"free"
        else:
            return bytes(data[: start + size]) + bytes(data[start : start + size]) + bytes(data[start + size :])
    return bytes(data)


def _boxes(content: bytes, start: int = 0, end: int | None = None, depth: int = 0) -> list[tuple[int, int, bytes]]:
    found: list[tuple[int, int, bytes]] = []
    end = len(content) if end is None else end
    while start + 8 <= end and len(found) < 500:
        size, name = int.from_bytes(content[start : start + 4], "big"), content[start + 4 : start + 8]
        if size < 8 or start + size > end:
            break
        found.append((start, size, name))
        if name in _BOXES and depth < 10:
            found += _boxes(content, start + (12 if name == b"meta" else 8), start + size, depth + 1)
        start += size
    return found


def mutate_safetensors(content: bytes, rng: Random) -> bytes:
    """Return a safetensors file with a damaged header, or other numbers in its tensors."""
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
    except ValueError:
        return mutate_bytes(content, rng)
    data = bytearray(content[8 + length :])
    names = [name for name in header if name != "__metadata__"]
    damage = rng.randrange(10)
    if damage == 0:
        return rng.choice(MAGIC).to_bytes(8, "little") + content[8:]
    if damage == 1 and data:
        special = rng.choice((b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f", b"\0\0\0\0"))
        place = rng.randrange(len(data)) // 4 * 4
        span = rng.choice((4, 400, len(data) - place))
        data[place : place + span] = (special * (span // 4 + 1))[: len(data[place : place + span])]
    elif damage == 2 and names:
        header[rng.choice(names)]["dtype"] = rng.choice(
            ("F16", "BF16", "I32", "U32", "I8", "F64", "BOOL", "X", "F8_E4M3")
        )
    elif damage == 3 and names:
        entry = header[rng.choice(names)]
        shape = entry["shape"]
        whole = 1
        for side in shape:
            whole *= side
        shapes = ([whole], [1, *shape], shape[::-1], [], [0], [whole, 1, 1, 1], [*shape, 1], shape[:-1])
        entry["shape"] = rng.choice(shapes)
    elif damage == 4 and names:
        header[rng.choice((names[0] + "x", "model." + names[0], "", "a" * 5000))] = header.pop(rng.choice(names))
    elif damage == 5 and names:
        del header[rng.choice(names)]
    elif damage == 6 and len(names) > 1:
        first, second = rng.choice(names), rng.choice(names)
        header[first], header[second] = header[second], header[first]
    elif damage == 7 and "__metadata__" in header:
        about = header["__metadata__"]
        key = rng.choice(list(about) or ["format"])
        try:
            about[key] = json.dumps(mutate_value(json.loads(about[key]), rng))
        except (ValueError, KeyError, RecursionError):
            about[key] = str(any_value(rng, 3))
    else:
        header = mutate_value(header, rng)
    try:
        text = json.dumps(header).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        text = b"[" * 5000
    return len(text).to_bytes(8, "little") + text + bytes(data)


def mutate_checkpoint(content: bytes, rng: Random) -> bytes:
    """Return a checkpoint of torch whose content is other than expected, or whose archive is damaged."""
    import torch

    damage = rng.randrange(3)
    if damage == 0:
        return mutate_bytes(content, rng)
    if damage == 1:
        return _other_entries(content, rng)
    try:
        document = torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # whatever an earlier damage left
        return mutate_bytes(content, rng)
    for _ in range(rng.choice((1, 1, 2))):
        document = _other_tensors(document, rng)
    buffer = io.BytesIO()
    try:
        torch.save(document, buffer)
    except (RuntimeError, RecursionError, pickle.PicklingError):
        return content[:-100]
    return buffer.getvalue()


def _other_tensors(document: Any, rng: Random) -> Any:
    """Return a copy with one damage to a tensor, a name or another value."""
    import torch

    if not isinstance(document, dict) or not document or rng.random() < 0.05:
        return any_value(rng)
    copied = dict(document)
    key = rng.choice(list(copied))
    value = copied[key]
    if isinstance(value, dict) and rng.random() < 0.8:
        copied[key] = _other_tensors(value, rng)
        return copied
    if not isinstance(value, torch.Tensor) or rng.random() < 0.3:
        return mutate_value({name: None if isinstance(v, torch.Tensor) else v for name, v in copied.items()}, rng) | {
            name: v for name, v in copied.items() if isinstance(v, torch.Tensor) and name != key
        }
    others = (
        value.flatten(),
        value[None],
        value.to(torch.int32),
        value.half(),
        value.to(torch.complex64),
        value * float("nan"),
        value * 1e30,
        value[:0] if value.ndim else value,
        value.flip(0).transpose(0, -1).contiguous() if value.ndim else value,
        torch.zeros(()),
        value.to_sparse() if value.ndim else value,
        torch.zeros(1).expand(10**6, 10**5),
        value.to(torch.bool),
    )
    if rng.random() < 0.2:
        copied[rng.choice(("", "x", 3, None, ("a",), f"{key}.0", f"module.{key}"))] = copied.pop(key)
    else:
        copied[key] = rng.choice(others)
    return copied


def _other_entries(content: bytes, rng: Random) -> bytes:
    """Return the archive with one damaged entry and correct checksums."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError):
        return mutate_bytes(content, rng)
    name = rng.choice([name for name in entries if name.endswith("data.pkl")] * 3 + list(entries) or [""])
    if not name:
        return content
    if rng.random() < 0.1:
        del entries[name]
    else:
        entries[name] = mutate_bytes(entries[name], rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for entry, body in entries.items():
            archive.writestr(entry, body)
    return buffer.getvalue()
