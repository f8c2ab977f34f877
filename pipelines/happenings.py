"""What has happened since a plan: events of a file, held against the plan, or changes of the tables since it was compared.

Of several events of one source, network or content the newest counts. What a rebalance has answered before is left out,
so that a file that only grows can be given again and again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pipelines.errors import InputError
from pipelines.event_rows import EventRow, read_rows
from pipelines.jobs import iso
from pipelines.plan_problem import AnsweredPlan
from pipelines.scene import Scene
from placement.rebalance.events import (
    ContentExpired,
    Event,
    NetworkOutage,
    NodeDraining,
    NodeFailed,
    NodeJoined,
    NodeOverloaded,
    OutageEnded,
    SurvivalChanged,
)
from placement.rebalance.fleet import GONE, US_PER_SECOND

STANDING = ("failed", "draining", "survival", "joined")
BITS = 8
Newest = dict[tuple[str, object], EventRow]
"""The newest row of each subject."""


@dataclass(frozen=True)
class Happened:
    """Events that are new, in ids that the plan knows or will know.

    Attributes:
        now_us: the instant at which all of this is known.
        rows: the new rows of the file in canonical form.
        before: rows that a rebalance has answered already.
        newcomers: sources of the tables that join and that the plan does not know yet.
    """

    events: tuple[Event, ...]
    now_us: int
    rows: tuple[str, ...] = ()
    before: int = 0
    newcomers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Known:
    """Ids that the plan and the tables know."""

    plan: AnsweredPlan
    scene: Scene

    @cached_property
    def code(self) -> dict[str, int]:
        return {source: at for at, source in enumerate(self.plan.problem.sources.source.tolist())}

    @cached_property
    def network(self) -> dict[str, int]:
        """Codes of the networks that have sources in the plan."""
        used = set(self.plan.problem.sources.network.tolist()) - {-1}
        return {str(self.plan.networks[code]): code for code in sorted(used)}

    @cached_property
    def segments(self) -> set[tuple[str, int | None]]:
        segments = self.plan.problem.segments
        contents: set[tuple[str, int | None]] = {(content, None) for content in segments.content.tolist()}
        return contents | set(zip(segments.content.tolist(), segments.segment.tolist(), strict=True))

    @cached_property
    def sources(self) -> set[str]:
        return {*self.code, *self.scene.source.tolist()}

    @cached_property
    def networks(self) -> set[str]:
        return {*self.network, *self.scene.networks.tolist()}

    def has_segment(self, content: str, segment: int | None) -> bool:
        if (content, segment) in self.segments:
            return True
        at = int(self.scene.catalogue.codes(np.array([content], dtype=object))[0])
        return at >= 0 and (segment is None or segment < int(self.scene.catalogue.n_segments[at]))


def events_of_file(path: Path, known: Known, *, at_us: int | None, clock_us: int) -> Happened:
    """The new events of a file, as known at `at_us`, or else at the newest of them.

    Raises:
        InputError: every mistake of the file in a sentence.
    """
    mistakes: list[str] = []
    rows = read_rows(path, mistakes)
    state = known.plan.state
    taken = set(state.taken)
    new = [row for row in rows if row.text not in taken]
    mistakes.extend(_strange_ids(new, known))
    mistakes.extend(_strange_instants(new, state.since_us, clock_us if at_us is None else at_us))
    now_us = max([state.since_us, *(row.at_us for row in new)]) if at_us is None else at_us
    if now_us < state.since_us:
        mistakes.append(_back_in_time(now_us, state.since_us))
    counting = _newest(new, known, mistakes)
    if mistakes:
        raise InputError.listing(f"the events {path}", mistakes)
    joining = {row.values["source"] for row in counting if row.kind == "joined"}
    newcomers = tuple(source for source in known.scene.source.tolist() if source in joining - set(known.code))
    useful = [row for row in counting if _is_useful(row, known, newcomers)]
    events = tuple(_event(row, useful, known, now_us) for row in useful)
    return Happened(events, now_us, tuple(sorted(row.text for row in new)), len(rows) - len(new), newcomers)


def changes_of_tables(known: Known, *, now_us: int, horizon_seconds: float) -> Happened:
    """What the tables say otherwise than when the plan was last compared with them.

    Sources that went missing failed, those that came are joined; who can send less is overloaded; who consents for less
    than the horizon drains. Who can send or hold more waits for the next placement.

    Raises:
        InputError: the plan is newer than `now_us`.
    """
    if now_us < known.plan.state.since_us:
        raise InputError(_back_in_time(now_us, known.plan.state.since_us))
    found = list(_changed_sources(known, now_us, horizon_seconds))
    scene = known.scene
    fresh = (scene.known_from_us <= now_us) & (scene.consent_until_us > now_us)
    newcomers = tuple(source for source in scene.source[fresh].tolist() if source not in known.code)
    return Happened((*found, *map(NodeJoined, newcomers)), now_us, newcomers=newcomers)


def _changed_sources(known: Known, now_us: int, horizon_seconds: float) -> Iterator[Event]:
    scene, listed, sources = known.scene, known.plan.listed, known.plan.problem.sources
    gone = {away.source for away in known.plan.state.memory.away if away.standing in GONE}
    row = scene.source_codes(sources.source)
    for n, at in enumerate(row.tolist()):
        source = str(sources.source[n])
        if at < 0:
            if listed.listed[n] and source not in gone:
                yield NodeFailed(source)
            continue
        if not listed.listed[n]:
            yield NodeJoined(source)
        if scene.uplink_bps[at] < listed.uplink_bps[n]:
            yield NodeOverloaded(source, float(scene.uplink_bps[at]) / BITS * horizon_seconds)
        left_seconds = (int(scene.consent_until_us[at]) - now_us) / US_PER_SECOND
        shortened = scene.consent_until_us[at] < listed.consent_until_us[n]
        if shortened and 0 < left_seconds < horizon_seconds and listed.listed[n]:
            yield NodeDraining(source, left_seconds)


def _strange_ids(rows: Sequence[EventRow], known: Known) -> Iterator[str]:
    for row in rows:
        values = row.values
        if "source" in values and values["source"] not in known.sources:
            yield f"{row.what}: source {values['source']!r} is neither in the plan nor in the tables."
        if "network" in values and values["network"] not in known.networks:
            yield f"{row.what}: network {values['network']!r} is neither in the plan nor in the tables."
        if "content" in values and not known.has_segment(values["content"], None):
            yield f"{row.what}: content {values['content']!r} is neither in the plan nor in the tables."
        elif "segment" in values and not known.has_segment(values["content"], values["segment"]):
            yield f"{row.what}: content {values['content']!r} has no segment {values['segment']}."


def _strange_instants(rows: Sequence[EventRow], since_us: int, until_us: int) -> Iterator[str]:
    for row in rows:
        if row.at_us < since_us:
            yield (
                f"{row.what} at {iso(row.at_us)} lies in the past: the plan in force is of {iso(since_us)} and knew it, "
                "or can no longer. Leave it out, or give the instant at which it became known."
            )
        elif row.at_us > until_us:
            yield f"{row.what} at {iso(row.at_us)} lies in the future: it is {iso(until_us)}."
        if row.values.get("leaves_at", row.at_us) < row.at_us:
            yield f"{row.what} at {iso(row.at_us)} announces a leave before that, at {iso(row.values['leaves_at'])}."


def _back_in_time(now_us: int, since_us: int) -> str:
    return f"The plan in force is of {iso(since_us)}, after {iso(now_us)}: a plan never goes back in time."


def _newest(rows: Sequence[EventRow], known: Known, mistakes: list[str]) -> list[EventRow]:
    """The rows that count: of each subject the newest; two of one instant contradict each other."""
    newest: Newest = {}
    for row in sorted(rows, key=lambda row: row.at_us):
        subject = _subject(row)
        old = newest.get(subject)
        if old is not None and old.at_us == row.at_us and subject[0] != "content":
            mistakes.append(f"{row.what} contradicts {old.where}, of the same instant; give the one that holds.")
        newest[subject] = row
    return [row for row in newest.values() if not _is_over(row, newest, known)]


def _subject(row: EventRow) -> tuple[str, object]:
    if row.kind == "expired":
        return "content", (row.values["content"], row.values.get("segment"))
    if "network" in row.values:
        return "network", row.values["network"]
    return "standing" if row.kind in STANDING else "uplink", row.values["source"]


def _is_over(row: EventRow, newest: Newest, known: Known) -> bool:
    """Whether a later event of another kind ends what this one says."""
    if row.kind == "overloaded":
        later = newest.get(("standing", row.values["source"]))
        return later is not None and later.kind in ("failed", "joined") and later.at_us >= row.at_us
    if row.kind == "failed":
        around = newest.get(("network", _network_of(row.values["source"], known)))
        return around is not None and around.kind == "outage_ended" and around.at_us >= row.at_us
    return False


def _back_since(outage: EventRow, rows: Sequence[EventRow], known: Known) -> tuple[str, ...]:
    """Sources that came back one by one after their network had gone out."""
    later = [row for row in rows if row.kind == "joined" and row.at_us >= outage.at_us]
    mine = [row.values["source"] for row in later]
    return tuple(sorted(s for s in mine if _network_of(s, known) == outage.values["network"]))


def _network_of(source: str, known: Known) -> str:
    at = known.code.get(source, -1)
    code = int(known.plan.problem.sources.network[at]) if at >= 0 else -1
    return str(known.plan.networks[code]) if code >= 0 else ""


def _is_useful(row: EventRow, known: Known, newcomers: Sequence[str]) -> bool:
    """What concerns nothing in the plan is true, but changes nothing."""
    values = row.values
    if row.kind == "expired":
        return (values["content"], values.get("segment")) in known.segments
    if "network" in values:
        return values["network"] in known.network
    return values["source"] in known.code or values["source"] in newcomers


def _event(row: EventRow, rows: Sequence[EventRow], known: Known, now_us: int) -> Event:
    values = row.values
    if row.kind == "failed":
        return NodeFailed(values["source"])
    if row.kind == "draining":
        return NodeDraining(values["source"], max(0, values["leaves_at"] - now_us) / US_PER_SECOND)
    if row.kind == "overloaded":
        return NodeOverloaded(values["source"], values["uplink_bps"] / BITS * known.plan.horizon_hours * 3600)
    if row.kind == "survival":
        return SurvivalChanged(values["source"], values["survival"])
    if row.kind == "joined":
        return NodeJoined(values["source"], values["kept_copies"])
    if row.kind == "expired":
        return ContentExpired(values["content"], values.get("segment"))
    code = known.network[values["network"]]
    if row.kind == "outage":
        return NetworkOutage(code, _back_since(row, rows, known))
    return OutageEnded(code)
