"""What methods made of the same questions, and the rows of figures that follow from it.

    recall@k = mean [rank <= k],   MRR@20 = mean [1 / rank, 0 for a miss],   NLL = mean of -log p(what came)
    ECE = sum over bins of (n_bin / n) |mean p(first of the list) - share of bins' questions that it came|

A gain is the mean difference of two methods on the same questions, positive where the first is better; its interval
resamples whole clock hours, because questions of an hour share the news of that hour. Where methods were trained with
several seeds, each question counts once, with its mean over seeds, so that the interval is about questions and the
standard deviation beside it about seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from models.calibration import block_bootstrap_interval, expected_calibration_error
from models.events import Bool, Float64, Int64

RECALL_AT = (1, 5, 10, 20)
ECE_BINS = 15
VARIED = ("recall_at_20", "mrr_at_20", "nll")
"""Metrics whose standard deviation over seeds is reported."""


@dataclass(frozen=True)
class Marks:
    """What one method made of n questions; a row for each seed.

    Attributes:
        rank: place of what came in the method's list, from 1; 0 for a miss. (seeds, n)
        nats: negative log-probability of what came. (seeds, n)
        top: probability of the first content of the list. (seeds, n)
        listed: whether what came was on the method's shortlist; None for methods without one. (seeds, n)
        milliseconds: process time of a question, nan where nobody measured it. (seeds,)
    """

    rank: Int64
    nats: Float64
    top: Float64
    listed: Bool | None
    milliseconds: Float64

    def __post_init__(self) -> None:
        shapes = {np.shape(x) for x in (self.rank, self.nats, self.top, self.listed) if x is not None}
        if len(shapes) != 1 or len(self.rank.shape) != 2 or self.milliseconds.shape != self.rank.shape[:1]:
            raise ValueError(f"Expected marks of one shape (seeds, questions), got {sorted(shapes)!r}.")

    @property
    def seeds(self) -> int:
        return len(self.rank)

    @property
    def reciprocal(self) -> Float64:
        """Reciprocal rank, 0 for a miss. (seeds, n)"""
        return np.divide(1.0, self.rank, out=np.zeros(self.rank.shape), where=self.rank > 0)

    def of(self, inside: Bool) -> Marks:
        """The marks of some questions."""
        listed = None if self.listed is None else self.listed[:, inside]
        part = (self.rank[:, inside], self.nats[:, inside], self.top[:, inside])
        return Marks(*part, listed, self.milliseconds)

    @classmethod
    def stacked(cls, parts: Sequence[Marks]) -> Self:
        """The seeds of several, one after the other."""

        def column(name: str) -> Any:
            columns = [getattr(part, name) for part in parts]
            return None if columns[0] is None else np.concatenate(columns)

        return cls(*(column(name) for name in ("rank", "nats", "top", "listed", "milliseconds")))

    def metrics(self) -> dict[str, float | None]:
        """Every figure, as its mean over seeds; with several seeds also the standard deviation of the chief ones."""
        by_seed = [self._metrics(seed) for seed in range(self.seeds)]
        found: dict[str, float | None] = {
            name: None if by_seed[0][name] is None else float(np.mean([figures[name] for figures in by_seed]))
            for name in by_seed[0]
        }
        if self.seeds > 1:
            for name in VARIED:
                found[f"{name}_sd"] = float(np.std([figures[name] for figures in by_seed], ddof=1))
        return found

    def _metrics(self, seed: int) -> dict[str, Any]:
        rank, took = self.rank[seed], float(self.milliseconds[seed])
        figures: dict[str, Any] = {f"recall_at_{k}": float(np.mean((rank > 0) & (rank <= k))) for k in RECALL_AT}
        return figures | {
            "mrr_at_20": float(self.reciprocal[seed].mean()),
            "nll": float(self.nats[seed].mean()),
            "top1": float(self.top[seed].mean()),
            "ece_top1": expected_calibration_error(
                np.clip(self.top[seed], 0.0, 1.0), (rank == 1).astype(np.float64), bins=ECE_BINS
            ),
            "coverage": None if self.listed is None else float(self.listed[seed].mean()),
            "milliseconds": took if np.isfinite(took) else None,
        }


@dataclass(frozen=True)
class Scores:
    """What each method made of each question.

    Attributes:
        windows: which questions belong to which window. name -> (n,)
        hour: clock hour of each question, the block of the bootstrap. (n,)
        strata: which questions belong to which stratum. name -> (n,)
        marks: by name of the method.
    """

    windows: Mapping[str, Bool]
    hour: Int64
    strata: Mapping[str, Bool]
    marks: Mapping[str, Marks]

    def __post_init__(self) -> None:
        for name, marks in self.marks.items():
            if marks.rank.shape[1] != len(self.hour):
                raise ValueError(f"Method {name!r} has marks of {marks.rank.shape[1]} questions of {len(self.hour)}.")

    def with_marks(self, more: Mapping[str, Marks]) -> Scores:
        """The same questions with the marks of further methods."""
        return replace(self, marks={**self.marks, **more})

    def rows(self, *, reference: str | None = None, seed: int = 0) -> list[dict[str, Any]]:
        """One row a window, model and stratum that has questions; with a reference, paired gains over it.

        Gains are positive where the model is better than the reference.
        """
        found = []
        for model in self.marks:
            for window, stratum, inside in self._parts():
                row = {"window": window, "model": model, "stratum": stratum, "n": int(inside.sum())}
                row |= {"seeds": self.marks[model].seeds, **self.marks[model].of(inside).metrics()}
                if reference is not None:
                    row |= self._gains(model, reference, inside, seed)
                found.append(row)
        return found

    def gains(self, model: str, reference: str, *, seed: int = 0) -> list[dict[str, Any]]:
        """Paired gains of one model over another; a row a window and stratum."""
        return [
            {"window": window, "model": model, "stratum": stratum, "n": int(inside.sum())}
            | self._gains(model, reference, inside, seed)
            for window, stratum, inside in self._parts()
        ]

    def _parts(self) -> list[tuple[str, str, Bool]]:
        crossed = [
            (window, stratum, within & inside)
            for window, within in self.windows.items()
            for stratum, inside in self.strata.items()
        ]
        return [part for part in crossed if part[2].any()]

    def _gains(self, model: str, reference: str, inside: Bool, seed: int) -> dict[str, Any]:
        """Intervals of 95 %; percentages are of the reference's mean, which is taken as it is."""
        mine, theirs = self.marks[model].of(inside), self.marks[reference].of(inside)
        if mine.seeds != theirs.seeds:
            raise ValueError(
                f"{model!r} has {mine.seeds} seeds but {reference!r} has {theirs.seeds}; compare equally many."
            )
        found: dict[str, Any] = {"reference": reference}
        for name, difference in (
            ("mrr_gain", mine.reciprocal.mean(axis=0) - theirs.reciprocal.mean(axis=0)),
            ("nll_gain", theirs.nats.mean(axis=0) - mine.nats.mean(axis=0)),
        ):
            low, high = block_bootstrap_interval(difference, self.hour[inside], seed=seed)
            found |= {name: float(difference.mean()), f"{name}_low": low, f"{name}_high": high}
        level = float(theirs.reciprocal.mean())
        for end in ("", "_low", "_high"):
            found[f"mrr_gain_percent{end}"] = 100.0 * found[f"mrr_gain{end}"] / level if level > 0 else None
        return found


def over_seeds(parts: Sequence[Scores]) -> Scores:
    """Scores of the same questions and methods, a part for each seed, as one.

    A method without randomness is the same in every part: its deviation over seeds is zero.

    Raises:
        ValueError: the parts are about different questions or methods.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.marks.keys() != first.marks.keys() or not np.array_equal(part.hour, first.hour):
            raise ValueError("Every seed must answer the same questions with the same methods.")
    return replace(first, marks={name: Marks.stacked([part.marks[name] for part in parts]) for name in first.marks})
