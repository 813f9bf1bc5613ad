import pytest

from peers.secure_aggregation.assignment import Contact
from peers.secure_aggregation.messages import Kind
from tests.peers.secure_aggregation.hall import SILENCE_S, Hall


@pytest.fixture
def hall() -> Hall:
    return Hall()


# Who is there


def test_everybody_is_welcomed_with_the_settings(hall: Hall) -> None:
    hall.hello()
    assert all(peer.take(Kind.WELCOME).body == [hall.settings.to_text()] for peer in hall.peers)
    assert list(hall.server.known) == [peer.key for peer in hall.peers]


def test_who_has_not_said_hello_is_asked_who_it_is(hall: Hall) -> None:
    peer = hall.peers[0]
    peer.send(hall.server.key, Kind.BEAT, 0, [])
    hall.stage.talk()
    assert peer.asked_who == 1
    assert hall.server.dropped == {"unknown peer": 1}
    hall.stage.wait(0.5)
    assert peer.asked_who == 2
    assert not hall.server.known
    peer.renew(hall.server.key)
    hall.hello(peer)
    hall.sign_up(peer)
    assert peer.asked_who == 2
    assert hall.server.known[peer.key].layout is not None


def test_who_is_unknown_is_not_asked_too_often(hall: Hall) -> None:
    peer = hall.peers[0]
    for sequence in range(20):
        hall.stage.now_s += 0.05
        assert hall.stage.whisper(peer.key, Kind.BEAT, 0, [], sequence=sequence) == "unknown peer"
        hall.stage.talk()
    assert peer.asked_who == 5


def test_what_a_server_is_never_told_is_dropped(hall: Hall) -> None:
    hall.hello()
    peer = hall.peers[0]
    session = {"session": peer.session(hall.server.key), "sequence": 9}
    for kind in (Kind.SHARE, Kind.SEALED, Kind.RESULT):
        assert hall.stage.whisper(peer.key, kind, body=b"", **session) == "wrong kind"
    for kind, values in [(Kind.WELCOME, [""]), (Kind.CONFIRM, [bytes(32)]), (Kind.ABORT, [[]]), (Kind.OPEN, [[]])]:
        assert hall.stage.whisper(peer.key, kind, *values, **session) == "wrong kind"
    assert hall.stage.whisper(peer.key, Kind.BEAT, 0, [], **session) is None


def test_who_says_hello_again_is_remembered(hall: Hall) -> None:
    hall.hello()
    hall.sign_up(*hall.peers[:5])
    peer = hall.peers[0]
    peer.refuses.add(Kind.STATUS)
    hall.stage.wait(1.5)
    before = peer.session(hall.server.key)
    peer.renew(hall.server.key)
    server_session = hall.server.channel(peer.key).session
    peer.heard.clear()
    hall.hello(peer)
    assert hall.server.channel(peer.key).session == server_session
    assert peer.take(Kind.WELCOME)
    assert hall.server.known[peer.key].layout is not None
    peer.refuses.clear()
    hall.stage.wait(1.0)
    assert peer.of(Kind.STATUS)  # nothing is lost
    late = {"session": before, "sequence": 77}
    assert hall.stage.whisper(peer.key, Kind.BEAT, 0, [], **late) == "wrong session"
    assert hall.stage.whisper(peer.key, Kind.HELLO, 1000, "tcp://old:1", **late) == "wrong session"
    assert peer.asked_who == 0
    assert hall.server.known[peer.key].address == "tcp://p0:1"


def test_a_new_process_is_another_peer(hall: Hall) -> None:
    hall.hello()
    hall.sign_up(*hall.peers[:5])
    peer = hall.peers[0]
    peer.renew(hall.server.key)
    session = hall.server.channel(peer.key).session
    hall.hello(peer, session=5)
    assert hall.server.known[peer.key].session == 5
    assert hall.server.known[peer.key].layout is None
    assert hall.server.channel(peer.key).session != session
    hall.sign_up(hall.peers[5])
    assert hall.server.round is None
    hall.sign_up(peer, number=1)
    assert hall.server.round.sessions[peer.key] == 5
    assert hall.told(hall.peers[1])[0].contacts.get(peer.key, Contact(5, "tcp://p0:1")) == Contact(5, "tcp://p0:1")


def test_who_is_silent_is_lost(hall: Hall) -> None:
    hall.hello()
    hall.lively = hall.peers[:5]
    hall.wait(SILENCE_S)
    assert len(hall.server.known) == 6
    hall.wait(0.5)
    assert list(hall.server.known) == [peer.key for peer in hall.peers[:5]]


def test_acknowledgements_are_signs_of_life(hall: Hall) -> None:
    hall.hello()
    hall.lively.clear()
    for _ in range(10):
        hall.wait(3.0)
        for peer in hall.peers:
            hall.server.send(peer.key, Kind.STATUS, 0, 6)
        hall.stage.talk()
    assert len(hall.server.known) == 6


def test_a_server_that_was_asleep_does_not_blame_its_peers(hall: Hall) -> None:
    hall.begin()
    hall.stage.now_s += 1000.0
    hall.stage.wait(0.1)
    assert len(hall.server.known) == 6
    assert hall.server.repeats == 0
