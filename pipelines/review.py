"""Review, promotion, rollback and history: how a candidate becomes champion, and what is kept of it.

`review` compares, writes everything to MLflow and stores the verdict; the version's description is the review. `promote`
needs a passed review of that very version (or `--override` with a reason) and a named approver. Each decision is a
write-once record in a hash chain, signed with `PREMIRROR_RECORD_KEY` where that is set.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.changes import review_card
from models.churn.forecaster import ChurnForecaster
from models.demand.forecaster import DemandForecaster
from models.errors import ArtefactError
from models.events import HOUR_US
from models.next_content.predictor import NextContentPredictor
from models.records import UNSIGNED, DecisionRecord, chain_faults, serving_at
from models.registry import MODEL_NAMES, ModelVersion, Registry, RunEntry, new_record
from models.snapshot import counters_until_us, sessions_until_us
from pipelines.config import ChurnRun, DemandRun, NextContentRun
from pipelines.console import Console, table
from pipelines.errors import GateRefused, PipelineError
from pipelines.evaluate import DECIDING_METRIC, SHOWN, Evaluation, evaluate
from pipelines.gate import CANDIDATE, CHAMPION, judge
from pipelines.home import Home
from pipelines.inputs import Inputs
from pipelines.jobs import instant_us, iso
from pipelines.provenance import code_commit, settings_digest
from pipelines.review_page import CARD, Reviewed, description, losses
from pipelines.review_pictures import review_pictures

RECORD_KEY = "PREMIRROR_RECORD_KEY"
LOADERS: dict[str, Callable[[Path], Any]] = {
    "demand": DemandForecaster.load,
    "next-content": NextContentPredictor.load,
    "churn": ChurnForecaster.load,
}
SEEN_UNTIL_US: dict[str, Callable[[Path, Any], int]] = {
    "demand": lambda folder, _: counters_until_us(folder / "counters"),
    "next-content": lambda _, model: int(model.memory.time_us),
    "churn": lambda folder, _: sessions_until_us(folder / "sessions"),
}
"""Newest instant that a version and the state saved with it know of."""


def review_step(
    kind: str, run: DemandRun | NextContentRun | ChurnRun, home: Home, console: Console
) -> tuple[dict[str, Any], str]:
    """Compares the candidate with the champion or the best baseline and writes the verdict to the registry."""
    inputs = Inputs.find(run.data, home)
    registry = Registry(home.tracking_uri, home.artefact_root)
    reviewed = _review(kind, run, inputs, registry, home)
    run_id = _write_down(kind, run, inputs, registry, reviewed)
    verdict = reviewed.verdict
    console.note(f"review of {reviewed.candidate.name} version {reviewed.candidate.version} took "
                 f"{reviewed.evaluation.seconds:.1f} s")  # fmt: skip
    value = {
        "model": reviewed.candidate.name,
        "version": reviewed.candidate.version,
        "passed": verdict.passed,
        "opponent": verdict.opponent,
        "reasons": list(verdict.reasons),
        "notes": list(reviewed.notes),
        "review_run": run_id,
        "rows": reviewed.evaluation.rows,
    }
    heading = "PASS" if verdict.passed else "REFUSED"
    rows = reviewed.evaluation.overall(horizon_hours=reviewed.horizon_hours)
    lines = [f"{heading}: {reviewed.candidate.name} version {reviewed.candidate.version}: {verdict.sentence}."]
    said = [f"  - {sentence}" for sentence in (*verdict.reasons, *reviewed.notes)]
    return value, "\n".join([*lines, *said, table(rows, ["model", *SHOWN[kind]])])


def _review(
    kind: str, run: DemandRun | NextContentRun | ChurnRun, inputs: Inputs, registry: Registry, home: Home
) -> Reviewed:
    aliases = registry.aliases(kind)
    candidate = registry.version(kind, CANDIDATE)
    has_champion = CHAMPION in aliases and aliases[CHAMPION] != candidate.version
    champion = registry.version(kind, CHAMPION) if has_champion else None
    test_us = run.windows.us("test")[0]
    versions = {CANDIDATE: _fetch(kind, registry, CANDIDATE, home, test_us=test_us)}
    notes = []
    if champion is not None:
        try:
            versions[CHAMPION] = _fetch(kind, registry, CHAMPION, home, test_us=test_us)
        except (ArtefactError, PipelineError) as error:  # it must not stand in the way of its successor
            notes.append(f"The champion, version {champion.version}, cannot be compared: {error}")
    followed = CANDIDATE if isinstance(run, DemandRun) else ""
    evaluation = evaluate(kind, run, inputs, versions=versions, reference=CANDIDATE, followed=followed)
    horizon = run.model.horizons_hours[0] if isinstance(run, DemandRun) else None
    metric = run.gate.metric or DECIDING_METRIC
    verdict = judge(evaluation, metric=metric, settings=run.gate, horizon_hours=horizon)
    notes += losses(evaluation, verdict.opponent, metric=metric, horizon_hours=horizon)
    title = f"{candidate.name} version {candidate.version}"
    pictures = review_pictures(title, run, inputs, versions[CANDIDATE], evaluation, opponent=verdict.opponent)
    return Reviewed(candidate, champion, evaluation, verdict, horizon, tuple(notes), pictures)


def _fetch(kind: str, registry: Registry, alias: str, home: Home, *, test_us: int) -> Any:
    """Loads a version; PipelineError where it knows what it would be judged on."""
    with tempfile.TemporaryDirectory(dir=home.root, prefix=".review-") as temporary:
        folder = Path(temporary) / "artefact"
        version = registry.download(kind, alias, folder)
        model = LOADERS[kind](folder / "model")
        seen_us = SEEN_UNTIL_US[kind](folder, model)
    if seen_us > test_us:
        later = iso(-(-seen_us // HOUR_US) * HOUR_US)
        raise PipelineError(
            f"{version.name} version {version.version} has learnt from data until {iso(seen_us)}, but windows.test "
            f"starts at {iso(test_us)}: it would be judged on what it has seen. Move windows.test behind that, to start "
            f"at {later} or later."
        )
    return model


def _write_down(
    kind: str, run: DemandRun | NextContentRun | ChurnRun, inputs: Inputs, registry: Registry, reviewed: Reviewed
) -> str:
    """One flat run a method with the same metric names, one run for the review, then the version's page."""
    experiment = f"{MODEL_NAMES[kind]}-reviews"
    verdict, candidate = reviewed.verdict, reviewed.candidate
    review_id = f"{candidate.version}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    facts = {
        "model": candidate.name,
        "version": candidate.version,
        "verdict": "passed" if verdict.passed else "refused",
        "opponent": verdict.opponent,
        "data_hash": inputs.digest,
        "config_hash": settings_digest(run),
        "code_commit": code_commit(),
    }
    card = review_card(f"{candidate.name} version {candidate.version}", verdict.changes, passed=verdict.passed)
    document = {**facts, "reasons": list(verdict.reasons), "rows": reviewed.evaluation.rows,
                "differences": reviewed.evaluation.differences, "notes": list(reviewed.notes)}  # fmt: skip
    run_id = registry.log_run(
        RunEntry(
            experiment=experiment,
            name=f"review {review_id}",
            parameters=facts,
            tags={"review": review_id, "role": "review"},
            description=verdict.sentence,
            texts={"review.json": json.dumps(document, indent=1, default=str), CARD: card, **reviewed.pictures.texts()},
        )
    )
    for name in dict.fromkeys(row["model"] for row in reviewed.evaluation.rows):
        registry.log_run(
            RunEntry(
                experiment=experiment,
                name=name,
                metrics=_metrics(reviewed.evaluation, name),
                tags={"review": review_id, "role": name if name in (CANDIDATE, CHAMPION) else "baseline"},
            )
        )
    registry.describe(
        candidate,
        description=description(reviewed, run_id, page=registry.run_page(run_id)),
        tags={
            "verdict": facts["verdict"],
            "reviewed_against": verdict.opponent,
            "review_run": run_id,
            "reasons": " ".join(verdict.reasons)[:4000],
        },
    )
    return run_id


def _metrics(evaluation: Evaluation, model: str) -> dict[str, float]:
    """`wape.h01.all`: metric, horizon where there are several, stratum; of the whole window. MLflow sorts by name."""
    found: dict[str, float] = {}
    for row in evaluation.whole(evaluation.rows):
        if row["model"] != model:
            continue
        horizon = f".h{row['horizon_hours']:02d}" if "horizon_hours" in row else ""
        stratum = re.sub(r"[^\w.-]", "_", str(row["stratum"]))  # a place may be called anything
        for name, value in row.items():
            number = isinstance(value, int | float) and value == value and abs(value) != float("inf")
            if number and name not in ("horizon_hours",):
                found[f"{name}{horizon}.{stratum}"] = float(value)
    return found


def promote_step(
    kind: str, home: Home, *, version: str, approver: str, reason: str, override: bool
) -> tuple[dict[str, Any], str]:
    """Makes a version champion: passed review or override, a named approver, a record before and after."""
    if not approver.strip():
        raise PipelineError("Expected --approver to name a person, got an empty name.")
    if override and not reason.strip():
        raise PipelineError("--override needs --reason: say why the gate does not decide this time.")
    registry = Registry(home.tracking_uri, home.artefact_root)
    chosen = registry.version(kind, version)
    champion = registry.aliases(kind).get(CHAMPION, "")
    if champion == chosen.version:
        return (
            {"model": chosen.name, "version": chosen.version, "changed": False},
            f"{chosen.name} version {chosen.version} is the champion already; nothing to do.",
        )
    review = _review_facts(registry, chosen)
    if review.get("verdict") != "passed" and not override:
        why = f"its review says {review['verdict']!r}" if review else "it has no review of its own"
        raise GateRefused(
            f"{chosen.name} version {chosen.version} was not promoted: {why}. Run `premirror review {kind}`, or use "
            "--override with --reason."
        )
    record = registry.decide(
        kind,
        new_record(
            kind,
            "promote",
            from_version=champion,
            to_version=chosen.version,
            approver=approver,
            reason=reason or "gate passed",
            review_run=chosen.tags.get("review_run", ""),
            data_hash=review.get("data_hash", ""),
            config_hash=review.get("config_hash", ""),
            code=review.get("code_commit", ""),
            time=_now(),
        ),
        key=_record_key(),
    )
    return _decided(record), f"{chosen.name} version {chosen.version} is the champion (was {champion or 'none'})."


def rollback_step(kind: str, home: Home, *, approver: str, reason: str) -> tuple[dict[str, Any], str]:
    """Returns to the version that `previous` names."""
    registry = Registry(home.tracking_uri, home.artefact_root)
    aliases = registry.aliases(kind)
    if "previous" not in aliases or CHAMPION not in aliases:
        raise PipelineError(f"{MODEL_NAMES[kind]} has no previous champion to return to.")
    record = registry.decide(
        kind,
        new_record(
            kind,
            "rollback",
            from_version=aliases[CHAMPION],
            to_version=aliases["previous"],
            approver=approver,
            reason=reason,
            review_run="",
            data_hash="",
            config_hash="",
            code=code_commit(),
            time=_now(),
        ),
        key=_record_key(),
    )
    return _decided(record), f"{record.model} version {record.to_version} is the champion again."


def history_step(kind: str, home: Home, *, at: str) -> tuple[dict[str, Any], str]:
    """The decision log, faults in its chain, and whether the alias in force was set by hand."""
    registry = Registry(home.tracking_uri, home.artefact_root)
    records = registry.decisions(kind)
    faults = chain_faults(records, _record_key())
    champion = registry.aliases(kind).get(CHAMPION, "")
    done = [r for r in records if r.state == "done"]
    recorded = done[-1].to_version if done else ""
    if champion != recorded:
        faults.append(
            f"The alias champion names version {champion or 'none'}, the log says {recorded or 'none'}: it was set by "
            "hand and is unreviewed."
        )
    value: dict[str, Any] = {
        "model": MODEL_NAMES[kind],
        "champion": champion,
        "faults": faults,
        "records": [r.__dict__ | {"signed": r.signature != UNSIGNED} for r in records],
    }
    rows = [
        {
            "time": r.time, "decision": r.action, "from": r.from_version or "-", "to": r.to_version,
            "approver": r.approver if r.signature != UNSIGNED else f"{r.approver} (claimed)", "reason": r.reason,
        }
        for r in done
    ]  # fmt: skip
    text = table(rows, ["time", "decision", "from", "to", "approver", "reason"]) if rows else "No decision yet."
    if at:
        found = serving_at(records, _instant(instant_us(at)))
        value["at"] = {"time": at, "version": found.to_version if found else None}
        text = f"At {at}: {'version ' + found.to_version if found else 'no version'} served.\n{text}"
    return value, "\n".join([text, *faults])


def _review_facts(registry: Registry, version: ModelVersion) -> dict[str, str]:
    """Parameters of the version's own review run: written once, unlike tags; empty where they name another version."""
    run_id = version.tags.get("review_run")
    if not run_id:
        return {}
    facts = registry.run_parameters(run_id)
    mine = facts.get("model") == version.name and facts.get("version") == version.version
    return facts if mine else {}


def _decided(record: DecisionRecord) -> dict[str, Any]:
    return {
        "model": record.model,
        "version": record.to_version,
        "from_version": record.from_version,
        "changed": True,
        "record": record.sequence,
        "signed": record.signature != UNSIGNED,
    }


def _record_key() -> bytes | None:
    text = os.environ.get(RECORD_KEY, "")
    if text and len(text) < 16:
        raise PipelineError(f"{RECORD_KEY} is too short to sign with; give at least 16 characters.")
    return text.encode() or None


def _now() -> str:
    return _instant(round(datetime.now(UTC).timestamp() * 1e6))


def _instant(at_us: int) -> str:
    """As records write it: fixed width, so that records sort as text."""
    return datetime.fromtimestamp(at_us / 1e6, tz=UTC).isoformat(timespec="microseconds")
