"""Settings of the next-content model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NextContentSettings:
    """How the Markov mixture is fitted."""

    validation_events: int = 20_000
    """Requests of the validation window that the mixture weights are learnt from, drawn at random."""
    evidence_edges: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0)
    """Effective departures from the current content at which another set of weights begins."""
    pooling_events: float = 200.0
    """Events that a set of weights needs before it outweighs the weights fitted on all events."""
    iterations: int = 200
    """Most rounds of expectation maximisation."""
    tolerance_nats: float = 1e-6
    """A round that gains less than this in mean log-likelihood is the last."""

    def __post_init__(self) -> None:
        if self.validation_events < 1:
            raise ValueError(f"Expected validation_events >= 1, got {self.validation_events!r}.")
        edges = self.evidence_edges
        if any(edge <= 0 for edge in edges) or list(edges) != sorted(set(edges)):
            raise ValueError(f"Expected evidence_edges > 0 and increasing, got {edges!r}.")
        if self.pooling_events < 0:
            raise ValueError(f"Expected pooling_events >= 0, got {self.pooling_events!r}.")
        if self.iterations < 1 or self.tolerance_nats < 0:
            raise ValueError(
                f"Expected iterations >= 1 and tolerance_nats >= 0, got {self.iterations!r} and "
                f"{self.tolerance_nats!r}."
            )
