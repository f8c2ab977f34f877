"""Demand models beside their peers on a request log: rolling origins, trained anew for every test day.

    python -m benchmarks.demand --home .premirror --tables newsroom --work build/demand

For each test day the models train from `--train-start` to two days before it, choose on these two days, and forecast
from origins of the day: every hour for the next hour, every three hours for longer windows, which may reach into the
next day where the log does. What a part has found stays in the work folder, so that a run can be broken off, or shared
between processes with `--part`:

    day:K       every method on the K-th test day
    series      statsforecast's methods on a sample of active cells of the first test day, same rows as ours
    table       the tables, ratios with intervals over whole origins, and which goals are met

`--lightgbm` names the variants of `benchmarks/lightgbm_peer.py` that are trained beside, each for minutes of a day.
`--until` hides everything from an instant on, so that days kept for a final comparison stay unseen.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.demand_series import draw, score_series
from benchmarks.demand_table import OURS, PRIOR, tell
from benchmarks.lightgbm_peer import PLAIN, VARIANTS, fit_lightgbm
from models.counters import CounterSettings, CounterStore
from models.demand.baselines import fit_hawkes, fit_references, untrained_references
from models.demand.boosting import fit_boosting
from models.demand.evaluation import OriginScore, score_origins
from models.demand.forecaster import CellForecaster
from models.demand.samples import DemandSamples
from models.demand.scores import ScoreSums
from models.demand.settings import DemandSettings
from models.demand.training import collect_windows, fit_prior, fit_samples
from models.events import DAY_US, HOUR_US, RequestLog
from pipelines.home import Home
from pipelines.store import read_request_log

VALIDATION_DAYS = 2
EVERY_HOURS = {1: 1, 6: 3, 24: 3}
"""Distance of the test origins by horizon; another horizon has the last one's."""
SERIES_ORIGINS_EVERY_HOURS = 6


@dataclass(frozen=True)
class Setup:
    """What is measured."""

    tables: str = "newsroom"
    train_start: str = "2017-10-01"
    days: tuple[str, ...] = ("2017-10-09", "2017-10-10", "2017-10-11", "2017-10-12")
    until: str = ""
    origin_every: int = 1
    lightgbm: tuple[str, ...] = (PLAIN,)
    boosting_iterations: int = 60
    series: int = 150
    seed: int = 0

    @property
    def settings(self) -> DemandSettings:
        return replace(DemandSettings(), origin_every_hours=self.origin_every)


class World:
    """The log, and the models as they are trained for one test day."""

    def __init__(self, setup: Setup, folder: Path) -> None:
        self.setup, self.folder, self.settings = setup, folder, setup.settings

    @cached_property
    def log(self) -> RequestLog:
        return read_request_log(self.folder, before_us=instant(self.setup.until) if self.setup.until else None)

    @property
    def end_us(self) -> int:
        """Where observation ends: the hour of the last request is taken as complete."""
        return (int(self.log.ts_us[-1]) // HOUR_US + 1) * HOUR_US

    def samples(self, day_us: int) -> tuple[DemandSamples, DemandSamples]:
        validation_us = day_us - VALIDATION_DAYS * DAY_US
        return collect_windows(
            self.log,
            train=(instant(self.setup.train_start), validation_us),
            validation=(validation_us, day_us),
            settings=self.settings,
            seed=self.setup.seed,
            references=[r.mean for r in untrained_references(self.settings, CounterSettings())],
        )

    def simple(self, fitted: DemandSamples, held_out: DemandSamples) -> list[CellForecaster]:
        """Ours and everything that is fitted in seconds."""
        settings, seed = self.settings, self.setup.seed
        ours, _ = fit_samples(fitted, held_out, settings=settings, seed=seed)
        ours.name = OURS
        _, remainder = fit_prior(fitted, settings)
        references = untrained_references(settings, CounterSettings())
        return [
            ours,
            *fit_hawkes(fitted, held_out, settings=settings, remainder=remainder, seed=seed),
            *fit_references(references, held_out, settings=settings, remainder=remainder, seed=seed),
        ]

    def boosted(self, fitted: DemandSamples, held_out: DemandSamples) -> list[CellForecaster]:
        """Gradient boosting: the stack's own on our prior's least squares, and LightGBM."""
        prior, remainder = fit_prior(fitted, self.settings)
        settings, seed, trees = self.settings, self.setup.seed, self.setup.boosting_iterations
        own = [
            fit_boosting(
                fitted,
                held_out,
                settings=settings,
                remainder=remainder,
                markov=markov,
                iterations=trees,
                seed=seed,
            )
            for markov in ((False, True) if trees else ())
        ]
        if own:
            note("gradient boosting of the stack trained")
        return own + fit_lightgbm(
            fitted,
            held_out,
            settings=settings,
            remainder=remainder,
            prior=prior,
            variants=self.setup.lightgbm,
            seed=seed,
        )


def instant(day: str) -> int:
    return int(np.datetime64(day, "us").astype(np.int64))


# ---- parts


def score_day(world: World, day_us: int) -> list[OriginScore]:
    """Every method on one test day."""
    fitted, held_out = world.samples(day_us)
    methods = world.simple(fitted, held_out)
    note("ours and simple methods trained")
    methods += world.boosted(fitted, held_out)
    note("LightGBM trained")
    del fitted, held_out
    longest = max(EVERY_HOURS.values())
    return score_origins(
        methods,
        world.log,
        start_us=day_us,
        end_us=day_us + DAY_US,
        horizons_hours=world.settings.horizons_hours,
        every_hours={hours: EVERY_HOURS.get(hours, longest) for hours in world.settings.horizons_hours},
        read_until_us=min(day_us + 2 * DAY_US, world.end_us),
    )


def score_sampled(world: World, day_us: int) -> list[OriginScore]:
    """The library's per-series methods and ours on sampled cells of one test day."""
    shown = {OURS, PRIOR, "EWMA 0.5 h", "EWMA 1.5 h", "EWMA x growth", "last value"}
    methods = [method for method in world.simple(*world.samples(day_us)) if method.name in shown]
    store = CounterStore()
    step = SERIES_ORIGINS_EVERY_HOURS * HOUR_US
    validation = range(day_us - VALIDATION_DAYS * DAY_US, day_us - DAY_US, step)
    test = range(day_us, day_us + DAY_US, step)
    common = {"series": world.setup.series, "seed": world.setup.seed}
    held_out = draw(methods, world.log, store, validation, until_us=day_us, **common)
    note("validation series forecast")
    sampled = draw(methods, world.log, store, test, until_us=min(day_us + 2 * DAY_US, world.end_us), **common)
    return score_series(held_out, sampled)


def run_part(world: World, part: str, folder: Path) -> None:
    """Measures a part and keeps it, unless that was done."""
    path = folder / f"{part.replace(':', '_')}.npz"
    if path.exists():
        return
    _ = world.log  # read the requests outside of the clock
    began = time.process_time()
    kind, _, which = part.partition(":")
    day_us = instant(world.setup.days[int(which or 0)])
    scores = score_day(world, day_us) if kind == "day" else score_sampled(world, day_us)
    keep(path, scores, cpu_seconds=time.process_time() - began)
    note(f"{part}: {time.process_time() - began:.0f} s, peak memory {peak_gib():.2f} GiB")


# ---- keeping


def keep(path: Path, scores: Sequence[OriginScore], *, cpu_seconds: float) -> None:
    """Writes scores as arrays, complete or not at all."""
    unfinished = path.with_suffix(f".{os.getpid()}.npz")
    np.savez_compressed(
        unfinished,
        origin_us=np.array([score.origin_us for score in scores]),
        horizon_hours=np.array([score.horizon_hours for score in scores]),
        model=np.array([score.model for score in scores]),
        stratum=np.array([score.stratum for score in scores]),
        sums=np.stack([score.sums.values for score in scores]),
        largest=np.array([score.sums.largest_over_prior for score in scores]),
        cpu_seconds=np.array(cpu_seconds),
    )
    unfinished.rename(path)


def kept(path: Path) -> tuple[list[OriginScore], float]:
    """Scores as they were kept, and the processor time they took."""
    with np.load(path) as arrays:
        columns = [arrays[name].tolist() for name in ("origin_us", "horizon_hours", "model", "stratum", "largest")]
        rows = zip(*columns, arrays["sums"], strict=True)
        scores = [OriginScore(at, hours, m, s, ScoreSums(sums, most)) for at, hours, m, s, most, sums in rows]
        return scores, float(arrays["cpu_seconds"])


def report(setup: Setup, folder: Path) -> str:
    """Writes results.json from the parts that are there; returns the tables."""
    found = {path.stem: kept(path) for path in sorted(folder.glob("*.npz")) if path.stem.count(".") == 0}
    days = [scores for name, (scores, _) in found.items() if name.startswith("day")]
    if not days:
        return "No day was measured yet."
    told = tell(days, found["series"][0] if "series" in found else [], seed=setup.seed)
    result = {
        "setup": asdict(setup),
        "cpu_seconds": {name: seconds for name, (_, seconds) in found.items()},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("numpy", "numba", "torch", "lightgbm", "statsforecast")},
        **told.rows,
    }
    (folder / "results.json").write_text(json.dumps(result, indent=1))
    return told.text


def note(text: str) -> None:
    print(f"[{time.process_time():.0f} s of processor time] {text}", file=sys.stderr)


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def parse(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("PREMIRROR_HOME", ".premirror")))
    kept_in = Path(tempfile.gettempdir()) / "premirror_demand"
    parser.add_argument("--work", type=Path, default=kept_in, help="folder for what is found")
    parser.add_argument("--part", action="append", help="measure this part only; may be repeated")
    for name, value in vars(Setup()).items():
        many = {"nargs": "+", "type": str} if isinstance(value, tuple) else {"type": type(value)}
        parser.add_argument(f"--{name.replace('_', '-')}", default=value, **many)
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    options = parse(given)
    given_as = {name: getattr(options, name) for name in vars(Setup())}
    setup = Setup(**{name: tuple(value) if isinstance(value, list) else value for name, value in given_as.items()})
    if unknown := set(setup.lightgbm) - set(VARIANTS):
        raise SystemExit(f"There is no LightGBM variant {sorted(unknown)}; there are {', '.join(VARIANTS)}.")
    tables = Home(options.home).tables(setup.tables)
    if not tables.exists():
        print(f"There are no tables at {tables}; ingest them, or give --home and --tables. Nothing was measured.")
        return
    options.work.mkdir(parents=True, exist_ok=True)
    noted, text = options.work / "setup.json", json.dumps(asdict(setup))
    if noted.exists() and noted.read_text() != text:
        raise SystemExit(f"{options.work} holds another measurement, {noted.read_text()}; give another --work.")
    noted.write_text(text)
    parts = [*(f"day:{k}" for k in range(len(setup.days))), "series", "table"]
    world = World(setup, tables)
    for part in options.part or parts:
        if part not in parts:
            raise SystemExit(f"There is no part {part!r}; there are {', '.join(parts)}.")
        if part == "table":
            print(report(setup, options.work))
        else:
            run_part(world, part, options.work)


if __name__ == "__main__":
    main()
