"""Hazard logits put right on outcomes: a slope, and a shift for each bin of the horizon.

    η′_b = s η_b + t_b                    hazard of bin b, given still up
    S(e_b) = Π_{k ≤ b} (1 − σ(η′_k))
    ℓ = Σ_i w_i log[S_i(low_i) − S_i(high_i)],  S_i(high_i) = 0 where censored

With H(b) = −log S(e_b) and D = H(high) − H(low), a row adds −H(low) + log(1 − e^−D), so a departure between two
sightings and one that is not yet known enter exactly. About a centre (s₀, t₀), with c the mean logit weighted by
information,

    s = s₀ + σ,   t_b = t₀_b + τ − σ c + δ_b,   penalty (κ_σ φ σ² + κ τ² + κ Σ δ_b²) / 2

The parts are added as departures allow: few move the level τ alone, more the slope, many each bin. The fleet is fitted
first about the prior, κ_σ = κ; each class then about the fleet, κ_σ = 5 κ: slopes of classes differ less than levels.

Departures that come together say one thing, not as many: a hundred stable nodes of one operator that leave in an hour
would flatten their class for weeks. With u_k the score of the slope, freed of the level's, over the origins of block k
of time, each as long as the horizon, and I its information,

    φ = max(1, K / (K − 1) · Σ_k u_k² / I)       1 where departures are independent and each counts once

so the slope is shrunk as if I / φ were known of it (Wedderburn 1974, Quasi-likelihood functions); the level is not.
Newton's method with Levenberg's damping; the slope stays in [0.25, 4].

A slope and intercept on log-odds is Cox's recalibration (Cox 1958, Two further applications of a model for binary
regression), here on discrete hazards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from scipy.special import log_expit

from models.churn.history import Objects
from models.churn.outcomes import Outcomes, log_likelihood
from models.events import HOUR_US, Bool, Float64, Int64

FLEET = ""
"""Key of the calibration of every device class that has none of its own."""
LEAST_SLOPE, MOST_SLOPE = 0.25, 4.0
SLOPE_FROM_DEPARTURES = 100.0
BINS_FROM_DEPARTURES = 2000.0
CLASS_SLOPE_STRENGTH = 5.0
"""κ_σ / κ of a class about the fleet: with κ = 20 slopes within 0.1 of the fleet's are expected, half of what is allowed."""
_NEWTON_STEPS = 60
_TOLERANCE = 1e-9
_LEAST_DAMPING, _MOST_DAMPING = 1e-3, 1e9
_STEP = 1e-3


@dataclass(frozen=True)
class HazardCalibration:
    """η → slope η + shift_b; the identity is slope 1 and shifts 0.

    Attributes:
        slope: factor on the logits, in [0.25, 4].
        shift: added to the logit of each bin. (B,)

    Raises:
        ValueError: the slope is out of bounds, or a shift is missing or not finite.
    """

    slope: float
    shift: tuple[float, ...]

    def __post_init__(self) -> None:
        if not LEAST_SLOPE <= self.slope <= MOST_SLOPE:
            raise ValueError(f"Expected slope in [{LEAST_SLOPE}, {MOST_SLOPE}], got {self.slope!r}.")
        if not self.shift or not np.isfinite(self.shift).all():
            raise ValueError(f"Expected a finite shift for each bin, got {self.shift!r}.")

    @classmethod
    def identity(cls, bins: int) -> HazardCalibration:
        return cls(1.0, (0.0,) * bins)

    def apply(self, logits: Float64) -> Float64:
        """Calibrated logits, shape (n, B); ValueError where B is not the number of shifts."""
        if logits.shape[-1] != len(self.shift):
            raise ValueError(f"Expected logits of {len(self.shift)} bins, got shape {logits.shape}.")
        return np.asarray(self.slope * logits + np.asarray(self.shift), dtype=np.float64)

    def after(self, first: HazardCalibration) -> HazardCalibration:
        """The one calibration that does `first` and then this; its slope is kept in bounds."""
        slope = float(np.clip(self.slope * first.slope, LEAST_SLOPE, MOST_SLOPE))
        return HazardCalibration(slope, tuple(self.apply(np.asarray(first.shift)).tolist()))

    def to_json(self) -> dict[str, Any]:
        return {"slope": self.slope, "shift": list(self.shift)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> HazardCalibration:
        return cls(float(values["slope"]), tuple(float(v) for v in values["shift"]))


def calibrated_logits(logits: Float64, device_class: Objects, calibration: Mapping[str, HazardCalibration]) -> Float64:
    """Each row by the calibration of its class, by the fleet's where it has none, unchanged where there is neither."""
    done = np.array(logits, dtype=np.float64)
    for name in set(device_class):
        chosen = calibration.get(str(name), calibration.get(FLEET))
        if chosen is not None:
            mine = device_class == name
            done[mine] = chosen.apply(logits[mine])
    return done


def fit_hazard_calibrations(
    logits: Float64,
    outcomes: Outcomes,
    device_class: Objects,
    *,
    weight: Float64 | None = None,
    prior: Mapping[str, HazardCalibration] | None = None,
    strength: float = 20.0,
    slope: bool = True,
) -> dict[str, HazardCalibration]:
    """The fleet's calibration under "" and one a device class, each class shrunk towards the fleet.

    Args:
        logits: hazard logits to be put right. (n, B)
        outcomes: what became of the rows, censored at any edge. (n)
        device_class: (n,)
        weight: non-negative, in departures: where one departure is seen from k origins, 1 / k keeps the shrinkage
            honest. Ones when absent. (n,)
        prior: calibrations to shrink towards; the identity when absent. A class that it holds keeps its difference
            from the prior's fleet, and moves with the fleet.
        strength: precision κ of the shrinkage, in departures.
        slope: whether more than one common shift may move.

    Raises:
        ValueError: shapes disagree, a weight is negative or a logit is not finite.
    """
    weight = np.ones(len(outcomes)) if weight is None else np.asarray(weight, dtype=np.float64)
    _check(logits, outcomes, device_class, weight)
    start = HazardCalibration.identity(logits.shape[1])
    before = {FLEET: start} if prior is None else {FLEET: prior.get(FLEET, start), **prior}
    fleet = fit_calibration(logits, outcomes, weight=weight, centre=before[FLEET], strength=strength, slope=slope)
    found = {FLEET: fleet}
    names = sorted({str(c) for c in device_class} - {FLEET})
    for name in names:
        centre = _moved(before[name], before[FLEET], fleet) if name in before else fleet
        mine = device_class == name
        if len(names) > 1 or name in before:
            found[name] = fit_calibration(
                logits[mine],
                outcomes.take(mine),
                weight=weight[mine],
                centre=centre,
                strength=strength,
                slope_strength=CLASS_SLOPE_STRENGTH * strength,
                slope=slope,
            )
        else:
            found[name] = fleet  # the only class is the fleet
    return found


def fit_calibration(
    logits: Float64,
    outcomes: Outcomes,
    *,
    weight: Float64,
    centre: HazardCalibration,
    strength: float,
    slope_strength: float | None = None,
    slope: bool = True,
) -> HazardCalibration:
    """One calibration by penalised maximum likelihood about `centre`; `centre` itself where no row weighs anything."""
    departures = float(weight[outcomes.high > 0].sum())
    if not weight.sum() > 0.0:
        return centre
    bins = logits.shape[1]
    mean = _informative_mean(centre.apply(logits), logits, weight)
    free = np.zeros(bins + 2, dtype=np.bool_)
    free[1] = True
    free[0] = slope and departures >= SLOPE_FROM_DEPARTURES
    free[2:] = slope and departures >= BINS_FROM_DEPARTURES
    ridge = np.full(bins + 2, strength)
    ridge[0] = strength if slope_strength is None else slope_strength
    problem = _Problem(
        np.ascontiguousarray(logits, dtype=np.float64), outcomes.low, outcomes.high, weight, centre, mean, ridge
    )
    theta = _maximum(problem, np.zeros(bins + 2), free)
    if free[0]:
        ridge[0] *= _togetherness(problem, theta, outcomes)
        theta = _maximum(problem, theta, free)
    found = centre.slope + theta[0]
    if not LEAST_SLOPE <= found <= MOST_SLOPE:
        theta[0] = float(np.clip(found, LEAST_SLOPE, MOST_SLOPE)) - centre.slope
        free[0] = False
        theta = _maximum(problem, theta, free)
    found, shift = problem.parameters(theta)
    return HazardCalibration(float(np.clip(found, LEAST_SLOPE, MOST_SLOPE)), tuple(shift.tolist()))


@dataclass(frozen=True)
class _Problem:
    """The penalised likelihood of θ = (σ, τ, δ_1 … δ_B), each shrunk to 0 by its own precision in `ridge`."""

    logits: Float64
    low: Int64
    high: Int64
    weight: Float64
    centre: HazardCalibration
    mean_logit: float
    ridge: Float64

    def parameters(self, theta: Float64) -> tuple[float, Float64]:
        slope = self.centre.slope + float(theta[0])
        return slope, np.asarray(self.centre.shift) + theta[1] - theta[0] * self.mean_logit + theta[2:]

    def at(self, theta: Float64) -> tuple[float, Float64, Float64]:
        """Penalised log-likelihood, its gradient and its negative Hessian in θ."""
        slope, shift = self.parameters(theta)
        value, gradient, curvature = _derivatives(self.logits, self.low, self.high, self.weight, slope, shift)
        bins = len(shift)
        # (slope, shift_1 … shift_B) as a linear map of θ.
        to = np.zeros((bins + 1, bins + 2))
        to[0, 0], to[1:, 0], to[1:, 1], to[1:, 2:] = 1.0, -self.mean_logit, 1.0, np.eye(bins)
        penalty = 0.5 * float(np.sum(self.ridge * theta**2))
        return float(value) - penalty, to.T @ gradient - self.ridge * theta, to.T @ curvature @ to + np.diag(self.ridge)

    def log_likelihoods(self, theta: Float64) -> Float64:
        """Of each row, without the penalty. (n,)"""
        slope, shift = self.parameters(theta)
        survival = np.exp(np.cumsum(log_expit(-(slope * self.logits + shift)), axis=1))
        return self.weight * log_likelihood(survival, self.low, self.high)


def _maximum(problem: _Problem, theta: Float64, free: Bool) -> Float64:
    """Damped Newton ascent of the free parameters; a step that does not gain is damped more."""
    chosen, damping = np.flatnonzero(free), 0.0
    value, gradient, curvature = problem.at(theta)
    for _ in range(_NEWTON_STEPS):
        curved = curvature[np.ix_(chosen, chosen)]
        scale = np.maximum(np.abs(np.diag(curved)), problem.ridge[chosen])
        step = np.linalg.solve(curved + damping * np.diag(scale), gradient[chosen])
        promised = float(step @ gradient[chosen])
        if 0.0 <= promised < _TOLERANCE or damping > _MOST_DAMPING:
            break
        candidate = theta.copy()
        candidate[chosen] += step
        reached = problem.at(candidate) if promised > 0.0 else (-np.inf, gradient, curvature)
        if reached[0] > value:
            theta, (value, gradient, curvature) = candidate, reached
            damping = damping / 10.0 if damping > _LEAST_DAMPING else 0.0
        else:
            damping = max(10.0 * damping, _LEAST_DAMPING)
    return theta


def _togetherness(problem: _Problem, theta: Float64, outcomes: Outcomes) -> float:
    """φ of the slope at θ; 1 where all rows are of one block of time."""
    block = outcomes.at_us // round(float(outcomes.edges_hours[-1]) * HOUR_US)
    _, code = np.unique(block, return_inverse=True)
    blocks = int(code.max()) + 1
    if blocks < 2:
        return 1.0
    curvature = problem.at(theta)[2]
    along = np.zeros(len(theta))
    along[0], along[1] = 1.0, -curvature[0, 1] / curvature[1, 1]
    ahead, behind = (problem.log_likelihoods(theta + sign * _STEP * along) for sign in (1.0, -1.0))
    scores = np.bincount(code, weights=(ahead - behind) / (2.0 * _STEP))
    spread = float(np.sum((scores - scores.mean()) ** 2)) * blocks / (blocks - 1)
    information = float(along @ (curvature - np.diag(problem.ridge)) @ along)
    return max(1.0, spread / max(information, 1e-9))


def _informative_mean(calibrated: Float64, logits: Float64, weight: Float64) -> float:
    """Mean logit weighted by the information of its bin, so that slope and level hardly depend on each other."""
    hazard = 1.0 / (1.0 + np.exp(-np.clip(calibrated, -40.0, 40.0)))
    information = weight[:, None] * hazard * (1.0 - hazard)
    return float(np.sum(information * logits) / max(float(information.sum()), 1e-300))


def _moved(mine: HazardCalibration, prior_fleet: HazardCalibration, fleet: HazardCalibration) -> HazardCalibration:
    slope = float(np.clip(mine.slope * fleet.slope / prior_fleet.slope, LEAST_SLOPE, MOST_SLOPE))
    shift = np.asarray(mine.shift) + np.asarray(fleet.shift) - np.asarray(prior_fleet.shift)
    return HazardCalibration(slope, tuple(shift.tolist()))


def _check(logits: Float64, outcomes: Outcomes, device_class: Objects, weight: Float64) -> None:
    n, bins = len(outcomes), len(outcomes.edges_hours)
    if logits.shape != (n, bins) or len(device_class) != n or weight.shape != (n,):
        raise ValueError(
            f"Expected logits of shape {(n, bins)} with as many classes and weights, got {logits.shape}, "
            f"{len(device_class)} and {weight.shape}."
        )
    if not np.isfinite(logits).all():
        raise ValueError(f"Expected finite logits, got {int(np.sum(~np.isfinite(logits)))} that are not.")
    if not (np.isfinite(weight) & (weight >= 0.0)).all():
        raise ValueError("Expected finite weights >= 0.")


@numba.njit(cache=True, nogil=True)
def _derivatives(logits, low, high, weight, slope, shift):  # type: ignore[no-untyped-def]
    """Log-likelihood, its gradient and its negative Hessian in (slope, shift_1 … shift_B)."""
    n, bins = logits.shape
    value = 0.0
    gradient = np.zeros(bins + 1)
    curvature = np.zeros((bins + 1, bins + 1))
    p = np.empty(bins)
    for i in range(n):
        w = weight[i]
        last = max(low[i], high[i])
        if w <= 0.0 or last == 0:
            continue
        gone = 0.0
        for b in range(last):
            z = slope * logits[i, b] + shift[b]
            e = np.exp(-abs(z))
            softplus = max(z, 0.0) + np.log1p(e)
            p[b] = 1.0 / (1.0 + e) if z >= 0.0 else e / (1.0 + e)
            if b < low[i]:
                value -= w * softplus
            else:
                gone += softplus
        odds = 0.0
        if high[i] > 0:
            gone = max(gone, 1e-300)
            value += w * np.log(-np.expm1(-gone))
            odds = 1.0 / np.expm1(min(gone, 700.0))
        along_slope = 0.0
        for b in range(last):
            x = logits[i, b]
            first = -w * p[b] if b < low[i] else w * odds * p[b]
            gradient[0] += first * x
            gradient[b + 1] += first
            second = -first * (1.0 - p[b])
            curvature[0, 0] += second * x * x
            curvature[0, b + 1] += second * x
            curvature[b + 1, b + 1] += second
            if b >= low[i]:
                along_slope += p[b] * x
        if high[i] > 0:
            q = w * odds * (1.0 + odds)
            curvature[0, 0] += q * along_slope * along_slope
            for b in range(low[i], last):
                curvature[0, b + 1] += q * along_slope * p[b]
                for c in range(low[i], last):
                    curvature[b + 1, c + 1] += q * p[b] * p[c]
    for b in range(bins):
        curvature[b + 1, 0] = curvature[0, b + 1]
    return value, gradient, curvature
