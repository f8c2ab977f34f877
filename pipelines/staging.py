"""Folders that appear all at once: built beside their place, then moved there in one step.

The move exchanges the two folders where the system can (Linux), so that there is no instant without a folder. Elsewhere
the old folder steps aside first; if the process dies between the two moves, the next call puts the old one back.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipelines.errors import OutputError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """An empty folder to fill; on leaving it takes the target's place, on an error it is gone.

    Raises:
        OutputError: the place cannot be written; says which and what to do.
    """
    target = target.resolve()
    if target.exists() and not target.is_dir():
        raise OutputError(f"{str(target)!r} is a file, but a folder is to be written there. Move it away.")
    staging = target.with_name(f".{target.name}.building-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target)
        staging.mkdir()
    except OSError as error:
        raise _refused(target, error) from None
    try:
        yield staging
        _replace(staging, target)
    except OSError as error:
        raise _refused(target, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def sweep(target: Path) -> None:
    """Removes what dead processes left beside the target, and puts back a folder that had stepped aside."""
    for kind in ("replaced", "building"):
        for left in target.parent.glob(f".{target.name}.{kind}-*"):
            if is_alive(left.name.rpartition("-")[2]):
                continue
            if kind == "replaced" and not target.exists():
                left.rename(target)
            else:
                shutil.rmtree(left, ignore_errors=True)


def _replace(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    if _exchange(staging, target):
        return  # the old folder now bears the staging name and is removed with it
    aside = target.with_name(f".{target.name}.replaced-{os.getpid()}")
    target.rename(aside)
    staging.rename(target)
    shutil.rmtree(aside, ignore_errors=True)


def _refused(target: Path, error: OSError) -> OutputError:
    why = error.strerror or str(error)
    return OutputError(
        f"{str(target)!r} cannot be written ({why}). Free space, allow writing, or choose another place."
    )


def _exchange(one: Path, other: Path) -> bool:
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if renameat2 is None:
        return False
    done = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return bool(done == 0)


def is_alive(pid: str) -> bool:
    """Whether another process of this id runs."""
    if not pid.isdigit() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
