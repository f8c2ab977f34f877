"""Replaces user and session ids by keyed hashes, so that nothing behind ingest sees a raw one.

    pseudonym = hex(BLAKE2b(key = BLAKE2b(secret, person = kind), id))[:16]

The same id under the same key always gets the same pseudonym, users and sessions live in separate spaces, and without
the key neither can a pseudonym be turned back nor a guessed id be checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.rules import encode
from pipelines.errors import InputError, OutputError

Kind = Literal["user", "session", "line"]

KEY_VARIABLE = "PREMIRROR_KEY"
MINIMUM_KEY_BYTES = 16
_DIGEST_BYTES = 8


def load_key(home_file: Path) -> bytes:
    """The secret: from the environment variable `PREMIRROR_KEY`, else from this file, which is made when missing.

    Args:
        home_file: holds the key as hexadecimal text; readable by its owner only.

    Raises:
        InputError: the key is too short, or others may read the file. The message never shows the key.
        OutputError: the file cannot be made.
    """
    given = os.environ.get(KEY_VARIABLE)
    if given is not None:
        return _parse_key(given, f"The environment variable {KEY_VARIABLE}")
    if not home_file.exists():
        _make_key(home_file)
    if home_file.stat().st_mode & 0o077:
        raise InputError(f"Others may read the key file {str(home_file)!r}. Run `chmod 600` on it, or make a new key.")
    return _parse_key(home_file.read_text(encoding="utf-8"), f"The key file {str(home_file)!r}")


def pseudonym(raw: str, *, key: bytes, kind: Kind) -> str:
    """The pseudonym of one id, for whoever must find a person's rows (as erasing does)."""
    return _keyed(key, kind, raw.encode()).hexdigest()


def pseudonymise(ids: pa.ChunkedArray, *, key: bytes, kind: Kind) -> pa.DictionaryArray:
    """Pseudonyms of a column of ids, dictionary-encoded; null, blank and `-` become null.

    Args:
        ids: text, plain or dictionary-encoded.
        key: at least 16 bytes.
        kind: users and sessions are hashed apart.
    """
    known = known_ids(ids)
    return pa.DictionaryArray.from_arrays(known.indices, _hash_all(known.dictionary, key, kind))


def known_ids(ids: pa.ChunkedArray) -> pa.DictionaryArray:
    """Ids, dictionary-encoded; blank and `-`, which logs write for nobody, become null."""
    whole = encode(ids)
    nobody = pc.is_in(whole.dictionary, value_set=pa.array(["", "-"]))
    if not pc.any(nobody).as_py():
        return whole
    codes = pc.if_else(nobody.take(whole.indices), pa.scalar(None, whole.indices.type), whole.indices)
    return pa.DictionaryArray.from_arrays(codes, whole.dictionary)


def check_key(key: bytes) -> bytes:
    """The key itself, if it is long enough.

    Raises:
        InputError: it is shorter than 16 bytes.
    """
    if len(key) < MINIMUM_KEY_BYTES:
        raise InputError(f"The key has {len(key)} bytes; at least {MINIMUM_KEY_BYTES} are needed. Choose a longer one.")
    return key


def digests(texts: list[str], *, key: bytes) -> list[str]:
    """Keyed digests of raw lines: tell whether two lines are equal without holding either."""
    return [_keyed(key, "line", text.encode("utf-8", "surrogateescape")).hexdigest() for text in texts]


def _hash_all(ids: pa.StringArray, key: bytes, kind: Kind) -> pa.StringArray:
    """Arrow text built from whole buffers: a million Python strings would cost more than the hashing."""
    keyed = _keyed(key, kind, b"").copy  # copying the keyed state is cheaper than keying again
    hashes = []
    for raw in ids.fill_null("").cast(pa.binary()).to_pylist():
        one = keyed()
        one.update(raw)
        hashes.append(one.digest())
    digested = b"".join(hashes).hex()
    width = 2 * _DIGEST_BYTES
    offsets = np.arange(0, (len(ids) + 1) * width, width, dtype=np.int64)
    buffers = [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(digested.encode())]
    return pa.Array.from_buffers(pa.large_string(), len(ids), buffers).cast(pa.string())


def _keyed(key: bytes, kind: Kind, message: bytes) -> hashlib.blake2b:
    own_key = hashlib.blake2b(check_key(key), person=kind.encode()).digest()
    return hashlib.blake2b(message, key=own_key, digest_size=_DIGEST_BYTES)


def _parse_key(text: str, where: str) -> bytes:
    text = text.strip()
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = text.encode()
    if len(key) < MINIMUM_KEY_BYTES:
        raise InputError(f"{where} holds {len(key)} bytes of key; at least {MINIMUM_KEY_BYTES} are needed.")
    return key


def _make_key(path: Path) -> None:
    """Made beside its place and linked there, so that a kill leaves no half key and two starters share one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(32) + "\n")
        # Where another process was first, its key counts.
        with contextlib.suppress(FileExistsError):
            os.link(beside, path)
    except OSError as error:
        raise OutputError(
            f"The key file {str(path)!r} cannot be made ({error.strerror}). Allow writing there."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
