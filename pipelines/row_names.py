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
    "plan-only",
    "plan-refresh",
    "plan-keep",
    "ours",
    "clairvoyant",
]
ALL_ROWS: tuple[Row, ...] = (
    "cdn-alone", "lru-paid", "lru-second-hit", "lru-free", "yesterday", "top-k", "ours", "clairvoyant",
)  # fmt: skip
ROW_NAMES: dict[Row, str] = {
    "cdn-alone": "CDN alone",
    "lru-paid": "LRU, fills paid",
    "lru-second-hit": "LRU, second hit paid",
    "lru-free": "LRU, fills free",
    "yesterday": "Yesterday's demand",
    "top-k": "Popularity top-k",
    "plan-only": "Premirror, plans alone",
    "plan-refresh": "Premirror, plans and refreshes",
    "plan-keep": "Premirror, plans and what passes through",
    "ours": "Premirror",
    "clairvoyant": "Clairvoyant",
}
