"""The section on audiences of a run report: what each method serves of what one, two or many people ask for."""

from __future__ import annotations

from models.quantities import format_share
from pipelines.report_data import Audience, MethodRow, ReportData
from pipelines.report_layout import Section
from pipelines.report_tables import Cell, Column, Group, Row, Table

NOTE = (
    "Columns: how often a segment is asked for at one place over the whole replay. Bound: of N requests a cache that "
    "fills after the first serves N − 1; only who expects the first can serve more. Bytes of pushes are not taken off here."
)


def audiences_section(data: ReportData, title: str) -> Section | None:
    """One line a method, one column a group; first what each group weighs and what waiting can reach."""
    counted = [method for method in data.methods if method.audiences]
    if not counted:
        return None
    groups = counted[0].audiences
    columns = (Column("Share served by the mesh", figures=False), *(Column(_times(g.name)) for g in groups))
    return Section("audiences", title, _sentence(data, groups), tables=(_table(counted, groups, columns),))


def _times(name: str) -> str:
    return "asked once" if name == "1" else f"{name} times"


def _sentence(data: ReportData, groups: tuple[Audience, ...]) -> str:
    total = sum(g.requested_bytes for g in groups) or 1.0
    text = f"{format_share(groups[0].requested_bytes / total, 0)} of the bytes are asked for once at their place"
    ours = data.method("ours")
    if ours is None or not ours.audiences:
        return f"{text}: nobody who waits for a request can serve them."
    return f"{text}; {ours.name} serves {_share(ours.audiences[0].mesh_bytes, ours.audiences[0])} of them."


def _table(methods: list[MethodRow], groups: tuple[Audience, ...], columns: tuple[Column, ...]) -> Table:
    total = sum(g.requested_bytes for g in groups) or 1.0
    weights = Row((Cell("Part of all bytes"), *(Cell(format_share(g.requested_bytes / total, 0)) for g in groups)))
    bound = Row((Cell("Bound, (N − 1) / N"), *(Cell(_share(g.bound_bytes, g)) for g in groups)))
    rows = tuple(
        Row((Cell(m.name), *(Cell(_share(a.mesh_bytes, a)) for a in m.audiences)), ours=m.role == "ours")
        for m in methods
        if m.role != "reference"
    )
    return Table("By size of the audience", columns, (Group("", (weights, bound, *rows)),), note=NOTE)


def _share(part: float, group: Audience) -> str:
    return format_share(part / group.requested_bytes if group.requested_bytes else None, 0)
