"""A saved model: one folder of JSON, safetensors and Arrow files, and nothing that can run code.

    <folder>/artefact.json         kind, format, hyperparameters, state, git commit, SHA-256 of every other file
    <folder>/weights.safetensors   tensors by name
    <folder>/<table>.arrow         tables by name, Arrow IPC

`kind` says which model the folder holds and `format` how that model lays it out; a reader names both and is refused
when either differs, because a silent misreading costs more than a retrained model.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from models.errors import ArtefactError

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "artefact.json"
WEIGHTS = "weights.safetensors"
TABLE_SUFFIX = ".arrow"
_MANIFEST_KEYS = {"kind", "format", "hyperparameters", "state", "git_commit", "files"}


@dataclass(frozen=True)
class Artefact:
    """What a model needs to answer again exactly as it did when it was saved.

    Attributes:
        kind: the model, such as "demand".
        format: version of the layout of this kind, a positive integer.
        hyperparameters: the settings it was built with, JSON types only.
        state: everything else that is small: coefficients, scalers, names. JSON types only, finite numbers.
        tensors: weights by name, on the CPU.
        tables: Arrow tables by name.
        git_commit: commit of the code that trained it, where known.
    """

    kind: str
    format: int
    hyperparameters: Mapping[str, Any]
    state: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    git_commit: str | None = None


def save_artefact(
    folder: Path,
    *,
    kind: str,
    format: int,  # noqa: A002 - the word in the file
    hyperparameters: Mapping[str, Any],
    state: Mapping[str, Any],
    tensors: Mapping[str, Tensor] | None = None,
    tables: Mapping[str, pa.Table] | None = None,
    git_commit: str | None = None,
) -> None:
    """Writes the folder beside its final place and renames it, so that no half-written model is ever seen.

    Same arguments, same bytes. An existing folder is replaced.

    Raises:
        ArtefactError: a value is not JSON (NaN and infinity included) or a table has an unusable name.
    """
    artefact = Artefact(kind, format, hyperparameters, state, tensors or {}, tables or {}, git_commit)
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(artefact, beside / "new")
        if folder.exists():
            folder.rename(beside / "old")
        (beside / "new").rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def load_artefact(folder: Path, *, kind: str, format: int) -> Artefact:  # noqa: A002
    """Reads a folder back, checking kind, format and the checksum of every file first.

    Raises:
        ArtefactError: the folder is missing, damaged, of another kind, or of another format.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    _check_kind(folder, manifest, kind=kind)
    _check_format(folder, manifest, kind=kind, format_read=format)
    for name, expected in manifest["files"].items():
        _check_file(folder, name, expected)
    return Artefact(
        kind=manifest["kind"],
        format=manifest["format"],
        hyperparameters=manifest["hyperparameters"],
        state=manifest["state"],
        tensors=_read_tensors(folder) if WEIGHTS in manifest["files"] else {},
        tables={
            name.removesuffix(TABLE_SUFFIX): _read_table(folder / name)
            for name in manifest["files"]
            if name.endswith(TABLE_SUFFIX)
        },
        git_commit=manifest["git_commit"],
    )


def read_state(folder: Path, *, kind: str) -> Mapping[str, Any]:
    """The state of a saved folder of any format, without its tensors and tables.

    Raises:
        ArtefactError: the folder is missing, its manifest damaged, or it is of another kind.
    """
    manifest = _read_manifest(Path(folder))
    _check_kind(Path(folder), manifest, kind=kind)
    return dict(manifest["state"])


def _write(artefact: Artefact, folder: Path) -> None:
    folder.mkdir()
    if artefact.tensors:
        _write_tensors(artefact.tensors, folder)
    for name, table in artefact.tables.items():
        _write_table(name, table, folder)
    manifest = {
        "kind": artefact.kind,
        "format": artefact.format,
        "hyperparameters": dict(artefact.hyperparameters),
        "state": dict(artefact.state),
        "git_commit": artefact.git_commit,
        "files": {path.name: _sha256(path) for path in sorted(folder.iterdir())},
    }
    try:
        text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ArtefactError(
            f"The state of a {artefact.kind!r} model is not plain JSON ({error}); "
            "keep arrays in tensors or tables, and only finite numbers in the state."
        ) from error
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _write_tensors(tensors: Mapping[str, Tensor], folder: Path) -> None:
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in sorted(tensors.items())}
    save_file(plain, str(folder / WEIGHTS))


def _write_table(name: str, table: pa.Table, folder: Path) -> None:
    if not name.replace("_", "").isalnum():
        raise ArtefactError(f"Table name {name!r} is not a file name; use letters, digits and underscores.")
    with pa.OSFile(str(folder / (name + TABLE_SUFFIX)), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtefactError(f"No saved model at {str(folder)!r}: {MANIFEST} is missing.") from None
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{str(path)!r} cannot be read ({error}); save the model again.") from error
    missing = _MANIFEST_KEYS - set(manifest) if isinstance(manifest, dict) else _MANIFEST_KEYS
    if missing:
        raise ArtefactError(f"{str(path)!r} lacks {', '.join(sorted(missing))}; save the model again.")
    return dict(manifest)


def _check_kind(folder: Path, manifest: dict[str, Any], *, kind: str) -> None:
    if manifest["kind"] != kind:
        raise ArtefactError(
            f"{str(folder)!r} holds a model of kind {manifest['kind']!r}, but kind {kind!r} was asked for."
        )


def _check_format(folder: Path, manifest: dict[str, Any], *, kind: str, format_read: int) -> None:
    if manifest["format"] != format_read:
        raise ArtefactError(
            f"{str(folder)!r} has format {manifest['format']!r} of kind {kind!r}, but this version reads format "
            f"{format_read!r}; train the model again or use the version that wrote it."
        )


def _check_file(folder: Path, name: str, expected: str) -> None:
    # A manifest is data from outside: a name in it must not lead out of its folder.
    if name != WEIGHTS and not (name.endswith(TABLE_SUFFIX) and Path(name).name == name):
        raise ArtefactError(f"{MANIFEST} in {str(folder)!r} names {name!r}, which is not a file of a saved model.")
    if not (folder / name).is_file():
        raise ArtefactError(f"{str(folder / name)!r} is missing; save the model again.")
    if _sha256(folder / name) != expected:
        raise ArtefactError(f"{str(folder / name)!r} is damaged: its checksum differs from the one in {MANIFEST}.")


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(str(folder / WEIGHTS)))
    except (SafetensorError, OSError) as error:
        raise ArtefactError(f"{str(folder / WEIGHTS)!r} cannot be read ({error}).") from error


def _read_table(path: Path) -> pa.Table:
    try:
        with pa.OSFile(str(path), "rb") as source:
            return pa.ipc.open_file(source).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise ArtefactError(f"{str(path)!r} cannot be read ({error}).") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
