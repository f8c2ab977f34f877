"""How patient, thrifty and steady a rebalance is."""

from __future__ import annotations

from dataclasses import dataclass

from placement.errors import EventError

_INFINITY = float("inf")


@dataclass(frozen=True)
class RebalanceSettings:
    """Patience with outages, thresholds of moves, and how much is looked at."""

    outage_share: float = 0.5
    """A network is out when more than this share of its live nodes fails at once, in [0, 1]."""
    outage_least_nodes: int = 3
    """And when at least so many of them do."""
    patience_seconds: float = 3_600.0
    """Time for which an outage is waited out before its nodes count as failed."""
    most_bytes_per_network: int | None = None
    """Most bytes that one rebalance pushes into one network; null for no limit beside the movement budget."""
    least_gain_millidollars_per_gb: float = 1.0
    """Least gain of a move, net of its push and of what it evicts, for each GB pushed."""
    remembered_rebalances: int = 5
    """A copy pushed or dropped in so many last rebalances is moved back only for a great gain; nothing is pushed to a
    source that came back in them."""
    return_gain_factor: float = 3.0
    """Such a move must gain so many times its cost."""
    most_segments: int = 2_000
    """Segments whose moves are looked at for nodes that joined, most requested first."""
    rounds: int = 4
    """Rounds of moves, after each of which everything is priced anew."""
    moves_per_round: int = 16
    """Moves of the first round; later ones make more while they pay."""
    exact_arcs: int = 25_000
    """Largest part of the demand, in arcs, whose shares are solved exactly."""

    def __post_init__(self) -> None:
        problems = list(_setting_problems(self))
        if problems:
            raise EventError("The rebalance settings cannot be used:", problems)


def _setting_problems(settings: RebalanceSettings) -> list[str]:
    bounds: tuple[tuple[str, float, float, str], ...] = (
        ("outage_share", 0, 1.0000001, "in [0, 1]"),
        ("outage_least_nodes", 1, _INFINITY, ">= 1"),
        ("patience_seconds", 0, _INFINITY, ">= 0 and finite"),
        ("least_gain_millidollars_per_gb", 0, _INFINITY, ">= 0 and finite"),
        ("remembered_rebalances", 0, _INFINITY, ">= 0"),
        ("return_gain_factor", 1, _INFINITY, ">= 1 and finite"),
        ("most_segments", 0, _INFINITY, ">= 0"),
        ("rounds", 0, _INFINITY, ">= 0"),
        ("moves_per_round", 1, _INFINITY, ">= 1"),
        ("exact_arcs", 0, _INFINITY, ">= 0"),
    )
    problems = [
        f"Expected {name} {allowed}, got {getattr(settings, name)!r}."
        for name, least, below, allowed in bounds
        if not least <= getattr(settings, name) < below
    ]
    if settings.most_bytes_per_network is not None and not settings.most_bytes_per_network >= 0:
        problems.append(f"Expected most_bytes_per_network >= 0 or null, got {settings.most_bytes_per_network!r}.")
    return problems
