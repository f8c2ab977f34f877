"""Rows that wait for requests: the CDN alone, and reactive caches on the same devices."""

from __future__ import annotations

from pipelines.contest import Contest, Player, Result
from pipelines.row_names import Row
from placement.audience import AudienceCount
from placement.caches import CacheReplay, CacheSettings
from placement.replay import Replay

CACHES: dict[Row, CacheSettings] = {
    "lru-paid": CacheSettings(fill="every_miss"),
    "lru-second-hit": CacheSettings(fill="second_request"),
    "lru-free": CacheSettings(fill="free"),
}


def _alone(row: Row, contest: Contest) -> Result:
    return _played(row, contest, Replay(contest.arena.world, **contest.judge))


def _cache(row: Row, contest: Contest) -> Result:
    return _played(row, contest, CacheReplay(contest.arena.world, CACHES[row], **contest.judge))


def _played(row: Row, contest: Contest, replay: Replay | CacheReplay) -> Result:
    requests = contest.arena.stretch.requests
    audience = AudienceCount(contest.arena.audiences)
    audience.add(requests, replay.serve(requests))
    return Result(row, replay.finish(), [], audience=audience.tally())


CACHE_ROWS: dict[Row, Player] = {"cdn-alone": _alone, **dict.fromkeys(CACHES, _cache)}
