"""An index from 64-bit keys to dense rows: open addressing with linear probing, for jitted loops.

Rows are handed out in order of insertion, so the values of a key live in plain arrays beside the index and are
saved, scaled and added as arrays. Slots are at most two thirds full. Rows grow by half, not by doubling: the arrays
beside the index are far larger than its slots, and old and new ones are held together while they are copied.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from numba import njit

from models.events import Int32, Int64

Scalar = TypeVar("Scalar", bound=np.generic)

Key: TypeAlias = int | np.int64
"""A key, row or slot as jitted loops compute with it."""

EMPTY = -1
PAIR_BITS = 32
PAIR_MASK = (1 << PAIR_BITS) - 1


class KeyTable(NamedTuple):
    """What jitted code sees of a `KeyIndex`."""

    slots: Int32
    """Row held by each slot, or -1. A power of two long."""
    keys: Int64
    """Key of each row."""
    size: Int64
    """Number of rows in use, as an array of one so that loops can raise it."""


def pair_keys(first: npt.ArrayLike, second: npt.ArrayLike) -> Int64:
    """Two codes below 2^31 as one key that sorts as the pair does."""
    return (np.asarray(first, dtype=np.int64) << PAIR_BITS) | np.asarray(second, dtype=np.int64)


@njit(cache=True, inline="always")
def slot_of(key: Key, n_slots: int) -> Key:
    """A slot to start probing at: the 64-bit finaliser of MurmurHash3."""
    x = np.uint64(key)
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xFF51AFD7ED558CCD)
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xC4CEB9FE1A85EC53)
    x ^= x >> np.uint64(33)
    return np.int64(x & np.uint64(n_slots - 1))


@njit(cache=True)
def find_key(table: KeyTable, key: Key) -> Key:
    """Row of a key, or -1."""
    n_slots = len(table.slots)
    slot = slot_of(key, n_slots)
    while True:
        row = np.int64(table.slots[slot])
        if row == EMPTY or table.keys[row] == key:
            return row
        slot = (slot + 1) & (n_slots - 1)


@njit(cache=True)
def add_key(table: KeyTable, key: Key) -> Key:
    """Row of a key, new if need be; the caller has made sure that one more row fits."""
    n_slots = len(table.slots)
    slot = slot_of(key, n_slots)
    while True:
        row = np.int64(table.slots[slot])
        if row == EMPTY:
            row = np.int64(table.size[0])
            table.slots[slot] = row
            table.keys[row] = key
            table.size[0] += 1
            return row
        if table.keys[row] == key:
            return row
        slot = (slot + 1) & (n_slots - 1)


@njit(cache=True)
def find_keys(table: KeyTable, keys: Int64) -> Int64:
    rows = np.empty(len(keys), dtype=np.int64)
    for i in range(len(keys)):
        rows[i] = find_key(table, keys[i])
    return rows


@njit(cache=True)
def add_keys(table: KeyTable, keys: Int64) -> Int64:
    rows = np.empty(len(keys), dtype=np.int64)
    for i in range(len(keys)):
        rows[i] = add_key(table, keys[i])
    return rows


class KeyIndex:
    """Keys in order of insertion; `capacity` rows fit before `reserve` must be called again."""

    def __init__(self, keys: Int64 | None = None, *, capacity: int = 512) -> None:
        known = np.empty(0, dtype=np.int64) if keys is None else keys
        self.table = _table(max(capacity, len(known)))
        add_keys(self.table, known)

    def __len__(self) -> int:
        return int(self.table.size[0])

    @property
    def capacity(self) -> int:
        return len(self.table.keys)

    @property
    def keys(self) -> Int64:
        return self.table.keys[: len(self)]

    def reserve(self, extra: int) -> None:
        """Makes room for `extra` more keys; rows of known keys stay."""
        wanted = len(self) + extra
        if wanted > self.capacity:
            known = self.keys
            self.table = _table(max(wanted, self.capacity + self.capacity // 2))
            add_keys(self.table, known)

    def add(self, keys: Int64) -> Int64:
        self.reserve(len(keys))
        rows: Int64 = add_keys(self.table, keys)
        return rows

    def find(self, keys: Int64) -> Int64:
        rows: Int64 = find_keys(self.table, keys)
        return rows


def _table(capacity: int) -> KeyTable:
    n_slots = 1 << max(4, int(capacity + capacity // 2).bit_length())
    return KeyTable(
        np.full(n_slots, EMPTY, dtype=np.int32),
        np.zeros(capacity, dtype=np.int64),
        np.zeros(1, dtype=np.int64),
    )


def grown(values: npt.NDArray[Scalar], capacity: int, fill: float = 0) -> npt.NDArray[Scalar]:
    """`values` with room for `capacity` rows; new rows hold `fill`."""
    if len(values) >= capacity:
        return values
    longer = np.zeros((capacity, *values.shape[1:]), dtype=values.dtype)  # zeros cost no memory until written
    longer[: len(values)] = values
    if fill != 0:
        longer[len(values) :] = fill
    return longer
