"""Names of the rows of a comparison, for configurations and for readers."""

from __future__ import annotations

from typing import Final, Literal

Row = Literal[
    "cdn-alone",
    "lru-paid",
    "lru-second-hit",
    "lru-free",
    "yesterday",
    "top-k",
    "ours",
    "clairvoyant",
]
PLAN_ROW: Final = "plan"
PlayedRow = Row | Literal["plan"]
"""A configured row, or that of a saved plan, which the command line adds."""
ALL_ROWS: tuple[Row, ...] = (
    "cdn-alone", "lru-paid", "lru-second-hit", "lru-free", "yesterday", "top-k", "ours", "clairvoyant",
)  # fmt: skip
ROW_NAMES: dict[PlayedRow, str] = {
    "cdn-alone": "CDN alone",
    "lru-paid": "LRU, fills paid",
    "lru-second-hit": "LRU, second hit paid",
    "lru-free": "LRU, fills free",
    "yesterday": "Yesterday's demand",
    "top-k": "Popularity top-k",
    "ours": "Premirror",
    "clairvoyant": "Clairvoyant",
    PLAN_ROW: "Given plan",
}
