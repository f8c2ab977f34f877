"""Pooled caches of libcachesim: admission and accounts by hand, laws on random worlds, Belady as the limit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.errors import ReplayError
from placement.pooled_caches import (
    POOLED_POLICIES,
    PooledPolicy,
    PooledSettings,
    fills_free,
    play_pooled,
    pool_bytes,
    pool_hits,
)
from placement.single_cache import single_cache
from placement.tally import Cause
from tests.placement.replay_worlds import MB, asked, random_world, tiny_world

SEEDS = st.integers(0, 2**32 - 1)


def textbook_belady(segment: list[int], capacity: int) -> list[bool]:
    """Equal sizes: what is asked for last goes first, looked up in the trace each time."""
    held: set[int] = set()
    hits = []
    for i, code in enumerate(segment):
        hits.append(code in held)
        if code not in held and len(held) == capacity:
            rest = segment[i + 1 :]
            held.remove(max(held, key=lambda other: rest.index(other) if other in rest else len(rest)))
        held.add(code)
    return hits


def test_every_miss__by_hand() -> None:
    """Two nodes of 4 MB pool 8 MB: a miss costs its push, a hit is served at 15 ms, the mean of 10 and 20."""
    world = tiny_world()
    assert pool_bytes(world).tolist() == [8 * MB]
    tally = play_pooled(world, [asked((0, 0), (1, 0), (2, 1), (3, 0))])
    assert tally.tier_bytes.sum(axis=(0, 1)).tolist() == [2 * MB, 2 * MB, 0]
    assert tally.bytes_by_cause()[Cause.NOT_FORECAST] == 2 * MB
    assert (tally.moved_bytes, tally.wasted_bytes.sum()) == (2 * MB, MB)  # 1 was never asked for again
    assert tally.latency_us.sum() == 2 * 30_000 + 2 * 15_000
    assert tally.transfer_us.sum() == 90_000 + 4 * 160_000  # 8 Mbit at 50 Mbit/s
    assert tally.source_bytes.tolist() == [2 * MB, MB, MB]


def test_fills_free__same_hits_nothing_moved() -> None:
    """Who pays for a fill changes the account, not the cache."""
    paid = play_pooled(tiny_world(), [asked((0, 0), (1, 0), (2, 1), (3, 0))])
    free = fills_free(paid)
    assert (free.moved_bytes, free.wasted_bytes.sum(), free.net_avoided_bytes) == (0, 0, 2 * MB)
    assert free.mesh_bytes == paid.mesh_bytes
    assert paid.moved_bytes == 2 * MB


def test_second_request__waits_for_one_within_the_window() -> None:
    """The first request fills nothing, nor does one that comes after the window; a hit counts as a request."""
    rule = PooledSettings(admission="second_request", admission_window_hours=1.0)
    trace = asked((0, 0), (3601, 0), (3602, 0), (7200, 0), (10_000, 0), (20_000, 0), (20_001, 1))
    tally = play_pooled(tiny_world(), [trace], rule)
    assert tally.moved_bytes == MB  # at 3602 s
    assert tally.mesh_bytes == 3 * MB  # 7200 s, 10,000 s and, because it is held still, 20,000 s


def test_waste__is_booked_when_it_shows() -> None:
    """A fill that is gone before it serves is waste of the hour in which it is missed."""
    world = tiny_world(storage_bytes=np.array([0, MB, 0]))  # room for one segment
    tally = play_pooled(world, [asked((0, 0), (1, 1), (3601, 0), (3602, 0))])
    assert tally.pushed_bytes[:, 0].tolist() == [2 * MB, MB]
    assert tally.wasted_bytes[:, 0].tolist() == [0, 2 * MB]  # 0 missed again at 3601 s; 1 at the end


def test_places__without_nodes_go_to_tier_1() -> None:
    """Nothing is pooled where nobody stores anything, and nobody is there for whom no POP answers."""
    tally = play_pooled(tiny_world(storage_bytes=np.zeros(3, np.int64)), [asked((0, 0), (1, 0))])
    assert (tally.tier1_bytes, tally.mesh_bytes, tally.moved_bytes) == (2 * MB, 0, 0)
    alone = tiny_world(tier=np.array([2, 2, 3], np.int8), storage_bytes=np.array([0, 4 * MB, 0]))
    tally = play_pooled(alone, [asked((0, 0), (1, 0))])
    assert (tally.failed.sum(), tally.failed_bytes.sum(), tally.mesh_bytes) == (1, MB, MB)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, policy=st.sampled_from(POOLED_POLICIES), second=st.booleans(), cut=st.integers(0, 400))
def test_laws__of_conservation(seed: int, policy: PooledPolicy, second: bool, cut: int) -> None:
    """Bytes in are bytes out, causes explain the rest, senders add up, and a split is not seen in the numbers."""
    world, requests, _ = random_world(seed)
    rule = PooledSettings(policy, "second_request" if second else "every_miss")
    tally = play_pooled(world, [requests.rows(0, cut), requests.rows(cut, 400)], rule)
    assert tally.requested_bytes == requests.bytes.sum() == tally.mesh_bytes + tally.cause_bytes.sum()
    assert tally.source_bytes.sum() == tally.tier_bytes.sum()
    assert tally.wasted_bytes.sum() <= tally.moved_bytes
    assert tally.latency_bins.sum() == tally.transfer_bins.sum() == tally.n_requests == 400
    assert tally.row() == play_pooled(world, [requests], rule).row()


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, policy=st.sampled_from(("lru", "s3-fifo")))
def test_pool__equals_our_own_cache(seed: int, policy: str) -> None:
    """Driven as pools are, libcachesim hits as the judge's own cache does."""
    rng = np.random.default_rng(seed)
    sizes, segment = rng.integers(10, 100, 60), rng.integers(0, rng.integers(2, 60), 300)
    hits, filled = pool_hits(policy, 1500, segment, sizes)  # type: ignore[arg-type]
    assert hits.tolist() == single_cache(segment.astype(np.int32), sizes, 1500, policy).tolist()  # type: ignore[arg-type]
    assert filled.tolist() == (~hits).tolist()


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, room=st.integers(1, 12))
def test_belady__equals_the_textbook(seed: int, room: int) -> None:
    """The library is fed right: on equal sizes its Belady has the hits of the one by the book."""
    segment = _skewed(seed)
    hits, _ = pool_hits("belady", room * 1000, segment, np.full(40, 1000))
    assert hits.sum() == sum(textbook_belady(segment.tolist(), room))


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, room=st.integers(1, 30), second=st.booleans())
def test_belady__is_never_beaten_on_equal_sizes(seed: int, room: int, second: bool) -> None:
    """The reactive limit: every other policy with the same admission has as many hits at most."""
    segment = _skewed(seed)
    sizes, admitted = np.full(40, 1000), np.ones(len(segment), np.bool_)
    if second:
        admitted[np.unique(segment, return_index=True)[1]] = False
    hits = {p: pool_hits(p, room * 1000, segment, sizes, admitted=admitted)[0].sum() for p in POOLED_POLICIES}
    assert max(hits.values()) == hits["belady"]


def test_refused_segments__are_neither_held_nor_paid_for() -> None:
    """A pool of 20 MB has a small queue of 2 MB: S3-FIFO never takes 3 MB, and nothing is pushed for it."""
    segment, sizes = np.array([0, 0, 1, 1]), np.array([3 * MB, MB])
    hits, filled = pool_hits("s3-fifo", 20 * MB, segment, sizes)
    assert (hits.tolist(), filled.tolist()) == ([False, False, False, True], [False, False, True, False])
    hits, filled = pool_hits("lru", 2 * MB, segment, sizes)
    assert (hits.tolist(), filled.tolist()) == ([False, False, False, True], [False, False, True, False])


def test_nothing__asked_for() -> None:
    """A trace without requests counts nothing; parts in disorder are refused."""
    assert play_pooled(tiny_world(), []).n_requests == 0
    with pytest.raises(ReplayError, match="time order"):
        play_pooled(tiny_world(), [asked((5, 0)), asked((1, 0))])


def test_bad_settings__are_named_all_at_once() -> None:
    """Each mistake with its value."""
    with pytest.raises(ReplayError, match=r"(?s)got 'arc'.*got 'third'.*got 0"):
        PooledSettings("arc", "third", 0)  # type: ignore[arg-type]


def _skewed(seed: int) -> npt.NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    return np.minimum(rng.zipf(1.3, 250) - 1, rng.integers(0, 40, 250))
