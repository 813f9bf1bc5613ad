"""Keys by which processes know each other: CURVE keys for every connection, and signing keys that follow from them.

A folder of keys belongs to one party, or to several on one machine. It holds a certificate NAME.key for everybody who
may talk to that party, and NAME.key_secret for the party itself, in the format of pyzmq's certificates (ZPL, see
rfc.zeromq.org/spec/4). Whoever has no certificate in the folder of a listener never gets a byte through.
"""

import os
import re
import stat
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
    """Make the keys of a party in a folder, which only its owner may read.

    Raises:
        UserError: a bad name, keys of that name that are there already, or a folder that cannot be written.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"keys: expected a name of letters, digits, '.', '_', '-', at most 64, got {name!r}")
    public, secret = zmq.curve_keypair()
    public_path, secret_path = directory / (name + PUBLIC), directory / (name + SECRET)
    identity = _identity(name, z85.decode(public), z85.decode(secret))
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (secret_path, public_path):
            if path.exists():
                raise UserError(f"keys: expected no keys of {name} yet, got {path}; remove it, or choose another name")
        _write(secret_path, 0o600, name, identity.certificate, secret)
        _write(public_path, 0o644, name, identity.certificate)
    except OSError as error:
        raise UserError(f"keys: cannot write to {directory}: {error.strerror}; give another --directory") from error
    return identity


def read_identity(directory: Path, name: str | None = None, *, suggested: str = "NAME", besides: str = "") -> Identity:
    """Return who this process is.

    Args:
        name: of its keys; None: the only secret keys in the folder.
        suggested: name in the advice where there are none.
        besides: keys of that name are not meant where no name is given.

    Raises:
        UserError: no such keys, several, damaged ones, or ones that others may read.
    """
    _require_folder(directory, suggested if name is None else name)
    paths = [directory / (name + SECRET)] if name is not None else sorted(directory.glob("*" + SECRET))
    paths = [path for path in paths if path.is_file() and (name is not None or path.name != besides + SECRET)]
    if not paths:
        wanted = f"the secret keys of {name}" if name is not None else "secret keys"
        raise UserError(f"keys: expected {wanted} in {directory}, got none; {_advice(name or suggested, directory)}")
    if len(paths) > 1:
        names = ", ".join(path.name.removesuffix(SECRET) for path in paths)
        raise UserError(
            f"keys: expected the secret keys of one party in {directory}, got those of {names}; give a name"
        )
    path = paths[0]
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UserError(f"keys: expected {path} to be readable by its owner only; run: chmod 600 {path}")
    fields = _read(path)
    identity = _identity(
        path.name.removesuffix(SECRET), _key_of(path, fields, "public-key"), _key_of(path, fields, "secret-key")
    )
    if zmq.curve_public(z85.encode(identity.secret)) != z85.encode(identity.key):
        raise UserError(f"keys: expected a public and a secret key that belong together in {path}, got others")
    return identity


def read_certificate(directory: Path, name: str) -> Certificate:
    """Return who somebody else is.

    Raises:
        UserError: no certificate of that name, or a damaged one.
    """
    path = directory / (name + PUBLIC)
    if not path.is_file():
        raise UserError(
            f"keys: expected the certificate of {name}, {path}, got none; copy it from where "
            f"`python3 -m peers keys create {name}` was run, or run that here"
        )
    return _read_certificate(path)


def read_certificates(directory: Path) -> dict[bytes, Certificate]:
    """Return everybody whose certificate is in a folder, by public key."""
    found = [_read_certificate(path) for path in sorted(directory.glob("*" + PUBLIC))]
    return {certificate.key: certificate for certificate in found}


def _read_certificate(path: Path) -> Certificate:
    fields = _read(path)
    signing_key = fields.get("signing-key", "")
    if not re.fullmatch("[0-9a-f]{64}", signing_key):
        raise UserError(f'keys: expected signing-key = "64 hexadecimal digits" in {path}, got {signing_key!r}')
    return Certificate(path.name.removesuffix(PUBLIC), _key_of(path, fields, "public-key"), bytes.fromhex(signing_key))


def _require_folder(directory: Path, name: str) -> None:
    if not directory.is_dir():
        raise UserError(f"keys: expected a folder of keys, got {directory}; {_advice(name, directory)}")
    if os.name == "posix" and directory.stat().st_mode & stat.S_IRWXO:
        raise UserError(f"keys: expected {directory} to be closed to others; run: chmod 700 {directory}")


def _advice(name: str, directory: Path) -> str:
    return f"run: python3 -m peers keys create {name} --directory {directory}"


def _identity(name: str, key: bytes, secret: bytes) -> Identity:
    signing_key = _signing_key(secret).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return Identity(Certificate(name, key, signing_key), secret)


def _signing_key(secret: bytes) -> Ed25519PrivateKey:
    """Return the Ed25519 key that follows from a CURVE key, so that there is one secret to keep."""
    derived = HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=SIGNING_INFO).derive(secret)
    return Ed25519PrivateKey.from_private_bytes(derived)


def _write(path: Path, mode: int, name: str, certificate: Certificate, secret: bytes | None = None) -> None:
    lines = ["metadata", f'    name = "{name}"', f'    signing-key = "{certificate.signing_key.hex()}"', "curve"]
    lines.append(f'    public-key = "{z85.encode(certificate.key).decode()}"')
    if secret is not None:
        lines.append(f'    secret-key = "{secret.decode()}"')
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")


def _read(path: Path) -> dict[str, str]:
    try:
        return dict(FIELD.findall(path.read_text(encoding="ascii")))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"keys: cannot read {path}: {error}") from error


def _key_of(path: Path, fields: dict[str, str], name: str) -> bytes:
    text = fields.get(name, "")
    try:
        key = z85.decode(text.encode("ascii"))
    except (ValueError, KeyError) as error:
        raise UserError(f"keys: expected {name} in {path}, got what is no key") from error
    if len(key) != KEY_BYTES:
        raise UserError(f"keys: expected {name} of 40 characters in {path}, got {len(text)}")
    return key
