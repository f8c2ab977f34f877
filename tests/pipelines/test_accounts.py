"""Accounts by hour: they add up to the tally, lie on the window's hours, and differences are paired hour by hour."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.accounts import HourlyAccount
from pipelines.intervals import BLOCK_HOURS, share_difference, share_estimate, share_over_seeds, sum_difference
from placement.replay import Replay
from placement.tally import HOUR_US
from tests.placement.replay_worlds import MB, asked, plan, tiny_world

HOURS = 8 * BLOCK_HOURS


def test_account__is_the_tally_by_hour() -> None:
    """1 MB is pushed and 2 MB are served by the mesh in the second hour; a GB costs 20 $, a served one earns 4."""
    replay = Replay(tiny_world())
    replay.serve(asked((10, 0)))
    replay.adopt(plan(3600, (0, 1)))
    replay.serve(asked((3610, 0), (3620, 0)))
    tally = replay.finish()
    account = HourlyAccount.of_tally(tally, start_us=0, end_us=3 * HOUR_US)
    assert list(account.requested_bytes) == [MB, 2 * MB, 0]
    assert list(account.net_avoided_bytes) == [0, MB, 0]
    assert account.cost == pytest.approx((0.020, 0.020 + 0.008, 0))
    assert sum(account.cost) == pytest.approx(tally.egress_money + tally.reward_money)


def test_account__puts_a_late_start_on_its_own_hours() -> None:
    """A row that saw its first request in the third hour has zeros before, and is compared with the right hours."""
    tally = Replay(tiny_world()).play([asked((2 * 3600 + 5, 0))])
    account = HourlyAccount.of_tally(tally, start_us=0, end_us=4 * HOUR_US)
    assert list(account.requested_bytes) == [0, 0, MB, 0]
    with pytest.raises(ValueError, match="inside the window"):
        HourlyAccount.of_tally(tally, start_us=0, end_us=HOUR_US)


def test_saved_against__is_a_running_difference() -> None:
    """By hand: 5 - 7 = -2, then -2 + 5 - 1 = 2, then 2 + 5 - 1 = 6."""
    alone, ours = (HourlyAccount(0, (1.0,) * 3, (0.0,) * 3, cost) for cost in ((5.0, 5.0, 5.0), (7.0, 1.0, 1.0)))
    assert ours.saved_against(alone) == (-2, 2, 6)
    assert alone.saved_against(alone) == (0, 0, 0)


def test_busiest__is_the_tenth_with_most_bytes() -> None:
    """Of twenty hours the two largest; of three hours one."""
    sizes = tuple(float(i % 7) for i in range(20))
    account = HourlyAccount(0, sizes, sizes, sizes)
    assert np.flatnonzero(account.busiest).tolist() == [6, 13]
    assert HourlyAccount(0, (1.0, 3.0, 2.0), (0.0,) * 3, (0.0,) * 3).busiest.tolist() == [False, True, False]


def noise(seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.random.default_rng(seed).uniform(50, 150, HOURS)


def test_difference__is_certain_where_every_hour_is_better_alike() -> None:
    """B keeps a tenth more of every hour: 10 points, whatever the hours are; unpaired intervals would be wide."""
    whole = noise(1)
    found = share_difference((0.3 * whole, whole), (0.4 * whole, whole), seed=0)
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    money = sum_difference(noise(2), noise(2) - 1.0, seed=0)
    assert (money.value, money.low, money.high) == pytest.approx((-HOURS, -HOURS, -HOURS))


def test_difference__of_a_run_with_itself_is_zero() -> None:
    """Nothing changed, and the interval says so."""
    part, whole = 0.5 * noise(3), noise(4)
    found = share_difference((part, whole), (part, whole), seed=0)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_difference__holds_its_value_and_grows_with_the_noise() -> None:
    """The value is that of the sums; an interval that did not hold it would contradict the table."""
    found = sum_difference(noise(5), noise(6), seed=0)
    assert found.value == pytest.approx(noise(6).sum() - noise(5).sum())
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


def test_share__over_seeds_pools_them_and_one_seed_is_the_plain_share() -> None:
    """Two seeds of 30 and 50 % of the same hours are 40 %; a further seed never stands for more days."""
    whole = noise(7)
    one = share_estimate(0.3 * whole, whole, seed=0)
    assert share_over_seeds([(0.3 * whole, whole)], seed=0) == one
    both = share_over_seeds([(0.3 * whole, whole), (0.5 * whole, whole)], seed=0)
    assert both.value == pytest.approx(0.4)
    assert both.low is not None
    assert both.high is not None
    assert both.low == pytest.approx(0.3, abs=0.02)  # each seed may be drawn twice
    assert both.high == pytest.approx(0.5, abs=0.02)


def test_share__repeated_seeds_are_no_more_certain_than_one() -> None:
    """The same run ten times over is still one course of days."""
    part, whole = noise(8), np.full(HOURS, 200.0)
    one, ten = (share_over_seeds([(part, whole)] * n, seed=0) for n in (1, 10))
    assert one.low is not None
    assert ten.low is not None
    assert ten.value - ten.low == pytest.approx(one.value - one.low, rel=0.15)


def test_share__without_blocks_or_bytes_has_no_interval() -> None:
    """Six hours are one block, and one block says nothing of spread; nothing requested is no share."""
    few = np.ones(BLOCK_HOURS)
    assert share_estimate(few, 2 * few, seed=0).low is None
    assert share_estimate(few, 0 * few, seed=0).value == 0.0
