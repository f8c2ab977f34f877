"""A text file as blocks of lines, held as Arrow text without a Python object for each line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import InputError
from pipelines.formats.pieces import take_spans
from pipelines.formats.reading import Broken, Int64

_BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class Lines:
    """Consecutive lines without their ends; blank ones and those that are not UTF-8 are left out.

    Attributes:
        text: one entry a line.
        number: line number in the file, from 1.
        broken: lines that are not UTF-8.
    """

    text: pa.StringArray
    number: Int64
    broken: Broken


@dataclass(frozen=True)
class Block:
    """Consecutive lines as they stand in the file, and the number of the first."""

    data: bytes
    first: int


def read_blocks(path: Path) -> Iterator[Block]:
    """The file's bytes, cut after lines.

    Raises:
        InputError: the file cannot be read or unpacked.
    """
    first = 1
    for data in _blocks(path):
        yield Block(data, first)
        first += data.count(b"\n")


def read_lines(path: Path) -> Iterator[Lines]:
    """The file's lines in blocks.

    Raises:
        InputError: the file cannot be read or unpacked.
    """
    return map(split_lines, read_blocks(path))


def open_bytes(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked when its name ends in .gz."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _blocks(path: Path) -> Iterator[bytes]:
    """Whole lines, about 4 MiB at a time; the last line is closed when the file does not."""
    rest = b""
    try:
        with open_bytes(path) as file:
            while chunk := file.read(_BLOCK_BYTES):
                cut = chunk.rfind(b"\n") + 1
                if cut:
                    yield rest + chunk[:cut]
                    rest = chunk[cut:]
                else:
                    rest += chunk
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error}). Copy it again, or leave it out.") from None
    if rest:
        yield rest + b"\n"


def split_lines(block: Block) -> Lines:
    """Text and number of each line of a block."""
    data, first = block.data, block.first
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw == ord("\n"))
    begins = np.concatenate([[0], ends[:-1] + 1])
    returned = (ends > begins) & (raw[ends - 1] == ord("\r"))
    text, broken = take_spans(pa.binary(), pa.py_buffer(data), begins, ends - returned), Broken()
    number = np.arange(first, first + len(ends), dtype=np.int64)
    try:
        text = text.cast(pa.string())
    except pa.ArrowInvalid:
        text = _decoded(text, number, broken)
    if returned.any():
        text = pc.ascii_rtrim(text, characters="\r")
    if first == 1:
        text = _without_mark(text)
    full = pc.greater(pc.binary_length(text), 0)
    if not pc.all(full).as_py():
        number = number[full.to_numpy(zero_copy_only=False)]
        text = text.filter(full)
    return Lines(text, number, broken)


def _decoded(raw: pa.BinaryArray, number: Int64, broken: Broken) -> pa.StringArray:
    texts = []
    for line, value in zip(number.tolist(), raw.to_pylist(), strict=True):
        try:
            texts.append(value.decode())
        except UnicodeDecodeError:
            texts.append("")
            broken.add(np.array([line]), [value.decode("utf-8", "surrogateescape")], "the line is not UTF-8")
    return pa.array(texts, pa.string())


def _without_mark(text: pa.StringArray) -> pa.StringArray:
    """Some editors open a file with a byte order mark, which is no part of its first field."""
    if len(text) and text[0].as_py().startswith("\ufeff"):
        return pa.concat_arrays([pa.array([text[0].as_py()[1:]]), text.slice(1)])
    return text
