"""The rows of a comparison: what each method would have done with the same requests, devices and limits."""

from __future__ import annotations

from pipelines.ablation_rows import ABLATION_ROWS
from pipelines.cache_rows import CACHE_ROWS
from pipelines.contest import Contest, Player, Result
from pipelines.plan_rows import PLAN_ROWS
from pipelines.row_names import PLAN_ROW, PlayedRow, Row
from pipelines.saved_plan_row import play_saved

PLAYERS: dict[Row, Player] = {**CACHE_ROWS, **PLAN_ROWS, **ABLATION_ROWS}


def play_row(row: PlayedRow, contest: Contest) -> Result:
    """Plays one row from the start of the window to its end."""
    if row == PLAN_ROW:
        return play_saved(contest)
    return PLAYERS[row](row, contest)
