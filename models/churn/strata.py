"""Strata of a churn comparison.

all; each device class; the ten largest locations and the rest; `unseen`, nodes first seen after training; `young`,
nodes first seen less than a day before the origin.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.churn.history import UNKNOWN, Objects, SessionHistory
from models.events import DAY_US, Bool, Int64

Stratum = Callable[[Int64, Int64], Bool]
"""(node, origin) of each row → whether it belongs."""
_LARGEST_LOCATIONS = 10


def strata_of(history: SessionHistory, *, trained_until_us: int | None = None) -> dict[str, Stratum]:
    """Strata by name; classes and locations only where there are several, "unseen" where training ended."""
    strata: dict[str, Stratum] = {"all": lambda node, at_us: np.ones(len(node), dtype=np.bool_)}
    for kind, groups in (("class", history.device_class), ("location", _locations(history.location))):
        labels = groups.astype(str)
        names = np.unique(labels)
        if len(names) > 1:
            strata |= {f"{kind}:{name}": _of_nodes(labels == name) for name in names}
    if trained_until_us is not None:
        strata["unseen"] = _of_nodes(history.observed_from_us >= trained_until_us)
    strata["young"] = lambda node, at_us: np.asarray(history.observed_from_us[node] > at_us - DAY_US, dtype=np.bool_)
    return strata


def _of_nodes(members: Bool) -> Stratum:
    return lambda node, at_us: members[node]


def _locations(location: Objects) -> Objects:
    """The largest locations by name, all others as "other", those that are unknown as such."""
    names, counts = np.unique(location[location != UNKNOWN].astype(str), return_counts=True)
    largest = set(names[np.argsort(-counts, kind="stable")[:_LARGEST_LOCATIONS]])
    return np.array([name if name in largest or name == UNKNOWN else "other" for name in location], dtype=object)
