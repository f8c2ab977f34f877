"""How much better, and how sure: paired gains and ratios of two methods with intervals over whole blocks of origins.

Both methods are scored on the same cells of the same origins, so their sums are resampled together:

    gain  = metric(reference) - metric(model), turned so that positive is better
    ratio = metric(model) / metric(reference)

with every metric computed anew from the resampled sums. Origins of one block are drawn together, and a block is at
least as long as the horizon: the windows of neighbouring origins overlap, and one surprise must not count twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.demand.evaluation import OriginScore
from models.demand.scores import RATIOS, TERMS, Ratio, ScoreSums
from models.events import HOUR_US, Float64

COMPARED = ("nll", "wape", "wape_median", "rmse", "scaled_pinball", "top20_captured")
"""Metrics that reports compare; any of `models.demand.scores.RATIOS` can be."""
REPLICATES = 1000


def difference_rows(
    scores: Sequence[OriginScore],
    *,
    reference: str,
    metrics: Sequence[str] = COMPARED,
    seed: int = 0,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Gain and ratio of every model over the reference, one row a (horizon, stratum, model, metric).

    Raises:
        ValueError: the reference was not scored.
    """
    paired = _by_model(scores)
    if not any(reference in models for models in paired.values()):
        raise ValueError(f"Reference {reference!r} was not scored; scored: {sorted({s.model for s in scores})!r}.")
    return [
        {"horizon_hours": hours, "stratum": stratum, "model": model, "reference": reference, "metric": metric}
        | _compared(pair, metric, level=level)
        for (hours, stratum), models in paired.items()
        if reference in models
        for model, by_origin in models.items()
        if model != reference
        for pair in (_Pair(by_origin, models[reference], horizon_hours=hours, seed=seed),)
        for metric in metrics
        if pair.defines(RATIOS[metric])
    ]


class _Pair:
    """Sums of two methods by block of origins, and the same sums resampled."""

    def __init__(
        self,
        model: Mapping[int, ScoreSums],
        reference: Mapping[int, ScoreSums],
        *,
        horizon_hours: int,
        seed: int,
    ) -> None:
        origins = sorted(set(model) & set(reference))
        self.origins = len(origins)
        block = np.unique([at // (horizon_hours * HOUR_US) for at in origins], return_inverse=True)[1]
        self.blocks = int(block.max()) + 1 if self.origins else 0
        self.sums, self.resampled = [], []
        drawn = _drawn_counts(self.blocks, seed)
        for by_origin in (model, reference):
            by_block = np.zeros((self.blocks, len(TERMS)))
            np.add.at(by_block, block, np.stack([by_origin[at].values for at in origins]))
            self.sums.append(by_block.sum(axis=0))
            self.resampled.append(drawn @ by_block)

    def defines(self, ratio: Ratio) -> bool:
        """Whether the stratum has this metric: totals by location have no law and no ranking."""
        return all(np.isfinite(ratio.of(sums)) for sums in self.sums)

    def values(self, ratio: Ratio) -> tuple[float, float, Float64, Float64]:
        """The metric of model and reference, pooled and by replicate."""
        (model, reference), (models, references) = self.sums, self.resampled
        return ratio.of(model), ratio.of(reference), ratio.of_many(models), ratio.of_many(references)


def _drawn_counts(blocks: int, seed: int) -> Float64:
    """How often each block is drawn in each replicate, shape (replicates, blocks)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(blocks, np.full(blocks, 1.0 / blocks), size=REPLICATES).astype(np.float64)


def _compared(pair: _Pair, metric: str, *, level: float) -> dict[str, Any]:
    model, reference, models, references = pair.values(RATIOS[metric])
    sign = 1.0 if RATIOS[metric].higher_is_better else -1.0
    low, high = _interval(sign * (models - references), level)
    ratio_low, ratio_high = _interval(models / np.where(references > 0.0, references, np.nan), level)
    return {
        "gain": sign * (model - reference),
        "low": low,
        "high": high,
        "ratio": model / reference if reference > 0.0 else float("nan"),
        "ratio_low": ratio_low,
        "ratio_high": ratio_high,
        "origins": pair.origins,
        "blocks": pair.blocks,
    }


def _interval(values: Float64, level: float) -> tuple[float, float]:
    """Percentile interval over the replicates in which the metric is defined."""
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(known, [tail, 1.0 - tail])
    return float(low), float(high)


def _by_model(scores: Sequence[OriginScore]) -> dict[tuple[int, str], dict[str, dict[int, ScoreSums]]]:
    by_key: dict[tuple[int, str], dict[str, dict[int, ScoreSums]]] = {}
    for score in scores:
        models = by_key.setdefault((score.horizon_hours, score.stratum), {})
        models.setdefault(score.model, {})[score.origin_us] = score.sums
    return by_key
