"""The Markov part of demand: a non-negative mixture of decayed rates and the flow of sessions under way.

    mu0(i, l, t, H) = H [ sum_h a_h r_h(i, l) g_h(l) + sum_h b_h r_h(i) share(l) g_h(l)
                          + c r(i) aff(i, l) g(l) + d flow(i, l) g(l) + e flow(i) share(l) g(l) ]

with r_h the decayed rate at half-life h, aff the shrunk local share, flow the next requests expected from active
sessions, and g the growth of traffic to the mean of the window. The coefficients of each horizon are fitted by
non-negative least squares weighted with 1 / mu, the inverse variance of a count; with the weights taken from the
previous solution this climbs the Poisson likelihood. Non-negative, so no cell can be forecast below zero and each
coefficient reads as a share.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from models.demand.cells import CellState, nearest_half_life
from models.events import Bool, Float64, Reals

MEAN_FLOOR = 1e-3
"""No cell is forecast below this many requests: one request there must not cost an infinite loss."""
OWN, CONTENT, AFFINITY, FLOW = "own", "content", "affinity", "flow"
ALL_PARTS = (OWN, CONTENT, AFFINITY, FLOW)
_REWEIGHTINGS = 4


def prior_column_names(half_lives_hours: tuple[float, ...]) -> list[str]:
    """Names of the columns of `prior_columns`, `part:detail`."""
    own = [f"{OWN}:{h:g}h" for h in half_lives_hours]
    content = [f"{CONTENT}:{h:g}h" for h in half_lives_hours]
    return [*own, *content, f"{AFFINITY}:", f"{FLOW}:cell", f"{FLOW}:content"]


def prior_columns(state: CellState, horizon_hours: int) -> Float64:
    """Requests each term alone would expect over the horizon, shape (n, n_terms)."""
    growth = state.places.growth(horizon_hours)[state.location]
    share = state.share[:, None]
    middle = nearest_half_life(state.half_lives_hours, 1.5)
    columns = np.column_stack(
        [
            state.cell_rates * growth,
            state.content_rates * share * growth,
            state.content_rates[:, middle] * state.affinity * growth[:, middle],
            state.flow * growth[:, 0],
            state.content_flow * share[:, 0] * growth[:, 0],
        ]
    )
    return np.asarray(horizon_hours * columns, dtype=np.float64)


def fit_nonnegative(columns: Float64, counts: Float64, weights: Float64) -> Float64:
    """Coefficients >= 0 that minimise sum_j w_j (y_j - x_j b)^2 / mu_j with mu = x b from the step before.

    Solved on the normal equations, so the cost beyond one pass over the rows does not depend on their number.

    Args:
        columns: expected requests by term. (n, n_terms)
        counts: requests that came. (n,)
        weights: importance of the rows. (n,)
    """
    scale = np.maximum((weights @ columns) / max(weights.sum(), 1e-12), 1e-9)
    x = np.asarray(columns / scale, dtype=np.float64)
    mean = np.maximum(x.mean(axis=1) * (weights @ counts) / max(weights @ x.mean(axis=1), 1e-12), 0.0)
    solution = np.zeros(x.shape[1])
    for _ in range(_REWEIGHTINGS):
        solution = _weighted_step(x, counts, weights / (mean + 0.05))
        mean = x @ solution
    return np.asarray(solution / scale, dtype=np.float64)


def _weighted_step(x: Float64, counts: Float64, weights: Float64) -> Float64:
    gram = x.T @ (x * weights[:, None])
    # A hair of ridge keeps the root defined when two terms are copies of each other.
    gram[np.diag_indices_from(gram)] += 1e-9 * max(float(np.trace(gram)), 1e-12)
    root = np.linalg.cholesky(gram)
    target = np.linalg.solve(root, x.T @ (weights * counts))
    return np.asarray(nnls(root.T, target)[0], dtype=np.float64)


@dataclass(frozen=True)
class DemandPrior:
    """Fitted coefficients of the mixture, one row a horizon.

    Attributes:
        horizons_hours: horizons in the order of the rows.
        half_lives_hours: of the counters it was fitted on; other counters are refused.
        coefficients: non-negative. (n_horizons, n_terms)
    """

    horizons_hours: tuple[int, ...]
    half_lives_hours: tuple[float, ...]
    coefficients: Float64

    def __post_init__(self) -> None:
        expected = (len(self.horizons_hours), len(prior_column_names(self.half_lives_hours)))
        if self.coefficients.shape != expected:
            raise ValueError(f"coefficients has shape {self.coefficients.shape}, expected {expected}.")
        if not (np.isfinite(self.coefficients) & (self.coefficients >= 0.0)).all():
            raise ValueError("coefficients must be finite and at least 0.")

    @classmethod
    def fit(
        cls,
        columns: Reals,
        counts: Reals,
        weights: Reals,
        *,
        horizons_hours: tuple[int, ...],
        half_lives_hours: tuple[float, ...],
        parts: Collection[str] = ALL_PARTS,
    ) -> DemandPrior:
        """Fits every horizon; terms of parts that are not named get the coefficient 0.

        Args:
            columns: terms by horizon. (n_horizons, n, n_terms)
            counts: requests by horizon, NaN where the window was not observed to its end. (n_horizons, n)
            weights: importance of the rows. (n,)
            horizons_hours: horizons in the order of the first axis.
            half_lives_hours: of the counters.
            parts: some of `ALL_PARTS`.
        """
        used = _terms_of(parts, half_lives_hours)
        coefficients = np.zeros((len(horizons_hours), len(used)))
        for index in range(len(horizons_hours)):
            seen = np.isfinite(counts[index])
            x, y = columns[index][seen][:, used], counts[index][seen].astype(np.float64)
            coefficients[index, used] = fit_nonnegative(x.astype(np.float64), y, weights[seen].astype(np.float64))
        return cls(horizons_hours, half_lives_hours, coefficients)

    def mean_of(self, columns: Reals, horizon_index: int) -> Float64:
        """Expected requests from columns built already, shape (n,)."""
        return np.asarray(np.maximum(columns @ self.coefficients[horizon_index], MEAN_FLOOR), dtype=np.float64)

    def mean(self, state: CellState, horizon_hours: int) -> Float64:
        """Expected requests over the horizon, shape (n,).

        Raises:
            ValueError: the counters have other half-lives than those it was fitted on.
        """
        if state.half_lives_hours != self.half_lives_hours:
            raise ValueError(
                f"The counters have half-lives {state.half_lives_hours} h but the model was fitted on "
                f"{self.half_lives_hours} h; build the counters with the model's half-lives."
            )
        return self.mean_of(prior_columns(state, horizon_hours), self.horizons_hours.index(horizon_hours))

    def to_state(self) -> dict[str, Any]:
        return {
            "horizons_hours": list(self.horizons_hours),
            "half_lives_hours": list(self.half_lives_hours),
            "coefficients": self.coefficients.tolist(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> DemandPrior:
        return cls(
            tuple(state["horizons_hours"]),
            tuple(state["half_lives_hours"]),
            np.array(state["coefficients"], dtype=np.float64),
        )


def _terms_of(parts: Collection[str], half_lives_hours: tuple[float, ...]) -> Bool:
    unknown = set(parts) - set(ALL_PARTS)
    if unknown or not parts:
        raise ValueError(f"Expected some of {ALL_PARTS}, got {sorted(parts)!r}.")
    return np.array([name.split(":")[0] in parts for name in prior_column_names(half_lives_hours)])
