"""Rows that wait for requests: the CDN alone, reactive caches on the same devices, and optimistic bounds of them."""

from __future__ import annotations

from pipelines.contest import Contest, Player, Result
from pipelines.row_names import Row
from placement.audience import AudienceCount
from placement.caches import CacheReplay, CacheSettings
from placement.pooled_caches import PooledSettings, fills_free, play_pooled
from placement.replay import Replay
from placement.tally import ReplayTally

CACHES: dict[Row, CacheSettings] = {
    "lru-paid": CacheSettings(fill="every_miss"),
    "lru-second-hit": CacheSettings(fill="second_request"),
    "lru-free": CacheSettings(fill="free"),
    "s3-fifo-paid": CacheSettings(fill="every_miss", policy="s3-fifo"),
    "s3-fifo-second-hit": CacheSettings(fill="second_request", policy="s3-fifo"),
    "s3-fifo-free": CacheSettings(fill="free", policy="s3-fifo"),
}
POOLED_PAID: dict[Row, PooledSettings] = {
    "pooled-lru-paid": PooledSettings("lru"),
    "pooled-lru-second-hit": PooledSettings("lru", "second_request"),
    "pooled-s3-fifo-paid": PooledSettings("s3-fifo"),
    "pooled-s3-fifo-second-hit": PooledSettings("s3-fifo", "second_request"),
    "pooled-w-tinylfu-paid": PooledSettings("w-tinylfu"),
    "pooled-w-tinylfu-second-hit": PooledSettings("w-tinylfu", "second_request"),
    "pooled-3l-cache-paid": PooledSettings("3l-cache"),
    "pooled-3l-cache-second-hit": PooledSettings("3l-cache", "second_request"),
    "pooled-belady-paid": PooledSettings("belady"),
    "pooled-belady-second-hit": PooledSettings("belady", "second_request"),
}
POOLED_FREE: dict[Row, PooledSettings] = {
    "pooled-lru-free": PooledSettings("lru"),
    "pooled-s3-fifo-free": PooledSettings("s3-fifo"),
    "pooled-w-tinylfu-free": PooledSettings("w-tinylfu"),
    "pooled-3l-cache-free": PooledSettings("3l-cache"),
    "pooled-belady-free": PooledSettings("belady"),
}
POOLED_LIMIT = (
    "Bounds of pooled caches let one store in each location hold what all its devices can, never away, without limits "
    "on uplinks and with fills that take no time; their hits take the mean round trip of the location's own nodes. "
    "They are optimistic: what a policy could do with this much storage, not what it does on these devices."
)


def _alone(row: Row, contest: Contest) -> Result:
    return _played(row, contest, Replay(contest.arena.world, **contest.judge))


def _cache(row: Row, contest: Contest) -> Result:
    return _played(row, contest, CacheReplay(contest.arena.world, CACHES[row], **contest.judge))


def _played(row: Row, contest: Contest, replay: Replay | CacheReplay) -> Result:
    audience = AudienceCount(contest.arena.audiences)
    for requests in contest.arena.stretch.hours():
        audience.add(requests, replay.serve(requests))
    return Result(row, replay.finish(), [], audience=audience.tally())


def _pooled_paid(row: Row, contest: Contest) -> Result:
    return Result(row, _pooled(POOLED_PAID[row], contest), [])


def _pooled_free(row: Row, contest: Contest) -> Result:
    return Result(row, fills_free(_pooled(POOLED_FREE[row], contest)), [])


def _pooled(caches: PooledSettings, contest: Contest) -> ReplayTally:
    """Rows that differ only in who pays for a fill have the same hits: played once."""
    arena, key = contest.arena, (caches, contest.run.replay)
    if key not in arena.played:
        arena.played[key] = play_pooled(arena.world, arena.stretch.hours(), caches, settings=contest.run.replay)
    return arena.played[key]


CACHE_ROWS: dict[Row, Player] = {
    "cdn-alone": _alone,
    **dict.fromkeys(CACHES, _cache),
    **dict.fromkeys(POOLED_PAID, _pooled_paid),
    **dict.fromkeys(POOLED_FREE, _pooled_free),
}
