"""How sure a comparison is: shares and differences of sums by hour, with intervals over blocks of hours, and of seeds.

    ratio        v = Σ part / Σ whole,   influence of an hour  (part − v · whole) / mean(whole)
    difference   of two ratios, or of two sums, over the same hours: the influences are subtracted hour by hour

Whole blocks of hours are resampled, because hours hang together. Runs with several seeds play the same hours, so seeds
and blocks are resampled each on their own and an (hour, seed) counts as often as both are drawn (the pigeonhole
bootstrap, Owen 2007): more seeds make the estimate steadier, but never stand for more days.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.calibration import block_bootstrap_interval
from models.events import Float64, Int64
from models.quantities import Estimate

BLOCK_HOURS = 6
"""Hours that the bootstrap keeps together: shorter than a day, because a backtest has few days."""
REPLICATES = 1000


def share_estimate(part: Float64, whole: Float64, *, seed: int) -> Estimate:
    """sum(part) / sum(whole) with a 95 % interval over blocks of hours; 0 of nothing.

    Args:
        part: of each hour; zero in hours left out. (hours,)
        whole: what it is a part of, likewise. (hours,)
        seed: of the resampling.
    """
    return share_over_seeds([(part, whole)], seed=seed)


def share_over_seeds(played: Sequence[tuple[Float64, Float64]], *, seed: int) -> Estimate:
    """The share of all seeds together, with a 95 % interval over blocks of hours and over seeds.

    Args:
        played: (part, whole) of each seed, over the same hours. (hours,) each
        seed: of the resampling.
    """
    part, whole = (np.array([run[i] for run in played], dtype=np.float64) for i in (0, 1))  # (seeds, hours)
    if whole.sum() <= 0:
        return Estimate(0.0)
    value = float(part.sum() / whole.sum())
    ends = _interval((part - value * whole) / whole.mean(), seed=seed)
    return _around(value, ends)


def share_difference(before: tuple[Float64, Float64], after: tuple[Float64, Float64], *, seed: int) -> Estimate:
    """Share after less share before, paired by hour, with a 95 % interval over blocks of hours.

    Args:
        before: (part, whole) by hour. (hours,) each
        after: the same, over the same hours.
        seed: of the resampling.
    """
    shares, influences = [], []
    for part, whole in (before, after):
        share = float(part.sum() / whole.sum()) if whole.sum() > 0 else 0.0
        shares.append(share)
        influences.append((part - share * whole) / (whole.mean() if whole.sum() > 0 else 1.0))
    return _around(shares[1] - shares[0], _interval((influences[1] - influences[0])[None, :], seed=seed))


def sum_difference(before: Float64, after: Float64, *, seed: int) -> Estimate:
    """Sum after less sum before, paired by hour, with a 95 % interval over blocks of hours. Both are (hours,)."""
    difference = after - before
    value = float(difference.sum())
    ends = _interval((difference - difference.mean())[None, :] * len(difference), seed=seed)
    return _around(value, ends)


def _around(value: float, ends: tuple[float, float] | None) -> Estimate:
    if ends is None:
        return Estimate(value)
    return Estimate(value, value + min(ends[0], 0.0), value + max(ends[1], 0.0))


def _interval(influence: Float64, *, seed: int) -> tuple[float, float] | None:
    """Interval of the mean of influences around zero, (seeds, hours); None where there is one block only."""
    seeds, hours = influence.shape
    blocks: Int64 = np.arange(hours, dtype=np.int64) // BLOCK_HOURS
    if hours <= BLOCK_HOURS:
        return None
    if seeds == 1:
        return block_bootstrap_interval(influence[0], blocks, replicates=REPLICATES, seed=seed)
    total = np.add.reduceat(influence, np.arange(0, hours, BLOCK_HOURS), axis=1)  # (seeds, blocks)
    length = np.bincount(blocks)
    rng = np.random.default_rng(seed)
    means = np.empty(REPLICATES)
    for i in range(REPLICATES):
        drawn = rng.integers(0, len(length), len(length))
        chosen = rng.integers(0, seeds, seeds)
        means[i] = total[np.ix_(chosen, drawn)].sum() / (seeds * length[drawn].sum())
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
