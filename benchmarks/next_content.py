"""The next-content hybrid beside its peers on real clicks, on days that come after everything it was fitted on.

    python -m benchmarks.next_content --seeds 5 --events 5000 --work build/next_content

Train, validation and test days follow one another; gate, re-ranker and shares are fitted before the first test day, and
then only memories go on. Every test day has equally many questions, the same for all methods and seeds. What a part has
found stays in the work folder, so that a run can be broken off, or shared between processes with `--part`:

    markov          single experts, static mixtures and nearest neighbours, which have no seed
    seed:K          the hybrid, its ablations (retrained ones for the first seeds only), and the network it listens to
    gru4rec:K, sasrec:K     sequence networks with streams of their own

Prints a table for each window, what the hybrid gains over each method, and where it loses; all rows are in results.json.
Head, torso and tail are strata of what came, so that a method which favours the popular does well in the head.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.next_content_table import tell
from models.counters import CounterStore
from models.events import DAY_US, HOUR_US, RequestLog
from models.next_content.ablations import RETRAINED, settings_of, without_gate, without_reranker
from models.next_content.baselines import NEIGHBOURS, baselines, fit_peers
from models.next_content.evaluation import Method, questions_of, score, windows_of
from models.next_content.hybrid_training import fit_hybrid
from models.next_content.lessons import Examples, Thinning, collect
from models.next_content.marking import marks_of_hybrid, marks_of_shares
from models.next_content.memory import StreamMemory
from models.next_content.predictor import NextContentPredictor
from models.next_content.scores import Marks, Scores, over_seeds
from models.next_content.sequence_method import SequenceMethod, fitted_shares, peer_memory
from models.next_content.settings import NextContentSettings
from models.next_content.stream import Questions, draw_questions, finish
from models.next_content.training import new_memory
from pipelines.coding import request_log
from pipelines.store import in_time_order

FEATURES = ("device_group", "os", "referrer")
COLUMNS = ["ts", "user", "session", "content", "location", *FEATURES]
STREAMED = ("gru4rec", "sasrec")
OURS = "hybrid"
MARKOV = ("popularity", "local_0.5h", "local_3h", "order1", "skip", "order2", "witten_bell", "linear", "evidence")
TIMED = 200
"""Questions asked one by one, to see what one costs."""


@dataclass(frozen=True)
class Setup:
    """What is measured."""

    requests: str
    start: str = "2017-10-01"
    train_days: float = 6.0
    validation_days: float = 2.0
    test_days: float = 4.0
    events: int = 3000
    lessons: int = 80_000
    validation_events: int = 12_000
    users: float = 1.0
    ablated_seeds: int = 2

    @property
    def edges_us(self) -> tuple[int, int, int, int]:
        """Start of train, of validation, of test, and the end."""
        start = int(np.datetime64(self.start, "us").astype(np.int64))
        days = np.cumsum([0.0, self.train_days, self.validation_days, self.test_days])
        begin, validation, test, end = (start + round(day * DAY_US) for day in days)
        return begin, validation, test, end

    @property
    def settings(self) -> NextContentSettings:
        return replace(NextContentSettings(), lesson_events=self.lessons, validation_events=self.validation_events)


class World:
    """The clicks, and the questions that every method gets."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.settings = setup.settings

    @cached_property
    def log(self) -> RequestLog:
        begin, _, _, end = self.setup.edges_us
        table = pq.read_table(self.setup.requests, columns=COLUMNS)
        ts = pc.cast(table["ts"], pa.int64())
        table = table.filter(pc.and_(pc.greater_equal(ts, begin), pc.less(ts, end)))
        if self.setup.users < 1.0:
            users, inverse = np.unique(table["user"].to_numpy(), return_inverse=True)
            kept = np.random.default_rng(0).random(len(users)) < self.setup.users
            table = table.filter(pa.array(kept[inverse]))
        log = request_log(in_time_order(table), FEATURES)
        return log.described(device=("device_group", "os"), arrival=("referrer",))

    @cached_property
    def questions(self) -> dict[str, Questions]:
        """Of lessons, validation and test."""
        begin, validation, test, end = self.setup.edges_us
        s, timeout_us = self.settings, CounterStore(self.settings.counters.plain).timeout_us
        first = max(begin, validation - round(s.lesson_hours * HOUR_US))
        drawn = {
            name: draw_questions(self.log, window=window, n=n, seed=0, timeout_us=timeout_us)
            for name, window, n in (
                ("lessons", (first, validation), s.lesson_events),
                ("validation", (validation, test), s.validation_events),
            )
        }
        days = windows_of((test, end), 24.0)
        asked, _ = questions_of(self.log, days, n_events=self.setup.events, seed=0, timeout_us=timeout_us)
        return {**drawn, "test": asked}

    def collected(self, memory: StreamMemory, *names: str) -> dict[str, Examples]:
        """Examples of some of the questions, from one stream."""
        s, fed, found = self.settings, None, {}
        for name in names:
            thinning = Thinning(s.kept, s.drawn, 0) if name == "lessons" else None
            questions = self.questions[name]
            found[name] = collect(memory, self.log, questions, limit=s.shortlist, fed=fed, thinning=thinning)
            fed = int(questions.rows[-1])
        return found

    def timed(self, method: Method, marks: Marks, memory: StreamMemory) -> Marks:
        """The marks with the process time of a question, asked one by one at the end of the stream."""
        sessions = self.questions["test"].sessions.rows(-TIMED, None)  # type: ignore[arg-type]
        sessions = replace(sessions, ts_us=np.full(len(sessions), memory.time_us))
        began = time.process_time()
        for i in range(len(sessions)):
            method.predict(sessions.rows(i, i + 1), k=20)
        took = 1000.0 * (time.process_time() - began) / max(len(sessions), 1)
        return replace(marks, milliseconds=np.array([took]))


# ---- parts


def markov(world: World) -> Scores:
    """Everything without a seed, asked during one stream."""
    train, validation, test, end = world.setup.edges_us
    log, s = world.log, world.settings
    memory = StreamMemory(CounterStore(s.counters.plain))
    before = log.before(test)
    held_out = world.collected(memory, "validation")["validation"]
    finish(memory, before, world.questions["validation"].rows)
    windows: dict[str, Any] = {"train": (train, validation), "validation": (validation, test)}
    methods: list[Method] = [
        *baselines(memory.store, held_out.lessons, s, which=MARKOV),
        *fit_peers(log, settings=s, which=NEIGHBOURS, **windows),
    ]
    return score(methods, log, start_us=test, end_us=end, n_events=world.setup.events, window_hours=24.0)


def hybrids(world: World, seed: int) -> dict[str, Marks]:
    """The hybrid, its ablations and its network alone, from one stream."""
    memory = new_memory(world.settings, seed=seed)
    found = world.collected(memory, "lessons", "validation", "test")
    taught, held_out, asked = (found[name] for name in ("lessons", "validation", "test"))
    hybrid, _ = fit_hybrid(taught, held_out, settings=world.settings, seed=seed)
    predictor = NextContentPredictor(OURS, memory, hybrid, world.settings)
    shares = fitted_shares(held_out)
    gru = SequenceMethod("gru", memory, shares, limit=world.settings.shortlist)
    marks = {
        OURS: world.timed(predictor, marks_of_hybrid(hybrid, asked), memory),
        "gru": world.timed(gru, marks_of_shares(shares, asked), memory),
        "without_reranker": marks_of_hybrid(without_reranker(hybrid), asked),
        "without_gate": marks_of_hybrid(without_gate(hybrid), asked),
    }
    for name in RETRAINED if seed < world.setup.ablated_seeds else ():
        bare, _ = fit_hybrid(taught, held_out, settings=settings_of(name, world.settings), seed=seed)
        marks[name] = marks_of_hybrid(bare, asked)
    return marks


def network(world: World, name: str, seed: int) -> dict[str, Marks]:
    """A sequence network with a stream of its own."""
    memory = peer_memory(name, world.settings, seed=seed)
    found = world.collected(memory, "validation", "test")
    shares = fitted_shares(found["validation"])
    method = SequenceMethod(name, memory, shares, limit=world.settings.shortlist)
    return {name: world.timed(method, marks_of_shares(shares, found["test"]), memory)}


# ---- keeping


def run_part(world: World, part: str, folder: Path) -> None:
    """Measures a part and keeps it, unless that was done."""
    path = folder / f"{part.replace(':', '_')}.npz"
    if path.exists():
        return
    _ = world.questions  # read the clicks outside of the clock
    began = time.process_time()
    kind, _, seed = part.partition(":")
    arrays: dict[str, Any] = {}
    if kind == "markov":
        scores = markov(world)
        marks: Mapping[str, Marks] = scores.marks
        arrays |= {f"window|{name}": inside for name, inside in scores.windows.items()}
        arrays |= {f"stratum|{name}": inside for name, inside in scores.strata.items()} | {"hour": scores.hour}
    else:
        marks = hybrids(world, int(seed)) if kind == "seed" else network(world, kind, int(seed))
    for name, mark in marks.items():
        arrays |= {f"mark|{name}|{key}": value for key, value in vars(mark).items() if value is not None}
    arrays["cpu_seconds"] = np.array(time.process_time() - began)
    unfinished = path.with_suffix(f".{os.getpid()}.npz")
    np.savez(unfinished, **arrays)
    unfinished.rename(path)
    print(f"{part}: {float(arrays['cpu_seconds']):.0f} s of processor time", file=sys.stderr)


def kept_marks(arrays: Mapping[str, Any]) -> dict[str, Marks]:
    """Marks of every method of a part."""
    names = dict.fromkeys(key.split("|")[1] for key in arrays if key.startswith("mark|"))
    fields = ("rank", "nats", "top", "listed", "milliseconds")
    return {name: Marks(*(arrays.get(f"mark|{name}|{key}") for key in fields)) for name in names}  # type: ignore[arg-type]


def kept_scores(folder: Path, seeds: int) -> tuple[list[Scores], dict[str, float]]:
    """All parts together, then the hybrid and its retrained ablations on their seeds; processor time by part."""
    parts = {path.stem: dict(np.load(path)) for path in sorted(folder.glob("*.npz"))}
    base = parts["markov"]

    def named(kind: str) -> dict[str, Any]:
        return {key.partition("|")[2]: value for key, value in base.items() if key.startswith(f"{kind}|")}

    questions = Scores(named("window"), base["hour"], named("stratum"), kept_marks(base))
    marks = [
        {
            name: mark
            for kind in ("seed", *STREAMED)
            for name, mark in kept_marks(parts.get(f"{kind}_{seed}", {})).items()
        }
        for seed in range(seeds)
    ]
    whole = [
        questions.with_marks({name: mark for name, mark in of_seed.items() if name not in (*RETRAINED, *STREAMED)})
        for of_seed in marks
    ]
    # Streams of their own and retraining are dear: where they have fewer seeds, so has the hybrid beside them.
    fewer = [
        [
            replace(questions, marks={n: of_seed[n] for n in (OURS, *names)})
            for of_seed in marks
            if of_seed.keys() >= {*names}
        ]
        for names in (*((name,) for name in STREAMED), tuple(RETRAINED))
    ]
    compared = [over_seeds(part) for part in (whole, *fewer) if part]
    return compared, {name: float(arrays["cpu_seconds"]) for name, arrays in parts.items()}


# ---- telling


def report(setup: Setup, folder: Path, seeds: int) -> str:
    """Writes results.json; returns the tables."""
    compared, seconds = kept_scores(folder, seeds)
    rows = compared[0].rows() + [row for scores in compared[1:] for row in scores.rows() if row["model"] != OURS]
    gains = [
        gain for scores in compared for other in scores.marks if other != OURS for gain in scores.gains(OURS, other)
    ]
    result = {
        "setup": vars(setup) | {"requests": Path(setup.requests).name, "seeds": seeds},
        "cpu_seconds": seconds,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("numpy", "numba", "torch")},
        "rows": rows,
        "gains": gains,
    }
    (folder / "results.json").write_text(json.dumps(result, indent=1))
    return tell(rows, gains)


def parse(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = Path(os.environ.get("PREMIRROR_REAL_DATA") or Path(__file__).parents[1] / "../shared/data")
    kept = Path(tempfile.gettempdir()) / "premirror_next_content"
    parser.add_argument("--data", type=Path, default=folder / "news_clicks/requests.parquet", help="Parquet of clicks")
    parser.add_argument("--work", type=Path, default=kept, help="folder for what is found")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--part", action="append", help="measure this part only, without a report; may be repeated")
    for name, value in vars(Setup("")).items():
        if name != "requests":
            parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    options = parse(given)
    if not options.data.exists():
        print(f"There are no clicks at {options.data}; set PREMIRROR_REAL_DATA or --data. Nothing was measured.")
        return
    names = [name for name in vars(Setup("")) if name != "requests"]
    setup = Setup(str(options.data.resolve()), **{name: getattr(options, name) for name in names})
    options.work.mkdir(parents=True, exist_ok=True)
    noted, text = options.work / "setup.json", json.dumps(vars(setup))
    if noted.exists() and noted.read_text() != text:
        raise SystemExit(f"{options.work} holds another measurement, {noted.read_text()}; give another --work.")
    noted.write_text(text)
    parts = ["markov", *(f"{kind}:{k}" for k in range(options.seeds) for kind in ("seed", *STREAMED))]
    world = World(setup)
    for part in options.part or parts:
        if part not in parts:
            raise SystemExit(f"There is no part {part!r}; there are {', '.join(parts)}.")
        run_part(world, part, options.work)
    if not options.part:
        print(report(setup, options.work, options.seeds))


if __name__ == "__main__":
    main()
