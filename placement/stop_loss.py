"""Whether mirroring pays at a location: off where the net saving of its last hours is below zero, tried again later.

With s(t) the net saving of hour t in money (`ReplayTally.net_saving`), w hours of window and r of rest, a location goes

    on  -> off   after hour t, where it was on for the last w hours and  s(t - w + 1) + ... + s(t) < 0
    off -> on    after r hours off; its window begins anew, so that a trial lasts w hours at least

Bytes count where their viewer is and pushes where the node is, so a location whose nodes serve a neighbour more than
their own viewers looks worse than it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.errors import ReplayError
from placement.problem import Bool, Float64, Int64


@dataclass(frozen=True)
class StopLossSettings:
    """When mirroring at a location is stopped, and when it is tried again."""

    window_hours: int = 24
    """Hours over which a location's net saving must not be below zero; it is not judged earlier."""
    retest_after_hours: int = 24
    """Hours after which a location that was stopped is tried again."""

    def __post_init__(self) -> None:
        problems = [
            f"Expected {name} >= 1, got {getattr(self, name)!r}."
            for name in ("window_hours", "retest_after_hours")
            if not getattr(self, name) >= 1
        ]
        if problems:
            raise ReplayError("The stop-loss settings cannot be used:", problems)


class StopLoss:
    """The rule at work: told the saving of each hour in turn, says where mirroring is on.

    Attributes:
        on: whether mirroring is on in the next hour. (locations,)
    """

    def __init__(self, settings: StopLossSettings, n_locations: int) -> None:
        self._settings = settings
        self._window: Float64 = np.zeros((settings.window_hours, n_locations))
        self._in_state: Int64 = np.zeros(n_locations, np.int64)  # hours since it went on or off
        self._hours = 0
        self.on: Bool = np.ones(n_locations, np.bool_)

    def observe(self, saving: Float64) -> None:
        """One more hour.

        Args:
            saving: net saving of the hour in money; not read where mirroring is off. (locations,)
        """
        self._window[self._hours % len(self._window)] = np.where(self.on, saving, 0.0)
        self._hours += 1
        self._in_state += 1
        full = self._in_state >= self._settings.window_hours
        loses = self.on & full & (self._window.sum(axis=0) < 0)
        returns = ~self.on & (self._in_state >= self._settings.retest_after_hours)
        switched = loses | returns
        self.on = self.on ^ switched
        self._in_state[switched] = 0
        self._window[:, switched] = 0.0


@dataclass(frozen=True)
class StopLossVerdicts:
    """What the rule says of every location.

    Attributes:
        on: whether mirroring was on in each hour. (hours, locations)
        on_next: whether it is on after the last hour. (locations,)
        saving: net saving in money, as it was counted. (hours, locations)
    """

    on: Bool
    on_next: Bool
    saving: Float64

    @property
    def saved(self) -> Float64:
        """Net saving of the whole time. (locations,)"""
        total: Float64 = self.saving.sum(axis=0)
        return total

    @property
    def saved_with(self) -> Float64:
        """Net saving had nothing been pushed or served in the hours off. (locations,)

        A lower bound of what the rule does: a location that is off still serves what it holds.
        """
        total: Float64 = np.where(self.on, self.saving, 0.0).sum(axis=0)
        return total

    @property
    def hours_off(self) -> Int64:
        """Hours in which mirroring was off. (locations,)"""
        hours: Int64 = (~self.on).sum(axis=0)
        return hours


def judge_locations(saving: Float64, settings: StopLossSettings) -> StopLossVerdicts:
    """Goes through the hours of a finished replay.

    Args:
        saving: `ReplayTally.net_saving`. (hours, locations)
        settings: window and rest.
    """
    rule = StopLoss(settings, saving.shape[1])
    on: Bool = np.ones(saving.shape, np.bool_)
    for hour, row in enumerate(saving):
        on[hour] = rule.on
        rule.observe(row)
    return StopLossVerdicts(on, rule.on, saving)
