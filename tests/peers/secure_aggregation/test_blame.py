import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.secure_aggregation.blame import culprits


def waiting(text: str) -> dict[bytes, set[bytes]]:
    """Return who waits for whom, of "a:bc b: c:a": a waits for b and c, c for a."""
    pairs = [part.split(":") for part in text.split()]
    return {peer.encode(): {other.encode() for other in others} for peer, others in pairs}


@pytest.mark.parametrize(
    ("text", "blamed"),
    [
        ("a: b: c:", ""),  # nobody waits
        ("a:c b:c c:", "c"),
        ("a:b b:c c: d:", "c"),  # whoever waits for c is not to blame
        ("a:c b:d c: d:", "cd"),
        ("a:b b:a c:ab", "a"),  # a link is cut: one of the two goes
        ("a:c b:c c:ab d:a e:a f:a", "c"),  # c reaches nobody
        ("a:b b:c c:a d:a", "a"),
        ("a:b b:a c:d d:", "ad"),
        ("a:a b:", "a"),
    ],
)
def test_those_at_the_ends_of_chains_are_blamed(text: str, blamed: str) -> None:
    assert culprits(waiting(text)) == [letter.encode() for letter in blamed]


@given(st.integers(1, 8).flatmap(lambda n: st.lists(st.sets(st.integers(0, n - 1)), min_size=n, max_size=n)))
def test_somebody_is_blamed_whenever_anybody_waits_and_never_all(graph: list[set[int]]) -> None:
    waits = {bytes([i]): {bytes([j]) for j in others if j != i} for i, others in enumerate(graph)}
    blamed = culprits(waits)
    assert bool(blamed) == any(waits.values())
    assert len(blamed) < len(waits)
    assert set(blamed) <= set().union(*waits.values())
