"""Two finished replays side by side: what differs in how they were made, and what that changed, paired hour by hour.

Differences have intervals only where both played the same requests in the same hours; otherwise the page says why not and
shows both columns.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from models.changes import Change, State
from models.quantities import Estimate
from pipelines.errors import InputError
from pipelines.home import Home
from pipelines.intervals import share_difference, sum_difference
from pipelines.report_data import MethodRow, Place, ReportData
from pipelines.saved_report import find_replay, read_replay, write_beside
from pipelines.staging import staged_folder

PAGE, VALUES = "compare.html", "compare.json"
SEED = 0
SHARE, COST = "Kept off the CDN, net", "Cost"

Kind = Literal["share", "money"]


@dataclass(frozen=True)
class Comparison:
    """Run A and run B, with their ids."""

    ids: tuple[str, str]
    runs: tuple[ReportData, ReportData]

    @cached_property
    def unpaired(self) -> tuple[str, ...]:
        """Why hours cannot be paired, a sentence each; empty where they can."""
        a, b = self.runs
        old = [
            f"{run_id} was saved by an older version, without figures by hour; run that replay again."
            for run_id, run in zip(self.ids, self.runs, strict=True)
            if any(method.hourly is None for method in run.methods)
        ]
        other = []
        if a.repeat.data_hash != b.repeat.data_hash:
            other.append(f"They replayed other data: {a.repeat.data_hash[:12]} and {b.repeat.data_hash[:12]}.")
        windows = [run.settings.get("window", "unknown") for run in self.runs]
        if windows[0] != windows[1]:
            other.append(f"They replayed other windows: {_plain(windows[0])} and {_plain(windows[1])}.")
        if not old and not other and not self._same_hours():
            other.append("The requests of their hours differ, although data and window are the same.")
        return (*old, *other)

    @property
    def methods(self) -> list[tuple[MethodRow | None, MethodRow | None]]:
        """Rows of the same name side by side: B's in their order, then those that A alone has."""
        a, b = ({_key(m): m for m in run.methods} for run in self.runs)
        return [(a.get(key), b.get(key)) for key in [*b, *(key for key in a if key not in b)]]

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """Differences of every method that both runs have; none where hours cannot be paired."""
        if self.unpaired:
            return ()
        both = [(a, b) for a, b in self.methods if a is not None and b is not None]
        shares = [_change(SHARE, "share", a, b) for a, b in both if a.role != "reference"]
        return (*shares, *(_change(COST, "money", a, b) for a, b in both))

    @property
    def ours(self) -> tuple[MethodRow | None, MethodRow | None]:
        """The method that each run reports on."""
        return self.runs[0].method("ours"), self.runs[1].method("ours")

    @property
    def settings(self) -> list[tuple[str, str, str]]:
        """(key, value in A, value in B) of everything about the runs that differs."""
        facts = [_facts(run) for run in self.runs]
        keys = [*facts[0], *(key for key in facts[1] if key not in facts[0])]
        rows = [(key, facts[0].get(key, ""), facts[1].get(key, "")) for key in keys]
        return [row for row in rows if row[1] != row[2]]

    @property
    def places(self) -> list[tuple[Place, Place]]:
        """Places shown in both, by how much more B saves there than A, best first; none where hours are not paired."""
        if self.unpaired:
            return []
        before = {place.name: place for place in self.runs[0].shown_places}
        pairs = [(before[p.name], p) for p in self.runs[1].shown_places if p.name in before]
        known = [(a, b) for a, b in pairs if a.saved is not None and b.saved is not None]
        return sorted(known, key=lambda pair: -saved_more(*pair))

    def _same_hours(self) -> bool:
        a, b = (run.methods[0].hourly if run.methods else None for run in self.runs)
        return a is not None and b is not None and a.same_hours(b)


def saved_more(before: Place, after: Place) -> float:
    """Money that the second saved more than the first."""
    return (after.saved or 0.0) - (before.saved or 0.0)


def _key(method: MethodRow) -> str:
    return method.key or method.name


def _change(group: str, kind: Kind, a: MethodRow, b: MethodRow) -> Change:
    assert a.hourly is not None
    assert b.hourly is not None
    if kind == "share":
        one, two = a.net_avoided_share.value, b.net_avoided_share.value
        found = share_difference((a.hourly.net, a.hourly.requested), (b.hourly.net, b.hourly.requested), seed=SEED)
    else:
        one, two = a.cost, b.cost
        found = sum_difference(a.hourly.money, b.hourly.money, seed=SEED)
    higher = kind == "share"
    return Change(group, b.name, kind, one, two, found, higher, _state(found, higher_is_better=higher))


def _state(difference: Estimate, *, higher_is_better: bool) -> State:
    if difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        return "unclear"
    return "better" if (difference.low > 0) == higher_is_better else "worse"


def _facts(run: ReportData) -> dict[str, str]:
    """Everything about a run that two may differ in, in the order shown."""
    return {
        "data": run.repeat.data_hash,
        "code": run.repeat.code_commit,
        **dict(run.repeat.facts),
        **{key: _plain(value) for key, value in run.settings.items()},
    }


def _plain(value: str) -> str:
    """A saved setting as it reads in a configuration file."""
    try:
        found = json.loads(value)
    except ValueError:
        return value
    if isinstance(found, list):
        return ", ".join(str(item) for item in found)
    return "null" if found is None else str(found)


def compare_step(one: str, other: str, home: Home) -> tuple[dict[str, Any], str]:
    """Writes the page that compares two replays, named by id or `latest`.

    Raises:
        InputError: a replay does not exist or is damaged; both are named at once.
    """
    from pipelines.compare_page import comparison_text, render_comparison

    found = _read_both((one, other), home)
    folder = home.reports / f"compare-{found.ids[0]}-{found.ids[1]}"
    value = {"id": folder.name, "report": str(folder / PAGE), **_values(found)}
    page = render_comparison(found)
    with staged_folder(folder) as staging:
        write_beside(staging / PAGE, page)
        write_beside(staging / VALUES, json.dumps(value, indent=1) + "\n")
    return value, f"{comparison_text(found)}\nReport: {folder / PAGE}"


def _read_both(names: tuple[str, str], home: Home) -> Comparison:
    folders, runs, mistakes = [], [], []
    for name in names:
        try:
            folder = find_replay(name, home)
            runs.append(read_replay(folder))
            folders.append(folder.name)
        except InputError as error:
            mistakes.append(str(error))
    if mistakes:
        raise InputError.listing("the replays to compare", list(dict.fromkeys(mistakes)))
    return Comparison((folders[0], folders[1]), (runs[0], runs[1]))


def _values(found: Comparison) -> dict[str, Any]:
    estimate: Callable[[Estimate], list[float | None]] = lambda e: [e.value, e.low, e.high]  # noqa: E731
    return {
        "a": found.ids[0],
        "b": found.ids[1],
        "paired": not found.unpaired,
        "why_not_paired": list(found.unpaired),
        "settings": [{"key": key, "a": a, "b": b} for key, a, b in found.settings],
        "changes": [
            {
                "outcome": c.group,
                "method": c.outcome,
                "a": c.champion,
                "b": c.candidate,
                "difference": estimate(c.difference),
                "verdict": c.state,
            }
            for c in found.changes
        ],
        "places": [{"place": a.name, "a_saved": a.saved, "b_saved": b.saved} for a, b in found.places],
    }
