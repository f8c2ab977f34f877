"""What a next-content model answers, and its sum by location."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.events import Float64, Int32, Int64
from models.keys import pair_keys
from models.next_content.sessions import SessionBatch


@dataclass(frozen=True)
class NextContentForecast:
    """The likeliest next contents of each session, best first.

    Attributes:
        content: content codes, -1 where the catalogue holds fewer. (n, k)
        probability: their probabilities; what is missing to one lies on other contents. (n, k)
    """

    content: Int32
    probability: Float64


def aggregate_by_location(sessions: SessionBatch, forecast: NextContentForecast) -> tuple[Int32, Int32, Float64]:
    """Expected next requests by (content, location): the sum of the sessions' probabilities, sorted by cell.

    Sessions without a known location and places without a content are left out. A session that stops requests nothing;
    multiply by the probability of going on where that matters (`CounterStore.flow` has it built in).
    """
    location = np.repeat(sessions.location, forecast.content.shape[1])
    content, probability = forecast.content.ravel(), forecast.probability.ravel()
    known = (content >= 0) & (location >= 0)
    keys: Int64
    keys, cell = np.unique(pair_keys(content[known], location[known]), return_inverse=True)
    expected: Float64 = np.bincount(cell, weights=probability[known], minlength=len(keys)).astype(np.float64)
    return (keys >> 32).astype(np.int32), (keys & 0x7FFFFFFF).astype(np.int32), expected
