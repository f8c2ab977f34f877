"""Rows that wait for requests: the CDN alone, and reactive caches on the same devices."""

from __future__ import annotations

from pipelines.contest import Contest, Player, Result
from pipelines.row_names import Row
from placement.caches import CacheReplay, CacheSettings
from placement.replay import Replay

CACHES: dict[Row, CacheSettings] = {
    "lru-paid": CacheSettings(fill="every_miss"),
    "lru-second-hit": CacheSettings(fill="second_request"),
    "lru-free": CacheSettings(fill="free"),
}


def _alone(row: Row, contest: Contest) -> Result:
    arena = contest.arena
    return Result(row, Replay(arena.world, **contest.judge).play(arena.stretch.hours()), [])


def _cache(row: Row, contest: Contest) -> Result:
    arena = contest.arena
    return Result(row, CacheReplay(arena.world, CACHES[row], **contest.judge).play(arena.stretch.hours()), [])


CACHE_ROWS: dict[Row, Player] = {"cdn-alone": _alone, **dict.fromkeys(CACHES, _cache)}
