"""Where a result comes from: the commit of the code, digests of the data and of the configuration."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from pipelines.typed import plain


def code_commit() -> str:
    """The commit of this checkout, with `-dirty` where files differ from it; `unknown` outside a checkout."""
    here = Path(__file__).parent
    commands = (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    answers = []
    for command in commands:
        try:
            done = subprocess.run(["git", *command], cwd=here, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return "unknown"
        if done.returncode:
            return "unknown"
        answers.append(done.stdout.strip())
    return answers[0] + ("-dirty" if answers[1] else "")


def folder_digest(path: Path) -> str:
    """SHA-256 over the names and contents of a file, or of every file below a folder, in order of name."""
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        digest.update(str(file.relative_to(path) if file != path else file.name).encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def settings_digest(settings: Any) -> str:
    """SHA-256 of a settings object in canonical JSON."""
    return hashlib.sha256(json.dumps(plain(settings), sort_keys=True).encode()).hexdigest()
