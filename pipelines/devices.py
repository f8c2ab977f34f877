"""On-sessions of real machines, moved to the days of a benchmark world.

Home nodes are relays. Their sessions are shifted by whole weeks, so that hour of day and day of week stay true, and
keep their interval censoring: a relay was last seen up at `end` and first known off at `end_upper`. Earlier sessions
stay in as history for churn models.

Phones are windows in which a smartphone was idle, charging and on Wi-Fi, on a relative clock that covers a few days.
A drawn trace is repeated end to end until it covers the world and the week before, from its own whole-hour offset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipelines.capacity import TIMESTAMP, up_share
from pipelines.sizes import Bool, Float64, Int64

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
SEEN_WITHIN_DAYS = 3
KNOWN_FOR_DAYS = 14
DEPARTURES_WITHIN_DAYS = 28
RESTLESS_DEPARTURES = 3


@dataclass(frozen=True)
class Sessions:
    """On-sessions of `n_nodes` nodes, numbered from 0; instants in microseconds since 1970 UTC. (n,) each.

    `modelled` marks what nobody measured: the second and later copies of a repeated trace, or all of a synthetic one.
    """

    node: Int64
    start_us: Int64
    end_us: Int64
    end_upper_us: Int64
    censored: Bool
    modelled: Bool
    n_nodes: int

    def cut(self, until_us: int) -> Sessions:
        """What is known at `until_us`: later sessions are gone, sessions whose end is not yet known are censored."""
        known = self.start_us < until_us
        open_ended = self.end_upper_us > until_us
        return Sessions(
            self.node[known],
            self.start_us[known],
            np.minimum(self.end_us, until_us)[known],
            np.minimum(self.end_upper_us, until_us)[known],
            (self.censored | open_ended)[known],
            self.modelled[known],
            self.n_nodes,
        )

    def followed_by(self, other: Sessions) -> Sessions:
        """Both sets of nodes, those of `other` numbered after ours."""
        return Sessions(
            np.concatenate([self.node, other.node + self.n_nodes]),
            np.concatenate([self.start_us, other.start_us]),
            np.concatenate([self.end_us, other.end_us]),
            np.concatenate([self.end_upper_us, other.end_upper_us]),
            np.concatenate([self.censored, other.censored]),
            np.concatenate([self.modelled, other.modelled]),
            self.n_nodes + other.n_nodes,
        )

    def up_share(self, window_us: tuple[int, int]) -> Float64:
        """Share of a window that each node is up. (n_nodes,)"""
        return up_share(self.node, self.start_us, self.end_us, window_us=window_us, n=self.n_nodes)

    def table(self, names: npt.NDArray[np.object_]) -> pa.Table:
        """The canonical table, by node and start; `end_upper` is null where the session is censored."""
        order = np.lexsort((self.start_us, self.node))
        censored = self.censored[order]
        return pa.table(
            {
                "node": pa.array(names[self.node[order]], pa.string()),
                "start": pa.array(self.start_us[order], TIMESTAMP),
                "end": pa.array(self.end_us[order], TIMESTAMP),
                "end_upper": pa.array(self.end_upper_us[order], TIMESTAMP, mask=censored),
                "censored": pa.array(censored),
                "modelled": pa.array(self.modelled[order]),
            }
        )


@dataclass(frozen=True)
class RelayChoice:
    """Relays drawn for a world, and how many of the restless ones really are."""

    nodes: npt.NDArray[np.object_]
    restless: int


def choose_relays(
    sessions: pd.DataFrame,
    start: pd.Timestamp,
    *,
    any_kind: int,
    restless: int,
    days_after: int,
    rng: np.random.Generator,
) -> RelayChoice:
    """Draws `any_kind` relays from all eligible ones, then `restless` among the rest with at least three departures.

    Eligible is who was up at some instant of the three days before `start` and first seen at least 14 days before it.
    Where fewer than `restless` left three times within four weeks, those with two departures follow, then one.

    Raises:
        ValueError: fewer eligible relays than asked for, or a `start` that the record does not cover.
    """
    _check_covered(sessions, start, days_after)
    eligible = eligible_relays(sessions, start)
    if len(eligible) < any_kind + restless:
        raise ValueError(
            f"Only {len(eligible)} relays were seen in the {SEEN_WITHIN_DAYS} days before {start.date()} and known for "
            f"{KNOWN_FOR_DAYS} days, but {any_kind + restless} home nodes are asked for; lower home_nodes or "
            "restless_nodes, or choose another relay_sunday."
        )
    since = start - pd.Timedelta(days=DEPARTURES_WITHIN_DAYS)
    left = sessions[~sessions["censored"] & (sessions["end"] >= since) & (sessions["end"] < start)]
    departures = left["node"].value_counts().reindex(eligible, fill_value=0).to_numpy()
    shuffled = rng.permutation(len(eligible))
    first, rest = shuffled[:any_kind], shuffled[any_kind:]
    # A stable sort keeps the random order among all that left three times or more.
    by_departures = np.argsort(-np.minimum(departures[rest], RESTLESS_DEPARTURES), kind="stable")
    second = rest[by_departures[:restless]]
    names = eligible[np.concatenate([first, second])]
    return RelayChoice(names, int((departures[second] >= RESTLESS_DEPARTURES).sum()))


def _check_covered(sessions: pd.DataFrame, start: pd.Timestamp, days_after: int) -> None:
    first, last = sessions["start"].min(), sessions["end"].max()
    before = start - pd.Timedelta(days=DEPARTURES_WITHIN_DAYS)
    if before < first or start + pd.Timedelta(days=days_after) > last:
        raise ValueError(
            f"The relay record runs from {first} to {last}; it does not cover the {DEPARTURES_WITHIN_DAYS} days before "
            f"{start.date()} and the {days_after} days after it. Choose another relay_sunday."
        )


def eligible_relays(sessions: pd.DataFrame, start: pd.Timestamp) -> npt.NDArray[np.object_]:
    """Relays seen up in the three days before `start` and known for at least 14 days, sorted by id."""
    recent = sessions[(sessions["start"] < start) & (sessions["end"] >= start - pd.Timedelta(days=SEEN_WITHIN_DAYS))]
    first_seen = sessions.groupby("node")["start"].min()
    known = first_seen.index[first_seen <= start - pd.Timedelta(days=KNOWN_FOR_DAYS)]
    return np.array(sorted(set(recent["node"]) & set(known)), dtype=object)


def relay_sessions(sessions: pd.DataFrame, nodes: npt.NDArray[np.object_], *, shift_us: int) -> Sessions:
    """All sessions of `nodes`, moved by `shift_us`, numbered in the order of `nodes`."""
    number = pd.Index(nodes).get_indexer(pd.Index(sessions["node"], dtype=object))
    ours = sessions[number >= 0]
    start, end, upper = (_micros(ours[c]) + shift_us for c in ("start", "end", "end_upper"))
    return Sessions(
        number[number >= 0].astype(np.int64),
        start,
        end,
        np.maximum(upper, end),
        ours["censored"].to_numpy(dtype=bool),
        np.zeros(len(ours), dtype=bool),
        len(nodes),
    )


def phone_sessions(windows: pd.DataFrame, n: int, *, window_us: tuple[int, int], rng: np.random.Generator) -> Sessions:
    """Traces of `n` phones drawn with replacement, each repeated from its own whole-hour offset over `window_us`.

    A window without length is dropped. Where one copy ends up and the next begins up, both windows join at the seam.
    """
    traces = _phone_traces(windows)
    drawn = rng.integers(0, len(traces), size=n)
    parts = []
    for node, trace in enumerate(traces[code] for code in drawn):
        offset = int(rng.integers(0, max(1, trace.length_us // HOUR_US))) * HOUR_US
        start, end, modelled = trace.repeated(window_us[0] - offset, window_us[1])
        kept = end > window_us[0]
        parts.append((np.full(int(kept.sum()), node), start[kept], end[kept], modelled[kept]))
    number, starts, ends, repeated = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Sessions(number, starts, ends, ends, np.zeros(len(ends), dtype=bool), repeated, n)


@dataclass(frozen=True)
class _PhoneTrace:
    """Windows of one phone, in microseconds since the start of its trace."""

    start_us: Int64
    end_us: Int64
    length_us: int

    def repeated(self, first_us: int, until_us: int) -> tuple[Int64, Int64, Bool]:
        """Copies laid end to end from `first_us` until they pass `until_us`: starts, ends, and which are repeats."""
        n_copies = -(-(until_us - first_us) // self.length_us)
        origin = first_us + self.length_us * np.arange(n_copies)[:, None]
        starts, ends = (origin + self.start_us).ravel(), (origin + self.end_us).ravel()
        repeat = np.repeat(np.arange(n_copies) > 0, len(self.start_us))
        apart = starts[1:] != ends[:-1]
        opens, closes = (np.ones(len(starts), dtype=bool) for _ in range(2))
        opens[1:], closes[:-1] = apart, apart
        return starts[opens], ends[closes], repeat[closes]


def _phone_traces(windows: pd.DataFrame) -> list[_PhoneTrace]:
    traces = []
    for _, trace in windows.sort_values(["node", "start"], kind="stable").groupby("node"):
        origin, finish = trace["trace_start"].iloc[0], trace["trace_end"].iloc[0]
        start, end = (np.rint((trace[c].to_numpy() - origin) * 1e6).astype(np.int64) for c in ("start", "end"))
        lasting = end > start
        traces.append(_PhoneTrace(start[lasting], end[lasting], round((finish - origin) * 1e6)))
    return traces


def _micros(column: pd.Series[pd.Timestamp]) -> Int64:
    return np.asarray(column.dt.as_unit("us").astype("int64").to_numpy(), dtype=np.int64)
