"""The daily update of a demand model in use: prior fitted anew, networks gone on with from the weights that they have.

    days before the update:   | older rows, or a share of them | recent rows in full | validation |

Prior, remainder, biases and dispersions follow the last days; the networks start from the weights and the input scale in
use and go through the rows once, older ones included, so that what is rare is not forgotten. Where only a share of the
older rows is drawn, each weighs the more: sums still estimate sums over all days.

What is kept is the best on the validation days, by the mean over horizons of

    log loss of the cells / log loss of the refitted prior,

among the model in use as it is, the refitted prior with the old or the new weights, and the refitted prior alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from models.counters import CounterStore
from models.demand.forecaster import DemandForecaster
from models.demand.operation import DemandUpdateSettings
from models.demand.samples import DemandSamples, Window, advance, collect_samples, count_outcome, origins_of
from models.demand.settings import DemandSettings
from models.demand.trailing import observe_some
from models.demand.training import History, fit_samples
from models.events import DAY_US, HOUR_US, Float64, RequestLog
from models.metrics import negative_binomial_losses

Kept = Literal["model in use", "old weights", "new weights", "prior"]
FILL_DAYS = 10
"""Requests this long before the first row fill the counters: weekly rhythms and the slowest rates need no more."""
VALIDATION_EVERY_HOURS = 3
VALIDATION_CELLS = 20_000
"""Origins and cells on which the choices are compared; more would cost seconds and change nothing."""


@dataclass(frozen=True)
class UpdateWindows:
    """Half-open windows in microseconds, in order.

    Attributes:
        older: rows of which a part is replayed, a day at least; None where there are fewer.
        recent: rows that are gone through in full: a day, and the longest horizon before it, so that every horizon has
            outcomes of that day.
        validation: rows that decide.
    """

    older: Window | None
    recent: Window
    validation: Window

    @classmethod
    def before(cls, at_us: int, *, first_us: int, settings: DemandUpdateSettings, longest_hours: int) -> UpdateWindows:
        """Windows that end at an instant; nothing starts before `first_us`, from which on the counters tell enough.

        Raises:
            ValueError: less than a day and the longest horizon remain for training.
        """
        split_us = at_us - settings.validation_days * DAY_US
        start_us = max(at_us - settings.days * DAY_US, first_us)
        recent_us = split_us - DAY_US - longest_hours * HOUR_US
        if start_us + (24 + longest_hours) * HOUR_US > split_us:
            raise ValueError(
                f"An update needs {24 + longest_hours} h of rows before {settings.validation_days} days of validation, "
                f"but only {(split_us - start_us) / HOUR_US:.0f} h are there. Give a later instant, or fewer "
                "update.validation_days."
            )
        older = (start_us, recent_us) if recent_us - start_us >= DAY_US else None
        return cls(older, (max(recent_us, start_us), split_us), (split_us, at_us))


@dataclass(frozen=True)
class UpdatedDemand:
    """Outcome of an update.

    Attributes:
        model: the best on the validation days; the model given itself where nothing was better.
        kept: which one that is.
        losses: relative log loss on the validation days by choice; the refitted prior has 1.
        history: losses of the pass over the rows.
        rows: how many rows were fitted.
        windows: what was read.
    """

    model: DemandForecaster
    kept: Kept
    losses: Mapping[str, float]
    history: History
    rows: int
    windows: UpdateWindows

    @property
    def changed(self) -> bool:
        return self.kept != "model in use"


def update_demand(
    log: RequestLog, model: DemandForecaster, *, at_us: int, settings: DemandUpdateSettings, seed: int
) -> UpdatedDemand:
    """Brings a model up to date with the requests before an instant.

    Args:
        log: requests; none from `at_us` on is read.
        model: the model in use; it stays as it is.
        at_us: the instant.
        settings: which days, and how the networks go on.
        seed: of the drawn rows and of their order.

    Raises:
        ValueError: the log is too short.
    """
    trained = model.settings
    known = log.before(at_us)
    if not len(known):
        raise ValueError("An update needs requests before its instant, and there are none.")
    windows = UpdateWindows.before(
        at_us,
        first_us=int(known.ts_us[0]) + trained.warm_up_hours * HOUR_US,
        settings=settings,
        longest_hours=trained.horizons_hours[-1],
    )
    first_us = (windows.older or windows.recent)[0]
    known = known.between(first_us - FILL_DAYS * DAY_US, at_us)
    store = CounterStore()
    fitted = _rows(known, store, windows, trained, settings=settings, seed=seed)
    kept_store = CounterStore.from_arrow(store.to_arrow())  # where validation starts: it is gone through twice
    held_out = collect_samples(known, store, windows.validation, trained, seed=seed + 1)
    passes = 0 if model.learned is None else 1
    pass_settings = replace(trained, max_epochs=passes, learning_rate=settings.learning_rate)
    updated, history = fit_samples(fitted, held_out, settings=pass_settings, seed=seed, start=model)
    updated.settings = trained  # one pass was this update's choice, not the model's
    updated.name = model.name
    choices = {"model in use": model, "updated": updated, "prior": updated.prior_only()}
    losses = relative_losses(list(choices.values()), known, kept_store, windows.validation)
    by_choice = dict(zip(choices, losses, strict=True))
    best = min(by_choice, key=lambda name: by_choice[name])
    kept: Kept = "model in use" if best == "model in use" else "prior" if best == "prior" else _weights_kept(history)
    return UpdatedDemand(choices[best], kept, by_choice, history, len(fitted), windows)


def _weights_kept(history: History) -> Literal["old weights", "new weights"]:
    """Every network keeps its best pass, and the first row of each is before any pass."""
    best: dict[float, dict[str, float]] = {}
    for row in history:
        member = row["member"]
        if member not in best or row["validation_loss"] < best[member]["validation_loss"]:
            best[member] = row
    return "new weights" if any(row["epoch"] > 0 for row in best.values()) else "old weights"


def _rows(
    log: RequestLog,
    store: CounterStore,
    windows: UpdateWindows,
    trained: DemandSettings,
    *,
    settings: DemandUpdateSettings,
    seed: int,
) -> DemandSamples:
    """Recent rows in full and a share of the older ones; the counters stand at the end of the last origin."""
    parts = []
    if windows.older is not None and settings.replay_share > 0:
        older = collect_samples(log, store, windows.older, trained, seed=seed + 2)
        parts.append(replayed(older, settings.replay_share, seed=seed + 3))
    parts.append(collect_samples(log, store, windows.recent, trained, seed=seed))
    return joined(parts)


def relative_losses(
    models: Sequence[DemandForecaster], log: RequestLog, store: CounterStore, window: Window
) -> list[float]:
    """Mean over horizons of each model's log loss relative to that of the last one, on the same cells and origins."""
    horizons = models[-1].settings.horizons_hours
    sums = np.zeros((len(models), len(horizons)))
    for at_us in advance(store, log, origins_of(window, every_hours=VALIDATION_EVERY_HOURS)):
        state = observe_some(store, models[-1].settings, at_us=at_us, most=VALIDATION_CELLS)
        for index, hours in enumerate(horizons):
            until_us = at_us + hours * HOUR_US
            if until_us > window[1] or not len(state):
                continue
            counts = count_outcome(log, store, (state.content, state.location), (at_us, until_us)).counts
            seen = np.isfinite(counts)
            for row, model in enumerate(models):
                mean, dispersion = model.law(state, hours)
                sums[row, index] += _loss(counts[seen], mean[seen], dispersion[seen])
    scored = sums[-1] > 0
    return [float(np.mean(row[scored] / sums[-1, scored])) if scored.any() else 1.0 for row in sums]


def _loss(counts: Float64, mean: Float64, dispersion: Float64) -> float:
    return float(negative_binomial_losses(counts, mean, dispersion).sum())


def replayed(samples: DemandSamples, share: float, *, seed: int) -> DemandSamples:
    """A drawn share of the rows, each weighing 1 / share times as much."""
    drawn = np.flatnonzero(np.random.default_rng(seed).random(len(samples)) < share)
    taken: dict[str, Any] = {name: np.take(values, drawn, axis=axis) for name, values, axis in _by_row(samples)}
    return replace(samples, **(taken | {"weights": (taken["weights"] / share).astype(np.float32)}))


def joined(parts: Sequence[DemandSamples]) -> DemandSamples:
    """Rows under each other, oldest part first; sums by location are added."""
    if len(parts) == 1:
        return parts[0]
    axes = {name: axis for name, _, axis in _by_row(parts[0])}
    rows = {name: np.concatenate([getattr(part, name) for part in parts], axis=axis) for name, axis in axes.items()}
    locations = np.array(list(dict.fromkeys(name for part in parts for name in part.locations)), dtype=object)
    column = {name: code for code, name in enumerate(locations)}
    sums = {name: np.zeros((len(parts[0].outside), len(locations))) for name in ("outside", "total")}
    for part in parts:
        codes = [column[name] for name in part.locations]
        for name, total in sums.items():
            total[:, codes] += getattr(part, name)
    days = sum(part.days for part in parts)
    changes: dict[str, Any] = {**rows, **sums, "locations": locations, "days": days}
    return replace(parts[-1], **changes)


def _by_row(samples: DemandSamples) -> list[tuple[str, npt.NDArray[Any], int]]:
    """Arrays with one entry a row: name, values, and the axis of the rows, which follows that of the horizons if any."""
    found = []
    for field in fields(samples):
        values = getattr(samples, field.name)
        if isinstance(values, np.ndarray) and field.name not in ("outside", "total", "locations"):
            found.append((field.name, values, 0 if len(values) == len(samples) else 1))
    return found
