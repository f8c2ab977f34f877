"""What a command says: one JSON object or plain lines on stdout, progress and notes on stderr."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Progress = Callable[[str, int, int], None]
"""`progress(label, done, total)`: called often, cheap when nobody watches."""


def silent(label: str, done: int, total: int) -> None:
    """The Progress of a caller that does not watch."""


@dataclass
class Console:
    """Output of one command.

    Attributes:
        as_json: print exactly one JSON object on stdout, nothing else there.
        quiet: no notes on stderr.
    """

    as_json: bool = False
    quiet: bool = False
    _started: float = field(default_factory=time.monotonic)

    def note(self, text: str) -> None:
        """A line for the person watching, on stderr."""
        if not self.quiet:
            print(f"[{time.monotonic() - self._started:6.1f} s] {text}", file=sys.stderr, flush=True)

    def result(self, value: dict[str, Any], text: str) -> None:
        """The answer, on stdout: `value` as one JSON object, or `text` for people."""
        if self.as_json:
            text = json.dumps(_finite(value), indent=1, sort_keys=True, default=str, allow_nan=False)
        print(text)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """A bar on stderr while the block runs; silent where stderr is no terminal."""
        if self.quiet or not sys.stderr.isatty():
            yield silent
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bars(*columns, console=RichConsole(stderr=True), transient=True) as bars:
            tasks: dict[str, Any] = {}

            def show(label: str, done: int, total: int) -> None:
                if label not in tasks:
                    tasks[label] = bars.add_task(label, total=total)
                bars.update(tasks[label], completed=done, total=total)

            yield show


def _finite(value: Any) -> Any:
    """The value with null for numbers that JSON cannot hold: an undefined score, an endless bound."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """Rows as aligned text: first column left, the others right."""
    cells = [columns] + [[_cell(row.get(c)) for c in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [
        "  ".join([line[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)])
        for line in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.4f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
