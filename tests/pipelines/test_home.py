"""The home folder: one place, chosen by option, variable or default."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.errors import OutputError, PipelineError
from pipelines.home import Home


def test_find__option_before_variable_before_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is typed now wins over what is set for the shell."""
    monkeypatch.chdir(tmp_path)
    assert Home.find().root == tmp_path / ".premirror"
    monkeypatch.setenv("PREMIRROR_HOME", str(tmp_path / "variable"))
    assert Home.find().root == tmp_path / "variable"
    assert Home.find(tmp_path / "option").root == tmp_path / "option"


def test_find__makes_nothing(tmp_path: Path) -> None:
    """Asking where something would be must leave no trace."""
    Home.find(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_create__an_unwritable_place_says_how_to_choose_another(tmp_path: Path) -> None:
    """A file in the way stands for every reason: also root, who may write anywhere, meets it."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match=r"Cannot write to the home folder .*file.*--home or PREMIRROR_HOME"):
        Home(tmp_path / "file" / "home").create()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only folder")
def test_create__a_read_only_place_is_an_error(tmp_path: Path) -> None:
    """Found before hours of work, not after."""
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        Home(tmp_path / "home").create()
    tmp_path.chmod(0o700)


def test_create__leaves_no_probe(tmp_path: Path) -> None:
    """The trial write is taken back, and a second call is fine."""
    home = Home(tmp_path / "home").create().create()
    assert list(home.root.iterdir()) == []


def test_tracking_uri__the_variable_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Teams share a server; alone, everything is in the home folder."""
    home = Home(tmp_path)
    assert home.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert home.tracking_uri == "http://127.0.0.1:5000"


@pytest.mark.parametrize("name", ["../elsewhere", "/etc", "a/b", "", "."])
def test_names__cannot_lead_out_of_the_home_folder(tmp_path: Path, name: str) -> None:
    """Names come from configuration files, and the folder that they name is replaced whole."""
    with pytest.raises(PipelineError, match="is no name"):
        Home(tmp_path).tables(name)
    with pytest.raises(PipelineError, match="is no name"):
        Home(tmp_path).world(name)
