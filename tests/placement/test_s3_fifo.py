"""S3-FIFO on one device: by hand, and request for request as the field's own library, on real clicks too."""

from __future__ import annotations

import os
from pathlib import Path

import libcachesim
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.caches import CachePolicy, CacheReplay, CacheSettings
from placement.s3_fifo import GHOST, MAIN, SMALL
from placement.single_cache import single_cache
from tests.placement.replay_worlds import MB, asked, random_world, tiny_world

REAL = Path(os.environ.get("PREMIRROR_REAL_DATA") or Path(__file__).parents[2] / "../shared/data")
LIBRARY = {"lru": libcachesim.LRU, "s3-fifo": libcachesim.S3FIFO}
POLICIES: tuple[CachePolicy, ...] = ("lru", "s3-fifo")


def library_hits(
    policy: CachePolicy, segment: npt.NDArray[np.int32], sizes: npt.NDArray[np.int64], capacity: int
) -> list[bool]:
    """The same requests through libcachesim, one by one."""
    cache, hits = LIBRARY[policy](cache_size=capacity, hashpower=12), []
    for i, code in enumerate(segment.tolist()):
        hits.append(bool(cache.get(libcachesim.Request(obj_id=code, obj_size=int(sizes[code]), clock_time=i))))
    return hits


def test_single_cache__s3_fifo_by_hand() -> None:
    """Room for twenty of one byte: two in small, eighteen in main, eighteen remembered."""
    steps = [
        *((code, False) for code in range(20)),  # 0 and 1 fill small; 2 to 19 main, because nothing was thrown out yet
        (20, False),  # 0 leaves small and is remembered
        (1, True),
        (1, True),
        (21, False),  # 1 was asked for twice and goes to main, so 20 leaves instead; main is one over its share
        (0, False),  # remembered: straight into main, which throws out 2, its oldest
        (20, False),  # the same, and 3 goes
        (1, True),
        (0, True),
        (20, True),
        (21, True),
        (2, False),
    ]
    segment = np.array([code for code, _ in steps], np.int32)
    assert single_cache(segment, np.ones(22, np.int64), 20, "s3-fifo").tolist() == [hit for _, hit in steps]


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), capacity=st.integers(50, 150), heavy=st.sampled_from([1.05, 1.3, 2.0]))
def test_single_cache__equals_libcachesim(policy: CachePolicy, seed: int, capacity: int, heavy: float) -> None:
    """Random traces with sizes below the small queue, which libcachesim does not refuse: no request differs."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, 100)
    segment = np.minimum(rng.zipf(heavy, 400) - 1, rng.integers(0, 100, 400)).astype(np.int32)
    assert single_cache(segment, sizes, capacity, policy).tolist() == library_hits(policy, segment, sizes, capacity)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real tables are not at {REAL}; set PREMIRROR_REAL_DATA")
@pytest.mark.parametrize("policy", POLICIES)
def test_single_cache__equals_libcachesim_on_real_clicks(policy: CachePolicy) -> None:
    """100,000 clicks of a news portal in their order, sizes drawn: no request differs."""
    clicks = pq.ParquetFile(REAL / "news_clicks" / "requests.parquet")
    content = (
        next(clicks.iter_batches(batch_size=100_000, columns=["content"])).column(0).to_numpy(zero_copy_only=False)
    )
    contents, segment = np.unique(content.astype(str), return_inverse=True)
    sizes = np.random.default_rng(0).integers(100_000, 4 * MB, len(contents))
    hits = single_cache(segment.astype(np.int32), sizes, 1000 * MB, policy)
    assert 0.2 < hits.mean() < 0.98  # neither all nor nothing: the queues are at work
    assert hits.tolist() == library_hits(policy, segment.astype(np.int32), sizes, 1000 * MB)


def test_device__takes_segments_as_large_as_its_small_queue() -> None:
    """2 MB of storage have a small queue of 0.2 MB and a main one of 1.8 MB; segments of 1 MB are taken still."""
    replay = CacheReplay(tiny_world(storage_bytes=np.array([0, 2 * MB, 0])), CacheSettings(policy="s3-fifo"))
    served = replay.serve(asked((0, 0), (10, 1), (20, 0), (30, 2), (40, 0), (50, 1)))
    # 0 goes to small and, because nothing was thrown out yet, 1 to main. 2 takes the place of 0, which was asked for
    # once only since it came; at 40 it is remembered and goes to main, in the place of 2. 1 was never in the way.
    assert served.source.tolist() == [0, 0, 1, 0, 0, 1]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_queues__hold_what_the_devices_hold(seed: int) -> None:
    """Small and main together are what is held, never beyond storage; ghost never remembers more than its share."""
    world, requests, _ = random_world(seed)
    replay = CacheReplay(world, CacheSettings(policy="s3-fifo"), seed=seed)
    for first in range(0, 400, 100):
        replay.serve(requests.rows(first, first + 100))
        queues = replay._stock.fifos.queues
        held = queues["held_bytes"][:, SMALL] + queues["held_bytes"][:, MAIN]
        nodes = world.tier != 1
        assert held.tolist() == replay.held_bytes().tolist()
        assert np.all(held[nodes] <= world.storage_bytes[nodes])
        assert np.all(queues["held_bytes"][:, GHOST] <= queues["share_bytes"][:, GHOST])
