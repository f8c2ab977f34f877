"""Pseudonyms: the same under the same key, unlinkable without it, and the key stays where it is."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.errors import InputError, OutputError
from pipelines.pseudonyms import KEY_VARIABLE, check_key, digests, load_key, pseudonym, pseudonymise

KEY = b"0123456789abcdef"


def test_pseudonymise__is_the_stated_keyed_hash() -> None:
    """Erasing a person recomputes the pseudonym one by one; column and single value must agree with the formula."""
    own = hashlib.blake2b(KEY, person=b"user").digest()
    expected = hashlib.blake2b("Zoë".encode(), key=own, digest_size=8).hexdigest()
    column = pseudonymise(pa.chunked_array([["Zoë", "b"], ["Zoë"]]), key=KEY, kind="user")
    assert column.to_pylist() == [expected, pseudonym("b", key=KEY, kind="user"), expected]
    assert len(expected) == 16


def test_pseudonymise__absent_ids_stay_absent() -> None:
    """Logs write `-` for nobody; hashing it would make one very busy user."""
    column = pseudonymise(pa.chunked_array([["-", None, "", "a"]]), key=KEY, kind="user")
    assert [v is None for v in column.to_pylist()] == [True, True, True, False]
    assert len(pseudonymise(pa.chunked_array([], pa.string()), key=KEY, kind="user")) == 0


def test_pseudonyms__differ_by_kind_and_key() -> None:
    """A session named like a user must not be linkable to that user, nor two deployments to each other."""
    seen = {pseudonym("a", key=key, kind=kind) for key in (KEY, KEY + b"x") for kind in ("user", "session")}
    assert len(seen) == 4
    assert digests(["a"], key=KEY)[0] not in seen


def test_load_key__makes_a_private_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pseudonyms must agree from run to run, and nobody else may read the key."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    path = tmp_path / "home" / "key"
    key = load_key(path)
    assert len(key) == 32
    assert load_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["key"]


def test_load_key__refuses_a_file_that_others_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that leaked once protects nothing."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    path = tmp_path / "key"
    path.write_text("ab" * 32)
    path.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        load_key(path)


def test_load_key__the_environment_wins_and_a_short_key_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Services get their key from the environment; an error must not print it."""
    monkeypatch.setenv(KEY_VARIABLE, "00ff" * 8)
    assert load_key(tmp_path / "key") == bytes.fromhex("00ff" * 8)
    monkeypatch.setenv(KEY_VARIABLE, "a plain sentence of words")
    assert load_key(tmp_path / "key") == b"a plain sentence of words"
    monkeypatch.setenv(KEY_VARIABLE, "sesame")
    with pytest.raises(InputError, match="at least 16") as caught:
        load_key(tmp_path / "key")
    assert "sesame" not in str(caught.value)
    assert not (tmp_path / "key").exists()


def test_check_key__and_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are the user's to mend, so both are sentences."""
    with pytest.raises(InputError, match="at least 16"):
        check_key(b"short")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        load_key(tmp_path / "file" / "key")
