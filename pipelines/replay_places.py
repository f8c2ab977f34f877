"""The places of a finished backtest: what the mesh did for each, and whether the stop-loss would go on with it."""

from __future__ import annotations

from models.quantities import format_instant
from pipelines.config import ReplayRun, microseconds
from pipelines.contest import Result
from pipelines.home import Home
from pipelines.replay import Backtest
from pipelines.report_data import Place
from pipelines.store import read_requests
from placement.stop_loss import StopLossSettings, StopLossVerdicts, judge_locations
from placement.tally import HOUR_US


def users_by_place(home: Home, done: Backtest) -> dict[str, int]:
    """Distinct users of each place in the window."""
    start_us, end_us = (microseconds(t) for t in done.run.window)
    table = read_requests(
        home.tables(done.run.tables), start_us=start_us, before_us=end_us, columns=["location", "user"]
    )
    counted = table.group_by("location").aggregate([("user", "count_distinct")])
    return {str(row["location"]): int(row["user_count_distinct"]) for row in counted.to_pylist()}


def judged_places(done: Backtest, result: Result, users: dict[str, int]) -> tuple[Place, ...]:
    """Every place with requests, with its verdict; flagged where mirroring is off or has cost more than it saved."""
    scene, tally = done.arena.scene, result.tally
    by_place = tally.tier_bytes.sum(axis=0)
    total = by_place.sum(axis=1)
    verdicts = judge_locations(tally.net_saving(), done.run.stop_loss or StopLossSettings())
    places = []
    for i in range(len(scene.locations)):
        if total[i] <= 0:
            continue
        loses = bool(verdicts.saved[i] < 0)
        places.append(
            Place(
                name=str(scene.names[i]),
                latitude=float(scene.location_lat[i]),
                longitude=float(scene.location_lon[i]),
                bytes=float(total[i]),
                node_share=float(by_place[i, 1:].sum() / total[i]),
                users=users.get(str(scene.locations[i]), 0),
                note="mirroring costs more than it saves here" if loses else "",
                flagged=loses or not bool(verdicts.on_next[i]),
                saved=float(verdicts.saved[i]),
                saved_with_stop_loss=None if done.run.stop_loss else float(verdicts.saved_with[i]),
                verdict=verdict_words(verdicts, i, start_hour_us=tally.start_hour_us),
            )
        )
    return tuple(places)


def verdict_words(verdicts: StopLossVerdicts, location: int, *, start_hour_us: int) -> str:
    """`on`, `off since 7 March 2026, 06:00 UTC`, or `on, was off for 24 of 96 h`."""
    on = verdicts.on[:, location]
    hours_off = int(verdicts.hours_off[location])
    if not verdicts.on_next[location]:
        since = len(on)
        while since > 0 and not on[since - 1]:
            since -= 1
        return f"off since {format_instant(start_hour_us + since * HOUR_US)}"
    return f"on, was off for {hours_off} of {len(on)} h" if hours_off else "on"


def stop_loss_sentence(run: ReplayRun) -> str:
    """The rule in words, and whether the run obeyed it."""
    rule = run.stop_loss or StopLossSettings()
    acted = (
        "The replay obeyed it: nothing was pushed to a place that was off."
        if run.stop_loss
        else "The replay did not obey it: set stop_loss to try."
    )
    return (
        f"Stop-loss: a place is off where its net saving over the last {rule.window_hours} h is below zero, and is tried "
        f"again {rule.retest_after_hours} h later. {acted}"
    )
