"""Signatures: one Ed25519 key of whoever runs corpusgen, and envelopes (DSSE) that anybody can check.

An envelope holds its payload, what kind of payload it is, and a signature over both, so that nothing signed as one
thing can be shown as another. It proves that somebody with the key signed this; not who that was, nor that it is true.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from corpusgen.errors import CorpusDamaged, UsageError

KEY_VARIABLE = "CORPUSGEN_SIGNING_KEY"
_KEY_FILE = "signing.pem"
_OTHERS = 0o077


@dataclass(frozen=True, kw_only=True)
class Signer:
    """A private key and what others know it by."""

    private: Ed25519PrivateKey
    public_raw: bytes
    """The public key, 32 bytes."""

    @property
    def key_id(self) -> str:
        """The public key's short name, as its file and every envelope have it."""
        return key_id_of(self.public_raw)

    @property
    def public_pem(self) -> bytes:
        """The public key as a file for ``openssl`` and others."""
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, payload_type: str, payload: bytes) -> str:
        """An envelope around a payload, as JSON."""
        signature = self.private.sign(what_is_signed(payload_type, payload))
        envelope = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [{"keyid": self.key_id, "sig": base64.b64encode(signature).decode()}],
        }
        return orjson.dumps(envelope, option=orjson.OPT_SORT_KEYS).decode()


def key_id_of(public_raw: bytes) -> str:
    """The first half of the sha256 of a public key, in hex."""
    return hashlib.sha256(public_raw).hexdigest()[:32]


def what_is_signed(payload_type: str, payload: bytes) -> bytes:
    """The bytes under a signature: the type and the payload, each with its length (DSSE's PAE)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def key_path(environ: Mapping[str, str]) -> Path:
    """Where the key lies: CORPUSGEN_SIGNING_KEY, else in the user's own data folder."""
    if named := environ.get(KEY_VARIABLE):
        return Path(named).expanduser()
    from platformdirs import user_data_path

    return user_data_path("corpusgen", appauthor=False) / _KEY_FILE


def signing_key(environ: Mapping[str, str]) -> Signer:
    """The key of whoever runs this, made on first use; readable by them alone.

    Raises UsageError where it may be read by others, is no such key, or cannot be read or made.
    """
    path = key_path(environ)
    try:
        if not path.exists():
            _make_key(path)
        _refuse_shared(path)
        return _signer(path, path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{path}: the signing key cannot be read or made ({error.strerror or error}); name a file with"
            f" {KEY_VARIABLE}"
        ) from error


def _make_key(path: Path) -> None:
    content = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with open(os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _publish(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)


def _publish(hidden: Path, path: Path) -> None:
    # Of several processes that make a key at once, all sign with the one that was first.
    try:
        os.link(hidden, path)
    except FileExistsError:
        return


def _refuse_shared(path: Path) -> None:
    mode = path.stat().st_mode & 0o777
    if mode & _OTHERS:
        raise UsageError(
            f"{path}: others may read the signing key (mode {mode:o}); whoever has it can sign in your name:"
            f" make a new one, or chmod 600 {path} if nobody has read it"
        )


def _signer(path: Path, content: bytes) -> Signer:
    try:
        private = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: is no signing key in PEM without a password ({error})") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise UsageError(f"{path}: is a {type(private).__name__}, not an Ed25519 key; name another with {KEY_VARIABLE}")
    return Signer(private=private, public_raw=private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def read_public(name: str, pem: bytes) -> bytes:
    """The 32 bytes of a public key's file. Raises CorpusDamaged naming it where it is none."""
    try:
        public = load_pem_public_key(pem)
    except ValueError as error:
        raise CorpusDamaged(f"{name}: is no public key in PEM ({error})") from error
    if not isinstance(public, Ed25519PublicKey):
        raise CorpusDamaged(f"{name}: is not an Ed25519 key")
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


def contents(envelope: str) -> tuple[str, bytes]:
    """The key an envelope says it was signed with, and its payload, on trust. Raises CorpusDamaged where it is none."""
    _, payload, key_id, _ = _parts(envelope)
    return key_id, payload


def open_envelope(envelope: str, keys: Mapping[str, bytes]) -> tuple[str, bytes]:
    """Type and payload of an envelope signed with one of these public keys (by key id).

    Raises CorpusDamaged where it is no envelope, was signed with another key, or was changed since.
    """
    payload_type, payload, key_id, signature = _parts(envelope)
    public = keys.get(key_id)
    if public is None:
        known = ", ".join(sorted(keys)) or "none"
        raise CorpusDamaged(f"signed with key {key_id}, which is not among the keys here ({known})")
    if key_id_of(public) != key_id:
        raise CorpusDamaged(f"key {key_id} was swapped: what is here under its name is key {key_id_of(public)}")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, what_is_signed(payload_type, payload))
    except InvalidSignature as error:
        raise CorpusDamaged(f"the signature of key {key_id} does not fit: it was changed, or forged") from error
    return payload_type, payload


def _parts(envelope: str) -> tuple[str, bytes, str, bytes]:
    try:
        document: dict[str, Any] = orjson.loads(envelope)
        (signed,) = document["signatures"]
        payload, signature = (_decoded(text) for text in (document["payload"], signed["sig"]))
        return str(document["payloadType"]), payload, str(signed["keyid"]), signature
    except (ValueError, KeyError, TypeError) as error:  # also what is no JSON, and what is no base64
        raise CorpusDamaged(f"is no signed envelope ({type(error).__name__}: {error})") from error


def _decoded(text: str) -> bytes:
    content = base64.b64decode(text, validate=True)
    if base64.b64encode(content).decode() != text:  # the same bytes can be written in several ways, we write one
        raise binascii.Error("base64 with bits to spare")
    return content
