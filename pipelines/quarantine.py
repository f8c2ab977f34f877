"""Rows set aside during ingest, and whether they are too many.

The quarantine file says which file and line, why, and a keyed digest of the raw text, never the text: a line that could
not be read may hold an address or a name anywhere.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

from pipelines.errors import InputError

SCHEMA = pa.schema(
    [
        ("table", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("reason", pa.string()),
        ("digest", pa.string()),
    ]
)
_SHOWN_PROBLEMS = 20


@dataclass
class Quarantine:
    """Collects what one ingest sets aside; refuses an input of which too much is bad."""

    max_bad_share: float
    reasons: Counter[str] = field(default_factory=Counter)
    parts: list[pa.Table] = field(default_factory=list)

    def add(self, table: str, file: str, rows: pa.Table) -> None:
        """Sets rows aside.

        Args:
            table: which canonical table they were meant for.
            file: where they come from.
            rows: `line`, `reason`, `digest`.
        """
        if len(rows) == 0:
            return
        self.reasons.update(rows["reason"].to_pylist())
        named = {"table": pa.repeat(table, len(rows)), "file": pa.repeat(file, len(rows))}
        self.parts.append(pa.table(named | {n: rows[n] for n in ("line", "reason", "digest")}).cast(SCHEMA))

    def to_arrow(self) -> pa.Table:
        """Everything set aside, by file and line."""
        whole = pa.concat_tables(self.parts) if self.parts else SCHEMA.empty_table()
        return whole.sort_by([("table", "ascending"), ("file", "ascending"), ("line", "ascending")])


@dataclass
class Tally:
    """Good and bad rows of one input, and what was wrong."""

    source: str
    good: int = 0
    bad: int = 0
    problems: dict[str, None] = field(default_factory=dict)

    def require(self, max_bad_share: float) -> None:
        """Passes when few enough rows are bad and at least one is good.

        Raises:
            InputError: too many are bad; lists every kind of mistake, with first rows and remedy.
        """
        total = self.good + self.bad
        if self.good and self.bad <= max_bad_share * total:
            return
        if total == 0:
            raise InputError(f"{self.source!r} has no rows. Give at least one, or leave it out.")
        shown = list(self.problems)
        more = [f"... and {len(shown) - _SHOWN_PROBLEMS} further kinds"] if len(shown) > _SHOWN_PROBLEMS else []
        raise InputError(
            f"{self.source!r}: {self.bad} of {total} rows are bad ({self.bad / total:.1%}, allowed "
            f"{max_bad_share:.1%}); nothing was written.\n"
            + "\n".join(f"  - {problem}" for problem in [*shown[:_SHOWN_PROBLEMS], *more])
            + "\nMend the input, or raise `max_bad_share`."
        )
