"""Keys by which processes know each other: CURVE keys for every connection, and signing keys that follow from them.

A folder of keys belongs to one party, or to several on one machine. It holds a certificate NAME.key for everybody who
may talk to that party, and NAME.key_secret for the party itself, in the format of pyzmq's certificates (ZPL, see
rfc.zeromq.org/spec/4). Whoever has no certificate in the folder of a listener never gets a byte through.
"""

import os
import re
import shlex
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from zmq.utils import z85

from tools.errors import UserError

PUBLIC, SECRET = ".key", ".key_secret"
KEY_BYTES = 32
MOST_FILE_BYTES = 1 << 16
SIGNING_INFO = b"byzantium signing key 1"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
FIELD = re.compile(r'^\s*([a-z-]+)\s*=\s*"([^"]*)"\s*$', re.MULTILINE)


@dataclass(frozen=True)
class Certificate:
    """Who somebody is.

    Attributes:
        name: of the file, for people only: programs know each other by key.
        key: the public CURVE key, 32 bytes.
        signing_key: the public Ed25519 key, 32 bytes.
    """

    name: str
    key: bytes
    signing_key: bytes

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raise `cryptography.exceptions.InvalidSignature` unless that is the signature of the data by this party."""
        Ed25519PublicKey.from_public_bytes(self.signing_key).verify(signature, data)


@dataclass(frozen=True)
class Identity:
    """A certificate with what only its owner knows."""

    certificate: Certificate
    secret: bytes = field(repr=False)

    @property
    def key(self) -> bytes:
        """The public CURVE key, 32 bytes."""
        return self.certificate.key

    def sign(self, data: bytes) -> bytes:
        """Return the Ed25519 signature of data, 64 bytes."""
        return _signing_key(self.secret).sign(data)


def create_keys(name: str, directory: Path) -> Identity:
    """Make the keys of a party in a folder, which only its owner may read; see `create_several`."""
    return create_several([name], directory)[0]


def create_several(names: Sequence[str], directory: Path) -> list[Identity]:
    """Make the keys of several parties in a folder, or else of none.

    Raises:
        UserError: a bad name, keys of that name that are there already, a folder that others may look into, or one
            that cannot be written to.
    """
    for name in names:
        _check_name(name)
        if names.count(name) > 1:
            raise UserError(f"keys: expected every name once, got {name} again")
    made: list[Path] = []
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_folder(directory, names[0])
        for path in (directory / (name + suffix) for name in names for suffix in (SECRET, PUBLIC)):
            if os.path.lexists(path):
                raise UserError(f"keys: expected no {path} yet, got one; choose another name, or move it away first")
        return [_create(name, directory, made) for name in names]
    except BaseException as error:
        for path in made:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            what = f"cannot write to {directory}: {error.strerror}"
            raise UserError(f"keys: {what}; make room there, or name another folder") from error
        raise


def read_identity(directory: Path, name: str | None = None, *, suggested: str = "NAME", besides: str = "") -> Identity:
    """Return who this process is.

    Args:
        name: of its keys; None: the only secret keys in the folder.
        suggested: name in the advice where there are none.
        besides: keys of that name are not meant where no name is given.

    Raises:
        UserError: no such keys, several, damaged ones, or ones that others may read.
    """
    if name is not None:
        _check_name(name)
    _require_folder(directory, name or suggested)
    paths = {found: path for found, path in _files(directory, SECRET).items() if found == name or name is None}
    if name is None:
        paths.pop(besides, None)
    if not paths:
        wanted = f"the secret keys of {name}" if name is not None else "secret keys"
        raise UserError(f"keys: expected {wanted} in {directory}, got none; {_advice(name or suggested, directory)}")
    if len(paths) > 1:
        raise UserError(
            f"keys: expected the secret keys of one party in {directory}, got those of {', '.join(paths)}; give a name"
        )
    return _read_identity(*paths.popitem())


def read_certificate(directory: Path, name: str) -> Certificate:
    """Return who somebody else is.

    Raises:
        UserError: no certificate of that name, or a damaged one.
    """
    _check_name(name)
    path = _files(directory, PUBLIC).get(name)
    if path is None:
        raise UserError(
            f"keys: expected the certificate of {name}, {directory / (name + PUBLIC)}, got none; copy it from where "
            f"`python3 -m peers keys create {name}` was run, or run that here"
        )
    return _read_certificate(name, path)


def read_certificates(directory: Path) -> dict[bytes, Certificate]:
    """Return everybody whose certificate is in a folder, by public key.

    Raises:
        UserError: no folder that can be read, or a damaged certificate in it.
    """
    found = [_read_certificate(name, path) for name, path in _files(directory, PUBLIC).items()]
    return {certificate.key: certificate for certificate in found}


def own_names(directory: Path) -> frozenset[str]:
    """Return the names of the parties whose secret keys are in a folder."""
    return frozenset(_files(directory, SECRET))


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name) or name.endswith((PUBLIC, SECRET)):
        raise UserError(
            f"keys: expected a name of letters, digits, '.', '_', '-', at most 64 and not ending in {PUBLIC} or "
            f"{SECRET}, got {name!r}"
        )


def _require_folder(directory: Path, name: str) -> None:
    if not os.path.isdir(directory):
        raise UserError(f"keys: expected a folder of keys, got {directory}; {_advice(name, directory)}")
    if os.name == "posix" and directory.stat().st_mode & (stat.S_IWGRP | stat.S_IRWXO):
        command = shlex.join(["chmod", "700", str(directory)])
        raise UserError(f"keys: expected {directory} to be closed to others; run: {command}")


def _advice(name: str, directory: Path) -> str:
    return f"run: {shlex.join(['python3', '-m', 'peers', 'keys', 'create', name, '--directory', str(directory)])}"


def _files(directory: Path, suffix: str) -> dict[str, Path]:
    """Return the files of keys in a folder by name, in the order of names."""
    try:
        paths = [path for path in sorted(directory.iterdir()) if path.name.endswith(suffix) and path.is_file()]
    except OSError as error:
        raise UserError(
            f"keys: cannot look into {directory}: {error.strerror}; name a folder of keys, or make keys there"
        ) from error
    return {path.name.removesuffix(suffix): path for path in paths if not path.name.startswith(".")}


def _identity(name: str, key: bytes, secret: bytes) -> Identity:
    signing_key = _signing_key(secret).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return Identity(Certificate(name, key, signing_key), secret)


def _signing_key(secret: bytes) -> Ed25519PrivateKey:
    """Return the Ed25519 key that follows from a CURVE key, so that there is one secret to keep."""
    derived = HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=SIGNING_INFO).derive(secret)
    return Ed25519PrivateKey.from_private_bytes(derived)


def _create(name: str, directory: Path, made: list[Path]) -> Identity:
    """Make the two files of a party, and note each as soon as it is there."""
    public, secret = zmq.curve_keypair()
    identity = _identity(name, z85.decode(public), z85.decode(secret))
    lines = [
        "metadata",
        f'    name = "{name}"',
        f'    signing-key = "{identity.certificate.signing_key.hex()}"',
        "curve",
        f'    public-key = "{public.decode()}"',
    ]
    about = {
        PUBLIC: (0o644, f"# Certificate of {name}: to be copied to all who may talk to {name}"),
        SECRET: (0o600, f"# SECRET keys of {name}: to be shown to nobody, and not to be copied"),
    }
    for suffix in (SECRET, PUBLIC):
        path, (mode, comment) = directory / (name + suffix), about[suffix]
        content = [comment, *lines] + [f'    secret-key = "{secret.decode()}"'] * (suffix == SECRET)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="ascii") as file:
            made.append(path)
            file.write("\n".join(content) + "\n")
    return identity


def _read_identity(name: str, path: Path) -> Identity:
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        command = shlex.join(["chmod", "600", str(path)])
        raise UserError(f"keys: expected {path} to be readable by its owner only; run: {command}")
    fields = _read(path)
    identity = _identity(name, _key_of(path, fields, "public-key"), _key_of(path, fields, "secret-key"))
    if zmq.curve_public(z85.encode(identity.secret)) != z85.encode(identity.key):
        raise UserError(f"keys: expected a public and a secret key that belong together in {path}, got others")
    return identity


def _read_certificate(name: str, path: Path) -> Certificate:
    fields = _read(path)
    signing_key = fields.get("signing-key", "")
    if not re.fullmatch(f"[0-9a-f]{{{2 * KEY_BYTES}}}", signing_key):
        raise UserError(
            f'keys: expected signing-key = "{2 * KEY_BYTES} hexadecimal digits" in {path}, got {signing_key!r}; '
            f"copy it anew from {name}"
        )
    return Certificate(name, _key_of(path, fields, "public-key"), bytes.fromhex(signing_key))


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_FILE_BYTES + 1)
    except OSError as error:
        raise UserError(f"keys: cannot read {path}: {error.strerror}") from error
    if len(data) > MOST_FILE_BYTES or not data.isascii():
        raise UserError(f"keys: expected keys in {path}, got something else")
    return dict(FIELD.findall(data.decode("ascii")))


def _key_of(path: Path, fields: dict[str, str], name: str) -> bytes:
    text = fields.get(name, "")
    try:
        key = z85.decode(text)
    except (ValueError, KeyError, struct.error):
        key = b""
    if len(key) != KEY_BYTES:
        raise UserError(f'keys: expected {name} = "40 characters of Z85" in {path}, got no such key')
    return key
