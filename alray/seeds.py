"""Named random streams: one seed gives the same numbers to the same row on any worker.

A random number is a function of (seed, purpose, round, id) and of nothing else: never of a rank, a
path or the order in which rows arrive (design §6, promise 1). Rows draw by counter: their id's 64-bit hash is
mixed with the stream's key by the SplitMix64 finaliser (Steele, Lea & Flood, OOPSLA 2014).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

Hashes = npt.NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2⁶⁴ over the golden ratio: the step of SplitMix64."""


def hash_ids(ids: Iterable[str]) -> Hashes:
    """Return the blake2b-64 hash of each id, uint64 [N]."""
    blake = hashlib.blake2b
    digests = b"".join(blake(i.encode(), digest_size=8).digest() for i in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def key(seed: int, purpose: str, *more: int | str) -> int:
    """Return the 64-bit key of the stream named by (seed, purpose, …)."""
    name = "\x1f".join([str(seed), purpose, *map(str, more)])
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def uniform(stream: int, hashes: Hashes) -> npt.NDArray[np.float64]:
    """Return one number in (0, 1) for each id hash, from the stream with this `key`; float64 [N]."""
    return uniforms(stream, hashes, 0, 1)[:, 0]


def uniforms(stream: int, hashes: Hashes, start: int, count: int) -> npt.NDArray[np.float64]:
    """Return the numbers `start` … `start + count` − 1 of each id's own sequence in (0, 1), float64 [N, count].

    The SplitMix64 generator, whose state is the id's hash mixed with the stream: any stretch of it can be had alone.
    """
    with np.errstate(over="ignore"):
        # Mixed before it is a state, so that streams whose keys differ in few bits share nothing.
        state_N1 = _mixed((hashes ^ np.uint64(stream)) + GOLDEN)[:, None]
        z = _mixed(state_N1 + np.arange(start + 1, start + count + 1, dtype=np.uint64) * GOLDEN)
    return ((z >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52  # 53 bits would round up to 1


def _mixed(z: Hashes) -> Hashes:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def generator(seed: int, purpose: str, *more: int | str) -> np.random.Generator:
    """Return a NumPy generator for work that is not per row (k-means seeds, shuffles of epochs)."""
    return np.random.Generator(np.random.Philox(key(seed, purpose, *more)))


def torch_generator(seed: int, purpose: str, *more: int | str) -> torch.Generator:
    """Return a CPU torch generator for work that is not per row (weights, augmentation)."""
    return torch.Generator().manual_seed(key(seed, purpose, *more) & (2**63 - 1))
