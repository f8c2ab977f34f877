"""Sizes of audiences: counted in two passes, bounded for whoever waits for the first request."""

from __future__ import annotations

import numpy as np
import pytest

from placement.audience import AUDIENCE_WORDS, AudienceCount, AudienceSizes, AudienceTally
from placement.caches import CacheReplay, CacheSettings
from placement.errors import ReplayError
from placement.replay import Replay, SegmentRequests
from placement.trace import ReplayWorld
from tests.placement.replay_worlds import MB, asked, plan, random_world, tiny_world

# segment 0 once, segment 1 twice, segment 2 four times, far enough apart for every fill and uplink
TRACE = asked((10, 0), (20, 1), (30, 2), (40, 1), (50, 2), (60, 2), (70, 2))


def counted(world: ReplayWorld, replay: Replay | CacheReplay, *parts: SegmentRequests) -> AudienceTally:
    count = AudienceCount(AudienceSizes.count(world, parts))
    for part in parts:
        count.add(part, replay.serve(part))
    return count.tally()


def test_cache__reaches_the_bound_and_no_more() -> None:
    """Each first request is a miss and each later one a hit: 0 of 1, 1 of 2, 3 of 4."""
    world = tiny_world()
    tally = counted(world, CacheReplay(world, CacheSettings("free")), TRACE)
    assert tally.requests.tolist() == [1, 2, 4, 0, 0]
    assert tally.requested_bytes.tolist() == [MB, 2 * MB, 4 * MB, 0, 0]
    assert tally.mesh_bytes.tolist() == [0, MB, 3 * MB, 0, 0]
    assert tally.bound_bytes.tolist() == tally.mesh_bytes.tolist()


def test_plan__may_serve_the_first_request_too() -> None:
    """What is there before it is asked for is beyond the bound: 1 of 1 and 2 of 2."""
    world = tiny_world()
    replay = Replay(world)
    replay.adopt(plan(0, (0, 1), (1, 1)))
    assert counted(world, replay, TRACE).mesh_bytes.tolist() == [MB, 2 * MB, 0, 0, 0]


def test_groups__have_their_edges() -> None:
    """1, 2, 3 and 4, 5 to 9, 10 and more."""
    world = tiny_world()
    for n, group in ((1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (9, 3), (10, 4), (40, 4)):
        requests = asked(*((float(i), 0) for i in range(n)))
        tally = counted(world, Replay(world), requests)
        assert tally.requests[group] == n
        assert tally.bound_bytes[group] == pytest.approx((n - 1) * MB)
    assert len(AUDIENCE_WORDS) == len(tally.requests)


@pytest.mark.parametrize("cut", [0, 1, 137, 400])
def test_tally__does_not_depend_on_the_parts(cut: int) -> None:
    """The trace may come in any pieces, and a place's audience is its own."""
    world, requests, _ = random_world(4)
    whole = counted(world, CacheReplay(world), requests)
    parts = counted(world, CacheReplay(world), requests.rows(0, cut), requests.rows(cut, len(requests)))
    for name in ("requests", "requested_bytes", "mesh_bytes", "bound_bytes"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name))
    pairs, counts = np.unique(requests.segment * 3 + requests.location, return_counts=True)
    assert whole.requests[0] == np.sum(counts == 1)
    assert whole.requests.sum() == len(requests)
    assert len(pairs) < len(requests)


def test_count__refuses_requests_that_were_not_counted() -> None:
    """Another trace's sizes would put requests into groups at random."""
    world = tiny_world()
    count = AudienceCount(AudienceSizes.count(world, [asked((1, 0))]))
    other = asked((1, 2))
    with pytest.raises(ReplayError, match="no counted audience"):
        count.add(other, Replay(world).serve(other))
