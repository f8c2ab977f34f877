"""Hybrids with a part taken away: what each part is worth.

Some are trained anew without the columns of a part, on the same examples; those without re-ranker or gate are the fitted
hybrid with that network set back to its start.
"""

from __future__ import annotations

from dataclasses import replace

from models.next_content.hybrid import Hybrid
from models.next_content.settings import NextContentSettings

TRANSITIONS = ("order", "skip", "departures", "pair_departures", "successors", "pair_successors")
LOCATION = ("local", "order1_local", "location")
RETRAINED = {
    "without_markov": TRANSITIONS,
    "without_network": ("sequence",),
    "without_location": LOCATION,
}
"""Columns that each ablation leaves out, by the beginning of their names. The sequence network is as it was: what
`without_location` measures is location in counters, gate and re-ranker."""


def settings_of(name: str, settings: NextContentSettings) -> NextContentSettings:
    """Settings of a hybrid trained anew without a part."""
    return replace(settings, without=(*settings.without, *RETRAINED[name]))


def without_reranker(hybrid: Hybrid) -> Hybrid:
    """The gated mixture alone."""
    bare = Hybrid(hybrid.shape, backs_off_to=hybrid.backs_off_to)
    bare.gate.load_state_dict(hybrid.gate.state_dict())
    return bare.eval()


def without_gate(hybrid: Hybrid) -> Hybrid:
    """The static mixture of all experts, the sequence network among them, alone."""
    bare = Hybrid(hybrid.shape, backs_off_to=hybrid.backs_off_to)
    bare.gate.start.copy_(hybrid.gate.start)
    return bare.eval()
