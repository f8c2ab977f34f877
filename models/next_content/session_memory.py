"""Recent sessions, and for each content the sessions that hold it, newest first: what nearest-neighbour methods read.

Sessions stand in a ring; a new one takes the place of the oldest. A session holds each content once, at the place of its
first request. The occurrences of a content are linked, each to the one before it, through the ring itself, so that memory
is bounded by the ring and an occurrence is forgotten with its session.

What is learnt. Every request counts for popularity. **A session counts from its second content on**: its first alone
says nothing about what goes with it, so both are linked when the second comes. Silence longer than the timeout begins a
new session. A session that fills its places goes on as a new one that begins with its newest content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from models.counters import instant
from models.errors import LogOrderError
from models.events import HOUR_US, Float64, Int32, Int64, RequestLog
from models.keys import Key, KeyIndex, KeyTable, add_key, grown
from models.vocabulary import Vocabulary


@dataclass(frozen=True)
class SessionMemorySettings:
    """How much is remembered of sessions."""

    sessions: int = 131_072
    """Most sessions remembered; the oldest is forgotten first."""
    contents_per_session: int = 16
    """Places of a session; a longer one goes on as a new one."""
    session_timeout_minutes: float = 30.0
    """A longer silence ends a session, in minutes."""
    half_lives_hours: tuple[float, ...] = (1.0, 4.0, 24.0)
    """Half-lives of the number of sessions that hold a content, in hours, from fast to slow."""
    popularity_half_life_hours: float = 0.5
    """Half-life of popularity, in hours."""

    def __post_init__(self) -> None:
        for name, least in (("sessions", 1), ("contents_per_session", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"Expected {name} >= {least}, got {getattr(self, name)!r}.")
        for name in ("session_timeout_minutes", "popularity_half_life_hours"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Expected {name} > 0, got {getattr(self, name)!r}.")
        values = self.half_lives_hours
        if not values or min(values) <= 0 or list(values) != sorted(values):
            raise ValueError(f"Expected half_lives_hours > 0, from fast to slow, got {values!r}.")

    @property
    def rebase_us(self) -> int:
        """Distance of the instants at which the base may stand: 256 of the shortest half-lives."""
        return int(256 * min(*self.half_lives_hours, self.popularity_half_life_hours) * HOUR_US)


class SessionRing(NamedTuple):
    """What jitted code sees. Session number s stands in row s % rows; occurrence (s, place) is link s * places + place."""

    content: Int32  # (rows, places)
    earlier: Int64  # link of the occurrence of the same content before, -1 for none; (rows, places)
    length: Int32  # (rows,)
    newest_us: Int64  # newest request of each session; (rows,)
    begun: Int64  # sessions ever begun, as an array of one
    head: Int64  # link of the newest occurrence of each content, -1 for none; (contents,)


class Counts(NamedTuple):
    """Decayed counts, inflated as `models.counters` describes; the last column is popularity."""

    per_hour: Float64  # (half-lives + 1,)
    content: Float64  # (contents, half-lives + 1)
    total: Float64  # sessions, and requests; (half-lives + 1,)


@njit(cache=True)
def remembered(ring: SessionRing, session: Key) -> bool:
    return bool(session >= 0 and session >= ring.begun[0] - len(ring.length))


@njit(cache=True)
def holds(ring: SessionRing, row: Key, content: Key) -> Key:
    """Place of a content in a session, or -1."""
    for place in range(ring.length[row]):
        if ring.content[row, place] == content:
            return np.int64(place)
    return np.int64(-1)


@njit(cache=True)
def _begin(ring: SessionRing, content: Key) -> Key:
    session = ring.begun[0]
    ring.begun[0] += 1
    row = session % len(ring.length)
    ring.content[row, 0] = content
    ring.length[row] = 1
    return np.int64(session)


@njit(cache=True)
def _link(ring: SessionRing, session: Key, place: Key, counts: Counts, weight: Float64) -> None:
    row = session % len(ring.length)
    x = ring.content[row, place]
    ring.earlier[row, place] = ring.head[x]
    ring.head[x] = session * ring.content.shape[1] + place
    counts.content[x, :-1] += weight[:-1]


@njit(cache=True)
def _add(ring: SessionRing, session: Key, content: Key, counts: Counts, weight: Float64) -> Key:
    """Adds a new content to a session; returns the session that it now stands in."""
    row = session % len(ring.length)
    if ring.length[row] == ring.content.shape[1]:
        session = _begin(ring, ring.content[row, ring.length[row] - 1])
        row = session % len(ring.length)
    place = np.int64(ring.length[row])
    ring.content[row, place] = content
    ring.length[row] += 1
    if place == 1:
        counts.total[:-1] += weight[:-1]
        _link(ring, session, np.int64(0), counts, weight)
    _link(ring, session, place, counts, weight)
    return session


@njit(cache=True)
def _learn(
    first: int,
    log: tuple[Int64, Int32, Int32],
    ring: SessionRing,
    under_way: tuple[KeyTable, Int64],
    counts: Counts,
    clock: tuple[int, int],
) -> int:
    """Learns rows of (ts_us, session, content) from `first` on; stops where the index of sessions is full."""
    ts_us, session, content = log
    index, number = under_way
    base_us, timeout_us = clock
    for i in range(first, len(ts_us)):
        if index.size[0] >= len(number):
            return i
        weight = 2.0 ** ((ts_us[i] - base_us) / HOUR_US * counts.per_hour)
        x = np.int64(content[i])
        counts.content[x, -1] += weight[-1]
        counts.total[-1] += weight[-1]
        if session[i] < 0:
            continue
        known = index.size[0]
        entry = add_key(index, np.int64(session[i]))
        at = number[entry] if entry < known else np.int64(-1)
        row = at % len(ring.length)
        if not remembered(ring, at) or ts_us[i] - ring.newest_us[row] > timeout_us:
            at = _begin(ring, x)
        elif holds(ring, row, x) < 0:
            at = _add(ring, at, x, counts, weight)
        number[entry] = at
        ring.newest_us[at % len(ring.length)] = ts_us[i]
    return len(ts_us)


class SessionMemory:
    """Sessions, supports and popularity of a request log, learnt as it comes.

    Attributes:
        settings: what is remembered.
        time_us: the newest instant learnt so far, -1 before the first.
        ring: the sessions.
        counts: supports (sessions that hold a content) by half-life, and popularity.
        marks: scratch of readers, a flag a row, all false between questions. (rows,)
    """

    def __init__(self, settings: SessionMemorySettings | None = None) -> None:
        self.settings = s = settings or SessionMemorySettings()
        self.time_us, self.base_us = -1, 0
        self.content_ids, self.location_ids = Vocabulary(), Vocabulary()
        shape = (s.sessions, s.contents_per_session)
        self.ring = SessionRing(
            np.full(shape, -1, dtype=np.int32),
            np.full(shape, -1, dtype=np.int64),
            np.zeros(s.sessions, dtype=np.int32),
            np.zeros(s.sessions, dtype=np.int64),
            np.zeros(1, dtype=np.int64),
            np.zeros(0, dtype=np.int64),
        )
        half_lives = np.array([*s.half_lives_hours, s.popularity_half_life_hours], dtype=np.float64)
        self.counts = Counts(1 / half_lives, np.zeros((0, len(half_lives))), np.zeros(len(half_lives)))
        self.marks = np.zeros(s.sessions, dtype=np.bool_)
        self._index = KeyIndex()
        self._number = np.full(self._index.capacity, -1, dtype=np.int64)

    @property
    def contents(self) -> npt.NDArray[np.object_]:
        """Content ids by the memory's codes."""
        return self.content_ids.ids

    @property
    def locations(self) -> npt.NDArray[np.object_]:
        """Location ids by the memory's codes."""
        return self.location_ids.ids

    @property
    def timeout_us(self) -> int:
        return int(self.settings.session_timeout_minutes * 60_000_000)

    def update(self, log: RequestLog) -> None:
        """Learns the requests of a log, in order.

        Raises:
            LogOrderError: the log begins before the newest instant already learnt.
        """
        if not len(log):
            return
        self.refuse_before(int(log.ts_us[0]))
        content = self.content_ids.recode(log.content, log.contents)
        self.location_ids.recode(log.location, log.locations)
        self._reserve_contents(len(self.content_ids))
        grid = self.settings.rebase_us
        edges = np.flatnonzero(np.diff(log.ts_us // grid)) + 1
        for first, last in zip([0, *edges], [*edges, len(log)], strict=True):
            part = slice(int(first), int(last))
            self._rebase(int(log.ts_us[first]) // grid * grid)
            self._feed(log.ts_us[part], log.session[part], content[part])

    def refuse_before(self, at_us: int) -> None:
        """Raises LogOrderError for an instant before the newest one learnt."""
        if at_us < self.time_us:
            raise LogOrderError(
                f"The session memory holds requests until {instant(self.time_us)} and cannot go back to "
                f"{instant(at_us)}. Feed logs in time order, or build the memory from the log before that instant."
            )

    def column(self, half_life_hours: float) -> int:
        """Column of `counts` with a half-life."""
        kept = self.settings.half_lives_hours
        if half_life_hours not in kept:
            raise ValueError(
                f"The session memory keeps half_lives_hours = {kept!r}, not {half_life_hours!r}; "
                "choose one of them or add it to the memory's settings."
            )
        return kept.index(half_life_hours)

    def deflation(self, at_us: int) -> Float64:
        """Factors from inflated counts to counts at an instant. (half-lives + 1,)"""
        self.refuse_before(at_us)
        return np.asarray(2.0 ** (-(at_us - self.base_us) / HOUR_US * self.counts.per_hour))

    def _feed(self, ts_us: Int64, session: Int32, content: Int32) -> None:
        done, log, clock = 0, (ts_us, session, content), (self.base_us, self.timeout_us)
        while done < len(ts_us):
            done = _learn(done, log, self.ring, (self._index.table, self._number), self.counts, clock)
            if done < len(ts_us):
                self._forget_ended(int(ts_us[done]) - self.timeout_us)
        self.time_us = int(ts_us[-1])

    def _forget_ended(self, oldest_us: int) -> None:
        """Drops sessions that can go on no more from the index, and leaves room for as many again."""
        number = self._number[: len(self._index)]
        rows = number % self.settings.sessions
        in_ring = number >= self.ring.begun[0] - self.settings.sessions
        kept = np.flatnonzero(in_ring & (self.ring.newest_us[rows] >= oldest_us))
        self._index = KeyIndex(self._index.keys[kept], capacity=2 * len(kept) + 512)
        self._number = grown(number[kept], self._index.capacity, -1)

    def _reserve_contents(self, contents: int) -> None:
        if contents > len(self.ring.head):
            self.ring = self.ring._replace(head=grown(self.ring.head, 2 * contents, -1))
            self.counts = self.counts._replace(content=grown(self.counts.content, 2 * contents))

    def _rebase(self, base_us: int) -> None:
        if base_us != self.base_us:
            factors = 2.0 ** (-(base_us - self.base_us) / HOUR_US * self.counts.per_hour)
            self.counts.content[:] *= factors
            self.counts.total[:] *= factors
            self.base_us = base_us
