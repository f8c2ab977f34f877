"""The registry on a real SQLite store: versions, aliases, and decisions that cannot be rewritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import RegistryError, UnknownVersion
from models.records import chain_faults
from models.registry import DESCRIPTION_LIMIT, Registry, RunEntry, new_record
from tests.conftest import MODELS, TinyHome

KEY = b"sixteen bytes or more"


def registry(tiny: TinyHome) -> Registry:
    return Registry(tiny.home.tracking_uri, tiny.home.artefact_root)


def decide(found: Registry, to: str, *, was: str = "", reason: str = "better", key: bytes | None = KEY) -> None:
    draft = new_record(
        "demand",
        "promote",
        from_version=was,
        to_version=to,
        approver="ada",
        reason=reason,
        review_run="",
        data_hash="",
        config_hash="",
        code="",
        time="2026-03-07T10:00:00.000000+00:00",
    )
    found.decide("demand", draft, key=key)


def test_register__the_newest_version_is_the_candidate(tiny_home: TinyHome) -> None:
    """Training proposes; it never serves by itself."""
    found = registry(tiny_home)
    for kind in MODELS:
        assert found.aliases(kind) == {"candidate": "1"}
        version = found.version(kind, "candidate")
        assert (version.name, version.version) == (f"premirror-{kind}", "1")
        assert found.run_parameters(version.run_id)["seed"] == "0"


def test_version__that_does_not_exist_says_which_do(tiny_home: TinyHome) -> None:
    """By alias and by number; neither is an outage."""
    found = registry(tiny_home)
    with pytest.raises(UnknownVersion, match=r"no alias 'champion'; aliases set: candidate \(version 1\)"):
        found.version("demand", "champion")
    with pytest.raises(UnknownVersion, match="no version 99"):
        found.version("demand", "99")


def test_download__replaces_the_folder_whole(tiny_home: TinyHome, tmp_path: Path) -> None:
    """A leftover file of another version must not be mixed in; the folder holds model and snapshot."""
    folder = tmp_path / "demand"
    folder.mkdir()
    (folder / "leftover").write_text("x", encoding="utf-8")
    version = registry(tiny_home).download("demand", "candidate", folder)
    assert version.version == "1"
    assert sorted(p.name for p in folder.iterdir()) == ["counters", "kind", "model"]
    assert [p.name for p in tmp_path.iterdir()] == ["demand"]


def test_decide__moves_the_aliases_between_two_records(writable_home: TinyHome) -> None:
    """Intent before, done after, in one signed chain; `previous` is what a rollback returns to."""
    found = registry(writable_home)
    decide(found, "1")
    assert found.aliases("demand") == {"candidate": "1", "champion": "1"}
    records = found.decisions("demand")
    assert [(r.sequence, r.state, r.to_version) for r in records] == [(0, "intent", "1"), (1, "done", "1")]
    assert chain_faults(records, KEY) == []
    assert all(r.is_signed_by(KEY) for r in records)
    assert found.decisions("churn") == []


@pytest.mark.parametrize("reason", ["", "-", "--x", "two\nlines", "ünï 'quoted' \"text\"", "x" * 2000])
def test_decisions__come_back_as_they_were_written(writable_home: TinyHome, reason: str) -> None:
    """MLflow stores parameters as text; a changed character would read as a forged record."""
    found = registry(writable_home)
    decide(found, "1", reason=reason)
    records = found.decisions("demand")
    assert records[-1].reason == reason
    assert chain_faults(records, KEY) == []


def test_decide__refuses_when_the_champion_moved_meanwhile(writable_home: TinyHome) -> None:
    """Two reviewers decide at once: the second one must look again."""
    found = registry(writable_home)
    decide(found, "1")
    with pytest.raises(RegistryError, match=r"The champion of premirror-demand is version 1, not none"):
        decide(found, "1")
    assert len(found.decisions("demand")) == 2


def test_decide__refuses_on_a_damaged_log(writable_home: TinyHome) -> None:
    """Nothing is built on records that were tampered with; a deleted record is such a damage."""
    found = registry(writable_home)
    decide(found, "1")
    experiment = found.client.get_experiment_by_name("premirror-history")
    assert experiment is not None
    first = found.client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])[0]
    found.client.delete_run(first.info.run_id)
    with pytest.raises(RegistryError, match=r"damaged; nothing was changed. Record 0 is missing"):
        decide(found, "1", was="1")


def test_describe__refuses_what_other_databases_would_cut(writable_home: TinyHome) -> None:
    """SQLite takes any length, PostgreSQL 5,000 characters; the limit holds everywhere."""
    found = registry(writable_home)
    version = found.version("demand", "1")
    found.describe(version, description="x" * DESCRIPTION_LIMIT, tags={"verdict": "passed"})
    assert found.version("demand", "1").tags["verdict"] == "passed"
    with pytest.raises(RegistryError, match="5001 characters; at most 5000 fit"):
        found.describe(version, description="x" * (DESCRIPTION_LIMIT + 1), tags={})


def test_log_run__keeps_long_parameters_and_many_metrics(writable_home: TinyHome) -> None:
    """MLflow takes batches of 1,000 metrics and 100 parameters; a configuration may hold more."""
    found = registry(writable_home)
    run_id = found.log_run(
        RunEntry(
            experiment="limits",
            name="many",
            parameters={f"p{i}": "v" * 500 for i in range(205)},
            metrics={f"m{i}": float(i) for i in range(1205)},
            texts={"a/b.txt": "hello"},
        )
    )
    run = found.client.get_run(run_id)
    assert (len(run.data.params), len(run.data.metrics)) == (205, 1205)
    assert run.data.params["p204"] == "v" * 500
    assert run.info.status == "FINISHED"


def test_registry__that_is_away_is_one_sentence(tmp_path: Path) -> None:
    """Within a second, and not after MLflow's minutes of retries: nothing listens on port 9 here."""
    with pytest.raises(RegistryError, match=r"The registry at 'http://127.0.0.1:9' could not do this"):
        Registry("http://127.0.0.1:9", tmp_path)
