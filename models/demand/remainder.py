"""Demand that no cell holds: requests at a location for contents that are not there yet.

    other(l, t, H) = omega_l(H) total(l, t, H),   omega_l = (O_l + k omega) / (T_l + k)

with O_l and T_l the requests outside the cells and the expected totals at the training origins, and omega the share
over all locations: a location that was seen little, or not at all, behaves as the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.demand.places import LocationState
from models.events import Float64

_PSEUDO_REQUESTS = 200.0


@dataclass(frozen=True)
class Remainder:
    """Share of a location's expected total that falls outside the cells.

    Attributes:
        horizons_hours: horizons in the order of the rows.
        overall: share over all locations. (n_horizons,)
        share: share by location id. each (n_horizons,)
    """

    horizons_hours: tuple[int, ...]
    overall: tuple[float, ...]
    share: Mapping[str, tuple[float, ...]]

    @classmethod
    def fit(
        cls, outside: Float64, total: Float64, *, horizons_hours: tuple[int, ...], locations: npt.NDArray[np.object_]
    ) -> Remainder:
        """From sums over the training origins, both (n_horizons, n_locations)."""
        overall = outside.sum(axis=1) / np.maximum(total.sum(axis=1), 1e-9)
        share = (outside + _PSEUDO_REQUESTS * overall[:, None]) / (total + _PSEUDO_REQUESTS)
        by_id = {str(name): tuple(share[:, code].tolist()) for code, name in enumerate(locations)}
        return cls(horizons_hours, tuple(overall.tolist()), by_id)

    def mean(self, places: LocationState, locations: npt.NDArray[np.object_], horizon_hours: int) -> Float64:
        """Requests expected outside the cells over the horizon, shape (n_locations,)."""
        index = self.horizons_hours.index(horizon_hours)
        share = np.array([self.share.get(str(name), self.overall)[index] for name in locations], dtype=np.float64)
        return share * places.expected_total(horizon_hours)

    def to_state(self) -> dict[str, Any]:
        return {
            "horizons_hours": list(self.horizons_hours),
            "overall": list(self.overall),
            "share": {name: list(values) for name, values in self.share.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Remainder:
        share = {name: tuple(values) for name, values in state["share"].items()}
        return cls(tuple(state["horizons_hours"]), tuple(state["overall"]), share)
