"""The rebalance job through the command line: known answers, every mistake at once, nothing twice, nothing lost."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.place
from models.events import HOUR_US
from pipelines.cli import main
from pipelines.jobs import iso, only_one
from pipelines.plan_state import Moved, PlanState, read_state
from pipelines.provenance import folder_digest
from placement.rebalance.memory import Away, Memory, Outage, ParkedCopy, RecentMove, Return
from tests.pipelines.hand_plan import FOREVER_US, PLAN, PLANNED_US, UPLINK_BPS, HandHome, consent, hand_home
from tests.placement.rebalance_worlds import GB

ROOT = Path(__file__).parents[2]
THREE = (0, 1, 2)
"""Three nodes, each in a network of its own."""


@dataclass(frozen=True)
class Command:
    """`premirror rebalance` called in this process: its exit code, and what it printed."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def run(self, hand: HandHome, *arguments: str) -> tuple[int, str, str]:
        words = ["premirror", "rebalance", "-q", "--home", str(hand.home.root), "--config", str(hand.config)]
        self.monkeypatch.setattr(sys, "argv", [*words, *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, said = self.capsys.readouterr()
        assert "Traceback" not in said
        return int(ended.value.code or 0), out, said

    def text(self, hand: HandHome, *arguments: str) -> str:
        code, out, said = self.run(hand, *arguments)
        assert (code, said) == (0, ""), said
        return out

    def value(self, hand: HandHome, *arguments: str) -> dict[str, Any]:
        value = json.loads(self.text(hand, "--json", *arguments))
        assert isinstance(value, dict)
        return value

    def refused(self, hand: HandHome, *arguments: str) -> str:
        """What a refused call says; nothing under `plans` may be another for it."""
        before = folder_digest(hand.home.plans)
        code, out, said = self.run(hand, *arguments)
        assert (code, out) == (2, ""), said
        assert folder_digest(hand.home.plans) == before
        return said


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    # The registry away costs a plan nothing, and a test less time than a registry of its own.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    return Command(monkeypatch, capsys)


def event(kind: str, hours: float = 1.0, **values: Any) -> dict[str, Any]:
    """An event so many hours after the placement."""
    return {"at": iso(PLANNED_US + round(hours * HOUR_US)), "kind": kind, **values}


def written(path: Path, *events: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(values) + "\n" for values in events), encoding="utf-8")
    return path


def table(hand: HandHome, name: str) -> list[dict[str, Any]]:
    return list(pq.read_table(hand.current / f"{name}.parquet").to_pylist())


def manifest_in(hand: HandHome) -> dict[str, Any]:
    value = json.loads((hand.current / "manifest.json").read_text(encoding="utf-8"))
    assert isinstance(value, dict)
    return value


def held(hand: HandHome) -> list[tuple[str, str]]:
    return [(row["content"], row["source"]) for row in table(hand, "placements")]


def test_failed__the_last_copy_is_pushed_once(command: Command, tmp_path: Path) -> None:
    """Ten requests save 160 m$ and a push costs 20 m$: 10 * 4 for a, 20 for b, 20 for the push, 80 m$ in all."""
    hand = hand_home(tmp_path, [("a", "n0")], networks=THREE)
    told = command.value(hand, "--events", str(written(tmp_path / "events.jsonl", event("failed", source="n0"))))
    assert told["changed"]
    assert told["rebalance"]["cost_before_millidollars"] == pytest.approx(60)
    assert told["rebalance"]["route_around_millidollars"] == pytest.approx(220)
    assert told["objective_millidollars"] == pytest.approx(80)
    assert (told["bytes_to_move"], told["rebalance"]["moved_bytes_24_hours"]) == (GB, GB)
    assert told["bound_millidollars"] == pytest.approx(80, rel=1e-3)
    assert told["gap"] == pytest.approx(0, abs=1e-3)
    assert hand.current.name == told["id"]
    new = held(hand)
    assert new in ([("a", "n1")], [("a", "n2")])
    row = {"content": "a", "segment": 0, "bytes": GB, "reason": "n0 failed"}
    assert table(hand, "pushed") == [row | {"source": new[0][1]}]
    assert table(hand, "dropped") == [row | {"source": "n0"}]
    shares = {row["source"]: (row["old_share"], row["new_share"]) for row in table(hand, "rerouted")}
    assert shares == {"n0": (1.0, 0.0), new[0][1]: (0.0, 1.0)}


def test_folder__holds_all_that_router_and_service_read(command: Command, tmp_path: Path) -> None:
    """Who failed is neither up nor eligible, with the reason; every file has its checksum; the window stays."""
    hand = hand_home(tmp_path, [("a", "n0")], networks=THREE)
    told = command.value(hand, "--events", str(written(tmp_path / "e.jsonl", event("failed", source="n0"))))
    sources = {row["source"]: row for row in table(hand, "sources")}
    assert (sources["n0"]["eligible"], sources["n0"]["up"], sources["n0"]["reason"]) == (False, False, "n0 failed")
    assert (sources["n1"]["eligible"], sources["n1"]["up"], sources["n1"]["reason"]) == (True, True, "as placed")
    manifest = json.loads((hand.current / "manifest.json").read_text(encoding="utf-8"))
    assert {"ranked.parquet", "paths.parquet", "routes.parquet", "memory.json"} <= set(manifest["checksums"])
    for name, checksum in manifest["checksums"].items():
        assert hashlib.sha256((hand.current / name).read_bytes()).hexdigest() == checksum
    assert (manifest["at_us"], manifest["rebalance"]["of"]) == (PLANNED_US, PLAN)
    assert told["rebalance"]["window_ends"] == "2026-03-09T00:00:00Z"
    best = [row["source"] for row in table(hand, "ranked") if row["content"] == "a" and row["rank"] == 1]
    assert best == [held(hand)[0][1]]


def test_summary__says_what_moves_what_it_costs_and_what_waits(command: Command, tmp_path: Path) -> None:
    """One network out of three: nothing moves for it, and the operator reads until when."""
    hand = hand_home(tmp_path, [("a", "n0")], networks=THREE)
    events = written(tmp_path / "events.jsonl", event("outage", network="net0"))
    said = " ".join(command.text(hand, "--events", str(events)).split())
    assert "Copies: 0 gained, 0 lost; 2 shares change. To move: 0 B; moved in the last 24 hours: 0 B." in said
    assert "Cost: 60.0 m$ before, 220.0 m$ routed around, 220.0 m$ with the moves. Bound " in said
    assert (
        "Waits: network net0 is out since 2026-03-08T01:00:00Z: its 1 nodes keep 1 copies, and count as failed from "
        "2026-03-08T02:00:00Z on." in said
    )
    assert "network net0 is out: " in said


def test_prices__prove_a_bound_of_every_plan_and_go_on_with_it(command: Command, tmp_path: Path) -> None:
    """After one failure, and after an event that changes nothing, with the same prices beside both plans."""
    hand = hand_home(tmp_path, [("a", "n0")], networks=THREE)
    placed, facts = table(hand, "prices"), manifest_in(hand)["problem"]["movement_millidollars_per_gb"]
    assert [row["source"] for row in placed] == ["pop", "n0", "n1", "n2"]
    log = [event("failed", source="n0")]
    told = command.value(hand, "--events", str(written(tmp_path / "e.jsonl", *log)))
    holder = held(hand)[0][1]
    log.append(event("joined", 2.0, source=holder))
    again = command.value(hand, "--events", str(written(tmp_path / "e.jsonl", *log)))
    for value, cost in ((told, 80), (again, 60)):  # the push is paid for by then
        assert value["objective_millidollars"] == pytest.approx(cost)
        assert 0.99 * cost < value["bound_millidollars"] <= cost
    assert (table(hand, "prices"), manifest_in(hand)["problem"]["movement_millidollars_per_gb"]) == (placed, facts)


def test_prices__of_a_newcomer_are_those_of_its_neighbours(command: Command, tmp_path: Path) -> None:
    """The mean over the nodes of its location; a POP has none of them."""
    hand = hand_home(tmp_path, [], networks=(0, 0))
    old = pq.read_table(hand.current / "prices.parquet")
    given = [7.0, 1.0, 3.0]  # pop, n0, n1
    rewritten(hand, "prices", old.set_column(1, "storage_millidollars_per_gb", pa.array(given)))
    hand.write_nodes({"n0": 0, "n1": 0, "n2": 1}, consent_until=consent(0, FOREVER_US, FOREVER_US))
    command.value(hand)
    kept = {row["source"]: row["storage_millidollars_per_gb"] for row in table(hand, "prices")}
    assert kept == pytest.approx({"pop": 7.0, "n0": 1.0, "n1": 3.0, "n2": 2.0})


def test_plan__prices_that_prove_nothing_are_refused(command: Command, tmp_path: Path) -> None:
    """NaN, negative, of an unknown source, twice or not at all: every mistake in one message."""
    hand = hand_home(tmp_path, [("a", "n0")])
    prices: dict[str, Any] = {
        "source": ["pop", "x", "n0", "n0"],
        "storage_millidollars_per_gb": [0.0, np.nan, 1.0, 1.0],
        "uplink_millidollars_per_gb": [-1.0, 0.0, 1.0, 1.0],
    }
    rewritten(hand, "prices", pa.table(prices))
    path, manifest = hand.current / "manifest.json", manifest_in(hand)
    manifest["problem"]["movement_millidollars_per_gb"] = -2.0
    path.write_text(json.dumps(manifest), encoding="utf-8")
    said = command.refused(hand)
    assert "6 mistakes" in said
    assert "prices.parquet names 1 source that its problem lacks, such as 'x'." in said
    assert "prices.parquet has no row for 1 of the problem's sources, such as 'n1'." in said
    assert "Expected storage_millidollars_per_gb in prices.parquet finite and >= 0, got nan for 'x'." in said
    assert "Expected uplink_millidollars_per_gb in prices.parquet finite and >= 0, got -1 for 'pop'." in said
    assert "Expected problem.movement_millidollars_per_gb in manifest.json finite and >= 0, got -2." in said
    assert "prices.parquet names 'n0' more than once; each source has one row." in said


def test_outage__memory_lasts_from_one_command_to_the_next(command: Command, tmp_path: Path) -> None:
    """Waited out for an hour, replaced then, and free again when it comes back."""
    hand = hand_home(tmp_path, [("a", "n0")], networks=THREE)
    log = [event("outage", network="net0")]
    first = command.value(hand, "--events", str(written(tmp_path / "e.jsonl", *log)))
    assert (first["bytes_to_move"], held(hand)) == (0, [("a", "n0")])
    early = command.value(hand, "--at", iso(PLANNED_US + 2 * HOUR_US - 1))
    assert (early["changed"], early["id"], len(early["rebalance"]["waits"])) == (False, first["id"], 1)
    late = command.value(hand, "--at", iso(PLANNED_US + 2 * HOUR_US))
    assert late["bytes_to_move"] == GB
    assert late["rebalance"]["reasons"][0].startswith("network net0 did not come back: 1 copy pushed")
    log.append(event("outage_ended", 3.0, network="net0"))
    back = command.value(hand, "--events", str(written(tmp_path / "e.jsonl", *log)))
    assert (back["bytes_to_move"], back["rebalance"]["events_before"]) == (0, 1)
    assert ("a", "n0") in held(hand)
    assert len(held(hand)) == 2
    assert back["rebalance"]["waits"] == ["n0 came back lately: the next 4 rebalances push nothing to it."]
    assert back["rebalance"]["moved_bytes_24_hours"] == GB
    tomorrow = command.value(hand, "--at", iso(PLANNED_US + 26 * HOUR_US))
    assert tomorrow["rebalance"]["moved_bytes_24_hours"] == 0


def test_joined__the_copies_of_a_node_that_came_back_are_free(command: Command, tmp_path: Path) -> None:
    """Failed and back before the next rebalance: only the newest counts, and the plan stays as it is."""
    hand = hand_home(tmp_path, [("a", "n0")])
    events = [event("failed", source="n0"), event("joined", 2.0, source="n0")]
    told = command.value(hand, "--events", str(written(tmp_path / "e.jsonl", *events)))
    assert (told["bytes_to_move"], told["rebalance"]["dropped"], held(hand)) == (0, 0, [("a", "n0")])


def test_joined__a_node_that_the_plan_does_not_know(command: Command, tmp_path: Path) -> None:
    """n1 is in the tables since the placement: it gets a, which saves 160 m$, and no more than it gains.

    It is believed to be up as the other nodes are; b saves 16 m$ and costs a push of 20 m$.
    """
    hand = hand_home(tmp_path, [], networks=(0,))
    hand.write_nodes({"n0": 0, "n1": 1}, consent_until=consent(0, FOREVER_US))
    told = command.value(hand)
    assert (told["bytes_to_move"], held(hand)) == (GB, [("a", "n1")])
    assert told["rebalance"]["reasons"][0].startswith("n1 joined: 1 copy pushed")
    assert {row["source"]: row["reason"] for row in table(hand, "sources")}["n1"] == "n1 joined"
    assert command.value(hand)["changed"] is False


def test_draining__moved_ahead_of_an_early_leave(command: Command, tmp_path: Path) -> None:
    """A node that leaves after a tenth of the day misses 9 of 10 requests: 9 * 16 > 20. The file may be Parquet."""
    hand = hand_home(tmp_path, [("a", "n0")])
    row = event("draining", source="n0", leaves_at=iso(PLANNED_US + round(3.4 * HOUR_US)))
    path = tmp_path / "events.parquet"
    other = event("overloaded", source="n1", uplink_bps=UPLINK_BPS, leaves_at=None)
    pq.write_table(pa.Table.from_pylist([row | {"uplink_bps": None}, other]), path)
    told = command.value(hand, "--events", str(path))
    assert (told["bytes_to_move"], sorted(held(hand))) == (GB, [("a", "n0"), ("a", "n1")])
    assert "n0 leaves in 8640 s" in told["rebalance"]["reasons"][0]


def test_overloaded__the_other_copy_takes_over_and_nothing_moves(command: Command, tmp_path: Path) -> None:
    """4 GB a day are 40 % of what is asked of n0: at most so much stays."""
    hand = hand_home(tmp_path, [("a", "n0"), ("a", "n1")])
    row = event("overloaded", source="n0", uplink_bps=4.0 * GB * 8 / 86_400)
    told = command.value(hand, "--events", str(written(tmp_path / "e.jsonl", row)))
    assert told["bytes_to_move"] == 0
    assert sum(row["share"] for row in table(hand, "routes") if row["source"] == "n0") <= 0.4 + 1e-6


def test_expired__leaves_the_plan_and_frees_its_room(command: Command, tmp_path: Path) -> None:
    """What nobody will want is dropped; a content that no plan holds changes nothing."""
    hand = hand_home(tmp_path, [("a", "n0"), ("b", "n0")])
    rows = [event("expired", content="b"), event("expired", content="c")]
    told = command.value(hand, "--events", str(written(tmp_path / "e.jsonl", *rows)))
    assert (told["rebalance"]["events"], told["rebalance"]["dropped"], held(hand)) == (1, 1, [("a", "n0")])
    assert [row["content"] for row in table(hand, "problem_segments")] == ["a"]
    again = [*rows, event("expired", 2.0, content="b")]
    assert command.value(hand, "--events", str(written(tmp_path / "e.jsonl", *again)))["changed"] is False


def test_tables__a_node_that_went_missing_has_failed_and_one_that_is_named_again_is_back(
    command: Command, tmp_path: Path
) -> None:
    """Without a file: the difference between the nodes table and what it said when the plan was made."""
    hand = hand_home(tmp_path, [("a", "n0")], networks=THREE)
    assert command.value(hand)["changed"] is False
    hand.write_nodes({"n1": 1, "n2": 2})
    gone = command.value(hand)
    assert (gone["bytes_to_move"], gone["rebalance"]["events"]) == (GB, 1)
    assert ("a", "n0") not in held(hand)
    assert command.value(hand)["changed"] is False
    hand.write_nodes({"n0": 0, "n1": 1, "n2": 2})
    back = command.value(hand)
    assert (back["bytes_to_move"], len(held(hand))) == (0, 2)
    assert command.value(hand)["changed"] is False


def test_tables__what_a_file_said_is_not_undone(command: Command, tmp_path: Path) -> None:
    """A node that failed is named in the nodes table all the same: that is no return."""
    hand = hand_home(tmp_path, [("a", "n0")], networks=THREE)
    failed = command.value(hand, "--events", str(written(tmp_path / "e.jsonl", event("failed", source="n0"))))
    again = command.value(hand)
    assert (again["changed"], again["id"]) == (False, failed["id"])


def test_tables__consent_that_is_over_is_obeyed_at_once(command: Command, tmp_path: Path) -> None:
    """Whatever else is asked: n0 may hold nothing any more, even where a file says that it is back."""
    hand = hand_home(tmp_path, [("a", "n0")], networks=THREE)
    hand.write_nodes({"n0": 0, "n1": 1, "n2": 2}, consent_until=consent(PLANNED_US, FOREVER_US, FOREVER_US))
    events = written(tmp_path / "e.jsonl", event("joined", source="n0"))
    told = command.value(hand, "--events", str(events))
    assert "n0" not in {source for _, source in held(hand)}
    assert told["bytes_to_move"] == GB
    assert not {row["source"]: row["eligible"] for row in table(hand, "sources")}["n0"]


def test_tables__a_slower_uplink_and_a_shorter_consent(command: Command, tmp_path: Path) -> None:
    """n0 can send 4 of 10 GB now; n1 consents for a tenth of the day, and serves no more than that."""
    hand = hand_home(tmp_path, [("a", "n0"), ("b", "n1")], budget=0)
    slower = 4.0 * GB * 8 / 86_400
    until_us = PLANNED_US + round(2.4 * HOUR_US)
    hand.write_nodes({"n0": 0, "n1": 1}, uplink_bps=[slower, UPLINK_BPS], consent_until=consent(FOREVER_US, until_us))
    told = command.value(hand)
    shares = {row["source"]: row["share"] for row in table(hand, "routes") if row["source"] != "pop"}
    assert shares["n0"] == pytest.approx(0.4)
    assert shares["n1"] == pytest.approx(0.1)
    assert told["rebalance"]["events"] == 2
    assert command.value(hand)["changed"] is False


def test_events__the_same_file_again_has_nothing_to_do(command: Command, tmp_path: Path) -> None:
    """No second plan, no byte of the first one changed, and the text says why."""
    hand = hand_home(tmp_path, [("a", "n0")], networks=THREE)
    events = str(written(tmp_path / "events.jsonl", event("failed", source="n0")))
    first = command.value(hand, "--events", events)
    before = folder_digest(hand.home.plans)
    assert "Answered before: 1 event. Nothing new has happened" in command.text(hand, "--events", events)
    assert command.value(hand)["changed"] is False
    assert folder_digest(hand.home.plans) == before
    assert hand.current.name == first["id"]


def test_events__same_input_same_bytes(command: Command, tmp_path: Path) -> None:
    """Two homes, one by JSON and one by Parquet, give the same folder to the last byte."""
    rows = [event("failed", source="n0"), event("failed", 1.5, source="n2")]
    digests = set()
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        hand = hand_home(tmp_path / name, [("a", "n0"), ("b", "n2")], networks=THREE)
        path = written(tmp_path / name / "events.jsonl", *rows)
        if name == "other":
            path = path.with_suffix(".parquet")
            pq.write_table(pa.Table.from_pylist(rows), path)
        command.value(hand, "--events", str(path))
        digests.add((hand.current.name, folder_digest(hand.current)))
    assert len(digests) == 1


def test_dry_run__publishes_nothing(command: Command, tmp_path: Path) -> None:
    """The operator looks first."""
    hand = hand_home(tmp_path, [("a", "n0")])
    before = folder_digest(hand.home.plans)
    events = str(written(tmp_path / "e.jsonl", event("failed", source="n0")))
    assert "would be in force" in command.text(hand, "--events", events, "--dry-run")
    assert folder_digest(hand.home.plans) == before


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 1 is no JSON object"),
        ("[1]", "line 1 is no JSON object, but [1]."),
        ('{"kind": "failed", "kind": "joined"}', "key given twice: kind"),
        ('{"at": "2026-03-08T01:00:00Z"}', "the key 'kind' is missing"),
        (event("fialed", source="n0"), "'fialed' is no kind of event; did you mean 'failed'?"),
        (event("melted", source="n0"), "choose failed, draining, overloaded"),
        (event("failed"), "failed needs the key 'source'."),
        (event("failed", source="n0", why="?"), "failed has no key 'why'; it has at, kind, source."),
        (event("failed", source=3), "source is 3; expected an id as text."),
        (event("failed", source="n9"), "source 'n9' is neither in the plan nor in the tables."),
        (event("outage", network="net9"), "network 'net9' is neither in the plan nor in the tables."),
        (event("expired", content="z"), "content 'z' is neither in the plan nor in the tables."),
        (event("expired", content="a", segment=1), "content 'a' has no segment 1."),
        (event("expired", content="a", segment=0.5), "segment is 0.5; expected a whole number, 0 or more."),
        (event("overloaded", source="n0", uplink_bps=float("nan")), "uplink_bps is nan; expected a number, 0 or more."),
        (event("overloaded", source="n0", uplink_bps=-1), "uplink_bps is -1; expected a number, 0 or more."),
        (event("overloaded", source="n0", uplink_bps=True), "uplink_bps is True; expected a number, 0 or more."),
        (event("overloaded", source="n0", uplink_bps=10**400), "expected a number, 0 or more."),
        (event("survival", source="n0", survival=1.5), "survival is 1.5; expected a number, from 0 to 1."),
        (event("joined", source="n0", kept_copies="yes"), "kept_copies is 'yes'; expected true or false."),
        (event("draining", source="n0", leaves_at="soon"), "leaves_at: 'soon' is no instant"),
        (event("draining", source="n0", leaves_at="2026-03-08T00:30:00Z"), "announces a leave before that"),
        ({"at": "2026-03-08T01:00:00", "kind": "failed", "source": "n0"}, "has no time zone"),
        ({"at": 7, "kind": "failed", "source": "n0"}, "at: '7' is no instant"),
        (event("failed", -1.0, source="n0"), "line 1: failed at 2026-03-07T23:00:00Z lies in the past"),
        (event("failed", 24 * 36_500, source="n0"), "lies in the future"),
    ],
)
def test_events__a_mistake_is_a_sentence(command: Command, tmp_path: Path, line: Any, sentence: str) -> None:
    """Exit 2, one message, and the plan in force untouched."""
    hand = hand_home(tmp_path, [("a", "n0")])
    path = tmp_path / "events.jsonl"
    path.write_text(line if isinstance(line, str) else json.dumps(line), encoding="utf-8")
    said = command.refused(hand, "--events", str(path))
    assert said.startswith(f"premirror: 1 mistake in the events {path}:\n  - ")
    assert sentence in said


def test_events__every_mistake_in_one_message(command: Command, tmp_path: Path) -> None:
    """Form, ids, instants, repetitions and contradictions, each with its line; what is right is not taken either."""
    hand = hand_home(tmp_path, [("a", "n0")])
    rows = [
        event("failed", source="n0"),
        event("failed", source="n0"),
        event("joined", source="n0"),
        event("melted", source="n0"),
        event("overloaded", source="n9", uplink_bps=1),
        event("expired", -5.0, content="b"),
    ]
    said = command.refused(hand, "--events", str(written(tmp_path / "e.jsonl", *rows)))
    assert "5 mistakes" in said
    assert "line 2 repeats line 1; give each event once." in said
    assert "line 3: joined contradicts line 1, of the same instant" in said
    assert "line 4: 'melted' is no kind of event" in said
    assert "line 5: overloaded: source 'n9'" in said
    assert "line 6: expired at 2026-03-07T19:00:00Z lies in the past" in said


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("absent.jsonl", None, "The file cannot be read (No such file or directory)"),
        ("bytes.jsonl", b"\xff\xfe", "The file is no UTF-8 text"),
        ("cut.parquet", b"PAR1", "is cut short or is no Parquet file"),
    ],
)
def test_events__a_file_that_cannot_be_read(
    command: Command, tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    """Named, with what is expected."""
    hand = hand_home(tmp_path, [("a", "n0")])
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert sentence in command.refused(hand, "--events", str(tmp_path / name))


def test_events__a_node_that_came_back_before_its_network(command: Command, tmp_path: Path) -> None:
    """Of a network of two that went out, n1 returned by itself: only n0 is waited for."""
    hand = hand_home(tmp_path, [("a", "n0"), ("a", "n1")], networks=(0, 0, 1))
    rows = [event("outage", network="net0"), event("joined", 2.0, source="n1")]
    told = command.value(hand, "--events", str(written(tmp_path / "e.jsonl", *rows)))
    assert "its 1 nodes keep 1 copies" in told["rebalance"]["waits"][0]
    assert {row["source"] for row in table(hand, "routes") if row["content"] == "a"} == {"n1"}
    assert {row["source"]: row["up"] for row in table(hand, "sources")} == {
        "pop": True,
        "n0": False,
        "n1": True,
        "n2": True,
    }


def test_events__the_newest_of_a_subject_counts(command: Command, tmp_path: Path) -> None:
    """What a later event ended is over: a tired node that came back, a node whose network came back."""
    hand = hand_home(tmp_path, [("a", "n0"), ("b", "n1")], networks=THREE, budget=0)
    rows = [
        event("overloaded", 1.0, source="n0", uplink_bps=0),
        event("joined", 2.0, source="n0"),
        event("failed", 1.0, source="n1"),
        event("outage_ended", 2.0, network="net1"),
        event("survival", 1.0, source="n2", survival=0.1),
        event("survival", 2.0, source="n2", survival=0.25),
    ]
    told = command.value(hand, "--events", str(written(tmp_path / "e.jsonl", *rows)))
    assert (told["rebalance"]["dropped"], sorted(held(hand))) == (0, [("a", "n0"), ("b", "n1")])
    shares = {row["source"]: row["share"] for row in table(hand, "routes")}
    assert shares == pytest.approx({"n0": 1.0, "n1": 1.0})
    assert {row["source"]: row["survival"] for row in table(hand, "problem_sources")}["n2"] == 0.25


def test_events__an_empty_file_is_no_event(command: Command, tmp_path: Path) -> None:
    """A quiet hour is no mistake."""
    hand = hand_home(tmp_path, [("a", "n0")])
    assert command.value(hand, "--events", str(written(tmp_path / "e.jsonl")))["changed"] is False


def test_at__before_the_plan_is_refused(command: Command, tmp_path: Path) -> None:
    """A plan never goes back in time, with a file or without; an event after `--at` has not happened."""
    hand = hand_home(tmp_path, [("a", "n0")])
    events = str(written(tmp_path / "e.jsonl", event("failed", source="n0")))
    yesterday = iso(PLANNED_US - 24 * HOUR_US)
    assert "a plan never goes back in time" in command.refused(hand, "--at", yesterday)
    said = command.refused(hand, "--events", events, "--at", yesterday)
    assert "2 mistakes" in said
    assert "lies in the future: it is 2026-03-07T00:00:00Z." in said


def test_plan__missing_says_how_to_make_one(command: Command, tmp_path: Path) -> None:
    """No link, and a link to a plan that somebody removed."""
    hand = hand_home(tmp_path, [("a", "n0")])
    (hand.home.plans / "current").unlink()
    assert "There is no plan under" in command.refused(hand)
    (hand.home.plans / "current").symlink_to("gone")
    code, _, said = command.run(hand)
    assert code == 2
    assert "Run `premirror forecast` and `premirror place` first." in said


def test_plan__of_other_tables_is_refused(command: Command, tmp_path: Path) -> None:
    """The wrong configuration must not rebalance another fleet's plan."""
    hand = hand_home(tmp_path, [("a", "n0")])
    hand.config.write_text("tables: other\n", encoding="utf-8")
    assert "is of the tables 'hand', but the configuration names 'other'" in command.refused(hand)


def test_plan__damage_is_listed_whole(command: Command, tmp_path: Path) -> None:
    """A cut table, a missing one and a broken memory, in one message."""
    hand = hand_home(tmp_path, [("a", "n0")])
    placements = hand.current / "placements.parquet"
    placements.write_bytes(placements.read_bytes()[:40])
    (hand.current / "paths.parquet").unlink()
    (hand.current / "memory.json").write_text("{", encoding="utf-8")
    said = command.refused(hand)
    assert "placements.parquet is not the file that the manifest describes" in said
    assert "paths.parquet is missing." in said
    assert "memory.json is not the file that the manifest describes" in said
    assert "memory.json cannot be read" in said
    assert "Run `premirror forecast` and `premirror place` for a new plan" in said


def rewritten(hand: HandHome, name: str, changed: pa.Table) -> None:
    """A table replaced so that its checksum agrees: what a faulty writer would leave."""
    pq.write_table(changed, hand.current / f"{name}.parquet")
    path = hand.current / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    digest = hashlib.sha256((hand.current / f"{name}.parquet").read_bytes()).hexdigest()
    manifest["checksums"][f"{name}.parquet"] = digest
    path.write_text(json.dumps(manifest), encoding="utf-8")


def test_plan__that_names_unknown_segments_and_sources_is_refused(command: Command, tmp_path: Path) -> None:
    """Copies and routes alike: how many, and which, in one message."""
    hand = hand_home(tmp_path, [("a", "n0")])
    placements = pq.read_table(hand.current / "placements.parquet")
    routes = pq.read_table(hand.current / "routes.parquet")
    rewritten(hand, "placements", placements.set_column(0, "content", pa.array(["x"])))
    rewritten(hand, "routes", routes.set_column(3, "source", pa.array(["y"] * len(routes))))
    said = command.refused(hand)
    assert "2 mistakes" in said
    assert "placements.parquet names 1 segment that its problem lacks, such as 'x#0'." in said
    assert "routes.parquet names 1 source that its problem lacks, such as 'y'." in said


def test_plan__numbers_that_no_problem_may_hold(command: Command, tmp_path: Path) -> None:
    """NaN demand and a survival of 2: the problem's own sentences."""
    hand = hand_home(tmp_path, [("a", "n0")])
    demand = pq.read_table(hand.current / "problem_demand.parquet")
    sources = pq.read_table(hand.current / "problem_sources.parquet")
    at = sources.schema.get_field_index("survival")
    rewritten(hand, "problem_demand", demand.set_column(3, "requests", pa.array([np.nan, 1.0])))
    rewritten(hand, "problem_sources", sources.set_column(at, "survival", pa.array([2.0, 1.0, 1.0])))
    said = command.refused(hand)
    assert "demand.requests[0] is nan" in said
    assert "sources.survival[0] is 2.0" in said


def test_plan__without_its_problem_asks_for_a_placement(command: Command, tmp_path: Path) -> None:
    """A plan of before this command existed, or a manifest that lost its keys."""
    hand = hand_home(tmp_path, [("a", "n0")])
    path = hand.current / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["problem"], manifest["at_us"]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    said = command.refused(hand)
    assert "It was written without the problem that it answers." in said
    assert "manifest.json lacks at_us." in said


@pytest.mark.parametrize("where", ["write_result", "point_at"])
def test_kill__leaves_the_old_plan_and_a_rerun_completes(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """While the folder is written, or between writing and publishing: exit 130, the plan in force stays."""
    hand = hand_home(tmp_path, [("a", "n0")])
    events = str(written(tmp_path / "e.jsonl", event("failed", source="n0")))
    before = folder_digest(hand.current)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipelines.place, where, killed)
        assert command.run(hand, "--events", events)[0] == 130
    assert (hand.current.name, folder_digest(hand.current)) == (PLAN, before)
    assert not list(hand.home.plans.glob(".*building*"))
    told = command.value(hand, "--events", events)
    assert (told["changed"], hand.current.name) == (True, told["id"])


DIES = """
import os, pathlib, signal, sys
import pipelines.jobs, pipelines.staging
from pipelines.cli import main

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def fourth(path, table, write=pipelines.jobs.write_parquet, written=[]):
    written.append(path)
    die() if len(written) == 4 else write(path, table)

where = sys.argv.pop(1)
if where == "table":
    pipelines.jobs.write_parquet = fourth
elif where == "folder":
    pipelines.staging._replace = die
else:
    pathlib.Path.replace = die
main()
"""


@pytest.mark.parametrize("where", ["table", "folder", "link"])
def test_sigkill__leaves_the_old_plan_and_a_rerun_sweeps_up(command: Command, tmp_path: Path, where: str) -> None:
    """After a few tables, before the folder takes its place, and before the link turns: no handler runs."""
    hand = hand_home(tmp_path, [("a", "n0")])
    events = str(written(tmp_path / "e.jsonl", event("failed", source="n0")))
    words = ["rebalance", "-q", "--home", str(hand.home.root), "--config", str(hand.config), "--events", events]
    before = folder_digest(hand.current)
    done = subprocess.run([sys.executable, "-c", DIES, where, *words], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (hand.current.name, folder_digest(hand.current)) == (PLAN, before)
    told = command.value(hand, "--events", events)
    assert (told["changed"], hand.current.name) == (True, told["id"])
    assert sorted(p.name for p in hand.home.plans.iterdir()) == sorted([".lock", PLAN, "current", told["id"]])


def test_lock__another_run_is_asked_to_try_later(command: Command, tmp_path: Path) -> None:
    """A placement and a rebalance at once would move the bytes of both."""
    hand = hand_home(tmp_path, [("a", "n0")])
    with only_one(hand.home.plans):
        assert command.run(hand)[0] == 75


def test_state__is_read_back_as_it_was_written(tmp_path: Path) -> None:
    """Every kind of record, and an uplink without limit, which JSON cannot hold."""
    memory = Memory(
        rebalances=3,
        away=(Away("pop", "failed", 1.0, float("inf"), True), Away("n0", "out", 0.5, 8.0, False)),
        outages=(Outage(0, PLANNED_US),),
        parked=(ParkedCopy("a", 0, "pop"),),
        recent=(RecentMove("a", 0, "n1", True, 3),),
        returns=(Return("n2", 2),),
    )
    state = PlanState(PLANNED_US, memory, ("{}",), (Moved(PLANNED_US, 7),))
    (tmp_path / "memory.json").write_text(state.to_json(), encoding="utf-8")
    assert read_state(tmp_path) == state


def test_state__a_placement_forgets_outages_and_keeps_moves() -> None:
    """The new forecast knows who is away; what moved lately must not flap, and is counted for a day."""
    old = PLANNED_US - 25 * HOUR_US
    memory = Memory(
        rebalances=3,
        away=(Away("n0", "failed", 1.0, 8.0, True),),
        outages=(Outage(0, old),),
        recent=(RecentMove("a", 0, "n1", True, 3),),
    )
    taken = tuple(json.dumps(event("failed", hours, source="n0")) for hours in (-25.0, -1.0))
    state = PlanState(old, memory, taken, (Moved(old, 5), Moved(PLANNED_US - HOUR_US, 7)))
    after = state.after_placement(at_us=PLANNED_US, bytes_moved=9)
    assert (after.since_us, after.taken) == (PLANNED_US, taken[1:])
    assert (after.memory.away, after.memory.outages, after.memory.recent) == ((), (), memory.recent)
    assert after.moved == (Moved(PLANNED_US - HOUR_US, 7), Moved(PLANNED_US, 9))
