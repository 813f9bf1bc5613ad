import itertools
import secrets

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, chi2_contingency

from peers.secure_aggregation import shares as module
from peers.secure_aggregation.shares import encrypt, expand, from_bytes, split, to_bytes

LEAST_PROBABILITY = 1e-8
"""Shares come from the operating system: of 150 such tests a sound generator fails one in 700,000 runs."""
BLOCKS = (  # RFC 8439, appendix A.1, test vectors 1, 2 and 4: key, number of the block, key stream
    (
        bytes(32),
        0,
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
    ),
    (
        bytes(32),
        1,
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
    ),
    (
        bytes([0, 0xFF, *[0] * 30]),
        2,
        "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca"
        "13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096",
    ),
)

vectors = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20).map(lambda x: np.array(x, np.uint64))


@pytest.mark.parametrize(("key", "block", "stream"), BLOCKS)
def test_seeds_stand_for_the_key_stream_of_chacha20(key: bytes, block: int, stream: str) -> None:
    values = expand(key, 8 * (block + 1))
    assert values.dtype == np.uint64
    assert values.astype("<u8").tobytes()[64 * block :].hex() == stream
    assert expand(key, 8 * block + 5).tolist() == values[:-3].tolist()
    plain = np.arange(len(values), dtype=np.uint64)
    assert (encrypt(key, plain) ^ plain).tolist() == values.tolist()


@pytest.mark.parametrize("block_bytes", [64, 100, 8])
def test_long_vectors_are_one_stream(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    whole = expand(bytes(32), 100)
    monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    assert expand(bytes(32), 100).tolist() == whole.tolist()


@given(vectors, st.binary(min_size=32, max_size=32))
def test_encryption_undoes_itself_and_leaves_its_input_alone(values: np.ndarray, key: bytes) -> None:
    values.flags.writeable = False
    hidden = encrypt(key, values)
    assert hidden.tolist() == (values ^ expand(key, len(values))).tolist()
    assert encrypt(key, hidden).tolist() == values.tolist()
    assert encrypt(key, values.astype(">u8")).tolist() == hidden.tolist()
    assert encrypt(key, np.repeat(values, 2)[::2]).tolist() == hidden.tolist()
    assert hidden.flags.writeable
    assert not np.shares_memory(hidden, values)


@given(vectors, st.integers(1, 6))
def test_shares_sum_to_the_value(values: np.ndarray, k: int) -> None:
    values.flags.writeable = False
    rest, seeds = split(values, k)
    assert [len(seed) for seed in seeds] == [32] * (k - 1)
    parts = [rest, *(expand(seed, len(values)) for seed in seeds)]
    exact = [sum(int(part[i]) for part in parts) % 2**64 for i in range(len(values))]
    assert exact == [int(value) for value in values]
    assert rest.dtype == np.uint64
    assert rest.flags.writeable
    assert not np.shares_memory(rest, values)


def test_seeds_come_from_the_operating_system_and_the_vector_is_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.secrets is secrets
    asked: list[int] = []

    def token_bytes(size: int) -> bytes:
        asked.append(size)
        return bytes([len(asked)]) * size

    monkeypatch.setattr(module.secrets, "token_bytes", token_bytes)
    first, second = (np.array(values, np.uint64) for values in ([5, 0, 2**64 - 1], [2**63, 17, 1]))
    one, seeds = split(first, 4)
    assert asked == [32, 32, 32]
    asked.clear()
    other, same = split(second, 4)
    assert seeds == same == [bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32]
    mask = sum(expand(seed, 3) for seed in seeds)
    assert (one + mask).tolist() == first.tolist()
    assert (other + mask).tolist() == second.tolist()


def test_seeds_are_fresh() -> None:
    values = np.zeros(4, np.uint64)
    splits = [split(values, 3) for _ in range(500)]
    assert len({seed for _, seeds in splits for seed in seeds}) == 1000
    assert len({rest.tobytes() for rest, _ in splits}) == 500


SECRETS = {
    "zeros": np.zeros(1 << 15, np.uint64),
    "ones": np.full(1 << 15, 2**64 - 1, np.uint64),
    "small": np.arange(1 << 15, dtype=np.uint64),
}


def all_shares(secret: np.ndarray, k: int) -> list[np.ndarray]:
    rest, seeds = split(secret, k)
    return [rest, *(expand(seed, len(secret)) for seed in seeds)]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("k", [2, 3])
def test_shares_are_uniform(secret: str, k: int) -> None:
    for share in all_shares(SECRETS[secret], k):
        octets = share.view(np.uint8).reshape(-1, 8)
        for column in octets.T:  # every byte of a word on its own, as a bad share may have good low bytes
            assert uniform_probability(column, 256) > LEAST_PROBABILITY
        bits = np.unpackbits(octets, axis=1)
        deviations = (bits.mean(axis=0) - 0.5) / (0.5 / np.sqrt(len(bits)))
        assert np.abs(deviations).max() < 6  # 64 bits, each beyond this once in 5·10^8 times
        serial = octets[:-1, 0].astype(int) // 16 * 16 + octets[1:, 0] // 16
        assert uniform_probability(serial, 256) > LEAST_PROBABILITY


def uniform_probability(values: np.ndarray, classes: int) -> float:
    counts = np.bincount(values, minlength=classes)
    expected = counts.sum() / classes
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), classes - 1))


@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_all_shares_but_one_do_not_depend_on_the_value(left_out: int) -> None:
    """Their joint distribution is uniform, and that of two very different secrets is the same."""
    tables = []
    for secret in ("zeros", "ones"):
        shares = all_shares(SECRETS[secret], 3)
        first, second = (share for place, share in enumerate(shares) if place != left_out)
        joint = (first >> np.uint64(60)) * np.uint64(16) + (second >> np.uint64(60))
        tables.append(np.bincount(joint.astype(int), minlength=256))
        assert uniform_probability(joint.astype(int), 256) > LEAST_PROBABILITY
        total = ((first + second) >> np.uint64(56)).astype(int)
        assert uniform_probability(total, 256) > LEAST_PROBABILITY
    assert chi2_contingency(np.array(tables)).pvalue > LEAST_PROBABILITY


def test_the_statistics_see_what_is_not_uniform() -> None:
    """A share that hides less, as noise of 53 bits from a generator of floats, fails the test of bytes."""
    noise = np.random.default_rng(1).integers(0, 2**53, 1 << 15, dtype=np.uint64)
    columns = (noise + SECRETS["small"]).view(np.uint8).reshape(-1, 8).T
    assert min(uniform_probability(column, 256) for column in columns) < LEAST_PROBABILITY


def test_bytes_are_little_endian_and_take_no_copy() -> None:
    values = np.array([1, 2**64 - 2, 258], np.uint64)
    data = to_bytes(values)
    assert bytes(data).hex() == "0100000000000000feffffffffffffff0201000000000000"
    assert np.shares_memory(np.asarray(data), values)
    assert bytes(to_bytes(values.astype(">u8"))) == bytes(to_bytes(np.repeat(values, 2)[::2])) == bytes(data)
    for kind in (bytes, bytearray):
        back = from_bytes(kind(data))
        assert back.dtype == np.uint64
        assert back.tolist() == values.tolist()


@pytest.mark.parametrize("length", [1, 7, 9, 15])
def test_bytes_that_are_no_words_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"expected a multiple of 8 bytes, got {length}"):
        from_bytes(bytes(length))


def test_pairs_of_shares_differ() -> None:
    shares = all_shares(SECRETS["zeros"], 4)
    for first, second in itertools.combinations(shares, 2):
        assert (first == second).sum() == 0
