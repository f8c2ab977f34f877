"""Settings of the next-content model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from models.counter_settings import CounterSettings
from models.next_content.refresh import RefreshSettings
from models.next_content.sequence import SequenceSettings


@dataclass(frozen=True)
class SessionCounterSettings(CounterSettings):
    """Counters with the defaults of next content: a faster half-life, longer lists."""

    half_lives_hours: tuple[float, ...] = (0.1, 0.5, 3.0, 24.0)
    """Half-lives of contents, locations and cells (content, location), in hours, from fast to slow."""
    successor_cap: int = 96
    """Most successors remembered for one content."""
    skip_cap: int = 48
    """Most contents remembered that come two or three steps after one content."""
    leaders: int = 160
    """Length of the lists of most popular contents, overall, by location and by audience."""

    @property
    def plain(self) -> CounterSettings:
        """The same as every store keeps them, so that stores compare equal however they were made."""
        return CounterSettings(**asdict(self))


@dataclass(frozen=True)
class NextContentSettings:
    """How the Markov mixture, its gate, its re-ranker and the sequence network are built and fitted."""

    lesson_events: int = 80_000
    """Requests of the training window that gate and re-ranker are fitted on, drawn at random."""
    lesson_hours: float = 96.0
    """These requests come from so many last hours of the training window, when the counters know their world."""
    validation_events: int = 20_000
    """Requests of the validation window that decide when to stop, and that baselines are fitted on; drawn at random."""
    shortlist: int = 448
    """Contents of a shortlist at most."""
    kept: int = 144
    """Contents at the head of a shortlist that gate and re-ranker are always fitted on."""
    drawn: int = 48
    """Contents drawn at random for the rest of it; 0 fits on whole shortlists."""
    sequence_network: bool = True
    """Whether a sequence network, refreshed during the stream, is one of the experts."""
    hidden_size: int = 48
    """Units of a layer of gate and re-ranker."""
    epochs: int = 4
    """Passes over the lessons at most."""
    batch_size: int = 96
    """Requests of a step."""
    learning_rate: float = 4e-3
    """Highest learning rate of the one-cycle schedule."""
    weight_decay: float = 1e-4
    """Decay of the weights (AdamW)."""
    without: tuple[str, ...] = ()
    """Experts left out, by the beginning of their names: an ablation."""
    evidence_edges: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0)
    """Effective departures from the current content at which another set of static weights begins."""
    pooling_events: float = 200.0
    """Events that a set of static weights needs before it outweighs the weights fitted on all events."""
    iterations: int = 200
    """Most rounds of expectation maximisation for static weights."""
    tolerance_nats: float = 1e-6
    """A round that gains less than this in mean log-likelihood is the last."""
    counters: SessionCounterSettings = field(default_factory=SessionCounterSettings)
    """What the counters remember."""
    sequence: SequenceSettings = field(default_factory=SequenceSettings)
    """Shape of the sequence network."""
    refresh: RefreshSettings = field(default_factory=RefreshSettings)
    """How the sequence network learns during the stream."""

    def __post_init__(self) -> None:
        least = {"lesson_events": 1, "validation_events": 1, "shortlist": 20, "hidden_size": 1, "batch_size": 1}
        problems = [
            f"Expected {name} >= {bound}, got {getattr(self, name)!r}."
            for name, bound in (least | {"epochs": 0, "weight_decay": 0, "pooling_events": 0}).items()
            if getattr(self, name) < bound
        ]
        problems += [
            f"Expected {name} > 0, got {getattr(self, name)!r}."
            for name in ("lesson_hours", "learning_rate")
            if not getattr(self, name) > 0
        ]
        edges = self.evidence_edges
        if any(edge <= 0 for edge in edges) or list(edges) != sorted(set(edges)):
            problems.append(f"Expected evidence_edges > 0 and increasing, got {edges!r}.")
        if self.iterations < 1 or self.tolerance_nats < 0:
            problems.append(
                f"Expected iterations >= 1 and tolerance_nats >= 0, got {self.iterations!r} and "
                f"{self.tolerance_nats!r}."
            )
        if self.sequence.features != 2:
            problems.append(f"Expected sequence.features = 2 (device and arrival), got {self.sequence.features!r}.")
        if problems:
            raise ValueError(" ".join(problems))


def settings_from(saved: Mapping[str, Any]) -> NextContentSettings:
    """Settings as JSON keeps them, back again."""
    parts = {"counters": SessionCounterSettings, "sequence": SequenceSettings, "refresh": RefreshSettings}
    return NextContentSettings(
        **{name: parts[name](**_tuples(value)) if name in parts else value for name, value in _tuples(saved).items()}
    )


def _tuples(saved: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}
