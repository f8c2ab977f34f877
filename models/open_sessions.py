"""The sessions that may still go on, and what each looked at last; those that timed out are forgotten."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.events import Int32, Int64
from models.keys import KeyIndex, KeyTable

REMEMBERED = 3
"""Contents remembered of a session: as far back as skip rules reach."""


class SessionTable(NamedTuple):
    """State of every session heard of lately; a row per session code."""

    session_index: KeyTable
    items: Int32
    """Contents looked at, most recent last, -1 where there were fewer. (rows, REMEMBERED)"""
    cell: Int32
    """Row of the cell (content, location) where the session is."""
    last_us: Int64


class OpenSessions:
    """Rows are in order of first request since the last forgetting."""

    def __init__(self) -> None:
        self._resize(KeyIndex())

    def _resize(self, index: KeyIndex) -> None:
        self.index = index
        n = index.capacity
        self.items = np.full((n, REMEMBERED), -1, dtype=np.int32)
        self.cell = np.full(n, -1, dtype=np.int32)
        self.last_us = np.zeros(n, dtype=np.int64)

    @property
    def table(self) -> SessionTable:
        return SessionTable(self.index.table, self.items, self.cell, self.last_us)

    def rows_since(self, oldest_us: int) -> Int64:
        return np.flatnonzero(self.last_us[: len(self.index)] >= oldest_us)

    def reserve(self, *, oldest_us: int) -> None:
        """Forgets sessions last heard of before `oldest_us` and leaves room for as many again."""
        rows = self.rows_since(oldest_us)
        self.fill(self.index.keys[rows], self.items[rows], self.cell[rows], self.last_us[rows])

    def fill(self, session: Int64, items: Int32, cell: Int32, last_us: Int64) -> None:
        self._resize(KeyIndex(session, capacity=2 * len(session) + 512))
        n = len(session)
        self.items[:n], self.cell[:n], self.last_us[:n] = items, cell, last_us
