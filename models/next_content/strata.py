"""Parts of the questions that are reported on their own: by popularity, age, place in the session, and location."""

from __future__ import annotations

import numpy as np

from models.counters import CounterStore
from models.events import HOUR_US, Bool, Float64, Ids, Int32, Int64
from models.next_content.sessions import SessionBatch

HEAD_SHARE, TORSO_SHARE = 0.01, 0.0005
"""Least share of all requests of a content of the head, and of the torso; below is the tail."""
NEW_US = 3 * HOUR_US
LOCATIONS = 8
"""Locations with a stratum of their own: those with most questions."""


def known_before(store: CounterStore, content: int, at_us: int) -> tuple[float, int]:
    """Share of a content in all requests at the slowest half-life, and its age; (0, 0) for an unseen one."""
    if content >= len(store.contents):
        return 0.0, 0
    p = store.popularity
    total = float(p.total[-1])
    return float(p.content[content, -1]) / total if total > 0 else 0.0, at_us - int(p.appeared_us[content])


def strata_of(sessions: SessionBatch, share: Float64, age_us: Int64, locations: Ids) -> dict[str, Bool]:
    """Which questions belong to which stratum; `location:` is followed by an id, or by `other`.

    Args:
        sessions: who asks. (n)
        share: popularity of what came, see `known_before`. (n,)
        age_us: time since it appeared. (n,)
        locations: location ids by code.
    """
    n_items = (sessions.items >= 0).sum(axis=1)
    return {
        "all": np.ones(len(sessions), dtype=np.bool_),
        "head": share >= HEAD_SHARE,
        "torso": (share >= TORSO_SHARE) & (share < HEAD_SHARE),
        "tail": share < TORSO_SHARE,
        "new_content": age_us < NEW_US,
        "first_event": n_items == 0,
        "second_event": n_items == 1,
        "third_event_on": n_items > 1,
        **_by_location(sessions.location, locations),
    }


def _by_location(location: Int32, locations: Ids) -> dict[str, Bool]:
    codes, questions = np.unique(location[location >= 0], return_counts=True)
    largest = codes[np.lexsort((codes, -questions))][:LOCATIONS]
    strata = {f"location:{locations[code]}": location == code for code in largest}
    return strata | {"location:other": ~np.isin(location, largest)}
