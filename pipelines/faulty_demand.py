"""Requests that a fault adds, and a log that misses some: what is played, and what models see of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.events import DAY_US, Ids, Int32, RequestLog
from models.observation import with_gaps_found
from pipelines.arena import Arena
from pipelines.requests import Playback, RequestRows
from pipelines.scene import Int64
from pipelines.stretch import MergedTrace

MINUTE_US = 60_000_000


@dataclass(frozen=True)
class Crowd:
    """Views of one content that come in addition.

    Attributes:
        start_us, end_us: when they start, [start, end).
        factor: how many times as many as usual.
        rank: which content, by its requests of the day before; 0 for a new one.
        location: code of the location whose viewers come; -1 for all.
    """

    start_us: int
    end_us: int
    factor: float
    rank: int
    location: int


def with_crowd(arena: Arena, crowd: Crowd, *, segment_seconds: float, rng: np.random.Generator) -> Arena:
    """The arena with a crowd's views, in the requests that are played and in the log.

    The number of views at each location is Poisson with mean `factor` times what the content had there in the same time
    on average over the day before; each watches as far as viewers of the content do.
    """
    views = _views(arena, crowd, rng)
    played = Playback(segment_seconds).cut(views, arena.scene)
    stretch = arena.stretch
    played = played.rows(0, int(np.searchsorted(played.ts_us, stretch.end_us, side="left")))
    requests = MergedTrace(stretch.requests, played)
    log = _with_rows(
        arena.log, views.ts_us, arena.scene.catalogue.contents[views.content], arena.scene.locations[views.location]
    )
    return replace(
        arena, stretch=replace(stretch, requests=requests), log=with_gaps_found(log, until_us=stretch.end_us)
    )


def without_log(arena: Arena, start_us: int, end_us: int) -> Arena:
    """The arena whose requests of a window are played, but nowhere written down; the silence is a gap, as found."""
    log, watch = arena.log, arena.watch
    kept = (log.ts_us < start_us) | (log.ts_us >= end_us)
    seen = (watch.ts_us < start_us) | (watch.ts_us >= end_us)
    told = {name: getattr(watch, name)[seen] for name in ("ts_us", "content", "continued", "chances")}
    fewer = _recoded(
        log.ts_us[kept],
        _values(log.session[kept]),
        log.contents[log.content[kept]],
        log.locations[log.location[kept]],
        None if log.visitor is None else _values(log.visitor[kept]),
    )
    return replace(arena, log=with_gaps_found(fewer, until_us=arena.stretch.end_us), watch=replace(watch, **told))


def asked_the_day_before(log: RequestLog, at_us: int) -> Int64:
    """Codes of the contents asked for in the day before an instant, those with most requests first."""
    seen = log.between(at_us - DAY_US, at_us)
    counts = np.bincount(seen.content, minlength=len(seen.contents))
    order = np.argsort(-counts, kind="stable")
    return order[: int(np.count_nonzero(counts))]


def unasked(arena: Arena, at_us: int) -> Int64:
    """Codes, in the catalogue, of the contents that nobody had asked for before an instant."""
    asked = arena.scene.catalogue.codes(arena.log.before(at_us).contents)
    return np.setdiff1d(np.arange(len(arena.scene.catalogue.contents)), asked)


def _views(arena: Arena, crowd: Crowd, rng: np.random.Generator) -> RequestRows:
    scene, log = arena.scene, arena.log
    like = int(asked_the_day_before(log, crowd.start_us)[max(crowd.rank, 1) - 1])
    content = int(scene.catalogue.codes(log.contents[like : like + 1])[0])
    if crowd.rank == 0:
        content = int(rng.choice(unasked(arena, crowd.start_us)))
    before = log.between(crowd.start_us - DAY_US, crowd.start_us)
    usual = np.bincount(before.location[before.content == like], minlength=len(log.locations))
    length_us = crowd.end_us - crowd.start_us
    place = scene.location_codes(log.locations)
    comes = (place >= 0) & ((crowd.location < 0) | (place == crowd.location))
    n = rng.poisson(np.where(comes, crowd.factor * usual * length_us / DAY_US, 0.0))
    location = np.repeat(place, n)
    ts_us = crowd.start_us + np.sort(rng.integers(0, length_us, len(location)))
    rng.shuffle(location)
    going_on = float(arena.watch.at(crowd.start_us)[content])
    segments = int(scene.catalogue.n_segments[content])
    watched = np.full(len(ts_us), segments) if going_on >= 1 else rng.geometric(1.0 - going_on, len(ts_us))
    return RequestRows(
        ts_us=ts_us.astype(np.int64),
        content=np.full(len(ts_us), content, np.int64),
        location=location.astype(np.int64),
        segment=np.full(len(ts_us), -1, np.int64),
        bytes=np.minimum(watched * scene.catalogue.segment_bytes[content], scene.catalogue.bytes[content]),
    )


def _with_rows(log: RequestLog, ts_us: Int64, content: Ids, location: Ids) -> RequestLog:
    """The log with further requests, of sessions and users that nobody knows."""
    nobody = np.full(len(ts_us), None, dtype=object)
    return _recoded(
        np.concatenate([log.ts_us, ts_us]),
        np.concatenate([_values(log.session), nobody]),
        np.concatenate([log.contents[log.content], content]),
        np.concatenate([log.locations[log.location], location]),
        None if log.visitor is None else np.concatenate([_values(log.visitor), nobody]),
    )


def _recoded(ts_us: Int64, session: Ids, content: Ids, location: Ids, user: Ids | None) -> RequestLog:
    return RequestLog.from_columns(ts_us, session, content, location, user=user)


def _values(codes: Int32 | Sequence[int]) -> Ids:
    """Codes as values, None where unknown."""
    values = np.asarray(codes).astype(object)
    values[np.asarray(codes) < 0] = None
    return values
