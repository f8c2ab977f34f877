"""The placement job: a checked plan for every window, never an older one, never half of one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipelines.place
from models.events import DAY_US, HOUR_US
from pipelines.errors import InputError, PipelineError, TryLater
from pipelines.forecast import forecast_step
from pipelines.jobs import iso, only_one
from pipelines.place import current_plan, place_step, route_step
from pipelines.plan_problem import PROBLEM_TABLES
from pipelines.plan_state import STATE, read_state
from pipelines.rebalance import Asked, rebalance_step
from pipelines.scene import read_scene
from placement.bound import Prices
from placement.errors import RoutingError
from placement.plan import Plan
from placement.problem import PlacementProblem
from placement.solve import solve
from tests.conftest import END_US, QUIET, TinyHome


@pytest.fixture
def forecasted(operated_home: TinyHome) -> TinyHome:
    """A home with champions and a forecast for the end of the data."""
    forecast_step(operated_home.config("placement"), operated_home.home, QUIET, at="")
    return operated_home


def place(tiny: TinyHome, *assignments: str, at: str = "", dry_run: bool = False) -> dict[str, Any]:
    return place_step(tiny.config("placement", *assignments), tiny.home, QUIET, at=at, dry_run=dry_run)[0]


def plans(tiny: TinyHome) -> list[str]:
    return sorted(p.name for p in tiny.home.plans.glob("*") if not p.is_symlink())


def test_place__publishes_a_plan_whose_checksums_match(forecasted: TinyHome) -> None:
    """Tables, the problem that they answer, a manifest with the inputs, and `current` pointing at them."""
    value = place(forecasted)
    current = current_plan(forecasted.home)
    assert current is not None
    assert current.folder.name == value["id"]
    names = {"placements", "routes", "sources", "paths", "ranked", "prices", *PROBLEM_TABLES}
    assert set(current.manifest["checksums"]) == {f"{name}.parquet" for name in names} | {STATE}
    for name, checksum in current.manifest["checksums"].items():
        assert hashlib.sha256((current.folder / name).read_bytes()).hexdigest() == checksum
    assert value["versions"] == {"churn": "1", "demand": "1"}
    assert value["quality"] == "good"
    assert value["copies"] > 0
    assert 0 < value["bytes_to_move"] <= value["movement_budget_bytes"]
    assert value["bound_millidollars"] <= value["objective_millidollars"] + 1e-6


def test_place__says_what_scenarios_come_to(forecasted: TinyHome) -> None:
    """Both figures, of the plan and of the plan for the mean, in the manifest and in the summary; none without scenarios."""
    config = forecasted.config("placement", "planning.placement.scenarios=4", "planning.placement.neighbourhoods=0")
    value, text = place_step(config, forecasted.home, QUIET, at="", dry_run=True)
    assert value["risk"]["scenarios"] == 4
    assert value["risk"]["expected_cost"] > 0
    assert "In 4 drawn scenarios: " in text
    assert place(forecasted, "planning.placement.neighbourhoods=0", dry_run=True)["risk"] is None


def test_place__keeps_within_every_nodes_storage_and_consent(forecasted: TinyHome) -> None:
    """Looked at from the written tables, without the checker's help."""
    place(forecasted)
    current = current_plan(forecasted.home)
    assert current is not None
    scene = read_scene(forecasted.tables)
    copies = current.table("placements").to_pandas()
    code = scene.source_codes(copies["source"].to_numpy(dtype=object))
    used = np.bincount(code, copies["bytes"], len(scene.source))
    assert (used <= scene.storage_bytes).all()
    assert (scene.consent_until_us[code] >= END_US + 6 * 3_600_000_000).all()
    assert set(copies["tier"]) <= {2, 3}
    ranked = current.table("ranked").to_pandas()
    assert (ranked.groupby(["content", "segment", "location"])["score"].diff().dropna() <= 0).all()


def test_place__a_second_run_has_nothing_to_do(forecasted: TinyHome) -> None:
    """The same forecast and settings under the plan that answers them: no-op, and it says so."""
    first = place(forecasted)
    settings = forecasted.config("placement")
    again, text = place_step(settings, forecasted.home, QUIET, at="", dry_run=False)
    assert (first["changed"], again["changed"], again["id"]) == (True, False, first["id"])
    assert "nothing to do" in text
    assert plans(forecasted) == [".lock", first["id"]]


def test_place__an_unchanged_world_moves_nothing(forecasted: TinyHome) -> None:
    """Another seed is another job, but the same copies are as good as they were."""
    first = place(forecasted)
    again = place(forecasted, "routing.tie_tolerance=0.02")
    assert again["id"] != first["id"]
    assert again["bytes_to_move"] == 0
    assert again["kept_bytes"] == first["added_bytes"]


def test_place__starts_its_search_from_the_prices_in_force(
    forecasted: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None at first; then those beside the plan in force, by source, which prove as much as a search from nothing."""
    starts: list[Prices | None] = []

    def spied(problem: PlacementProblem, *, seed: int, start: Prices | None) -> Plan:
        starts.append(start)
        return solve(problem, seed=seed, start=start)

    monkeypatch.setattr(pipelines.place, "solve", spied)
    place(forecasted)
    warm = place(forecasted, "seed=1", dry_run=True)
    current = current_plan(forecasted.home)
    assert current is not None
    (current.folder / "prices.parquet").write_bytes(b"damaged")
    cold = place(forecasted, "seed=1", dry_run=True)
    assert [start is None for start in starts] == [True, False, True]
    assert starts[1] is not None
    assert starts[1].storage.max() > 0
    assert warm["bound_millidollars"] >= 0.995 * cold["bound_millidollars"] > 0
    assert warm["objective_millidollars"] <= 1.005 * cold["objective_millidollars"]


def test_place__a_dry_run_publishes_nothing(forecasted: TinyHome) -> None:
    """The operator looks first: the difference is shown, nothing is written."""
    value = place(forecasted, dry_run=True)
    assert value["changed"] is False
    assert value["added_bytes"] > 0
    assert plans(forecasted) == [".lock"]
    assert current_plan(forecasted.home) is None


def test_place__never_goes_back_in_time(forecasted: TinyHome) -> None:
    """A late job for an older window must not replace today's plan."""
    first = place(forecasted)
    yesterday = iso(END_US - DAY_US)
    forecast_step(forecasted.config("placement"), forecasted.home, QUIET, at=yesterday)
    with pytest.raises(PipelineError, match="a plan never goes back in time"):
        place(forecasted, at=yesterday)
    assert plans(forecasted) == [".lock", first["id"]]


def test_place__a_kill_between_writing_and_publishing_leaves_the_old_plan(
    forecasted: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new folder may be there, `current` still names the old one, and the rerun completes."""
    first = place(forecasted)

    def killed(link: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipelines.place, "point_at", killed)
        with pytest.raises(KeyboardInterrupt):
            place(forecasted, "seed=1")
    current = current_plan(forecasted.home)
    assert current is not None
    assert current.manifest["id"] == first["id"]
    second = place(forecasted, "seed=1")
    assert second["changed"]
    assert second["id"] != first["id"]
    current = current_plan(forecasted.home)
    assert current is not None
    assert current.manifest["id"] == second["id"]


def test_place__a_kill_while_writing_leaves_no_half_plan(forecasted: TinyHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder under `plans/` is whole or not there."""

    def killed(staging: Path, *_: object) -> None:
        (staging / "placements.parquet").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipelines.place, "write_result", killed)
        with pytest.raises(KeyboardInterrupt):
            place(forecasted)
    assert plans(forecasted) == [".lock"]


def test_place__the_registry_away_never_stops_a_placement(
    forecasted: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan is what devices wait for; its page in MLflow is not."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert place(forecasted)["changed"]


def test_place__while_another_runs_is_asked_to_try_later(forecasted: TinyHome) -> None:
    """Two plans at once would move the bytes of both."""
    with only_one(forecasted.home.plans), pytest.raises(TryLater):
        place(forecasted)


def test_place__says_what_is_missing(operated_home: TinyHome) -> None:
    """No forecast yet, none for the instant asked, or one for another horizon."""
    with pytest.raises(InputError, match="Run `premirror forecast` first"):
        place(operated_home)
    forecast_step(operated_home.config("placement"), operated_home.home, QUIET, at="")
    with pytest.raises(InputError, match=r"premirror forecast --at 2026-03-09T00:00:00Z"):
        place(operated_home, at="2026-03-09T00:00:00Z")
    with pytest.raises(InputError, match="The forecast covers 6 h, the plan asks for 1 h"):
        place(operated_home, "planning.horizon_hours=1")


@pytest.fixture
def two_hours_on(operated_home: TinyHome) -> TinyHome:
    """A home with a plan of two hours before the end of the data, and a forecast for the end."""
    forecast_step(operated_home.config("placement"), operated_home.home, QUIET, at=iso(END_US - 2 * HOUR_US))
    place(operated_home)
    forecast_step(operated_home.config("placement"), operated_home.home, QUIET, at="")
    return operated_home


def refresh(tiny: TinyHome, *assignments: str, dry_run: bool = False) -> dict[str, Any]:
    config = tiny.config("placement", *assignments)
    return place_step(config, tiny.home, QUIET, at="", dry_run=dry_run, refreshes=True)[0]


def test_refresh__answers_a_newer_forecast_from_the_plan_in_force(two_hours_on: TinyHome) -> None:
    """A judged plan with its bound, in force at once, that keeps most copies; asked again there is nothing to do."""
    before = current_plan(two_hours_on.home)
    assert before is not None
    value = refresh(two_hours_on)
    after = current_plan(two_hours_on.home)
    assert after is not None
    assert (after.folder.name, value["method"], value["at_us"]) == (value["id"], "refresh", END_US)
    assert 0 < value["bound_millidollars"] <= value["objective_millidollars"] + 1e-6
    assert value["kept_bytes"] > value["dropped_bytes"]
    assert value["placed_at_us"] == before.manifest["at_us"]
    assert refresh(two_hours_on)["changed"] is False


def test_refresh__shares_the_movement_budget_of_its_placement(two_hours_on: TinyHome) -> None:
    """What the placement moved is gone; with nothing left, nothing moves."""
    current = current_plan(two_hours_on.home)
    assert current is not None
    moved = current.manifest["bytes_to_move"]
    whole = place(two_hours_on, dry_run=True)["movement_budget_bytes"]
    told = refresh(two_hours_on, dry_run=True)
    assert told["movement_budget_bytes"] == max(0, whole - moved)
    spent = refresh(two_hours_on, f"planning.placement.movement_budget_bytes={moved}", dry_run=True)
    assert (spent["movement_budget_bytes"], spent["bytes_to_move"]) == (0, 0)


def test_refresh__without_a_plan_says_what_to_run(forecasted: TinyHome) -> None:
    """There is nothing to bring up to date."""
    with pytest.raises(InputError, match=r"no plan under .* to refresh. Run `premirror place` first"):
        refresh(forecasted)


def test_rebalance__between_two_placements(forecasted: TinyHome, tmp_path: Path) -> None:
    """Nothing happens, then the largest holder fails: nobody is sent there, and the next placement knows what moved."""
    first, settings = place(forecasted), forecasted.config("placement")
    assert rebalance_step(settings, forecasted.home, QUIET, Asked())[0]["changed"] is False
    current = current_plan(forecasted.home)
    assert current is not None
    holder = current.table("placements").to_pandas().groupby("source")["bytes"].sum().idxmax()
    events = tmp_path / "events.jsonl"
    events.write_text(json.dumps({"at": iso(END_US + HOUR_US), "kind": "failed", "source": holder}), encoding="utf-8")
    second = rebalance_step(settings, forecasted.home, QUIET, Asked(events))[0]
    assert (second["changed"], second["rebalance"]["of"]) == (True, first["id"])
    assert second["rebalance"]["dropped"] > 0
    again = place(forecasted)
    assert (again["changed"], again["id"]) == (False, second["id"])
    current = current_plan(forecasted.home)
    assert current is not None
    for name in ("placements", "routes", "ranked"):
        assert holder not in current.table(name)["source"].to_pylist()
    third = place(forecasted, "seed=1")
    current = current_plan(forecasted.home)
    assert current is not None
    state = read_state(current.folder)
    assert state.memory.rebalances == 1
    moved = {plan["id"]: plan["bytes_to_move"] for plan in (first, second, third)}
    assert sum(m.bytes for m in state.moved) == sum(moved.values())


def test_place__a_damaged_memory_is_mended(forecasted: TinyHome) -> None:
    """What moved lately is forgotten then; the nightly plan must not wait for it."""
    place(forecasted)
    current = current_plan(forecasted.home)
    assert current is not None
    (current.folder / STATE).write_text("{", encoding="utf-8")
    second = place(forecasted, "seed=1")
    current = current_plan(forecasted.home)
    assert current is not None
    assert [m.bytes for m in read_state(current.folder).moved] == [second["bytes_to_move"]]


def test_route__explains_every_candidate(forecasted: TinyHome) -> None:
    """For a placed segment: its holders and the POP, best first, each with its terms.

    What no node holds comes from the POP; a place that the plan does not know is refused.
    """
    place(forecasted)
    current = current_plan(forecasted.home)
    assert current is not None
    copy = current.table("placements").to_pylist()[0]
    scene = read_scene(forecasted.tables)
    place_name = scene.locations[scene.location[scene.source_codes(np.array([copy["source"]], dtype=object))[0]]]
    settings = forecasted.config("placement")
    value, text = route_step(
        settings, forecasted.home, content=copy["content"], location=place_name, segment=copy["segment"]
    )
    found = {row["source"]: row for row in value["candidates"]}
    assert copy["source"] in found
    assert scene.source[0] in found
    scores = [row["score"] for row in value["candidates"] if row["score"] is not None]
    assert scores == sorted(scores, reverse=True)
    for row in value["candidates"]:
        if row["score"] is not None:
            terms = sum(row[name] for name in ("latency", "bandwidth", "health", "distance"))
            assert terms == pytest.approx(row["score"], rel=1e-5)
    assert copy["source"] in text
    asked = {"content": copy["content"], "location": place_name, "segment": copy["segment"]}
    elsewhere, _ = route_step(settings, forecasted.home, **(asked | {"content": "never placed"}))
    assert [row["tier"] for row in elsewhere["candidates"]] == [1]
    with pytest.raises(RoutingError, match="The plan knows no location 'moon'"):
        route_step(settings, forecasted.home, **(asked | {"location": "moon"}))
