"""The command as people run it: exit codes, one JSON object, no traceback, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.home import Home
from pipelines.provenance import folder_digest
from pipelines.steps import world_step
from tests.conftest import QUIET, TinyHome

ROOT = Path(__file__).parents[2]
WORLD = ["world", "-q", "--config"]


def environment(home: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREMIRROR_", "MLFLOW_"))}
    return kept | {"PREMIRROR_HOME": str(home), "OMP_NUM_THREADS": "1"}


def premirror(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(home), check=False)


@dataclass(frozen=True)
class Command:
    """`premirror` called in this process: what it printed, and how it ended. Saves seconds of imports a test."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def refused(self, home: Path, *arguments: str, code: int = 2) -> str:
        """What a failing command says: on stderr alone, in sentences, without a traceback."""
        self.monkeypatch.setattr(sys, "argv", ["premirror", *arguments])
        self.monkeypatch.setenv("PREMIRROR_HOME", str(home))
        with pytest.raises(SystemExit) as ended:
            main()
        out, said = self.capsys.readouterr()
        assert ended.value.code == code, said
        assert out == ""
        return sentences(said)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def sentences(said: str) -> str:
    assert "Traceback" not in said
    assert "fault in premirror" not in said
    return said


def test_help__imports_nothing_heavy() -> None:
    """Half a second for `--help`: torch, mlflow and lightning cost two to six each."""
    code = (
        "import sys; from typer.testing import CliRunner; from pipelines.cli import app\n"
        "done = CliRunner().invoke(app, ['--help']); assert done.exit_code == 0, done.output\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & "
        "{'torch', 'mlflow', 'lightning', 'pandas', 'duckdb', 'numpy', 'pydantic', 'ortools', 'numba', 'sklearn', "
        "'libcachesim'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_world__a_misspelt_key_is_a_sentence_and_exit_2(tiny_world: TinyHome, tmp_path: Path) -> None:
    """File, key and suggestion; both mistakes at once; no folder made."""
    config = tiny_world.config_file("world")
    done = premirror(tmp_path / "home", *WORLD, str(config), "--set", "hom.nodes=3", "--set", "dayz=3")
    assert (done.returncode, done.stdout) == (2, "")
    said = sentences(done.stderr)
    assert "2 mistakes" in said
    assert f"{config}: hom: unknown key; did you mean 'home'?" in said
    assert f"{config}: dayz: unknown key; did you mean 'days'?" in said
    assert not (tmp_path / "home").exists()


def test_world__a_missing_file_is_named(command: Command, tmp_path: Path) -> None:
    """The path that was given, and what is expected there."""
    assert "absent.yaml: cannot be read (No such file or directory)" in command.refused(tmp_path, *WORLD, "absent.yaml")


def test_world__an_unwritable_home_says_how_to_choose_another(
    command: Command, tiny_world: TinyHome, tmp_path: Path
) -> None:
    """Before any work is done."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    said = command.refused(tmp_path / "file" / "home", *WORLD, str(tiny_world.config_file("world")))
    assert "Choose another with --home or PREMIRROR_HOME" in said


def test_forecast__an_instant_without_a_zone_is_refused(command: Command, tiny_world: TinyHome) -> None:
    """Not guessed, not 70."""
    config = str(tiny_world.config_file("placement"))
    said = command.refused(tiny_world.home.root, "forecast", "-c", config, "--at", "2026-03-07T00:00:00")
    assert "'2026-03-07T00:00:00' has no time zone" in said


def test_train__an_unknown_model_lists_the_known_ones(command: Command, tiny_world: TinyHome, tmp_path: Path) -> None:
    """Before the configuration is read."""
    said = command.refused(tmp_path, "train", "demnd", "--config", str(tiny_world.config_file("demand")))
    assert "Unknown model 'demnd'. Choose demand, next-content or churn." in said


def test_promote__of_what_was_never_registered_is_exit_2(command: Command, tiny_home: TinyHome) -> None:
    """The registry is not away, so trying again later would not help."""
    said = command.refused(tiny_home.home.root, "promote", "demand", "--approver", "ada", "--version", "champion")
    assert "no alias 'champion'; aliases set: candidate (version 1)" in said


def test_promote__without_a_review_is_exit_1(tiny_home: TinyHome) -> None:
    """A gate said no: scripts can tell it from a mistake."""
    done = premirror(tiny_home.home.root, "promote", "churn", "--approver", "ada")
    assert (done.returncode, done.stdout) == (1, "")
    assert "was not promoted" in sentences(done.stderr)
    assert "INFO" not in done.stderr


def test_history__with_the_registry_away_is_exit_75(command: Command, tmp_path: Path) -> None:
    """Try later; the sentence names the address."""
    command.monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    said = command.refused(tmp_path, "history", "demand", code=75)
    assert "The registry at 'http://127.0.0.1:9' could not do this" in said


def test_ingest__json_is_exactly_one_object_and_the_bytes_are_those_of_before(
    tiny_world: TinyHome, tmp_path: Path
) -> None:
    """`json.loads` takes no second object and no line beside it; the same world and key give the same bytes."""
    home = tmp_path / "home"
    shutil.copytree(tiny_world.home.root, home)
    done = premirror(home, "ingest", "--json", "--config", str(tiny_world.config_file("ingest")))
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["tables"]["requests"] == value["rows_written"] > 5000
    assert folder_digest(home / "tables" / "tiny") == folder_digest(tiny_world.tables)
    assert (home / "pseudonym.key").stat().st_mode & 0o777 == 0o600


def hear_ctrl_c() -> None:
    """A test run in the background ignores Ctrl-C, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupt__leaves_nothing_half_written_and_a_rerun_completes(tiny_world: TinyHome, tmp_path: Path) -> None:
    """Ctrl-C in the middle of the building: no world, no staging folder; then the same command works."""
    home = tmp_path / "home"
    large = [*WORLD, str(tiny_world.config_file("world")), "--set", "requests=400000", "--set", "telemetry_minutes=1"]
    running = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *large],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment(home),
        preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not home.exists() and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    out, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert out == ""
    assert "Traceback" not in said
    assert [p for p in home.rglob("*") if p.is_file()] == []
    assert list((home / "worlds").glob(".*")) + list((home / "worlds").glob("*")) == []
    world_step(tiny_world.config("world"), Home(home), QUIET)
    assert (home / "worlds" / "tiny" / "world.json").is_file()


def test_schema__of_an_unknown_kind_is_refused(command: Command, tmp_path: Path) -> None:
    """With the kinds that there are."""
    assert "'repla' is no kind of configuration; choose world" in command.refused(tmp_path, "schema", "repla")
