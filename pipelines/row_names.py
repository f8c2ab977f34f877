"""Names of the rows of a comparison, for configurations and for readers."""

from __future__ import annotations

from typing import Literal

Row = Literal[
    "cdn-alone",
    "lru-paid",
    "lru-second-hit",
    "lru-free",
    "yesterday",
    "top-k",
    "ours",
    "no-churn",
    "no-markov",
    "no-network",
    "greedy",
    "literal-routing",
    "uniform-routing",
    "perfect-demand",
    "perfect-churn",
    "clairvoyant",
]
DEFAULT_ROWS: tuple[Row, ...] = (
    "cdn-alone", "lru-paid", "lru-second-hit", "lru-free", "yesterday", "top-k", "ours", "clairvoyant",
)  # fmt: skip
ROW_NAMES: dict[Row, str] = {
    "cdn-alone": "CDN alone",
    "lru-paid": "LRU, fills paid",
    "lru-second-hit": "LRU, second hit paid",
    "lru-free": "LRU, fills free",
    "yesterday": "Yesterday's demand",
    "top-k": "Popularity top-k",
    "ours": "Premirror",
    "no-churn": "No churn model",
    "no-markov": "No Markov flow",
    "no-network": "No networks",
    "greedy": "Greedy placement",
    "literal-routing": "Literal routing",
    "uniform-routing": "Uniform routing",
    "perfect-demand": "Perfect demand",
    "perfect-churn": "Perfect churn",
    "clairvoyant": "Clairvoyant",
}
ROW_GROUPS: dict[str, tuple[Row, ...]] = {
    "Reference": ("cdn-alone",),
    "Peers": ("lru-paid", "lru-second-hit", "lru-free", "yesterday", "top-k"),
    "Premirror and its parts": (
        "ours", "no-churn", "no-markov", "no-network", "greedy", "literal-routing", "uniform-routing",
    ),
    "Oracles": ("perfect-demand", "perfect-churn", "clairvoyant"),
}  # fmt: skip
GROUP_OF: dict[Row, str] = {row: group for group, rows in ROW_GROUPS.items() for row in rows}
