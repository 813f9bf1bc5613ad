"""Additive secret sharing in Z_2^64.

A vector x is split into k shares that sum to it, x = s_1 + … + s_k modulo 2^64, so that any k − 1 of them are uniformly
distributed and independent of x. All but one are the output of ChaCha20 under keys from the operating system, so that
32 bytes stand for each of these on the wire: they are uniform for whoever cannot break ChaCha20.

Source: Cramer, Damgård and Nielsen, "Secure Multiparty Computation and Secret Sharing", Cambridge 2015, chapter 1.
ChaCha20: RFC 8439.
"""

import secrets

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from peers.secure_aggregation.layout import WORD_BYTES

SEED_BYTES = 32
NONCE = bytes(16)  # seeds are used once
BLOCK_BYTES = 1 << 28  # what the cipher's library takes at a time is limited


def expand(seed: bytes, words: int) -> np.ndarray:
    """Return the uint64 vector (words,) that a seed of 32 bytes stands for."""
    return _encrypted(seed, np.zeros(words, dtype="<u8"))


def encrypt(key: bytes, values: np.ndarray) -> np.ndarray:
    """Return values, uint64 (words,), under a key of 32 bytes that is used once; the same again decrypts."""
    return _encrypted(key, np.ascontiguousarray(values, dtype="<u8"))


def _encrypted(key: bytes, values: np.ndarray) -> np.ndarray:
    out = np.empty_like(values)
    source, target = memoryview(values).cast("B"), memoryview(out).cast("B")
    encryptor = Cipher(algorithms.ChaCha20(key, NONCE), mode=None).encryptor()
    for start in range(0, len(source), BLOCK_BYTES):
        encryptor.update_into(source[start : start + BLOCK_BYTES], target[start : start + BLOCK_BYTES])
    return out.astype(np.uint64, copy=False)


def split(values: np.ndarray, num_shares: int) -> tuple[np.ndarray, list[bytes]]:
    """Return the shares of values, uint64 (words,): one as a vector, the others as seeds, all fresh."""
    seeds = [secrets.token_bytes(SEED_BYTES) for _ in range(num_shares - 1)]
    rest = values.copy()
    for seed in seeds:
        rest -= expand(seed, len(values))
    return rest, seeds


def to_bytes(values: np.ndarray) -> memoryview:
    """Return uint64 values as little-endian bytes, without a copy where that is how they are stored."""
    return memoryview(np.ascontiguousarray(values, dtype="<u8")).cast("B")


def from_bytes(data: bytes | bytearray) -> np.ndarray:
    """Return the uint64 values that `to_bytes` was given."""
    if len(data) % WORD_BYTES:
        raise ValueError(f"expected a multiple of {WORD_BYTES} bytes, got {len(data)}")
    return np.frombuffer(data, dtype="<u8").astype(np.uint64, copy=False)
