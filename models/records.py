"""The decision log: who made which version the champion, when and why, as a hash chain.

`hash(record n) = SHA-256(canonical JSON of record n, which contains hash(record n-1))`. A changed or removed record
breaks every later hash. With a key, each record also carries `HMAC-SHA256(key, hash)`, so that only whoever holds the
key can append; without one, a record says `unsigned` and its approver is a claim.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

Action = Literal["promote", "rollback", "observed"]
State = Literal["intent", "done"]
UNSIGNED = "unsigned"


@dataclass(frozen=True)
class DecisionRecord:
    """One decision about one registered model; `to_version` serves from `time` on.

    Attributes:
        sequence: 0, 1, 2, ... within the model's chain.
        state: `intent` before the aliases move, `done` after; an `intent` without `done` was interrupted.
        previous_record: hash of the record before, or "" for the first.
        signature: HMAC over this record's hash, or `unsigned`.
    """

    sequence: int
    model: str
    action: Action
    state: State
    from_version: str
    to_version: str
    approver: str
    reason: str
    review_run: str
    data_hash: str
    config_hash: str
    code: str
    time: str
    previous_record: str
    signature: str = UNSIGNED

    @property
    def hash(self) -> str:
        body = {k: v for k, v in asdict(self).items() if k != "signature"}
        return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def sign(self, key: bytes | None) -> DecisionRecord:
        if key is None:
            return self
        return replace(self, signature=_signature(self.hash, key))

    def is_signed_by(self, key: bytes) -> bool:
        return hmac.compare_digest(self.signature, _signature(self.hash, key))


def _signature(record_hash: str, key: bytes) -> str:
    return hmac.new(key, record_hash.encode(), hashlib.sha256).hexdigest()


def chain_faults(records: Sequence[DecisionRecord], key: bytes | None = None) -> list[str]:
    """One sentence for each break in the chain; an empty list where it is whole."""
    faults = []
    previous = ""
    for expected, record in enumerate(records):
        if record.sequence != expected:
            faults.append(f"Record {expected} is missing (found {record.sequence}).")
        elif record.previous_record != previous:
            faults.append(f"Record {expected} does not follow record {expected - 1}: one of them was changed.")
        if key is not None and record.signature != UNSIGNED and not record.is_signed_by(key):
            faults.append(f"Record {record.sequence} carries a signature of another key.")
        previous = record.hash
    return faults


def serving_at(records: Sequence[DecisionRecord], time: str) -> DecisionRecord | None:
    """The decision in force at `time` (ISO 8601 UTC): the last one done at or before it."""
    done = [r for r in records if r.state == "done" and r.time <= time]
    return done[-1] if done else None
