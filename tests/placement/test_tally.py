"""The tally: what its sums mean, and that parts add up to the whole."""

from __future__ import annotations

import numpy as np
import pytest

from placement.errors import ReplayError
from placement.replay import Replay
from placement.tally import BINS, CAUSE_WORDS, HOUR_US, Cause, ReplayTally, bin_of, merge_tallies, quantile_of_bins
from tests.placement.replay_worlds import MB, asked, plan, tiny_world


def day(hour: int) -> ReplayTally:
    """One push of 1 MB and two requests of 1 MB that the near node serves, in the given hour."""
    replay = Replay(tiny_world())
    replay.adopt(plan(hour * 3600, (0, 1)))
    replay.serve(asked((hour * 3600 + 1, 0), (hour * 3600 + 5, 0)))
    return replay.finish()


def test_money__by_hand() -> None:
    """Money is what a reader checks first: prices times the bytes of each kind."""
    tally = day(0)
    assert (tally.mesh_bytes, tally.tier1_bytes, tally.moved_bytes) == (2 * MB, 0, MB)
    assert tally.egress_money == pytest.approx(0.001 * 20)  # the push of 0.001 GB
    assert tally.reward_money == pytest.approx(0.002 * 4)
    assert tally.net_avoided_bytes == MB
    # avoided 2 MB, pushed 1 MB: saves 0.001 GB of egress, costs the reward of 0.002 GB
    assert tally.net_saving().tolist() == [[pytest.approx(0.001 * 20 - 0.002 * 4)]]


def test_merge__aligns_hours() -> None:
    """Days are replayed apart and added: the hours between them must stay empty, the order must not matter."""
    early, late = day(1), day(4)
    both = late.merge(early)
    assert both.start_hour_us == HOUR_US
    assert both.requests[:, 0].tolist() == [2, 0, 0, 2]
    assert both.row() == merge_tallies([early, late]).row()
    assert both.n_requests == 4
    assert both.source_bytes.tolist() == [0, 4 * MB, 0]


def test_merge__refuses_other_worlds() -> None:
    """Tallies with other prices or sources would add up to nonsense."""
    dearer = Replay(tiny_world(reward_per_gb=5.0)).finish()
    with pytest.raises(ReplayError, match="different prices"):
        day(0).merge(dearer)
    with pytest.raises(ReplayError, match="at least one"):
        merge_tallies([])


@pytest.mark.parametrize("ms", [0.11, 1.0, 33.3, 250.0, 61_000.0])
def test_histogram__keeps_quantiles_to_one_bin(ms: float) -> None:
    """A quantile read from the bins is within the 2.2 % that the documentation promises."""
    bins = np.zeros(BINS, np.int64)
    bins[bin_of(ms)] = 10
    for p in (0.0, 0.5, 1.0):
        assert quantile_of_bins(bins, p) == pytest.approx(ms, rel=0.022)


def test_histogram__edges() -> None:
    """Nothing to sum, values beyond the ends and levels outside [0, 1] have defined answers."""
    assert np.isnan(quantile_of_bins(np.zeros(BINS, np.int64), 0.5))
    assert (bin_of(0.0), bin_of(1e12)) == (0, BINS - 1)
    with pytest.raises(ReplayError, match=r"\[0, 1\]"):
        quantile_of_bins(np.ones(BINS, np.int64), 1.5)


def test_causes__have_words() -> None:
    """A report prints every cause in words."""
    assert set(CAUSE_WORDS) == set(Cause)
