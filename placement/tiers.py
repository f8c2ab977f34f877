"""Which nodes may mirror, and in which tier: decided before the solve.

Eligible = consent covers the horizon, and no hard rule is broken (room, uplink, battery, metered link, loss, round
trip). Tier 2 = eligible, expected to stay up (`P(up until the horizon's end) >= tier_two_stay`) and with an uplink of
at least the fleet's `tier_two_uplink_quantile`; every other eligible node is tier 3. What a device cannot tell (NaN)
breaks no rule. Every verdict has a reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from placement.errors import ProblemError

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Int8 = npt.NDArray[np.int8]
Bool = npt.NDArray[np.bool_]

ELIGIBLE = "eligible"


@dataclass(frozen=True)
class TierSettings:
    """Rules of eligibility and of tier 2."""

    minimum_storage_bytes: int = 1_000_000
    """Least room for segments, in bytes."""
    minimum_uplink_bps: float = 10_000.0
    """Least uplink, in bits per second."""
    minimum_battery: float = 0.3
    """Least charge of a device that is not charging, in [0, 1]."""
    maximum_loss: float = 0.05
    """Most packet loss, in [0, 1]."""
    maximum_rtt_ms: float = 400.0
    """Longest round trip that a device itself reports, in milliseconds."""
    allow_metered: bool = False
    """Whether a device on a metered link may mirror."""
    tier_two_stay: float = 0.8
    """Least probability of staying up to the end of the horizon for tier 2."""
    tier_two_uplink_quantile: float = 0.25
    """A tier-2 node's uplink is at least this quantile of the eligible fleet's."""

    def __post_init__(self) -> None:
        problems = [
            f"Expected {name} in [0, 1], got {getattr(self, name)!r}."
            for name in ("minimum_battery", "maximum_loss", "tier_two_stay", "tier_two_uplink_quantile")
            if not 0 <= getattr(self, name) <= 1
        ]
        problems += [
            f"Expected {name} >= 0, got {getattr(self, name)!r}."
            for name in ("minimum_storage_bytes", "minimum_uplink_bps", "maximum_rtt_ms")
            if not getattr(self, name) >= 0
        ]
        if problems:
            raise ProblemError("The tier settings cannot be used:", problems)


@dataclass(frozen=True)
class Conditions:
    """What is known of each node now; NaN where a device cannot tell. All arrays are (N,).

    Attributes:
        consent_until_us: microseconds since 1970 UTC; -1 for no consent.
        stay: probability of staying up to the end of the horizon.
        charging: 1.0, 0.0 or NaN.
        metered: 1.0, 0.0 or NaN.
    """

    consent_until_us: Int64
    storage_bytes: Int64
    uplink_bps: Float64
    stay: Float64
    battery: Float64
    charging: Float64
    metered: Float64
    loss: Float64
    rtt_ms: Float64

    @classmethod
    def without_telemetry(
        cls, consent_until_us: Int64, storage_bytes: Int64, uplink_bps: Float64, stay: Float64
    ) -> Conditions:
        """Conditions of a fleet that reports nothing about itself."""
        unknown = np.full(len(stay), np.nan)
        return cls(consent_until_us, storage_bytes, uplink_bps, stay, unknown, unknown, unknown, unknown, unknown)


@dataclass(frozen=True)
class TierVerdicts:
    """Tier 2 or 3, whether eligible, and why. All arrays are (N,)."""

    tier: Int8
    eligible: Bool
    reason: npt.NDArray[np.object_]


def assign_tiers(conditions: Conditions, settings: TierSettings, *, horizon_end_us: int) -> TierVerdicts:
    """Judges every node; the reason is the first rule broken, or why it is in its tier."""
    n = len(conditions.stay)
    reason = np.full(n, "", dtype=object)
    for text, broken in _hard_rules(conditions, settings, horizon_end_us):
        reason[broken & (reason == "")] = text
    eligible = reason == ""
    uplinks = conditions.uplink_bps[eligible]
    enough = float(np.quantile(uplinks, settings.tier_two_uplink_quantile)) if len(uplinks) else 0.0
    stays, fast = conditions.stay >= settings.tier_two_stay, conditions.uplink_bps >= enough
    top = eligible & stays & fast
    reason[top] = "top condition and expected to stay"
    reason[eligible & ~stays] = "may leave within the horizon"
    reason[eligible & stays & ~fast] = "uplink below the fleet's tier-2 threshold"
    return TierVerdicts(np.where(top, 2, 3).astype(np.int8), eligible, reason)


def _hard_rules(conditions: Conditions, settings: TierSettings, horizon_end_us: int) -> list[tuple[str, Bool]]:
    """Comparisons with NaN are false: an unknown value breaks no rule."""
    on_battery = (conditions.battery < settings.minimum_battery) & ~(conditions.charging == 1.0)
    return [
        ("no consent", conditions.consent_until_us < 0),
        ("consent ends within the horizon", conditions.consent_until_us < horizon_end_us),
        ("too little storage", conditions.storage_bytes < settings.minimum_storage_bytes),
        ("uplink too slow", conditions.uplink_bps < settings.minimum_uplink_bps),
        ("battery low", on_battery),
        ("metered link", (conditions.metered == 1.0) & (not settings.allow_metered)),
        ("loses packets", conditions.loss > settings.maximum_loss),
        ("round trip too long", conditions.rtt_ms > settings.maximum_rtt_ms),
    ]
