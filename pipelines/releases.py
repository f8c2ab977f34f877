"""When the contents of a synthetic world come out, and which of them are episodes of one series.

A news site publishes around the clock, and most of what is read came out lately. A video service starts with a large
catalogue, releases whole series once a week, and viewers go on from an episode to the next:

    content       series s = row // e, episode k = row mod e; the episodes of a series share instant, rank and taste
    chain         from episode k to k + 1 with probability p, else to a successor drawn by popularity (`visits.py`)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pipelines.sizes import Int64
from pipelines.visits import MINUTE_US, Chain

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAY_MINUTES, _WEEK_MINUTES = 1440, 7 * 1440
_EPOCH_WEEKDAY = WEEKDAYS.index("thursday")


@dataclass(frozen=True)
class ReleaseSettings:
    """How contents come into a synthetic world."""

    new_share: float | None = None
    """Share of the contents that comes out during the world, the rest in the six half-lives before; without it,
    contents come out at one rate from six half-lives before the start to the end."""
    weekday: Literal["", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"] = ""
    """Day of the week, from midnight UTC, on which everything comes out; empty for any time."""
    hour: int = 0
    """Hour of that day, UTC."""
    episodes: int = 1
    """Contents that form a series: they come out together and are liked alike; 1 for no series."""
    next_episode_probability: float = 0.0
    """Probability that a session which follows the chain goes on to the next episode, where there is one."""

    def __post_init__(self) -> None:
        problems = []
        if self.new_share is not None and not 0 <= self.new_share <= 1:
            problems.append(f"Expected new_share in [0, 1], got {self.new_share!r}.")
        if self.weekday not in ("", *WEEKDAYS):
            problems.append(f"Expected weekday to be empty or one of {', '.join(WEEKDAYS)}, got {self.weekday!r}.")
        if not 0 <= self.hour < 24:
            problems.append(f"Expected hour in [0, 24), got {self.hour!r}.")
        if self.episodes < 1:
            problems.append(f"Expected episodes >= 1, got {self.episodes!r}.")
        if not 0 <= self.next_episode_probability <= 1:
            problems.append(f"Expected next_episode_probability in [0, 1], got {self.next_episode_probability!r}.")
        if self.next_episode_probability and self.episodes < 2:
            problems.append("Expected episodes >= 2 for a next_episode_probability above 0.")
        if problems:
            raise ValueError(" ".join(problems))

    def n_series(self, n_contents: int) -> int:
        return -(-n_contents // self.episodes)

    def series(self, n_contents: int) -> Int64:
        """Series of each content. (n_contents,)"""
        return np.arange(n_contents) // self.episodes


def draw_releases(
    settings: ReleaseSettings, *, n: int, start_us: int, minutes: tuple[int, int], rng: np.random.Generator
) -> Int64:
    """Instants of `n` releases on whole minutes, in order. (n,)

    Args:
        settings: share of new ones and day of the week.
        n: series, or contents where there are no series.
        start_us: start of the world.
        minutes: first minute, before the start, and the minute at which the world ends, both counted from the start.
        rng: of the draws.
    """
    before, until = minutes
    if settings.new_share is None:
        drawn = rng.integers(before, until, n)
    else:
        n_new = round(settings.new_share * n)
        first = _wait_minutes(settings, start_us)
        if n_new and first >= until:
            raise ValueError(f"No {settings.weekday!r} falls into the world; lengthen it or leave out new_share.")
        drawn = np.concatenate([rng.integers(before, 0, n - n_new), rng.integers(first, until, n_new)])
    return np.asarray(start_us + MINUTE_US * np.sort(_moved_back(drawn, settings, start_us)), dtype=np.int64)


def _wait_minutes(settings: ReleaseSettings, start_us: int) -> int:
    """Minutes from the start to the first release."""
    at_start = np.zeros(1, dtype=np.int64)
    return int(-_since_release(at_start, settings, start_us)[0]) % _WEEK_MINUTES if settings.weekday else 0


def _moved_back(minutes: Int64, settings: ReleaseSettings, start_us: int) -> Int64:
    """Each minute moved to the last release at or before it."""
    if not settings.weekday:
        return minutes
    return np.asarray(minutes - _since_release(minutes, settings, start_us), dtype=np.int64)


def _since_release(minutes: Int64, settings: ReleaseSettings, start_us: int) -> Int64:
    """Minutes from the last release to each minute."""
    days = (WEEKDAYS.index(settings.weekday) - _EPOCH_WEEKDAY) % 7
    first = days * _DAY_MINUTES + 60 * settings.hour
    return np.asarray((start_us // MINUTE_US + minutes - first) % _WEEK_MINUTES, dtype=np.int64)


def with_next_episodes(chain: Chain, settings: ReleaseSettings) -> Chain:
    """The chain with the next episode, where there is one, as first successor; the others share what is left."""
    if settings.episodes == 1:
        return chain
    content = np.arange(len(chain.successor))
    following = content + 1
    is_last = (content % settings.episodes == settings.episodes - 1) | (following == len(content))
    others = np.where((chain.successor == following[:, None]) & ~is_last[:, None], 0.0, chain.probability)
    left = others.sum(axis=1)
    to_next = np.where(is_last, 0.0, np.where(left > 0, settings.next_episode_probability, 1.0))
    others *= ((1 - to_next) / np.where(left > 0, left, 1.0))[:, None]
    first = np.where(is_last, content, following)  # of probability 0 for a last episode
    return replace(
        chain,
        successor=np.column_stack([first, chain.successor]),
        probability=np.column_stack([to_next, others]),
    )
