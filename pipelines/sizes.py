"""How large contents are, and how much of one a viewer watches; the benchmark worlds draw both from hashes.

    page    log-normal, one segment
    video   log-normal, segments of `segment_bytes`; segment j (from 0) is watched with probability q^j,
            so J = 1 + floor(ln u / ln q) segments are watched

A draw depends on the id and the seed alone, so that a content keeps its size whatever else is in the table, in
whichever order its rows come.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

MIB = 2**20


@dataclass(frozen=True)
class SizeSettings:
    """Sizes of pages and videos, and how far videos are watched."""

    video_share: float = 0.2
    """Probability that a content is a video; the others are pages of one segment."""
    page_median_bytes: float = 1.5e6
    """Median size of a page, in bytes."""
    page_sigma: float = 0.8
    """Standard deviation of the logarithm of a page's size."""
    video_median_bytes: float = 60e6
    """Median size of a video, in bytes."""
    video_sigma: float = 0.9
    """Standard deviation of the logarithm of a video's size."""
    segment_bytes: int = 4 * MIB
    """Length of a video's segments, in bytes; the last one may be shorter."""
    watch_through: float = 0.93
    """Probability that a viewer who watched one segment watches the next."""

    def __post_init__(self) -> None:
        problems = []
        if not 0 <= self.video_share <= 1:
            problems.append(f"Expected video_share in [0, 1], got {self.video_share!r}.")
        for name in ("page_median_bytes", "video_median_bytes", "segment_bytes"):
            if getattr(self, name) < 1:
                problems.append(f"Expected {name} >= 1, got {getattr(self, name)!r}.")
        for name in ("page_sigma", "video_sigma"):
            if getattr(self, name) < 0:
                problems.append(f"Expected {name} >= 0, got {getattr(self, name)!r}.")
        if not 0 < self.watch_through < 1:
            problems.append(f"Expected 0 < watch_through < 1, got {self.watch_through!r}.")
        if problems:
            raise ValueError(" ".join(problems))


@dataclass(frozen=True)
class Catalogue:
    """Contents and their sizes, in one order.

    Attributes:
        content: ids. (n,)
        video: whether the content is a video; a page otherwise. (n,)
        bytes: whole length. (n,)
        segment_bytes: length of a segment; of a page, its whole length. (n,)
    """

    content: npt.NDArray[np.object_]
    video: Bool
    bytes: Int64
    segment_bytes: Int64


def draw_catalogue(ids: Iterable[str], settings: SizeSettings, *, seed: int) -> Catalogue:
    """Gives every content its kind and size by a hash of its id and the seed."""
    content = np.asarray(list(ids), dtype=object)
    key = hash_ids(content, seed=seed)
    video = uniform(mix(key, 1)) < settings.video_share
    normal = ndtri(uniform(mix(key, 2)))
    size = np.where(
        video,
        settings.video_median_bytes * np.exp(settings.video_sigma * normal),
        settings.page_median_bytes * np.exp(settings.page_sigma * normal),
    )
    whole = np.maximum(np.rint(size), 1).astype(np.int64)
    return Catalogue(content, video, whole, np.where(video, settings.segment_bytes, whole))


def watched_bytes(catalogue: Catalogue, content: Int64, key: UInt64, *, watch_through: float) -> Int64:
    """Bytes that each request takes from the start of its content: pages whole, videos a geometric number of segments.

    Args:
        catalogue: sizes.
        content: row of the catalogue, by request. (n,)
        key: one hash a request; the draw depends on nothing else. (n,)
        watch_through: probability that the next segment is watched too.
    """
    segments = 1 + np.floor(np.log(uniform(key)) / np.log(watch_through)).astype(np.int64)
    wanted = np.where(catalogue.video[content], segments, 1) * catalogue.segment_bytes[content]
    return np.asarray(np.minimum(wanted, catalogue.bytes[content]))


def hash_ids(ids: Iterable[str], *, seed: int) -> UInt64:
    """One 64-bit keyed hash an id, equal on every machine."""
    key = seed.to_bytes(8, "little", signed=True)
    digests = b"".join(hashlib.blake2b(i.encode(), digest_size=8, key=key).digest() for i in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def mix(key: UInt64, salt: int | UInt64 | Int64) -> UInt64:
    """Another 64-bit hash for every pair of key and salt (the finaliser of SplitMix64)."""
    z = key ^ (np.asarray(salt).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


def uniform(key: UInt64) -> Float64:
    """Maps hashes to numbers strictly between 0 and 1."""
    return ((key >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def part_rng(seed: int, part: str) -> np.random.Generator:
    """A generator of its own for each named part of a world, so that a change in one part leaves the others alone."""
    return np.random.default_rng([seed, int.from_bytes(hashlib.blake2b(part.encode(), digest_size=4).digest())])
