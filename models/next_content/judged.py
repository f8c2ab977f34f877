"""One answer in full: the ranking, and what the method held of the contents that were asked about."""

from __future__ import annotations

from dataclasses import dataclass

from models.events import Bool, Float64
from models.next_content.forecast import NextContentForecast


@dataclass(frozen=True)
class Judged:
    """What a method with a shortlist says of n sessions at once.

    Attributes:
        forecast: the likeliest next contents.
        probability: of the contents that were asked about; empty where none were. (n,)
        listed: whether these are on the method's shortlist; empty likewise. (n,)
    """

    forecast: NextContentForecast
    probability: Float64
    listed: Bool
