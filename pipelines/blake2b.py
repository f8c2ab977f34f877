"""Keyed BLAKE2b (RFC 7693) of many short texts at once, on all cores.

Digests equal those of `hashlib.blake2b(text, key=key, digest_size=8)`. Compiled, because a million calls from Python spend
most of their time on the calls, and hold the interpreter, so that one core does all the work.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit, uint64

DIGEST_BYTES = 8
_BLOCK_BYTES = 128

UInt8 = npt.NDArray[np.uint8]
UInt64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]

_START = np.array(
    [
        0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
        0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
    ],
    dtype=np.uint64,
)  # fmt: skip
# Which word of the block each half step takes, by round; rounds 11 and 12 repeat the first two.
_SCHEDULE = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
        [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
        [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
        [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
        [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
        [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
        [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
        [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
        [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    ],
    dtype=np.int64,
)


def keyed_digests(texts: pa.StringArray, key: bytes) -> UInt64:
    """The first 8 bytes of each text's digest as a little-endian number; null counts as an empty text.

    Args:
        texts: of any length.
        key: 1 to 64 bytes.
    """
    large = texts.fill_null("").cast(pa.large_string())
    _, offsets, data = large.buffers()
    bounds = np.frombuffer(offsets, np.int64)[large.offset : large.offset + len(large) + 1]
    message = np.frombuffer(data or b"", np.uint8)
    key_block = np.frombuffer(key.ljust(_BLOCK_BYTES, b"\0"), np.uint8)
    start = _START.copy()
    start[0] ^= np.uint64(0x01010000 | len(key) << 8 | DIGEST_BYTES)
    found = np.empty(len(large), dtype=np.uint64)
    cores = os.cpu_count() or 1
    cuts = [len(large) * core // cores for core in range(cores + 1)]
    with ThreadPoolExecutor(cores) as pool:
        parts = [(bounds[a : b + 1], found[a:b]) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
        list(pool.map(lambda part: _digest(start, key_block, message, *part), parts))
    return found


@njit(cache=True, nogil=True)
def _digest(start: UInt64, key_block: UInt8, message: UInt8, bounds: Int64, found: UInt64) -> None:
    block = np.zeros(16, np.uint64)
    mixed = np.zeros(16, np.uint64)
    keyed = start.copy()
    _load(block, key_block, 0, _BLOCK_BYTES)
    _compress(keyed, block, mixed, _BLOCK_BYTES, False)
    state = np.zeros(8, np.uint64)
    for row in range(len(found)):
        begin, end = bounds[row], bounds[row + 1]
        if begin == end:  # without a message, the key is the last block
            state[:] = start
            _load(block, key_block, 0, _BLOCK_BYTES)
            _compress(state, block, mixed, _BLOCK_BYTES, True)
        else:
            state[:] = keyed
        for at in range(begin, end, _BLOCK_BYTES):
            upto = min(at + _BLOCK_BYTES, end)
            _load(block, message, at, upto)
            _compress(state, block, mixed, _BLOCK_BYTES + upto - begin, upto == end)
        found[row] = state[0]


@njit(cache=True, nogil=True)
def _load(block: UInt64, source: UInt8, begin: int, end: int) -> None:
    block[:] = 0
    for place in range(end - begin):
        block[place >> 3] |= uint64(source[begin + place]) << uint64(8 * (place & 7))


@njit(cache=True, nogil=True)
def _compress(state: UInt64, block: UInt64, mixed: UInt64, count: int, last: bool) -> None:
    mixed[:8] = state
    mixed[8:] = _START
    mixed[12] ^= uint64(count)
    if last:
        mixed[14] = ~mixed[14]
    for turn in range(12):
        words = _SCHEDULE[turn]
        for column in range(4):
            _mix(mixed, column, column, block[words[2 * column]], block[words[2 * column + 1]])
        for column in range(4):
            _mix(mixed, column, column + 1, block[words[8 + 2 * column]], block[words[9 + 2 * column]])
    for place in range(8):
        state[place] ^= mixed[place] ^ mixed[place + 8]


@njit(cache=True, nogil=True, inline="always")
def _mix(mixed: UInt64, column: int, diagonal: int, one: np.uint64, other: np.uint64) -> None:
    """A quarter of half a round: down a column, or (from the next column on) along a diagonal."""
    step = diagonal - column
    a, b = column, 4 + (column + step) % 4
    c, d = 8 + (column + 2 * step) % 4, 12 + (column + 3 * step) % 4
    mixed[a] += mixed[b] + one
    mixed[d] = _turned(mixed[d] ^ mixed[a], 32)
    mixed[c] += mixed[d]
    mixed[b] = _turned(mixed[b] ^ mixed[c], 24)
    mixed[a] += mixed[b] + other
    mixed[d] = _turned(mixed[d] ^ mixed[a], 16)
    mixed[c] += mixed[d]
    mixed[b] = _turned(mixed[b] ^ mixed[c], 63)


@njit(cache=True, nogil=True, inline="always")
def _turned(word: np.uint64, by: int) -> np.uint64:
    return (word >> uint64(by)) | (word << uint64(64 - by))
