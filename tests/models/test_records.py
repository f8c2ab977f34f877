"""The decision log: an edited, a removed or a foreign record shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from models.records import DecisionRecord, chain_faults, serving_at

KEY, OTHER_KEY = b"a key of ours, long enough", b"somebody else's key"


def chain(*, key: bytes | None = KEY, versions: tuple[str, ...] = ("1", "2", "3")) -> list[DecisionRecord]:
    """One finished decision an hour; each names the version that it makes champion."""
    records: list[DecisionRecord] = []
    for n, version in enumerate(versions):
        record = DecisionRecord(
            sequence=n,
            model="premirror-demand",
            action="promote",
            state="done",
            from_version=records[-1].to_version if records else "",
            to_version=version,
            approver="ada",
            reason="better",
            review_run="r",
            data_hash="d",
            config_hash="c",
            code="abc",
            time=f"2026-03-07T1{n}:00:00.000000+00:00",
            previous_record=records[-1].hash if records else "",
        )
        records.append(record.sign(key))
    return records


def test_chain_faults__a_whole_chain_has_none() -> None:
    """Signed or not, and empty as well."""
    assert chain_faults(chain(), KEY) == []
    assert chain_faults(chain(key=None)) == []
    assert chain_faults([]) == []


@pytest.mark.parametrize("field", ["to_version", "approver", "reason", "time", "review_run"])
def test_chain_faults__an_edited_record_breaks_the_next(field: str) -> None:
    """Whatever was changed; without a key the hash that follows tells, with a key also the signature."""
    records = chain()
    changed: dict[str, Any] = {field: "changed"}
    records[1] = replace(records[1], **changed)
    assert chain_faults(records) == ["Record 2 does not follow record 1: one of them was changed."]
    assert any("signature" in fault for fault in chain_faults(records, KEY))


def test_chain_faults__the_last_record_is_held_by_its_signature() -> None:
    """No record follows it that would tell."""
    records = chain()
    records[-1] = replace(records[-1], to_version="9")
    assert chain_faults(records, KEY) == ["Record 2 carries a signature of another key."]


def test_chain_faults__a_removed_record_leaves_a_gap() -> None:
    """Deleting a decision that one regrets is seen."""
    records = chain()
    del records[1]
    assert chain_faults(records, KEY)[0] == "Record 1 is missing (found 2)."


def test_chain_faults__a_record_signed_by_another_key_is_named() -> None:
    """Who may write runs can append, but cannot sign as we do."""
    records = chain(versions=("1", "2"))
    forged = replace(chain()[2], previous_record=records[-1].hash).sign(OTHER_KEY)
    assert chain_faults([*records, forged], KEY) == ["Record 2 carries a signature of another key."]


def test_serving_at__is_the_last_one_done_by_then() -> None:
    """Before the first none; at the instant itself already the new one; an intent does not serve."""
    records = chain()
    records.append(
        replace(records[-1], sequence=3, state="intent", to_version="4", time="2026-03-07T13:00:00.000000+00:00")
    )

    def version(time: str) -> str | None:
        found = serving_at(records, f"2026-03-07T{time}.000000+00:00")
        return found.to_version if found else None

    assert [version(t) for t in ("09:59:59", "10:00:00", "11:30:00", "23:00:00")] == [None, "1", "2", "3"]
