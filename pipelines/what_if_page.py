"""The page of `premirror what-if`: for each share of consent a grid of storage by uplink."""

from __future__ import annotations

from models.quantities import NO_BREAK_SPACE, format_milliseconds, format_money, format_share
from pipelines.config import microseconds
from pipelines.jobs import iso
from pipelines.provenance import code_commit, settings_digest
from pipelines.report import render_page
from pipelines.report_data import Repeat, ReportData
from pipelines.report_layout import OTHER_SECTIONS, Section, Tile
from pipelines.report_tables import Cell, Column, Group, Row, Table
from pipelines.row_names import ROW_NAMES
from pipelines.what_if import Answer, WhatIf


def render_what_if(found: WhatIf) -> str:
    """The whole page as text."""
    run = found.run
    start, end = (iso(microseconds(t)) for t in run.window)
    data = ReportData(
        title=f"What if, replay {run.name}",
        subtitle=f"{ROW_NAMES[run.what_if.row]} replayed from {start} to {end} with other devices, all else equal.",
        repeat=Repeat(
            command="premirror what-if --config FILE",
            data_hash=found.data_hash,
            code_commit=code_commit(),
            config_hash=settings_digest(run),
            facts=(("Seed", str(run.seed)),),
        ),
        headline=headline(found),
        limits=(
            "Who takes part is drawn by a hash of the node's id: the nodes of a smaller share are among those of a larger.",
            "Each figure is one replay, without an interval: differences of a few tenths of a point may be chance.",
        ),
        minimum_users=run.minimum_users,
        currency=run.currency,
    )
    return render_page(data, [_section(found)])


def headline(found: WhatIf) -> str:
    """The span from the least to the most."""
    least, most = (choose(found.answers, key=lambda a: a.net_share) for choose in (min, max))
    currency = found.run.currency
    return (
        f"{ROW_NAMES[found.run.what_if.row]} keeps {format_share(least.net_share)} to {format_share(most.net_share)} of the "
        f"traffic off the CDN and saves {format_money(least.saved_per_day, currency)} to "
        f"{format_money(most.saved_per_day, currency)} a day, by the devices that it has"
    )


def _section(found: WhatIf) -> Section:
    lead = "Net share kept off the CDN; below it money saved a day and p95 of the latency (CDN alone: "
    lead += f"{format_milliseconds(found.alone_p95_ms)})."
    tables = (_grid(found),)
    return Section("what-if", OTHER_SECTIONS["what-if"].question, lead, tiles=_tiles(found), tables=tables)


def _tiles(found: WhatIf) -> tuple[Tile, ...]:
    """Best, least, and the devices as they are where that was asked."""
    least, most = (choose(found.answers, key=lambda a: a.net_share) for choose in (min, max))
    now = next((a for a in found.answers if (a.storage, a.uplink, a.consent) == (1, 1, 1)), None)
    named = [("Most", most), ("As it is", now), ("Least", least)]
    return tuple(Tile(name, format_share(a.net_share), _devices_text(a)) for name, a in named if a is not None)


def _devices_text(answer: Answer) -> str:
    share = format_share(answer.consent, 0)
    return f"{_times('storage', answer.storage)}, {_times('uplink', answer.uplink)}, {share} take part"


def _times(name: str, factor: float) -> str:
    return f"{name} ×{NO_BREAK_SPACE}{factor:g}"


def _grid(found: WhatIf) -> Table:
    asked = found.run.what_if
    answers = {(a.storage, a.uplink, a.consent): a for a in found.answers}
    best = max(found.answers, key=lambda a: a.net_share)
    columns = (Column("Devices", figures=False), *(Column(_times("uplink", uplink)) for uplink in asked.uplink))
    groups = []
    for consent in asked.consent:
        nodes = answers[asked.storage[0], asked.uplink[0], consent].nodes
        rows = tuple(
            Row(
                (
                    Cell(_times("storage", storage)),
                    *(_cell(answers[storage, uplink, consent], found, best) for uplink in asked.uplink),
                )
            )
            for storage in asked.storage
        )
        groups.append(Group(f"{format_share(consent, 0)} take part: {nodes} of {found.n_nodes} nodes", rows))
    return Table("Storage by uplink, for each share of consent", columns, tuple(groups))


def _cell(answer: Answer, found: WhatIf, best: Answer) -> Cell:
    money = format_money(answer.saved_per_day, found.run.currency)
    small = f"{money} · {format_milliseconds(answer.latency_p95_ms)}"
    return Cell(format_share(answer.net_share), small, strong=answer is best)
