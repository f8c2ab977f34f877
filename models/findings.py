"""What is wrong with the rows of a table: collected by kind of mistake, told in sentences, split from the good rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.errors import TableError
from models.rules import Mask

_SHOWN_ROWS = 5


@dataclass(frozen=True)
class Validated:
    """The good rows of a table, and those set aside.

    Attributes:
        table: good rows in input order, cast to the schema; further columns follow the canonical ones.
        quarantine: `row` (0-based, in the input), `reason`, and the raw columns as text.
        problems: one sentence for each kind of mistake: column, first bad values with their rows, remedy.
    """

    name: str
    table: pa.Table
    quarantine: pa.Table
    problems: tuple[str, ...]

    @property
    def bad_share(self) -> float:
        """Rows set aside over all rows."""
        return len(self.quarantine) / max(len(self.quarantine) + len(self.table), 1)

    def require(self, *, max_bad_share: float) -> pa.Table:
        """The good rows, if at most this share was bad.

        Raises:
            TableError: a larger share is bad, or no good row is left; lists every problem.
        """
        if self.bad_share <= max_bad_share and len(self.table):
            return self.table
        total = len(self.quarantine) + len(self.table)
        share = f"{len(self.quarantine)} of {total} rows ({self.bad_share:.1%}) are bad; allowed: {max_bad_share:.1%}."
        raise TableError(self.name, [share, *self.problems])


class Findings:
    """Bad rows by kind of mistake."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._kinds: list[tuple[str, Mask, str, str, pa.ChunkedArray]] = []

    def add(self, column: str, bad: Mask, must: str, remedy: str, values: pa.ChunkedArray) -> None:
        if bad.any():
            self._kinds.append((column, bad, must, remedy, values))

    def any(self) -> Mask:
        bad = np.zeros(self._rows, dtype=np.bool_)
        for _, mask, *_ in self._kinds:
            bad |= mask
        return bad

    def split(self, name: str, cast: pa.Table, raw: pa.Table) -> Validated:
        bad = self.any()
        good = cast.filter(pa.array(~bad)) if bad.any() else cast
        rows = np.flatnonzero(bad)
        columns = {"row": pa.array(rows, pa.int64()), "reason": pa.array(self._reasons(rows), pa.string())}
        taken = raw.take(pa.array(rows))
        columns |= {c: _as_text(taken[c]) for c in raw.column_names if c not in columns}
        return Validated(name, good, pa.table(columns), tuple(self._sentences()))

    def _reasons(self, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str]:
        reasons: dict[int, list[str]] = {row: [] for row in rows.tolist()}
        for column, mask, must, *_ in self._kinds:
            for row in np.flatnonzero(mask).tolist():
                reasons[row].append(f"{column} {must}")
        return ["; ".join(parts) for parts in reasons.values()]

    def _sentences(self) -> list[str]:
        sentences = []
        for column, mask, must, remedy, values in self._kinds:
            first = np.flatnonzero(mask)[:_SHOWN_ROWS]
            shown = ", ".join(f"row {row}: {v}" for row, v in zip(first, _shown(values, first), strict=True))
            count = int(mask.sum())
            more = f" and {count - len(first)} more" if count > len(first) else ""
            sentences.append(f"{column!r} {must}: {count} rows do not ({shown}{more}). Remedy: {remedy}.")
        return sentences


def _shown(values: pa.ChunkedArray, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str]:
    taken = values.take(pa.array(rows, pa.int64())).to_pylist()
    return [str(v) if hasattr(v, "isoformat") else repr(v) for v in taken]


def _as_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.chunked_array([pa.array([None if v is None else str(v) for v in values.to_pylist()], pa.string())])
