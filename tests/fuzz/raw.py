"""Damage to bytes, whatever they mean."""

from __future__ import annotations

from random import Random

MAGIC = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
_MOST = 64 * 2**20  # bytes: what grows stays below


def mutate_bytes(content: bytes, rng: Random, other: bytes = b"") -> bytes:
    """Return the content with one damage; `other` is a second input to splice with."""
    if not content:
        return rng.randbytes(rng.choice((0, 1, 16, 200)))
    return rng.choice(_DAMAGES)(bytearray(content), rng, other)[:_MOST]


def _place(content: bytearray, rng: Random) -> int:
    # headers are hit as often as all the rest
    return rng.randrange(min(len(content), 64) if rng.random() < 0.5 else len(content))


def _span(content: bytearray, rng: Random) -> slice:
    start = _place(content, rng)
    return slice(start, start + rng.choice((1, 2, 4, 8, 64, 512, max(1, len(content) // 4))))


def _flip(content: bytearray, rng: Random, _other: bytes) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        content[_place(content, rng)] ^= 1 << rng.randrange(8)
    return bytes(content)


def _insert(content: bytearray, rng: Random, _other: bytes) -> bytes:
    place = _place(content, rng)
    content[place:place] = rng.randbytes(rng.choice((1, 2, 4, 33, 400)))
    return bytes(content)


def _delete(content: bytearray, rng: Random, _other: bytes) -> bytes:
    del content[_span(content, rng)]
    return bytes(content)


def _truncate(content: bytearray, rng: Random, _other: bytes) -> bytes:
    return bytes(content[: rng.choice((0, 1, len(content) // 2, len(content) - 1, _place(content, rng)))])


def _repeat(content: bytearray, rng: Random, _other: bytes) -> bytes:
    span = _span(content, rng)
    content[span.stop : span.stop] = bytes(content[span]) * rng.choice((1, 2, 50))
    return bytes(content)


def _swap(content: bytearray, rng: Random, _other: bytes) -> bytes:
    a, b = _span(content, rng), _span(content, rng)
    length = min(len(content[a]), len(content[b]))
    a, b = slice(a.start, a.start + length), slice(b.start, b.start + length)
    content[a], content[b] = bytes(content[b]), bytes(content[a])
    return bytes(content)


def _fill(content: bytearray, rng: Random, _other: bytes) -> bytes:
    span = _span(content, rng)
    content[span] = bytes([rng.choice((0, 0, 0xFF, rng.randrange(256)))]) * len(content[span])
    return bytes(content)


def _splice(content: bytearray, rng: Random, other: bytes) -> bytes:
    if not other:
        return _flip(content, rng, other)
    return bytes(content[: _place(content, rng)]) + other[rng.randrange(len(other)) :]


def _number(content: bytearray, rng: Random, _other: bytes) -> bytes:
    length, value = rng.choice((1, 2, 4, 8)), rng.choice(MAGIC)
    place = _place(content, rng)
    content[place : place + length] = (value % 256**length).to_bytes(length, rng.choice(("big", "little")))
    return bytes(content)


_DAMAGES = (_flip, _flip, _insert, _delete, _truncate, _repeat, _swap, _fill, _splice, _number, _number)
