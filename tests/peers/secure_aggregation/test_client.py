import pytest

from peers.secure_aggregation import peer as peer_module
from peers.secure_aggregation.client import LINGER_S
from peers.secure_aggregation.messages import Kind
from peers.secure_aggregation.profiles import AverageAdditiveSharingModelProfile
from peers.secure_aggregation.settings import Settings
from tests.peers.secure_aggregation.scene import MODEL, ROUND, SETTINGS, TIMEOUT_S, Scene


@pytest.fixture
def scene() -> Scene:
    return Scene()


# Hello


def test_a_peer_says_hello_until_it_is_answered(scene: Scene) -> None:
    scene.peer.start(0.0)
    scene.stage.talk()
    assert scene.server.take(Kind.HELLO).body == [scene.peer.session, "tcp://own:1"]
    scene.stage.wait(5.0)
    assert not scene.server.heard
    scene.stage.wait(0.2)
    assert scene.server.take(Kind.HELLO)
    scene.say(Kind.WELCOME, SETTINGS.to_text())
    assert scene.peer.settings.to_text() == SETTINGS.to_text()
    scene.stage.wait(20.0)
    assert not scene.server.of(Kind.HELLO)


def test_who_is_unknown_says_hello_again_and_tells_what_was_not_heard(scene: Scene) -> None:
    assignment = scene.begin()
    scene.stage.mute.add(scene.server.key)
    scene.server.refuses = {Kind.DELIVERED, Kind.BEAT}
    for group in assignment.groups:
        scene.confirm(assignment, group)
    scene.stage.wait(1.0)
    scene.stage.mute.clear()
    scene.server.refuses.clear()
    session = scene.server._incoming[scene.own.key].session
    scene.server.reply_who(scene.own.key)
    scene.stage.talk()
    assert [message.kind for _, message in scene.server.heard] == [Kind.HELLO, Kind.DELIVERED]
    assert scene.server.take(Kind.HELLO).body == [scene.peer.session, "tcp://own:1"]
    assert scene.server._incoming[scene.own.key].session > session
    assert scene.peer.attempt is not None


def test_who_does_not_say_hello_again_too_often(scene: Scene) -> None:
    scene.welcome()
    scene.stage.wait(0.4)
    scene.server.reply_who(scene.own.key)
    scene.stage.talk()
    assert not scene.server.of(Kind.HELLO)
    scene.stage.wait(0.1)
    scene.server.refuses.add(Kind.HELLO)
    sessions = set()
    for _ in range(5):
        scene.server.reply_who(scene.own.key)
        scene.stage.talk()
        sessions.add(scene.peer.channel(scene.server.key).session)
        scene.stage.wait(0.6)
    assert scene.server.dropped["refused"] >= 2
    scene.server.refuses.clear()
    scene.stage.wait(5.0)
    assert scene.server.of(Kind.HELLO)
    assert sessions == {scene.peer.channel(scene.server.key).session}  # nobody need be told twice at once


def test_other_peers_cannot_ask_who(scene: Scene) -> None:
    scene.welcome()
    scene.stage.wait(1.0)
    scene.others[0].reply_who(scene.own.key)
    scene.stage.talk()
    assert not scene.server.of(Kind.HELLO)


def test_a_wish_is_told_when_the_server_answers_and_again_when_it_has_forgotten(scene: Scene) -> None:
    scene.peer.start(0.0)
    wish = scene.peer.begin(MODEL, SETTINGS, 0.0, 100.0)
    scene.stage.talk()
    assert not scene.server.of(Kind.SIGN_UP)
    for _ in range(2):
        scene.server.renew(scene.own.key)
        scene.say(Kind.WELCOME, SETTINGS.to_text())
        assert scene.server.take(Kind.SIGN_UP).body == [wish.number, [["w", "float64", [2]]]]
        scene.stage.wait(1.0)
        scene.server.reply_who(scene.own.key)
        scene.stage.talk()


def test_settings_that_cannot_be_followed_are_refused(scene: Scene) -> None:
    scene.peer.start(0.0)
    wish = scene.wish()
    scene.say(Kind.WELCOME, '{"profile": 1}')
    assert scene.peer.refusal.startswith("the server's settings: ")
    assert wish.error == scene.peer.refusal
    assert scene.wish().error is None  # until the server is heard of again
    assert not scene.server.of(Kind.SIGN_UP)


def test_refused_settings_end_wishes_until_there_are_others(scene: Scene) -> None:
    scene.welcome()
    scene.stage.wait(1.0)
    scene.server.reply_who(scene.own.key)
    scene.stage.talk()
    scene.say(Kind.WELCOME, "{}")
    assert scene.wish().error == scene.peer.refusal
    scene.stage.wait(1.0)
    scene.server.reply_who(scene.own.key)
    scene.stage.talk()
    scene.say(Kind.WELCOME, SETTINGS.to_text())
    assert scene.peer.refusal is None
    assert scene.wish().error is None


def test_a_model_prepared_under_other_settings_is_not_averaged(scene: Scene) -> None:
    scene.welcome()
    wish = scene.wish()
    scene.stage.wait(1.0)
    scene.server.renew(scene.own.key)
    scene.server.reply_who(scene.own.key)
    scene.stage.talk()
    other = AverageAdditiveSharingModelProfile(digits_to_keep=3, clip=100, max_weight=5)
    scene.say(Kind.WELCOME, Settings(other, None, TIMEOUT_S).to_text())
    assert wish.error == ("the server has come back with other settings than those for which the model was prepared")
    assert not scene.server.of(Kind.SIGN_UP)


# The server's sessions


def test_only_the_present_session_of_the_server_counts(scene: Scene) -> None:
    scene.welcome()
    scene.stage.wait(1.0)
    session = scene.server.session(scene.own.key)
    for other in (session - 1, session - 1000):
        assert scene.stage.whisper(scene.server.key, Kind.STATUS, 1, 2, session=other) == "wrong session"
        assert scene.stage.whisper(scene.server.key, Kind.WELCOME, "", session=other) == "wrong session"
    scene.stage.talk()
    assert not scene.server.of(Kind.HELLO)  # what comes late says nothing new
    assert scene.stage.whisper(scene.server.key, Kind.WELCOME, "", session=session + 1) == "wrong session"
    scene.stage.talk()
    assert scene.server.of(Kind.HELLO)  # the two do not agree
    assert scene.stage.whisper(scene.server.key, Kind.WELCOME, "", session=session - 1) == "wrong session"
    assert scene.stage.whisper(scene.server.key, Kind.STATUS, 1, 2, session=session + 1) == "wrong session"
    text = SETTINGS.to_text()
    assert scene.stage.whisper(scene.server.key, Kind.WELCOME, text, session=session + 1) is None
    assert scene.stage.whisper(scene.server.key, Kind.STATUS, 1, 2, session=session + 1, sequence=1) is None
    assert scene.stage.whisper(scene.server.key, Kind.STATUS, 1, 2, session=session, sequence=9) == "wrong session"


def test_what_a_server_never_says_is_dropped(scene: Scene) -> None:
    scene.welcome()
    session = {"session": scene.server.session(scene.own.key), "sequence": 50}
    for kind in Kind:
        if kind not in peer_module.FROM_SERVER | {Kind.ACKNOWLEDGE, Kind.WHO, Kind.SHARE, Kind.SEALED, Kind.RESULT}:
            values = {Kind.CONFIRM: [bytes(32)], Kind.SEED: [bytes(32)], Kind.READY: [bytes(32)]}.get(kind)
            values = values or {Kind.KEY: [bytes(32)], Kind.HELLO: [1, ""], Kind.BEAT: [1, []]}.get(kind)
            values = values or {Kind.SIGN_UP: [1, []], Kind.ABORTED: [True, True]}.get(kind, [])
            assert scene.stage.whisper(scene.server.key, kind, *values, **session) == "wrong kind", kind
    for kind in (Kind.SHARE, Kind.SEALED, Kind.RESULT):
        assert scene.stage.whisper(scene.server.key, kind, body=b"", **session) == "wrong kind"


# Signs of life


def test_a_peer_gives_signs_of_life(scene: Scene) -> None:
    scene.welcome()
    scene.stage.wait(5.5)
    beats = scene.server.of(Kind.BEAT)
    assert len(beats) == 5
    assert all(beat.body == [0, []] for beat in beats)
    scene.server.refuses.add(Kind.BEAT)
    scene.stage.wait(5.0)
    scene.server.refuses.clear()
    scene.server.heard.clear()
    scene.stage.wait(5.0)
    assert len(scene.server.of(Kind.BEAT)) in (2, 3, 4)  # never two under way


def test_signs_of_life_tell_what_has_moved_and_for_whom_a_peer_waits(scene: Scene) -> None:
    assignment = scene.begin()
    others = sorted(set(assignment.groups[0].members) - {scene.own.key})
    scene.stage.wait(1.1)
    assert scene.server.of(Kind.BEAT)[-1].body == [2, others]  # two confirmations have been acknowledged
    scene.confirm(assignment, assignment.groups[0], but=others[0])
    scene.stage.wait(1.0)
    assert scene.server.of(Kind.BEAT)[-1].body == [3, others[:1]]
    assert scene.peer.chunks_moved == 3
    scene.stage.wait(5.0)
    assert scene.peer.chunks_moved == 3  # what goes to the server, and comes, does not count


def test_who_leaves_says_so_and_nothing_more(scene: Scene) -> None:
    scene.welcome()
    scene.peer.leave(scene.stage.now_s)
    scene.stage.talk()
    assert scene.server.take(Kind.BYE)
    scene.server.reply_who(scene.own.key)
    scene.stage.wait(20.0)
    assert not scene.server.heard


def test_who_leaves_in_the_middle_does_not_come_back(scene: Scene) -> None:
    scene.begin()
    scene.peer.leave(scene.stage.now_s)
    scene.stage.wait(11 * TIMEOUT_S)
    assert scene.peer.wish.error is not None
    assert [message.kind for _, message in scene.server.heard if message.kind != Kind.BEAT] == [Kind.BYE]


def test_who_leaves_first_sends_what_others_wait_for(scene: Scene) -> None:
    assignment = scene.begin()
    scene.finish(assignment)
    voice = next(voice for voice in scene.others if voice.key not in assignment.contacts)
    voice.refuses.add(Kind.RESULT)
    scene.say(Kind.SERVE, [voice.key, 12, "tcp://other:1"], round=ROUND, attempt=0)
    scene.server.heard.clear()
    scene.peer.leave(scene.stage.now_s)
    scene.stage.wait(LINGER_S - 0.5)
    assert not scene.server.of(Kind.BYE)
    assert scene.server.of(Kind.BEAT)  # or the server would think that nobody sends it any more
    assert not scene.peer.is_gone
    voice.refuses.clear()
    scene.stage.wait(4.5)
    assert voice.of(Kind.RESULT)
    assert scene.server.take(Kind.BYE)
    assert scene.peer.is_gone


@pytest.mark.parametrize("hears", [True, False])
def test_who_leaves_does_not_wait_for_those_who_do_not_answer(scene: Scene, hears: bool) -> None:
    assignment = scene.begin()
    scene.finish(assignment)
    voice = next(voice for voice in scene.others if voice.key not in assignment.contacts)
    voice.refuses.add(Kind.RESULT)
    if not hears:
        scene.server.refuses.add(Kind.BYE)
    scene.say(Kind.SERVE, [voice.key, 12, "tcp://other:1"], round=ROUND, attempt=0)
    scene.peer.leave(scene.stage.now_s)
    scene.stage.wait(LINGER_S + 0.5)
    assert bool(scene.server.of(Kind.BYE)) == hears
    assert scene.peer.is_gone == hears
    scene.stage.wait(LINGER_S)
    assert scene.peer.is_gone


def test_who_leaves_a_server_that_is_away_is_gone_at_once(scene: Scene) -> None:
    scene.welcome()
    scene.stage.mute.add(scene.server.key)
    scene.stage.wait(TIMEOUT_S)
    scene.peer.leave(scene.stage.now_s)
    assert scene.peer.is_gone
