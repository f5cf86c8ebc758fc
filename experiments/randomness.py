"""Stateless randomness: every number is a function of what it is for, so that there is no state to save.

Data order, augmentation and mixing draw from counters instead of generators. A resumed run, another number of workers
or another prefetch depth therefore sees exactly the same numbers. The mixing function is splitmix64 (Steele, Lea,
Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014), whose output passes BigCrush.
"""

import hashlib

import numpy as np

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: the increment of splitmix64
_MUL1 = 0xBF58476D1CE4E5B9
_MUL2 = 0x94D049BB133111EB


def derive(*parts: int | str) -> int:
    """A 63-bit key for a purpose, e.g. `derive("mixup", seed, step, index)`; order and types of the parts matter."""
    state = 0
    for part in parts:
        if isinstance(part, str):
            word = int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "little")
            state = _mix((state ^ word) + _GOLDEN)
        else:
            state = _mix((state ^ _mix(int(part) + _GOLDEN)) + 2 * _GOLDEN)
    return state >> 1


def uniforms(key: int, sample_indices: np.ndarray, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1), float64 of shape (len(sample_indices), count).

    Each is a function of (key, sample index, column) alone, so asking for more columns or other samples changes none.
    """
    with np.errstate(over="ignore"):
        rows = _mix_array(np.asarray(sample_indices).astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(key & _MASK))
        columns = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
        words = _mix_array(rows[:, None] + columns)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(key: int, count: int) -> np.ndarray:
    """A random order of range(count), int64: the ranks of one 64-bit word per element."""
    with np.errstate(over="ignore"):
        words = _mix_array(np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(key & _MASK))
    return np.argsort(words, kind="stable").astype(np.int64)


def normals(uniform_pairs: np.ndarray) -> np.ndarray:
    """Standard normal numbers from pairs of uniforms in the last axis, by the Box-Muller transform."""
    radius = np.sqrt(-2.0 * np.log1p(-uniform_pairs[..., 0]))
    return radius * np.cos(2.0 * np.pi * uniform_pairs[..., 1])


def _mix(word: int) -> int:
    word &= _MASK
    word = ((word ^ (word >> 30)) * _MUL1) & _MASK
    word = ((word ^ (word >> 27)) * _MUL2) & _MASK
    return word ^ (word >> 31)


def _mix_array(words: np.ndarray) -> np.ndarray:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(_MUL1)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(_MUL2)
    return words ^ (words >> np.uint64(31))
