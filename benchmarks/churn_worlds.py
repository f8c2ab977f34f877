"""Two measured fleets as the churn benchmark sees them: volunteers' relays, and phones that charge on Wi-Fi.

    relays    one split in time, with 48 h between choosing and testing; the test window is judged as a whole and in
              thirds. The windows of the two stages mirror each other
    phones    five folds by a hash of the node: three train, one chooses, one is tested, so that every phone is scored
              once, by methods that never saw it. All phones lived at the same time; those that choose are moved four
              whole weeks later, which keeps the hour of the week and makes two windows of the two sets

What must not be known is not given. The place of a relay was looked up later, and mostly for those still there: nearly
no relay that left within hours has one. It names strata, and every relay is a network of its own. The class is the exit
flag at the first sighting; the guard flag is earned by staying and is left out.

Tables are found in ../shared/data beside the repository, or in PREMIRROR_REAL_DATA.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.churn.history import UNKNOWN, SessionHistory
from models.churn.settings import ALWAYS_ON_EDGES_HOURS, ChurnSettings
from models.events import DAY_US, Int64

Stage = Literal["development", "final"]
Window = tuple[int, int]
PHONE_EDGES_HOURS = (5 / 60, 0.25, 0.5, 1.0, 2.0, 4.0)
FOLDS = 5
SECOND_US = 1_000_000
INSTANT = pa.timestamp("us", tz="UTC")
_SHIFT_US = 28 * DAY_US
_BURN_IN_US = DAY_US
_RELAY_WINDOWS: dict[str, tuple[str, str, str, str, str]] = {
    "development": ("2025-12-14", "2026-03-01", "2026-03-17", "2026-03-19", "2026-04-29"),
    "final": ("2025-12-14", "2026-04-15", "2026-05-01", "2026-05-03", "2026-06-13"),
}
_DEVELOPED_UNTIL = "2026-05-01"
"""While methods are developed nothing from here on is read."""


def instant_us(text: str) -> int:
    return int(np.datetime64(text, "us").astype(np.int64))


def real_data() -> Path:
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    return Path(os.environ.get("PREMIRROR_REAL_DATA") or beside)


@dataclass(frozen=True)
class Fold:
    """One split: what is trained on, and what is tested.

    Attributes:
        trained: history of the nodes that train and choose.
        train: window of training in it.
        validation: window in which weights and calibration are chosen.
        tested: history of the whole fleet, in which a node that was held out is one among others.
        test: window of the test origins.
        nodes: index of each node of `tested` that is scored.
    """

    trained: SessionHistory
    train: Window
    validation: Window
    tested: SessionHistory
    test: Window
    nodes: Int64


@dataclass(frozen=True)
class ChurnWorld:
    """A fleet with its splits.

    Attributes:
        name: "relays" or "phones".
        history: every node, by which strata are told apart.
        folds: the splits.
        settings: edges and training settings of all methods.
        every_hours: spacing of the test origins.
        windows: parts of the test window that are also judged alone, by name.
        trained_until_us: nodes first seen later were never seen in training; absent where no tested node was.
        machines: what is measured, for a reader.
    """

    name: str
    history: SessionHistory
    folds: tuple[Fold, ...]
    settings: ChurnSettings
    every_hours: float
    windows: dict[str, Window]
    trained_until_us: int | None
    machines: str


def relays_world(stage: Stage, *, every_hours: float = 31.0) -> ChurnWorld:
    """All relays, trained on what came first and tested on what came later."""
    train_us, choose_us, chosen_us, test_us, end_us = relay_windows(stage)
    history = relay_history(until_us=instant_us(_DEVELOPED_UNTIL) if stage == "development" else None)
    seen = without_places(history)
    third = (end_us - test_us) // 3
    return ChurnWorld(
        "relays",
        history,
        (
            Fold(
                seen,
                (train_us, choose_us),
                (choose_us, chosen_us),
                seen,
                (test_us, end_us),
                np.arange(len(history)),
            ),
        ),
        ChurnSettings(edges_hours=ALWAYS_ON_EDGES_HOURS),
        every_hours,
        {f"third {k + 1}": (test_us + k * third, test_us + (k + 1) * third) for k in range(3)},
        chosen_us,
        "relays run by volunteers, seen about hourly",
    )


def without_places(history: SessionHistory) -> SessionHistory:
    """What a model may see: places were looked up later, mostly for relays that had stayed, and name strata only."""
    return replace(history, location=np.full(len(history), UNKNOWN, dtype=object))


def relay_windows(stage: Stage) -> tuple[int, ...]:
    """Training from, choosing from and until, testing from and until."""
    return tuple(instant_us(text) for text in _RELAY_WINDOWS[stage])


def relay_history(*, until_us: int | None = None) -> SessionHistory:
    """Sessions of every relay that was seen before `until_us`, as known then."""
    table = pq.read_table(real_data() / "relay_availability" / "sessions.parquet")
    if until_us is not None:
        table = table.filter(pc.less(table["start"], pa.scalar(until_us, INSTANT)))
    table = table.sort_by([("node", "ascending"), ("start", "ascending")])
    first = table.take(np.unique(np.asarray(table["node"].to_pylist(), dtype=str), return_index=True)[1])
    nodes = pa.table(
        {
            "source": first["node"],
            "device_class": np.where(first["is_exit"].to_numpy(), "exit relay", "relay").tolist(),
            "network": first["node"],
            "location": first["country"],
        }
    )
    history = SessionHistory.from_arrow(table.select(["node", "start", "end", "end_upper", "censored"]), nodes)
    return history if until_us is None else history.before(until_us)


def phones_world(*, every_hours: float = 0.27) -> ChurnWorld:
    """All phones, each scored in the fold that held it out; most windows are minutes, so origins are as dense."""
    history = phone_history()
    fold_of = np.array([_fold(str(node)) for node in history.nodes])
    until_us = int(history.observed_until_us.max())
    window = (int(history.observed_from_us.min()) + _BURN_IN_US, until_us)
    folds = tuple(_phone_fold(history, fold_of, k, window) for k in range(FOLDS))
    settings = ChurnSettings(
        edges_hours=PHONE_EDGES_HOURS,
        origin_every_hours=0.3,
        maximum_origins=800,
        boosting_least_rows=200,
        boosting_leaves=8,
    )
    return ChurnWorld(
        "phones", history, folds, settings, every_hours, {}, None, "smartphones charging on Wi-Fi, in use by volunteers"
    )


def phone_history() -> SessionHistory:
    """Every phone, observed for the days of its own trace; each is a network of its own."""
    table = pq.read_table(real_data() / "phone_availability" / "sessions.parquet").to_pandas()
    for column in ("start", "end", "trace_start", "trace_end"):
        table[column] = (table[column] * SECOND_US).round().astype("int64")
    listed = table.groupby("node").agg(available_at=("trace_start", "min"), observed_until=("trace_end", "max"))
    nodes = pa.table(
        {
            "source": listed.index.tolist(),
            "network": listed.index.tolist(),
            "device_class": ["phone"] * len(listed),
            "available_at": pa.array(listed["available_at"].to_numpy(), INSTANT),
            "observed_until": pa.array(listed["observed_until"].to_numpy(), INSTANT),
        }
    )
    return SessionHistory.from_arrow(_session_table(table), nodes)


def _session_table(table: pd.DataFrame) -> pa.Table:
    return pa.table(
        {
            "node": table["node"].tolist(),
            "start": pa.array(table["start"].to_numpy(), INSTANT),
            "end": pa.array(table["end"].to_numpy(), INSTANT),
            "censored": pa.array(table["censored"].tolist()),
        }
    )


def _fold(node: str) -> int:
    return int.from_bytes(blake2b(node.encode(), digest_size=8).digest(), "big") % FOLDS


def _phone_fold(history: SessionHistory, fold_of: Int64, tested: int, window: Window) -> Fold:
    choosing = fold_of == (tested + 1) % FOLDS
    held_out = fold_of == tested
    kept = history.select(history.nodes[~held_out])
    later = choosing[~held_out]
    return Fold(
        _moved(kept, np.where(later, _SHIFT_US, 0)),
        window,
        (window[0] + _SHIFT_US, window[1] + _SHIFT_US),
        history,
        window,
        np.flatnonzero(held_out),
    )


def _moved(history: SessionHistory, by_us: Int64) -> SessionHistory:
    """The same nodes, each living `by_us` later. (n,)"""
    session = by_us[history.node_of_session]
    return replace(
        history,
        observed_from_us=history.observed_from_us + by_us,
        observed_until_us=history.observed_until_us + by_us,
        start_us=history.start_us + session,
        end_us=history.end_us + session,
        end_upper_us=history.end_upper_us + session,
    )
