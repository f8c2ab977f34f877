"""Counters with exponential forgetting: everything that moves fast, updated per request, never retrained.

`C_h(key, t) = sum over requests e of the key of 2^(-(t - t_e) / h)`; the rate per observed hour is `C_h ln 2 / (h E_h)`
with `E_h(t)` the share of that memory in which the log was observed, see `models.observation`.

Counters are kept **inflated**: a request adds `2^((t_e - base) / h)`, a reader divides by `2^((t - base) / h)`, so that
time passes without sweeps. The base moves on a fixed grid of instants (and everything is scaled once) before a number
can overflow, once a day at least; because the grid is fixed, the state does not depend on how a log was cut into updates.

At each of these instants, what has faded below `forget_weight` is forgotten: cells, pairs of contents, successors.
Contents and locations keep their codes for ever. A cell that comes back later is as new.

Requests at equal instants count in input order. A reader at instant t sees every request that was fed; asking for an
instant before the newest of them is refused, because the answer would contain its own future.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.audiences import Audiences
from models.counter_settings import CounterSettings
from models.counter_tables import fill_store, read_settings, store_tables
from models.errors import LogOrderError
from models.events import HOUR_US, NEVER_US, Bool, Float64, Int32, Int64, RequestLog, Window
from models.flow import FlowTable, content_flow, flow_by_row
from models.keys import KeyIndex, Scalar, pair_keys
from models.merging import absorb
from models.observation import hours_observed, observed_share, start_up_share, united, unobserved_us
from models.open_sessions import OpenSessions
from models.popularity import Popularity
from models.successors import SuccessorLists
from models.vocabulary import Vocabulary
from models.walks import Walks

LN2 = float(np.log(2))
GAP_HALF_LIVES = 30
"""Gaps are remembered for this many of the slowest half-life, and as long as hours by location are."""

__all__ = ["LN2", "CounterSettings", "CounterStore", "instant"]


class CounterStore:
    """Decayed counts of a request log: rates, transitions, sessions under way and hourly counts.

    Attributes:
        settings: what is remembered.
        time_us: the newest instant fed so far, -1 before the first; readers may not ask for an earlier one.
        gaps: windows in which the log was not observed, in order, none meeting another.
        popularity: counts of contents, locations and cells.
        walks: sessions and transitions.
        audiences: counts by device and arrival.
        kinds: code of what each content is, -1 where nobody said. (contents,)
    """

    def __init__(self, settings: CounterSettings | None = None) -> None:
        self.settings = s = settings or CounterSettings()
        self.time_us = -1
        self.base_us = 0
        self.gaps: tuple[Window, ...] = ()
        self.content_ids, self.location_ids = Vocabulary(), Vocabulary()
        self.popularity = Popularity(s)
        self.walks = Walks(s)
        self.audiences = Audiences(
            half_life_hours=s.audience_half_life_hours, timeout_us=self.timeout_us, places=s.leaders
        )
        self.kind_ids = Vocabulary()
        self.kinds: Int32 = np.empty(0, dtype=np.int32)

    @property
    def timeout_us(self) -> int:
        """A longer silence ends a session."""
        return int(self.settings.session_timeout_minutes * 60_000_000)

    @property
    def contents(self) -> npt.NDArray[np.object_]:
        """Content ids by the store's codes."""
        return self.content_ids.ids

    @property
    def locations(self) -> npt.NDArray[np.object_]:
        """Location ids by the store's codes."""
        return self.location_ids.ids

    # ---- feeding

    def update(self, log: RequestLog, *, same_sessions: bool = True) -> None:
        """Feeds the requests of a log, in order.

        Contents and locations that occur in its rows become known, and contents that appeared before its newest
        instant where the log says when they did. Ids decide, not codes: a log with another vocabulary is recoded.

        Args:
            log: requests not older than `time_us`.
            same_sessions: False when this log numbers its sessions afresh, so that no walk crosses into it.

        Raises:
            LogOrderError: the log begins before the newest instant already fed.
            ValueError: a row has no content or no location.
        """
        if not len(log):
            self.learn_gaps(log.gaps)
            return
        if log.ts_us[0] < self.time_us:
            raise LogOrderError(
                f"The log begins at {instant(log.ts_us[0])}, but the counters already hold requests until "
                f"{instant(self.time_us)}. Feed logs in time order, or build the counters anew from the whole log."
            )
        if min(log.content.min(), log.location.min()) < 0:
            raise ValueError("Every request needs a content and a location; drop or repair the rows without.")
        if not same_sessions:
            self.end_sessions()
        self._announce_appeared(log)
        device, arrival = self.audiences.codes(log)
        known = len(self.content_ids)
        content = self.content_ids.recode(log.content, log.contents)
        location = self.location_ids.recode(log.location, log.locations)
        grid = self.settings.rebase_us
        edges = np.flatnonzero(np.diff(log.ts_us // grid)) + 1
        for first, last in zip([0, *edges], [*edges, len(log)], strict=True):
            part = slice(int(first), int(last))
            base_us = int(log.ts_us[first]) // grid * grid
            if base_us != self.base_us:
                self.rebase(base_us)
                self._forget()
            self._feed(log.ts_us[part], log.session[part], content[part], location[part])
            shown = (log.ts_us[part], log.session[part], content[part], device[part], arrival[part])
            self.audiences.feed(shown, base_us=self.base_us)
        if len(self.content_ids) > known:
            self.popularity.note_newest(np.arange(known, len(self.content_ids)))
        self._note_kinds(log)
        self.learn_gaps(log.gaps)

    def learn_gaps(self, gaps: Sequence[Window]) -> None:
        """Takes windows among those in which the log was not observed; a log's own are learned with its requests."""
        slowest = GAP_HALF_LIVES * self.settings.half_lives_hours[-1]
        from_us = self.base_us - round(max(slowest, self.settings.location_hours) * HOUR_US)
        self.gaps = united(gap for gap in (*self.gaps, *gaps) if gap[1] > from_us)

    def _note_kinds(self, log: RequestLog) -> None:
        """Learns what the contents are that became known, where the log says so."""
        n, known = len(self.kinds), len(self.content_ids)
        if n == known:
            return
        kinds = np.full(known - n, -1, dtype=np.int32)
        if log.kinds is not None and len(log.kind_values):
            theirs = log.kinds[n:known]
            if len(theirs) < known - n or not bool(np.all(log.contents[n:known] == self.contents[n:])):
                code_of = {content: code for code, content in enumerate(log.contents)}
                theirs = np.append(log.kinds, -1)[[code_of.get(content, -1) for content in self.contents[n:]]]
            named = theirs >= 0
            if named.any():
                kinds[named] = self.kind_ids.recode(theirs[named], log.kind_values)
        self.kinds = np.concatenate([self.kinds, kinds])

    def end_sessions(self) -> None:
        """Ends every session under way, because what comes next numbers its sessions afresh."""
        self.walks.sessions = OpenSessions()
        self.audiences.end_sessions()

    def announce(self, contents: npt.ArrayLike, appeared_us: npt.ArrayLike) -> None:
        """Makes contents known before their first request, in order of appearance; known ones stay as they are.

        Raises:
            ValueError: there are more ids than instants of publication, or fewer.
        """
        ids, when = np.asarray(contents, dtype=object), np.asarray(appeared_us, dtype=np.int64)
        if len(ids) != len(when):
            raise ValueError(f"Expected an instant for each content, got {len(ids)} ids and {len(when)} instants.")
        self._announce(ids, when)
        unknown = np.full(len(self.content_ids) - len(self.kinds), -1, dtype=np.int32)
        self.kinds = np.concatenate([self.kinds, unknown])

    def _announce(self, ids: npt.NDArray[np.object_], when: Int64) -> None:
        known = len(self.content_ids)
        codes = self.content_ids.recode(np.arange(len(ids), dtype=np.int32), ids)
        self._reserve_contents()
        new = codes >= known
        self.popularity.appeared_us[codes[new]] = when[new]
        self.popularity.note_newest(codes[new].astype(np.int64))

    def _announce_appeared(self, log: RequestLog) -> None:
        """Announces what appeared since the last update and before the newest instant of the log.

        What appears at that very instant may still be requested first at it, and is not known before.
        """
        if log.appeared_us is None:
            return
        first, last = np.searchsorted(log.appeared_us, [self.time_us, log.ts_us[-1]], side="left")
        if last > first:
            self._announce(log.contents[first:last], log.appeared_us[first:last])

    def _feed(self, ts_us: Int64, session: Int32, content: Int32, location: Int32) -> None:
        p = self.popularity
        self._reserve_contents()
        cells = p.feed(ts_us, content, location, base_us=self.base_us)
        self.walks.reserve(contents=len(p.content), cells=p.index.capacity)
        self.walks.feed(ts_us, session, content, cells, base_us=self.base_us)
        self.time_us = int(ts_us[-1])

    def _reserve_contents(self) -> None:
        p = self.popularity
        p.reserve(contents=len(self.content_ids), locations=len(self.location_ids))
        self.walks.reserve(contents=len(p.content), cells=p.index.capacity)

    def _forget(self) -> None:
        """Forgets what faded, at an instant of the grid: the base, so that inflated weights are counts."""
        minimum = self.settings.forget_weight
        if minimum == 0 or self.time_us < 0:
            return
        p, w = self.popularity, self.walks
        w.forget(minimum, before_us=self.base_us)
        self.audiences.forget(minimum, before_us=self.base_us - self.timeout_us)
        present = np.flatnonzero(w.occupancy[: len(p.index)] >= minimum)
        at = w.sessions.cell[: len(w.sessions.index)]
        p.hours.forget(before_hour=self.base_us // HOUR_US - self.settings.cell_hours)
        rows, row_of = p.forget(minimum, cells_in_use=np.concatenate([present, at]))
        if len(rows) < len(row_of):
            w.keep_cells(rows, row_of, capacity=p.index.capacity)

    def rebase(self, base_us: int) -> None:
        """Expresses all counters in units of another base instant."""
        if base_us != self.base_us:
            hours = (base_us - self.base_us) / HOUR_US
            self.popularity.scale(2.0 ** (-hours * self.popularity.per_hour))
            self.walks.scale(hours)
            self.audiences.scale(hours)
            self.base_us = base_us

    # ---- reading

    def refuse_before(self, at_us: int) -> None:
        """Raises `LogOrderError` where an answer for that instant would contain its own future."""
        self.deflation(self.popularity.per_hour, at_us)

    def deflation(self, per_hour: Float64, at_us: int) -> Float64:
        """Factors from inflated counts to counts at an instant, `2^(-(t - base) / h)`; refuses the past."""
        if at_us < self.time_us:
            raise LogOrderError(
                f"The counters hold requests until {instant(self.time_us)} and cannot answer for "
                f"{instant(at_us)}. Build them from the log before that instant."
            )
        return np.asarray(2.0 ** (-(at_us - self.base_us) / HOUR_US * per_hour))

    def cells(self, *, minimum_weight: float = 1e-3) -> tuple[Int32, Int32]:
        """Cells whose slowest count is at least `minimum_weight` now, by (content, location)."""
        p = self.popularity
        factor = 2.0 ** (-(self.time_us - self.base_us) / HOUR_US * p.per_hour[-1])
        keys = np.sort(p.index.keys[p.cell[: len(p.index), -1] * factor >= minimum_weight])
        return (keys >> 32).astype(np.int32), (keys & 0x7FFFFFFF).astype(np.int32)

    def cell_rates(self, content: npt.ArrayLike, location: npt.ArrayLike, at_us: int) -> Float64:
        """Requests per observed hour of cells at each half-life; zero for unknown ones. (n, half-lives)"""
        return self._rates(_rows_or(self.popularity.cell, self._cell_rows(content, location), 0.0), at_us)

    def content_rates(self, content: npt.ArrayLike, at_us: int) -> Float64:
        """Requests per observed hour of contents at each half-life. (n, half-lives)"""
        return self._rates(_rows_or(self.popularity.content, content, 0.0), at_us)

    def location_rates(self, location: npt.ArrayLike, at_us: int) -> Float64:
        """Requests per observed hour of locations at each half-life. (n, half-lives)"""
        return self._rates(_rows_or(self.popularity.location, location, 0.0), at_us)

    def leading_rates(self, at_us: int) -> Float64:
        """The same of the content that leads each location at that half-life. (locations, half-lives)"""
        leaders = self.popularity.cell_leaders.table
        n, half_lives = len(self.location_ids), np.arange(len(self.popularity.per_hour))
        counts = self.popularity.cell[leaders.item[:n, :, 0], half_lives]
        return self._rates(np.where(leaders.length[:n] > 0, counts, 0.0), at_us)

    def _rates(self, counts: Float64, at_us: int) -> Float64:
        return self.filled(counts * self._rate_factors(at_us), at_us)

    def _rate_factors(self, at_us: int) -> Float64:
        """From inflated counts to requests per observed hour, which `filled` completes."""
        per_hour = self.popularity.per_hour
        return self.deflation(per_hour, at_us) * LN2 * per_hour / self.exposure(at_us)

    @property
    def first_us(self) -> int:
        """Instant of the first request fed, `NEVER_US` before it."""
        return int(self.popularity.location_first_us.min(initial=NEVER_US))

    def exposure(self, at_us: int) -> Float64:
        """Share of the memory of each half-life that was observed, at least that of a log's first half hour."""
        per_hour = self.popularity.per_hour
        return np.maximum(observed_share(per_hour, self.gaps, self.first_us, at_us), start_up_share(per_hour))

    def filled(self, rates: Float64, at_us: int) -> Float64:
        """Rates with what a half-life saw too little of borrowed from the next slower one that saw enough.

        Just after a gap a fast memory holds a few minutes; alone it would read every request as many an hour, and
        before the first request as none.
        """
        per_hour = self.popularity.per_hour
        missing = 1 - observed_share(per_hour, self.gaps, self.first_us, at_us) / start_up_share(per_hour)
        enough = np.flatnonzero(missing <= 0)
        if len(enough) in (0, len(missing)):
            return rates
        whole = rates.copy()
        for h in np.flatnonzero(missing > 0):
            slower = enough[enough > h]
            if len(slower):
                whole[:, h] += missing[h] * rates[:, slower[0]]
        return whole

    def hours_observed(self, hours: int, at_us: int) -> Bool:
        """Which of these hours were observed in full; the others are missing, not empty. (hours,)"""
        last = at_us // HOUR_US
        return hours_observed(self.gaps, self.first_us, range(last - hours, last))

    def unobserved_hours(self, hours_back_start: int, hours_back_end: int, at_us: int) -> float:
        """How many of the clock hours [now - start, now - end) lie in gaps or before the first request."""
        now = at_us // HOUR_US
        window = ((now - hours_back_start) * HOUR_US, (now - hours_back_end) * HOUR_US)
        before = (window[0], max(window[0], min(self.first_us, window[1])))
        return unobserved_us(united([*self.gaps, before]), *window) / HOUR_US

    def location_share(self, at_us: int) -> Float64:
        """Share of each location in all traffic, at the slowest half-life. (locations,)"""
        self.deflation(self.popularity.per_hour, at_us)
        total = self.popularity.total[-1]
        return self.popularity.location[: len(self.location_ids), -1] / (total or 1.0)

    def first_seen_us(self, content: npt.ArrayLike) -> Int64:
        """Instant of the first request of contents, `NEVER_US` for unknown ones. (n,)"""
        return _rows_or(self.popularity.content_first_us, content, NEVER_US)

    def appeared_us(self, content: npt.ArrayLike) -> Int64:
        """Instant at which contents became known, published or requested, `NEVER_US` for unknown ones. (n,)"""
        return _rows_or(self.popularity.appeared_us, content, NEVER_US)

    def cell_first_seen_us(self, content: npt.ArrayLike, location: npt.ArrayLike) -> Int64:
        """Instant of the first request of cells since they were last forgotten, `NEVER_US` for unknown ones. (n,)"""
        return _rows_or(self.popularity.cell_first_us, self._cell_rows(content, location), NEVER_US)

    def _cell_rows(self, content: npt.ArrayLike, location: npt.ArrayLike) -> Int64:
        return self.popularity.index.find(pair_keys(content, location))

    def flow(self, content: npt.ArrayLike, location: npt.ArrayLike, at_us: int, *, half_life_index: int = 0) -> Float64:
        """Next requests expected of the sessions under way, by cell; see `models.flow`. (n,)"""
        keys, stored, strangers = pair_keys(content, location), self.popularity.index, KeyIndex()
        rows = stored.find(keys)
        rows[rows < 0] = len(stored) + strangers.add(keys[rows < 0])
        flow: Float64 = flow_by_row(self._flow_table(at_us, half_life_index), stored.table, strangers.table)[rows]
        return flow

    def content_flow(self, content: npt.ArrayLike, at_us: int, *, half_life_index: int = 0) -> Float64:
        """Next requests expected of the sessions under way, by content, over all locations. (n,)"""
        return _rows_or(content_flow(self._flow_table(at_us, half_life_index)), content, 0.0)

    def _flow_table(self, at_us: int, half_life_index: int) -> FlowTable:
        walks, keys = self.walks, self.popularity.index.keys
        per_unit = float(self.deflation(np.array([walks.rates.active_per_hour]), at_us)[0])
        return FlowTable(keys, walks.occupancy[: len(keys)], per_unit, walks.moves.table, walks.visits, half_life_index)

    def presence(self, content: npt.ArrayLike, location: npt.ArrayLike, at_us: int) -> Float64:
        """Decayed number of sessions that are at a content, in a location. (n,)"""
        per_unit = self.deflation(np.array([self.walks.rates.active_per_hour]), at_us)
        return _rows_or(self.walks.occupancy, self._cell_rows(content, location), 0.0) * per_unit

    def hourly_location_counts(self, hours: int, at_us: int) -> Int64:
        """Requests by clock hour; the last column is the hour that ends at `at_us` rounded down. (locations, hours)"""
        last = at_us // HOUR_US
        self._check_hours(hours, self.settings.location_hours, "location_hours")
        return self.popularity.hours.by_location(
            locations=len(self.location_ids), first_hour=last - hours, last_hour=last
        )

    def hourly_location_peaks(self, hours: int, at_us: int) -> Int64:
        """Requests of the content requested most in each of these hours, likewise. (locations, hours)"""
        last = at_us // HOUR_US
        self._check_hours(hours, self.settings.location_hours, "location_hours")
        return self.popularity.hours.peaks(locations=len(self.location_ids), first_hour=last - hours, last_hour=last)

    def hourly_cell_counts(
        self,
        content: npt.ArrayLike,
        location: npt.ArrayLike,
        hours_back_start: int,
        hours_back_end: int,
        at_us: int,
    ) -> Int64:
        """Requests of cells in the clock hours [now - start, now - end), now being `at_us` rounded down. (n,)"""
        self._check_hours(hours_back_start, self.settings.cell_hours, "cell_hours")
        now = at_us // HOUR_US
        sums = self.popularity.hours.by_cell(
            cells=len(self.popularity.index),
            first_hour=now - hours_back_start,
            last_hour=now - hours_back_end,
        )
        return _rows_or(sums, self._cell_rows(content, location), 0)

    @staticmethod
    def _check_hours(hours: int, kept: int, setting: str) -> None:
        if not 0 < hours < kept:
            raise ValueError(
                f"Asked for {hours!r} past hours, but {setting} = {kept} keeps {kept - 1} full ones. "
                f"Ask for fewer or raise {setting}."
            )

    def order1(self, previous: int, half_life_index: int = 0) -> tuple[Int32, Float64]:
        """What followed a content: successors and their shares of all that left it; the rest escaped. (m,), (m,)"""
        return _shares(self.walks.moves, previous, half_life_index)

    def order2(self, before: int, previous: int) -> tuple[Int32, Float64]:
        """What followed a pair of contents, likewise. (m,), (m,)"""
        row = self.walks.contexts.find(pair_keys([before], [previous]))[0]
        return _shares(self.walks.context_moves, int(row), 0)

    def local_order1(self, previous: int, location: int) -> tuple[Int32, Float64]:
        """What followed a content in a location, likewise. (m,), (m,)"""
        return _shares(self.walks.local_moves, int(self._cell_rows([previous], [location])[0]), 0)

    def skips(self, previous: int) -> tuple[Int32, Float64]:
        """What came two or three steps after a content, weighted 1/2 and 1/3, as shares. (m,), (m,)"""
        return _shares(self.walks.skips, previous, 0)

    # ---- adding up and saving

    def merge(self, other: CounterStore) -> CounterStore:
        """The store of both logs together, for logs that share no session; neither store changes.

        Exact to rounding as long as no successor list was full and nothing was forgotten that the other store holds
        a part of. Contents new to this store get codes after its own.

        Raises:
            ValueError: the settings differ, or a session is under way in both stores.
        """
        union = CounterStore.from_arrow(self.to_arrow())
        absorb(union, other)
        return union

    def to_arrow(self) -> dict[str, pa.Table]:
        """Everything the store knows, with a format number; see `models.counter_tables`."""
        return store_tables(self)

    @classmethod
    def from_arrow(cls, tables: Mapping[str, pa.Table]) -> CounterStore:
        """A store that goes on as the saved one would have.

        Raises:
            ArtefactError: a table is missing or the format is another one.
        """
        store = cls(CounterSettings(**read_settings(tables)))
        fill_store(store, tables)
        return store


def instant(at_us: int) -> str:
    """An instant as people write it."""
    return datetime.fromtimestamp(int(at_us) / 1e6, UTC).isoformat()


def _shares(lists: SuccessorLists, row: int, half_life_index: int) -> tuple[Int32, Float64]:
    if not 0 <= row < len(lists.table.length):
        return np.empty(0, dtype=np.int32), np.empty(0)
    item, weight = lists.successors(row)
    return item.copy(), weight[:, half_life_index] / (lists.totals(row)[half_life_index] or 1.0)


def _rows_or(values: npt.NDArray[Scalar], rows: npt.ArrayLike, missing: float) -> npt.NDArray[Scalar]:
    """Rows of an array; `missing` where a row is outside of it."""
    wanted = np.asarray(rows, dtype=np.int64)
    inside = (wanted >= 0) & (wanted < len(values))
    found = (
        values[np.where(inside, wanted, 0)] if len(values) else np.zeros((len(wanted), *values.shape[1:]), values.dtype)
    )
    found[~inside] = missing
    return found
