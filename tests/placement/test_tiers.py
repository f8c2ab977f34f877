"""Eligibility and tiers: consent is never soft, unknown is not bad, every verdict has a reason."""

import numpy as np
import pytest

from placement.errors import ProblemError
from placement.tiers import Conditions, TierSettings, assign_tiers

HORIZON_END_US = 1_000


def _fleet(**changes: list[float]) -> Conditions:
    n = len(next(iter(changes.values()))) if changes else 2
    known = {
        "consent_until_us": np.full(n, 2_000, dtype=np.int64),
        "storage_bytes": np.full(n, 10**9, dtype=np.int64),
        "uplink_bps": np.full(n, 1e6),
        "stay": np.full(n, 0.9),
    } | {name: np.full(n, np.nan) for name in ("battery", "charging", "metered", "loss", "rtt_ms")}
    known |= {name: np.asarray(value, dtype=known[name].dtype) for name, value in changes.items()}
    return Conditions(**known)


def test_tiers__consent_is_hard() -> None:
    """A node without consent, or whose consent ends too early, may hold nothing."""
    verdicts = assign_tiers(_fleet(consent_until_us=[-1, 999, 1_000]), TierSettings(), horizon_end_us=HORIZON_END_US)
    assert verdicts.eligible.tolist() == [False, False, True]
    assert verdicts.reason.tolist()[:2] == ["no consent", "consent ends within the horizon"]


@pytest.mark.parametrize(
    ("name", "bad", "good", "reason"),
    [
        ("storage_bytes", 999_999, 1_000_000, "too little storage"),
        ("uplink_bps", 9_999, 10_000, "uplink too slow"),
        ("battery", 0.29, 0.3, "battery low"),
        ("metered", 1, 0, "metered link"),
        ("loss", 0.051, 0.05, "loses packets"),
        ("rtt_ms", 401, 400, "round trip too long"),
    ],
)
def test_tiers__each_rule_at_its_boundary(name: str, bad: float, good: float, reason: str) -> None:
    """A rule refuses just beyond its threshold and accepts at it, and says which rule it was."""
    verdicts = assign_tiers(_fleet(**{name: [bad, good]}), TierSettings(), horizon_end_us=HORIZON_END_US)
    assert verdicts.eligible.tolist() == [False, True]
    assert verdicts.reason[0] == reason


def test_tiers__unknown_telemetry_breaks_no_rule() -> None:
    """A device that cannot tell its battery is not refused for it."""
    assert assign_tiers(_fleet(), TierSettings(), horizon_end_us=HORIZON_END_US).eligible.all()


def test_tiers__charging_excuses_a_low_battery() -> None:
    """A nearly empty device on its charger is fine."""
    fleet = _fleet(battery=[0.1, 0.1], charging=[1.0, 0.0])
    assert assign_tiers(fleet, TierSettings(), horizon_end_us=HORIZON_END_US).eligible.tolist() == [True, False]


def test_tiers__tier_two_needs_stay_and_uplink() -> None:
    """Of four eligible nodes only those that stay and are not in the slowest quarter are tier 2."""
    # Uplinks 1, 2, 3, 4 Mbit/s: the 0.25 quantile is 1.75, so the first is too slow; the last is likely to leave.
    fleet = _fleet(uplink_bps=[1e6, 2e6, 3e6, 4e6], stay=[0.9, 0.9, 0.8, 0.79])
    verdicts = assign_tiers(fleet, TierSettings(), horizon_end_us=HORIZON_END_US)
    assert verdicts.tier.tolist() == [3, 2, 2, 3]


def test_tiers__empty_fleet() -> None:
    """No nodes at all is a fleet like any other."""
    assert len(assign_tiers(_fleet(stay=[]), TierSettings(), horizon_end_us=HORIZON_END_US).tier) == 0


def test_tier_settings__every_mistake_at_once() -> None:
    """Two wrong values are both named."""
    with pytest.raises(ProblemError, match=r"minimum_battery.*\n.*minimum_uplink_bps"):
        TierSettings(minimum_battery=2.0, minimum_uplink_bps=-1.0)
