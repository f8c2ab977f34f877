"""Review, promotion, rollback, history, on a real registry: the road of a candidate to champion."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from models.registry import DESCRIPTION_LIMIT, Registry
from pipelines.errors import GateRefused, PipelineError
from pipelines.evaluate import Evaluation
from pipelines.gate import Verdict
from pipelines.pictures import Picture, Pictures
from pipelines.review import history_step, promote_step, review_step, rollback_step
from pipelines.review_page import Reviewed, description, losses
from pipelines.train import train_step
from tests.conftest import END_US, MODELS, QUIET, TinyHome, copied

KIND = "next-content"
LENIENT = ("gate.tolerance=0.99",)
STRICT = ("gate.guards={recall_at_1: 0.0, recall_at_5: 0.0, recall_at_20: 0.0, mrr_at_20: 0.0}",)
"""Nothing may be lost anywhere, and the tiny candidate loses somewhere."""


@pytest.fixture(scope="module")
def reviewed(tiny_home: TinyHome, tmp_path_factory: pytest.TempPathFactory) -> tuple[TinyHome, dict[str, Any], str]:
    """A home whose next-content candidate passed a lenient review, what the review answered, and its text. Read only."""
    tiny = copied(tiny_home, tmp_path_factory.mktemp("reviewed") / "home")
    return (tiny, *review_step(KIND, tiny.config(KIND, *LENIENT), tiny.home, QUIET))


@dataclass(frozen=True)
class DemandReview:
    """A home whose demand candidate was reviewed beside a champion that has seen the test window. Read only."""

    tiny: TinyHome
    value: dict[str, Any]
    text: str


@pytest.fixture(scope="module")
def demand_reviewed(tiny_home: TinyHome, tmp_path_factory: pytest.TempPathFactory) -> DemandReview:
    tiny = copied(tiny_home, tmp_path_factory.mktemp("demand") / "home")
    _add_champion(tiny, seen_until_us=END_US - 1)
    return DemandReview(tiny, *review_step("demand", tiny.config("demand", *LENIENT), tiny.home, QUIET))


def _add_champion(tiny: TinyHome, *, seen_until_us: int) -> None:
    """Registers the candidate of demand once more as version 2, the champion, with counters until an instant."""
    found = registry(tiny)
    source = tiny.home.root / "later"
    folder = source / "artifacts" / "artefact"
    found.download("demand", "1", folder)
    manifest = folder / "counters" / "artefact.json"
    told = json.loads(manifest.read_text(encoding="utf-8"))
    told["state"]["time_us"] = seen_until_us
    manifest.write_text(json.dumps(told), encoding="utf-8")
    made = found.client.create_model_version("premirror-demand", source.as_uri())
    found.client.set_registered_model_alias("premirror-demand", "champion", made.version)


def registry(tiny: TinyHome) -> Registry:
    return Registry(tiny.home.tracking_uri, tiny.home.artefact_root)


def promote(
    tiny: TinyHome, *, version: str = "candidate", reason: str = "", override: bool = False
) -> dict[str, object]:
    return promote_step(KIND, tiny.home, version=version, approver="ada", reason=reason, override=override)[0]


def faults(tiny: TinyHome) -> list[str]:
    found: list[str] = history_step(KIND, tiny.home, at="")[0]["faults"]
    return found


def test_promote__without_a_review_is_refused(writable_home: TinyHome) -> None:
    """Exit code 1, the next command in the message, and nothing moved or written."""
    with pytest.raises(GateRefused, match=r"has no review of its own. Run `premirror review next-content`") as caught:
        promote(writable_home)
    assert caught.value.exit_code == 1
    assert registry(writable_home).aliases(KIND) == {"candidate": "1"}
    assert history_step(KIND, writable_home.home, at="")[0]["records"] == []


def test_promote__override_needs_a_reason_and_everybody_a_name(writable_home: TinyHome) -> None:
    """Who and why are what the log is for."""
    with pytest.raises(PipelineError, match="--override needs --reason"):
        promote(writable_home, override=True, reason=" ")
    with pytest.raises(PipelineError, match="--approver to name a person"):
        promote_step(KIND, writable_home.home, version="candidate", approver=" ", reason="", override=False)
    assert promote(writable_home, override=True, reason="the registry is new")["changed"] is True
    assert promote(writable_home)["changed"] is False


def test_review__a_passed_one_opens_the_way_and_its_page_can_be_read(
    reviewed: tuple[TinyHome, dict[str, Any], str], tmp_path: Path
) -> None:
    """Verdict, reasons, card and commands fit the page; then promotion needs no override."""
    original, value, text = reviewed
    writable_home = copied(original, tmp_path / "home")
    assert value["passed"]
    assert text.startswith("PASS: premirror-next-content version 1")
    version = registry(writable_home).version(KIND, "1")
    assert len(version.description) <= DESCRIPTION_LIMIT
    assert version.description.startswith("**PASS**")
    assert f"get-artifact?path=plots/review_card.svg&run_uuid={value['review_run']}" in version.description
    assert re.search(
        r"- candidate: MRR@20 0\.\d+, \d\.\d+ nats, calibration error .* was on its shortlist", version.description
    )
    assert not re.search(r"data:|<details|\n- \[ \]|/get-artifact", version.description)
    assert version.tags["verdict"] == "passed"
    assert promote(writable_home)["signed"] is False
    record = history_step(KIND, writable_home.home, at="")[0]["records"][-1]
    assert (record["review_run"], record["reason"], record["approver"]) == (value["review_run"], "gate passed", "ada")


def test_review__runs_are_flat_with_one_name_a_metric(reviewed: tuple[TinyHome, dict[str, Any], str]) -> None:
    """MLflow compares runs by metric names: one run a method, the same names in each, none nested."""
    client = registry(reviewed[0]).client
    experiment = client.get_experiment_by_name("premirror-next-content-reviews")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    methods = [run for run in runs if run.data.tags["role"] != "review"]
    names = [set(run.data.metrics) for run in methods]
    assert len(methods) >= 4
    assert all({"mrr_at_20.all", "nll.all"} <= found for found in names)
    assert not [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    artefacts = {f.path for run in runs if run not in methods for f in client.list_artifacts(run.info.run_id)}
    assert artefacts == {"review.json", "plots"}


def test_review__of_demand_shows_what_was_forecast(demand_reviewed: DemandReview) -> None:
    """Pictures lie among the artefacts of the review run, stand alone, and the page links and embeds them."""
    found = registry(demand_reviewed.tiny)
    run_id = demand_reviewed.value["review_run"]
    names = {f.path for f in found.client.list_artifacts(run_id, "plots")}
    assert names == {f"plots/{name}.svg" for name in ("review_card", "forecast", "quantiles", "errors", "prior")}
    for name in sorted(names):
        svg = found.read_text(run_id, name)
        root = ET.fromstring(svg)
        assert root.get("aria-label")
        assert "var(" not in svg
        assert not re.search(r"\bnan\b|href=|url\(", svg)
        assert len(svg) < 100_000
    page = found.read_text(run_id, "report.html")
    assert page.count("<section>") == 4
    assert "prefers-color-scheme:dark" in page
    assert not re.search(r'src=|href="http|localStorage', page)
    description = found.version("demand", "1").description
    assert len(description) <= DESCRIPTION_LIMIT
    for name in ("forecast", "errors"):
        assert f"get-artifact?path=plots/{name}.svg&run_uuid={run_id}" in description
    assert f"runs/{run_id}/artifacts/report.html" in description


def test_review__of_churn_shows_who_stayed(tiny_home: TinyHome, tmp_path: Path) -> None:
    """Seven pictures or six, each alone and on the page, which says what the sessions are; figures shown twice agree."""
    tiny = copied(tiny_home, tmp_path / "home")
    value, _ = review_step("churn", tiny.config("churn", *LENIENT), tiny.home, QUIET)
    found, run_id = registry(tiny), value["review_run"]
    names = {f.path for f in found.client.list_artifacts(run_id, "plots")} - {"plots/joint.svg"}
    drawn = ("review_card", "survival", "separation", "reliability", "calibration", "returns", "days")
    assert names == {f"plots/{name}.svg" for name in drawn}
    for name in sorted(names):
        svg = found.read_text(run_id, name)
        assert ET.fromstring(svg).get("aria-label")
        assert not re.search(r"\bnan\b|href=|url\(|var\(", svg)
    page = found.read_text(run_id, "report.html")
    assert "Sessions: modelled (node, start, end" in page
    assert "No public data set holds telemetry" in page
    told = {row["stratum"]: row for row in value["rows"] if row["model"] == "candidate"}
    for name in ("home", "phone"):
        row = told[f"class:{name}"]
        assert f"{name}: ECE {row['ece']:.3f}, slope {row['calibration_slope']:.2f}," in page
    description = found.version("churn", "1").description
    assert len(description) <= DESCRIPTION_LIMIT
    for name in ("survival", "calibration"):
        assert f"get-artifact?path=plots/{name}.svg&run_uuid={run_id}" in description
    assert f"runs/{run_id}/artifacts/report.html" in description


def test_review__leaves_out_a_champion_that_has_seen_the_test_window(demand_reviewed: DemandReview) -> None:
    """It would win on what it was trained on: it is named, with both instants, and the best baseline is the opponent."""
    assert demand_reviewed.value["opponent"] != "champion"
    assert "champion" not in {row["model"] for row in demand_reviewed.value["rows"]}
    assert (
        "The champion, version 2, cannot be compared: premirror-demand version 2 has learnt from data until "
        "2026-03-07T23:59:59.999999Z, but windows.test starts at 2026-03-06T12:00:00Z"
    ) in demand_reviewed.text
    assert "has learnt from data until" in registry(demand_reviewed.tiny).version("demand", "1").description


@pytest.mark.parametrize("kind", MODELS)
def test_review__refuses_a_candidate_that_has_seen_the_test_window(
    tiny_home: TinyHome, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Trained until noon of 6 March, it may be judged from then on, and not on the twelve hours before."""
    earlier = (
        'windows.validation=["2026-03-05T00:00:00Z", "2026-03-06T00:00:00Z"]',
        'windows.test=["2026-03-06T00:00:00Z", "2026-03-08T00:00:00Z"]',
    )
    said = (
        rf"premirror-{kind} version 1 has learnt from data until 2026-03-06T1[12]:.*Z, but windows\.test starts at "
        r"2026-03-06T00:00:00Z: .* Move windows\.test behind that, to start at 2026-03-06T12:00:00Z or later\."
    )
    with pytest.raises(PipelineError, match=said):
        review_step(kind, tiny_home.config(kind, *earlier), tiny_home.home, QUIET)
    assert "verdict" not in registry(tiny_home).version(kind, "candidate").tags

    def reached(*_: object, **__: object) -> Evaluation:
        raise GateRefused("compared")

    monkeypatch.setattr("pipelines.review.evaluate", reached)
    with pytest.raises(GateRefused, match="compared"):
        review_step(kind, tiny_home.config(kind), tiny_home.home, QUIET)


def test_description__lets_pictures_go_before_it_is_too_long(
    reviewed: tuple[TinyHome, dict[str, Any], str],
) -> None:
    """PostgreSQL refuses 5,001 characters: four pictures with long sentences stay in the run, the review is written."""
    version = registry(reviewed[0]).version(KIND, "1")
    verdict = Verdict(True, "champion", "it is better", ("better",), ())
    drawn = tuple(Picture(name, "t" * 900, "s" * 900, "") for name in ("forecast", "errors"))
    evaluation = Evaluation(
        [
            {"model": m, "stratum": "all", "mrr_at_20": 0.1, "nll": 1.0, "ece_top1": 0.0, "coverage": None}
            for m in ("candidate", "champion")
        ],
        [],
        0.0,
    )
    facts = Reviewed(version, None, evaluation, verdict, None)
    plain = description(facts, "r", page="#/p")
    assert description(replace(facts, pictures=Pictures("t", drawn)), "r", page="#/p") == plain
    short = tuple(replace(picture, title="t", sentence="s") for picture in drawn)
    assert "path=plots/errors.svg" in description(replace(facts, pictures=Pictures("t", short)), "r", page="#/p")


def test_promote__a_refused_review_is_quoted_and_a_forged_tag_does_not_help(writable_home: TinyHome) -> None:
    """Tags can be set by anyone who may register; the verdict is read from the review run, which is written once."""
    tiny = writable_home
    value, _ = review_step(KIND, tiny.config(KIND, *STRICT), tiny.home, QUIET)
    assert value["passed"] is False
    found = registry(tiny)
    found.client.set_model_version_tag("premirror-next-content", "1", "verdict", "passed")
    with pytest.raises(GateRefused, match="its review says 'refused'"):
        promote(tiny)


def test_promote__a_review_of_another_version_does_not_count(
    reviewed: tuple[TinyHome, dict[str, Any], str], tmp_path: Path
) -> None:
    """Copying the tag of a reviewed version onto an unreviewed one must not open the way."""
    original, value, _ = reviewed
    writable_home = copied(original, tmp_path / "home")
    train_step(KIND, writable_home.config(KIND), writable_home.home, QUIET)
    client = registry(writable_home).client
    client.set_model_version_tag("premirror-next-content", "2", "review_run", value["review_run"])
    with pytest.raises(GateRefused, match="has no review of its own"):
        promote(writable_home, version="2")


def test_rollback__returns_and_history_says_which_version_served_when(
    writable_home: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two promotions and one way back, signed; a version is known for every instant since the first."""
    monkeypatch.setenv("PREMIRROR_RECORD_KEY", "sixteen bytes or more")
    with pytest.raises(PipelineError, match="no previous champion"):
        rollback_step(KIND, writable_home.home, approver="ada", reason="nothing there")
    promote(writable_home, override=True, reason="first")
    train_step(KIND, writable_home.config(KIND), writable_home.home, QUIET)
    value, text = review_step(KIND, writable_home.config(KIND, "gate.tolerance=0.5"), writable_home.home, QUIET)
    assert value["opponent"] == "champion"
    assert "version 2" in text
    assert promote(writable_home)["signed"] is True
    assert registry(writable_home).aliases(KIND) == {"candidate": "2", "champion": "2", "previous": "1"}
    rolled, _ = rollback_step(KIND, writable_home.home, approver="bob", reason="errors at night")
    assert (rolled["version"], rolled["from_version"]) == ("1", "2")

    history, shown = history_step(KIND, writable_home.home, at="")
    assert history["champion"] == "1"
    assert history["faults"] == []
    done = [r for r in history["records"] if r["state"] == "done"]
    assert [(r["action"], r["to_version"]) for r in done] == [("promote", "1"), ("promote", "2"), ("rollback", "1")]
    assert "errors at night" in shown
    assert "claimed" not in shown
    served = [history_step(KIND, writable_home.home, at=r["time"])[0]["at"]["version"] for r in done]
    assert served == ["1", "2", "1"]
    before, words = history_step(KIND, writable_home.home, at="2020-01-01T00:00:00Z")
    assert before["at"]["version"] is None
    assert "no version served" in words

    monkeypatch.setenv("PREMIRROR_RECORD_KEY", "another key, as long as it")
    assert len(faults(writable_home)) == len(history["records"])


def test_review__a_champion_that_cannot_be_read_does_not_stand_in_the_way(
    writable_home: TinyHome,
) -> None:
    """After a change of format the old champion is named, and its successor compared with the best baseline."""
    found = registry(writable_home)
    folder = writable_home.home.root / "old" / "artifacts" / "artefact"
    found.download(KIND, "1", folder)
    manifest = folder / "model" / "artefact.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text(encoding="utf-8")) | {"format": 1}), encoding="utf-8")
    name = "premirror-next-content"
    old = found.client.create_model_version(name, (writable_home.home.root / "old").as_uri())
    found.client.set_registered_model_alias(name, "champion", old.version)
    value, text = review_step(KIND, writable_home.config(KIND, *LENIENT), writable_home.home, QUIET)
    assert value["opponent"] != "champion"
    assert "The champion, version 2, cannot be compared: " in text
    assert "has format 1 of kind 'next-content'" in registry(writable_home).version(KIND, "1").description


def test_losses__name_the_strata_where_the_opponent_is_better_for_certain() -> None:
    """By hand: the tail loses for certain, `new` perhaps, and the head wins; a part of the window does not count."""
    rows = [{"window": w, "stratum": "all", "model": "candidate"} for w in ("whole", "part")]
    gains = [
        ("whole", "all", 0.1, 0.05), ("whole", "tail", 0.2, 0.1), ("whole", "new", 0.3, -0.1),
        ("whole", "head", -0.2, -0.3), ("part", "head", 0.5, 0.4),
    ]  # fmt: skip
    differences = [
        {"window": w, "stratum": s, "model": "champion", "metric": "nll", "gain": g, "low": low, "high": g + 0.1}
        for w, s, g, low in gains
    ]
    evaluation = Evaluation(rows, differences, 0.0)
    found = losses(evaluation, "champion", metric="nll", horizon_hours=None)
    assert found == ["It loses to champion in 1 of the strata, by nll: tail 0.2 [0.1, 0.3]."]
    assert losses(evaluation, "popularity", metric="nll", horizon_hours=None) == []


def test_history__an_alias_set_by_hand_is_reported(writable_home: TinyHome) -> None:
    """MLflow's own page can move it without a word; our log says that nobody decided it."""
    registry(writable_home).client.set_registered_model_alias("premirror-next-content", "champion", "1")
    (fault,) = faults(writable_home)
    assert "names version 1, the log says none: it was set by hand and is unreviewed" in fault


def test_record_key__that_is_too_short_is_a_mistake_of_the_caller(
    writable_home: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guessable key signs nothing."""
    monkeypatch.setenv("PREMIRROR_RECORD_KEY", "short")
    with pytest.raises(PipelineError, match="too short to sign with"):
        promote(writable_home, override=True, reason="x")
