"""Demand models on a real request log: training and forecast cost, and every method's scores in one table.

    python benchmarks/demand.py requests.parquet --train 2017-10-02 2017-10-07 --validation 2017-10-07 2017-10-09 \
        --test 2017-10-09 2017-10-10 --every 3

The table needs the columns ts, session, content and location.
"""

from __future__ import annotations

import argparse
import platform
import resource
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from models.counters import CounterSettings, CounterStore
from models.demand.baselines import fit_hawkes, fit_references, untrained_references
from models.demand.boosting import fit_boosting
from models.demand.evaluation import difference_rows, metric_rows, score_origins
from models.demand.forecaster import CellForecaster
from models.demand.samples import Window
from models.demand.settings import DemandSettings
from models.demand.training import collect_windows, fit_prior, fit_samples
from models.events import RequestLog

SHOWN = ("wape", "wape_median", "rmse", "poisson_deviance", "nll", "scaled_pinball", "coverage_80", "top20_captured")


def main() -> None:
    arguments = parse()
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, numpy {np.__version__}")
    log = read_log(arguments.requests)
    settings = DemandSettings()
    methods = train(log, window(arguments.train), window(arguments.validation), settings)
    time_forecast(methods[0], log, at_us=window(arguments.test)[0], settings=settings)
    start_us, end_us = window(arguments.test)
    scores = score_origins(
        methods, log, start_us=start_us, end_us=end_us, horizons_hours=(1, 6), every_hours=arguments.every
    )
    for row in metric_rows(scores, start_us=start_us, end_us=end_us):
        if row["stratum"] in ("all", "new content"):
            numbers = "  ".join(f"{row[name]:.4f}" for name in SHOWN)
            print(f"{row['horizon_hours']:>2} h  {row['stratum']:<12} {row['model']:<40} {numbers}")
    for row in difference_rows(scores, reference="gradient boosting + Markov"):
        if row["stratum"] == "all" and row["model"] == methods[0].name:
            print(
                f"{row['horizon_hours']:>2} h  {row['metric']}: {row['gain']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"
            )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requests", type=Path)
    for name in ("train", "validation", "test"):
        parser.add_argument(f"--{name}", nargs=2, required=True, metavar=("START", "END"))
    parser.add_argument("--every", type=int, default=3, help="hours between test origins")
    return parser.parse_args()


def window(days: list[str]) -> Window:
    start_us, end_us = (int(np.datetime64(day, "us").astype(np.int64)) for day in days)
    return start_us, end_us


def read_log(path: Path) -> RequestLog:
    table = pq.read_table(path, columns=["ts", "session", "content", "location"])
    ts_us = table["ts"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    columns = (table[name].to_numpy() for name in ("session", "content", "location"))
    return RequestLog.from_columns(ts_us, *columns)


def train(log: RequestLog, fit: Window, validation: Window, settings: DemandSettings) -> list[CellForecaster]:
    references = untrained_references(settings, CounterSettings())
    means = [reference.mean for reference in references]
    began = time.perf_counter()
    rows, held_out = collect_windows(log, train=fit, validation=validation, settings=settings, seed=0, references=means)
    collected = time.perf_counter()
    model, _ = fit_samples(rows, held_out, settings=settings, seed=0)
    trained = time.perf_counter()
    print(
        f"rows {len(rows)} + {len(held_out)}: {collected - began:.1f} s; prior and networks {trained - collected:.1f} s"
    )
    _, remainder = fit_prior(rows, settings)
    boosting = [
        fit_boosting(rows, held_out, settings=settings, remainder=remainder, markov=markov) for markov in (False, True)
    ]
    print(f"gradient boosting, twice: {time.perf_counter() - trained:.1f} s")
    return [
        model,
        *fit_hawkes(rows, held_out, settings=settings, remainder=remainder),
        *fit_references(references, held_out, settings=settings, remainder=remainder),
        *boosting,
    ]


def time_forecast(method: CellForecaster, log: RequestLog, *, at_us: int, settings: DemandSettings) -> None:
    store = CounterStore()
    store.update(log.before(at_us))
    for hours in settings.horizons_hours:
        began = time.perf_counter()
        forecast = method.forecast(store, at_us=at_us, horizon_hours=hours)
        print(f"forecast of {hours} h: {len(forecast)} cells in {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    main()
