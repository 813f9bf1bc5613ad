import hmac
import os
import re
import resource
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq
import zmq.auth
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from zmq.utils import z85

import peers.keys
from peers.keys import create_keys, create_several, own_names, read_certificate, read_certificates, read_identity
from tools.errors import UserError

ADVICE = "run: python3 -m peers keys create"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def change(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, lambda _: replacement, path.read_text())
    assert count == 1
    path.write_text(text)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_only_the_owner_may_read_secrets(mask: int, tmp_path: Path) -> None:
    keys = tmp_path / "new" / "keys"
    with umask(mask):
        create_keys("alice", keys)
    assert mode(keys) == 0o700
    assert mode(keys / "alice.key_secret") == 0o600
    assert mode(keys / "alice.key") == 0o644 & ~mask


def test_pyzmq_reads_the_same_keys(keys: Path) -> None:
    identity = create_keys("alice", keys)
    public, secret = z85.encode(identity.key), z85.encode(identity.secret)
    assert zmq.auth.load_certificate(keys / "alice.key") == (public, None)
    assert zmq.auth.load_certificate(keys / "alice.key_secret") == (public, secret)
    assert zmq.auth.load_certificates(keys) == {public: True}
    assert zmq.curve_public(secret) == public


def test_what_was_made_is_read_again(keys: Path) -> None:
    made = create_several(["alice", "bob"], keys)
    assert [read_identity(keys, name) for name in ("alice", "bob")] == made
    assert [read_certificate(keys, name) for name in ("alice", "bob")] == [identity.certificate for identity in made]
    assert read_certificates(keys) == {identity.key: identity.certificate for identity in made}
    assert own_names(keys) == {"alice", "bob"}
    assert len({part for identity in made for part in (identity.key, identity.secret)}) == 4


def test_public_files_have_nothing_secret(keys: Path) -> None:
    identity = create_keys("alice", keys)
    secret = z85.encode(identity.secret).decode()
    assert secret in (keys / "alice.key_secret").read_text()
    assert secret not in (keys / "alice.key").read_text()
    assert secret not in repr(identity)
    assert repr(identity.secret) not in repr(identity)


def test_signatures(keys: Path) -> None:
    alice, bob = create_several(["alice", "bob"], keys)
    signature = alice.sign(b"data")
    assert len(signature) == 64
    alice.certificate.verify(signature, b"data")
    for certificate, data in ((alice.certificate, b"date"), (bob.certificate, b"data")):
        with pytest.raises(InvalidSignature):
            certificate.verify(signature, data)


def test_signing_key_follows_from_the_secret_key(keys: Path) -> None:
    identity = create_keys("alice", keys)
    extracted = hmac.digest(bytes(32), identity.secret, "sha256")  # RFC 5869
    derived = hmac.digest(extracted, b"byzantium signing key 1\x01", "sha256")
    assert identity.sign(b"data") == Ed25519PrivateKey.from_private_bytes(derived).sign(b"data")


@pytest.mark.parametrize("name", ["a", "A-b_c.9", "x" * 64, "key"])
def test_good_names(name: str, keys: Path) -> None:
    create_keys(name, keys)
    assert read_identity(keys).certificate.name == name
    assert read_certificate(keys, name).name == name


@pytest.mark.parametrize(
    "name", ["", "x" * 65, ".a", "-a", "a b", "a/b", "../a", "ä", "a\n", "server.key", "server.key_secret"]
)
def test_bad_names(name: str, keys: Path) -> None:
    for use in (
        create_keys,
        lambda name, keys: read_identity(keys, name),
        lambda name, keys: read_certificate(keys, name),
    ):
        with pytest.raises(UserError, match=r"keys: expected a name of letters, digits") as caught:
            use(name, keys)
        assert repr(name) in str(caught.value)
    assert not keys.exists()


@pytest.mark.parametrize("suffix", [".key", ".key_secret"])
def test_keys_that_are_there_are_not_overwritten(suffix: str, keys: Path) -> None:
    create_keys("bob", keys)
    (keys / "bob.key").rename(keys / "bob")
    (keys / "bob.key_secret").rename(keys / f"bob{suffix}")
    before = (keys / f"bob{suffix}").read_bytes()
    message = f"keys: expected no {keys}/bob{suffix} yet, got one; choose another name, or move it away first"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        create_several(["alice", "bob", "carol"], keys)
    assert files(keys) == ["bob", f"bob{suffix}"]
    assert (keys / f"bob{suffix}").read_bytes() == before


def test_links_to_nowhere_are_not_followed(keys: Path) -> None:
    keys.mkdir(mode=0o700)
    (keys / "alice.key_secret").symlink_to(keys / "elsewhere")
    with pytest.raises(UserError, match=r"expected no .*alice.key_secret yet"):
        create_keys("alice", keys)
    assert files(keys) == ["alice.key_secret"]


def test_keys_that_somebody_else_makes_meanwhile(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_keys("bob", keys)
    before = {path: path.read_bytes() for path in keys.iterdir()}
    monkeypatch.setattr(os.path, "lexists", lambda _: False)
    with pytest.raises(UserError, match=f"^keys: cannot write to {keys}: File exists; "):
        create_several(["alice", "bob"], keys)
    assert {path: path.read_bytes() for path in keys.iterdir()} == before


def test_every_name_once(keys: Path) -> None:
    with pytest.raises(UserError, match=r"^keys: expected every name once, got alice again$"):
        create_several(["alice", "bob", "alice"], keys)
    assert not keys.exists()


def test_full_disk_leaves_nothing_half_written(keys: Path) -> None:
    create_keys("alice", keys)
    size = (keys / "alice.key").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 20, hard))  # the next file ends in the middle of a line
    try:
        with pytest.raises(UserError, match=f"^keys: cannot write to {keys}: File too large; make room there, or name"):
            create_several(["bob", "carol"], keys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(keys) == ["alice.key", "alice.key_secret"]


def test_interruption_leaves_nothing_half_written(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [zmq.curve_keypair()]

    def interrupted() -> tuple[bytes, bytes]:
        if not pairs:
            raise KeyboardInterrupt
        return pairs.pop()

    monkeypatch.setattr(peers.keys.zmq, "curve_keypair", interrupted)
    with pytest.raises(KeyboardInterrupt):
        create_several(["alice", "bob"], keys)
    assert files(keys) == []


def test_file_in_place_of_a_folder(keys: Path) -> None:
    keys.write_text("")
    with pytest.raises(UserError, match=f"^keys: cannot write to {keys}: File exists; make room there, or name"):
        create_keys("alice", keys)
    with pytest.raises(UserError, match=f"^keys: expected a folder of keys, got {keys}; {ADVICE} alice --directory"):
        read_identity(keys, "alice")


@pytest.mark.parametrize("permissions", [0o701, 0o702, 0o704, 0o720, 0o770])
def test_folder_that_is_open_to_others(permissions: int, tmp_path: Path) -> None:
    keys = tmp_path / "my keys"
    create_keys("alice", keys)
    keys.chmod(permissions)
    for use in (lambda: create_keys("bob", keys), lambda: read_identity(keys, "alice")):
        with pytest.raises(UserError, match=r"^keys: expected .* to be closed to others; run: ") as caught:
            use()
        assert shlex.split(str(caught.value).split("run: ")[1]) == ["chmod", "700", str(keys)]
    assert files(keys) == ["alice.key", "alice.key_secret"]
    keys.chmod(0o750)
    create_keys("bob", keys)
    assert read_identity(keys, "alice").certificate.name == "alice"


@pytest.mark.parametrize("permissions", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601])
def test_secret_keys_that_others_may_read(permissions: int, keys: Path) -> None:
    create_keys("alice", keys)
    path = keys / "alice.key_secret"
    path.chmod(permissions)
    message = f"keys: expected {path} to be readable by its owner only; run: chmod 600 {path}"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        read_identity(keys)
    path.chmod(0o400)
    assert read_identity(keys).certificate.name == "alice"


def test_errors_give_the_one_command_that_makes_missing_keys(tmp_path: Path) -> None:
    keys = tmp_path / "my keys"
    for name, suggested in ((None, "NAME"), ("alice", "alice")):
        with pytest.raises(UserError, match=r"^keys: expected a folder of keys, got ") as caught:
            read_identity(keys, name)
        words = shlex.split(str(caught.value).split("run: ")[1])
        assert words == ["python3", "-m", "peers", "keys", "create", suggested, "--directory", str(keys)]
    create_keys("bob", keys)
    with pytest.raises(UserError, match=f"^keys: expected the secret keys of alice in .*, got none; {ADVICE} alice"):
        read_identity(keys, "alice")
    (keys / "bob.key_secret").unlink()
    with pytest.raises(UserError, match=f"^keys: expected secret keys in .*, got none; {ADVICE} ME --directory"):
        read_identity(keys, suggested="ME")


def test_whose_secret_keys_are_meant(keys: Path) -> None:
    create_several(["alice", "bob", "server"], keys)
    message = f"keys: expected the secret keys of one party in {keys}, got those of alice, bob; give a name"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        read_identity(keys, besides="server")
    assert read_identity(keys, "server", besides="server").certificate.name == "server"
    (keys / "bob.key_secret").unlink()
    assert read_identity(keys, besides="server").certificate.name == "alice"
    (keys / "alice.key_secret").unlink()
    with pytest.raises(UserError, match=r"expected secret keys in .*, got none"):
        read_identity(keys, besides="server")
    assert read_identity(keys).certificate.name == "server"


def test_missing_certificate(keys: Path) -> None:
    create_keys("alice", keys)
    with pytest.raises(UserError, match=r"^keys: expected the certificate of server, .*/server.key, got none; copy"):
        read_certificate(keys, "server")


def test_only_certificates_count(keys: Path) -> None:
    alice = create_keys("alice", keys)
    for name in (".bob.key", "bob.key~", "bob.key_secret", "notes.txt"):
        (keys / name).write_text("not yet")
    (keys / "folder.key").mkdir()
    assert read_certificates(keys) == {alice.key: alice.certificate}
    assert own_names(keys) == {"alice", "bob"}


def test_missing_folder(keys: Path) -> None:
    for use in (read_certificates, own_names, lambda keys: read_certificate(keys, "alice")):
        with pytest.raises(UserError, match=f"^keys: cannot look into {keys}: No such file or directory; "):
            use(keys)


BAD_KEYS = {
    "missing": "",
    "short": "0" * 35,
    "long": "0" * 45,
    "no multiple of 5": "0" * 39,
    "another character": "0" * 39 + "~",
    "too large a number": "#" * 40,
}


@pytest.mark.parametrize("bad", BAD_KEYS.values(), ids=BAD_KEYS)
@pytest.mark.parametrize("field", ["public-key", "secret-key"])
def test_damaged_secret_keys(field: str, bad: str, keys: Path) -> None:
    create_keys("alice", keys)
    path = keys / "alice.key_secret"
    change(path, f'(?<={field} = ")[^"]*', bad)
    message = f'keys: expected {field} = "40 characters of Z85" in {path}, got no such key'
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        read_identity(keys)


@pytest.mark.parametrize("bad", BAD_KEYS.values(), ids=BAD_KEYS)
def test_damaged_certificate(bad: str, keys: Path) -> None:
    create_several(["alice", "bob"], keys)
    path = keys / "bob.key"
    change(path, '(?<=public-key = ")[^"]*', bad)
    message = f'keys: expected public-key = "40 characters of Z85" in {path}, got no such key'
    for use in (lambda: read_certificate(keys, "bob"), lambda: read_certificates(keys)):
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            use()
    assert read_certificate(keys, "alice").name == "alice"


@pytest.mark.parametrize("bad", ["", "0" * 63, "0" * 65, "0" * 63 + "g", "0" * 63 + "A"])
def test_damaged_signing_key(bad: str, keys: Path) -> None:
    create_keys("alice", keys)
    path = keys / "alice.key"
    change(path, '(?<=signing-key = ")[^"]*', bad)
    message = f'keys: expected signing-key = "64 hexadecimal digits" in {path}, got {bad!r}; copy it anew from alice'
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        read_certificate(keys, "alice")


def test_public_and_secret_key_of_two_parties(keys: Path) -> None:
    _, bob = create_several(["alice", "bob"], keys)
    change(keys / "alice.key_secret", '(?<=public-key = ")[^"]*', z85.encode(bob.key).decode())
    with pytest.raises(
        UserError, match=r"^keys: expected a public and a secret key that belong together in .*, got oth"
    ):
        read_identity(keys, "alice")


def test_files_of_something_else(keys: Path) -> None:
    create_keys("alice", keys)
    path = keys / "alice.key"
    good = path.read_bytes()
    path.write_bytes(good.ljust(1 << 16))
    assert read_certificate(keys, "alice").name == "alice"
    for content in (good.ljust((1 << 16) + 1), good + b"\xff"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"^keys: expected keys in {path}, got something else$"):
            read_certificate(keys, "alice")


def test_unreadable_files_and_folders(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_keys("alice", keys)

    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(UserError, match=f"^keys: cannot read {keys}/alice.key: Permission denied$"):
        read_certificates(keys)
    monkeypatch.setattr(Path, "iterdir", forbidden)
    with pytest.raises(UserError, match=f"^keys: cannot look into {keys}: Permission denied; name a folder"):
        read_identity(keys)


def test_folder_that_cannot_be_written_to(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", forbidden)
    with pytest.raises(UserError, match=f"^keys: cannot write to {keys}: Permission denied; make room there, or name"):
        create_keys("alice", keys)
