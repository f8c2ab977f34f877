"""The benchmark of placement runs, its methods keep every limit, and its local search finds what a swap can win."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.placement import TOY, Row, main, measure, table
from benchmarks.placement_methods import METHODS, WHOLE, cost_of
from benchmarks.placement_pruning import groups_of, nearest_candidates, prunings
from benchmarks.swap_search import SwapSettings, search_swaps
from pipelines.config import load
from pipelines.jobs import iso
from pipelines.rebalance import Asked, rebalance_step
from placement.copies import Copies, within_limits
from placement.greedy import place_greedily
from placement.instances import InstanceSettings, random_instance
from placement.relaxation import relax
from tests.conftest import QUIET
from tests.pipelines.hand_plan import PLANNED_US, hand_home
from tests.placement.tiny import hand_problem

SMALL = InstanceSettings(segments=60, locations=4, nodes=12)


def test_main__one_row_for_each_method(capsys: pytest.CaptureFixture[str]) -> None:
    """Each method answers from a process of its own, and no cost is below what is proven."""
    main(["--sizes", "toy", "--seeds", "11", "--methods", "keep", "pdlp", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in answer["rows"]] == ["keep", "pdlp"]
    assert "OR-Tools" in answer["machine"]
    for row in answer["rows"]:
        assert row["above"] >= 0
        assert row["peak_mib"] > 50
    assert 0 <= answer["rows"][1]["gap"] < 0.1


def test_main__a_plan_is_one_more_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it was before the plan's moves: the copy that it pushed is not held, serves for 80 m$ once pushed, else 220."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    hand = hand_home(tmp_path, [("a", "n0")])
    events = tmp_path / "events.jsonl"
    events.write_text(json.dumps({"at": iso(PLANNED_US + 1), "kind": "failed", "source": "n0"}), encoding="utf-8")
    rebalance_step(load("placement", hand.config, []), hand.home, QUIET, Asked(events))
    main(["--plan", str(hand.home.plans / "current"), "--methods", "keep", "greedy", "ours", "highs", "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["method"]: row["cost"] for row in rows} == pytest.approx(
        {"keep": 220, "greedy": 80, "ours": 80, "highs": 80}
    )
    assert {(row["size"], row["seed"]) for row in rows} == {("plan", 11)}
    with pytest.raises(SystemExit, match="holds no readable result"):
        main(["--plan", str(tmp_path)])
    with pytest.raises(SystemExit):
        main(["--plan", str(tmp_path), "--pruning"])
    assert "--pruning narrows random instances alone" in capsys.readouterr().err


@pytest.mark.parametrize("method", list(METHODS))
def test_measure__every_method_places(method: str) -> None:
    """Costs lie between the proven bound and serving everything from the POP; only bounds that hold are told."""
    row, proven = measure(method, "toy", 12, 5.0), measure("pdlp", "toy", 12, 5.0).bound
    problem = random_instance(TOY, seed=12)
    nothing = Copies(np.zeros(0, np.int32), np.zeros(0, np.int32))
    assert row.cost is not None
    assert proven <= row.cost * (1 + 1e-9)
    assert row.bound <= row.cost * (1 + 1e-6)
    if method not in ("top-k", "popularity"):  # rules that drop free copies may do worse than nothing
        assert row.cost <= cost_of(problem, nothing)
    if method in WHOLE and method != "cp-sat":
        assert row.bound > 0


def test_table__says_what_did_not_answer() -> None:
    """A method without an answer has a line, too."""
    rows = [
        Row("xs", 11, "a", 110.0, 100.0, 1.0, 1.0, 200.0, above=0.1),
        Row("xs", 12, "a", None, 0.0, 9.0, 0.0, 0.0),
        Row("xs", 11, "b", None, 0.0, 9.0, 0.0, 0.0),
    ]
    lines = table(rows).splitlines()[3:]
    assert lines[0].startswith("| xs | a | 1 of 2 | 10.00% (10.00%) | 9.09% |")
    assert lines[1].startswith("| xs | b | 0 of 1 | no answer | - |")


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_search_swaps__never_worse_and_within_limits(seed: int) -> None:
    """Each accepted swap lowers the cost of flows in hand, so the exact cost falls at least as far."""
    problem = random_instance(SMALL, seed=seed)
    start = place_greedily(problem)
    report = search_swaps(problem, start)
    assert len(within_limits(problem, report.copies).segment) == len(report.copies.segment)
    assert cost_of(problem, report.copies) <= cost_of(problem, start) - report.saved + 1e-3
    assert report.swaps == 0 or report.saved > 0


def test_search_swaps__by_hand() -> None:
    """The node has room for one segment and holds b, which saves 16 m$; a saves 160 and costs a push of 20, as b's does."""
    problem = hand_problem()
    small = replace(problem.sources, storage_bytes=np.array([100 * 10**9, 10**9]))
    problem = replace(problem, sources=small)
    held = Copies(np.array([1], np.int32), np.array([1], np.int32))
    report = search_swaps(problem, held)
    assert (report.copies.segment.tolist(), report.swaps) == ([0], 1)
    assert report.saved == pytest.approx(160.0 - 16.0, rel=1e-6)


def test_search_swaps__stops_when_its_work_is_spent() -> None:
    """The limit on knapsacks ends the search early, with valid copies."""
    problem = random_instance(SMALL, seed=11)
    report = search_swaps(problem, place_greedily(problem), SwapSettings(evaluations=5, evaluations_per_node=3))
    assert report.evaluations <= 5 + 3


def test_nearest_candidates__all_pops_and_so_many_nodes() -> None:
    """Narrower reach only takes nodes away."""
    problem = random_instance(SMALL, seed=11)
    narrow = nearest_candidates(problem, 3)
    assert (narrow.reach[:, ~problem.is_pop].sum(axis=1) <= 3).all()
    assert (narrow.reach <= problem.reach).all()
    assert (narrow.reach[:, problem.is_pop] == problem.reach[:, problem.is_pop]).all()


def test_groups_of__every_segment_and_node_once() -> None:
    """Groups share the POPs and nothing else; their movement budgets add up to at most the whole's."""
    problem = random_instance(SMALL, seed=11)
    parts = groups_of(problem, 3)
    assert sum(len(part.segments) for part in parts) == 60
    assert sum(int((~part.is_pop).sum()) for part in parts) == 12
    assert sum(len(part.demand) for part in parts) == len(problem.demand)
    assert sum(part.movement_limit_bytes for part in parts) <= problem.movement_limit_bytes
    assert sum(len(relax(part).columns.arc_row) for part in parts) < len(relax(problem).columns.arc_row)


def test_prunings__narrow_plans_are_priced_on_the_full_graph() -> None:
    """No narrow plan costs less than the full graph's bound."""
    rows = prunings("toy", TOY, 11)
    assert [row.graph for row in rows] == [
        "full",
        "start 2",
        "start 4",
        "start 8",
        "nearest 6",
        "nearest 16",
        "4 groups",
    ]
    assert all(row.cost >= rows[0].bound * (1 - 1e-9) for row in rows)
    assert rows[6].candidates < rows[0].candidates
    assert "4 groups" in str(rows[6])
