"""Reactive caches: the textbook's LRU request for request, fills by hand, and laws on random worlds."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.caches import CachePolicy, CacheReplay, CacheSettings, FillRule
from placement.errors import ReplayError
from placement.replay import ReplaySettings
from placement.single_cache import single_cache
from placement.tally import Cause
from tests.placement.replay_worlds import DAY_S, MB, asked, random_world, tiny_world

RULES: tuple[FillRule, ...] = ("every_miss", "second_request", "free")
POLICIES: tuple[CachePolicy, ...] = ("lru", "s3-fifo")


def textbook_lru(segment: npt.NDArray[np.int32], sizes: npt.NDArray[np.int64], capacity: int) -> list[bool]:
    """The plainest LRU there is, to compare with."""
    cache: OrderedDict[int, int] = OrderedDict()
    hits = []
    for key in segment.tolist():
        hits.append(key in cache)
        if key in cache:
            cache.move_to_end(key)
        elif sizes[key] <= capacity:
            while sum(cache.values()) + sizes[key] > capacity:
                cache.popitem(last=False)
            cache[key] = int(sizes[key])
    return hits


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=12, max_size=12),
    segment=st.lists(st.integers(0, 11), max_size=150),
    capacity=st.integers(0, 30),
)
def test_single_cache__equals_the_textbook(sizes: list[int], segment: list[int], capacity: int) -> None:
    """The lists inside the judge are an LRU, request for request, sizes and oversize included."""
    codes, size = np.array(segment, np.int32), np.array(sizes, np.int64)
    assert single_cache(codes, size, capacity).tolist() == textbook_lru(codes, size, capacity)


def test_fill__every_miss_by_hand() -> None:
    """A miss is served by tier 1 and pays once more for the fill; the next request finds the copy."""
    replay = CacheReplay(tiny_world(sessions=[(1, 0, DAY_S)]))
    served = replay.serve(asked((0, 0), (0.4, 0), (0.5, 0)))
    assert served.source.tolist() == [0, 0, 1]  # 1 MB takes 0.5 s down
    assert served.cause.tolist() == [Cause.NOT_FORECAST, Cause.IN_TRANSIT, -1]
    tally = replay.finish()
    assert (tally.mesh_bytes, tally.moved_bytes, tally.net_avoided_bytes) == (MB, MB, 0)


def test_fill__second_request_waits_for_one() -> None:
    """What was asked for once is not filled; what was asked for too long ago counts as never."""
    rule = CacheSettings("second_request", admission_window_hours=1.0)
    replay = CacheReplay(tiny_world(sessions=[(1, 0, DAY_S)]), rule)
    served = replay.serve(asked((0, 0), (3601, 0), (3602, 0), (3603, 0), (3700, 1)))
    assert served.source.tolist() == [0, 0, 0, 1, 0]
    assert replay.finish().pushed_bytes.sum() == MB


def test_fill__free_pushes_nothing() -> None:
    """Where the viewer's own device is the mirror, tier 1 sends nothing twice and nothing is wasted."""
    replay = CacheReplay(tiny_world(sessions=[(1, 0, DAY_S)]), CacheSettings("free"))
    replay.serve(asked((0, 0), (1, 0), (9, 1)))
    tally = replay.finish()
    assert (tally.moved_bytes, tally.wasted_bytes.sum(), tally.net_avoided_bytes) == (0, 0, MB)


def test_eviction__least_recently_used_and_wasted() -> None:
    """Room for two: 0 is used again, so 1 goes, and it goes unused."""
    world = tiny_world(sessions=[(1, 0, DAY_S)], storage_bytes=np.array([0, 2 * MB, 0]))
    replay = CacheReplay(world)
    served = replay.serve(asked((0, 0), (10, 1), (20, 0), (30, 2), (40, 0), (50, 1)))
    assert served.source.tolist() == [0, 0, 1, 0, 1, 0]
    # wasted: 1 evicted for 2; at the end 1 again and, evicted for it, 2; 0 served
    assert replay.finish().wasted_bytes.sum() == 3 * MB


def test_churn__devices_keep_what_they_hold() -> None:
    """While the holder is off the segment is filled elsewhere; when it returns both hold it."""
    world = tiny_world(sessions=[(1, 0, 100), (1, 200, DAY_S), (2, 150, DAY_S)])
    replay = CacheReplay(world, settings=ReplaySettings(detection_s=0))
    served = replay.serve(asked((0, 0), (5, 0), (120, 0), (160, 0), (170, 0), (300, 0)))
    # 120: nobody is on, so nothing is filled; 160: far is filled
    assert served.source.tolist() == [0, 1, 0, 0, 2, 1]
    assert served.cause[2] == Cause.GONE_UNFORECAST
    assert replay.held_bytes().tolist() == [0, MB, MB]


def test_overload__fills_one_more_device() -> None:
    """A hot segment spreads: a busy holder counts as a miss."""
    replay = CacheReplay(tiny_world(), CacheSettings("every_miss"))
    replay.serve(asked((0, 0), (5, 0), (5.1, 0), (6.5, 0), (6.6, 0)))
    assert replay.held_bytes().tolist() == [0, MB, MB]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rule=st.sampled_from(RULES),
    policy=st.sampled_from(POLICIES),
    cut=st.integers(0, 400),
)
def test_laws__of_conservation(seed: int, rule: FillRule, policy: CachePolicy, cut: int) -> None:
    """Bytes in are bytes out, causes explain the rest, storage holds, and a split is not seen in the numbers."""
    world, requests, _ = random_world(seed)
    caches = CacheSettings(rule, policy=policy)
    replay = CacheReplay(world, caches, seed=seed)
    replay.serve(requests.rows(0, cut))
    assert np.all(replay.held_bytes()[world.tier != 1] <= world.storage_bytes[world.tier != 1])
    replay.serve(requests.rows(cut, 400))
    tally = replay.finish()
    assert tally.requested_bytes == requests.bytes.sum() == tally.mesh_bytes + tally.cause_bytes.sum()
    assert tally.wasted_bytes.sum() <= tally.moved_bytes
    nodes = world.tier != 1
    sendable = world.uptime.up_us(0, 10**12) * world.uplink_bps / 8e6
    assert np.all(tally.source_bytes[nodes] <= sendable[nodes] + 1)
    whole = CacheReplay(world, caches, seed=seed).play([requests])
    assert whole.row() == tally.row()


def test_pool__grows_without_being_seen() -> None:
    """More copies than the first pool holds: hits are those of the textbook still."""
    rng = np.random.default_rng(1)
    segment, sizes = rng.integers(0, 4000, 20_000).astype(np.int32), np.ones(4000, np.int64)
    cache: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for key in segment.tolist():
        hits += key in cache
        cache[key] = None
        cache.move_to_end(key)
        if len(cache) > 3000:
            cache.popitem(last=False)
    assert single_cache(segment, sizes, 3000).sum() == hits


def test_bad_settings__are_named() -> None:
    """A fill rule or a window that makes no sense is refused with the value."""
    with pytest.raises(ReplayError, match="got -1"):
        CacheSettings(admission_window_hours=-1)
    with pytest.raises(ReplayError, match="got 'never'"):
        CacheSettings(fill="never")  # type: ignore[arg-type]
    with pytest.raises(ReplayError, match="'lru' or 's3-fifo', got 'fifo'"):
        CacheSettings(policy="fifo")  # type: ignore[arg-type]
    with pytest.raises(ReplayError, match="max_attempts >= 1, got 0"):
        ReplaySettings(max_attempts=0)


def test_nothing__to_fill() -> None:
    """A world without devices serves everything from tier 1 and keeps no state."""
    world = tiny_world(storage_bytes=np.zeros(3, np.int64))
    replay = CacheReplay(world)
    assert replay.serve(asked((0, 0), (1, 0))).source.tolist() == [0, 0]
    assert replay.finish().moved_bytes == 0
    assert CacheReplay(world).finish().n_requests == 0
