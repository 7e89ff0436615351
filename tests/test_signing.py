"""A key of one's own, and envelopes that nobody else can make or change."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from corpusgen.errors import CorpusDamaged, UsageError
from corpusgen.provenance.signing import KEY_VARIABLE, Signer, key_path, open_envelope, read_public, signing_key

KIND = "application/vnd.corpusgen.test+json"


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return key_in(tmp_path_factory.mktemp("key"))


def key_in(folder: Path) -> Signer:
    return signing_key({KEY_VARIABLE: str(folder / "signing.pem")})


def test_a_key_is_made_on_first_use_for_its_owner_alone(tmp_path: Path) -> None:
    first, again = key_in(tmp_path / "new" / "folder"), key_in(tmp_path / "new" / "folder")
    assert first.key_id == again.key_id
    file = tmp_path / "new" / "folder" / "signing.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["signing.pem"]


def test_processes_that_make_a_key_at_once_have_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len({signer.key_id for signer in pool.map(key_in, [tmp_path] * 16)}) == 1


def test_without_the_variable_the_key_lies_in_the_users_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    assert key_path({}).parts[-2:] == ("corpusgen", "signing.pem")


def test_tests_do_not_touch_the_users_key() -> None:
    asked = "import os; from corpusgen.provenance.signing import key_path; print(key_path(os.environ))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == os.environ[KEY_VARIABLE]
    assert "corpusgen-key-" in done.stdout


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    key_in(tmp_path)
    (tmp_path / "signing.pem").chmod(mode)
    with pytest.raises(UsageError, match=f"others may read the signing key .mode {mode:o}.*chmod 600"):
        key_in(tmp_path)


def test_what_is_no_key_of_ours_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "signing.pem"
    other = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for content, said in ((b"no key", "no signing key in PEM"), (other, "not an Ed25519 key")):
        file.write_bytes(content)
        file.chmod(0o600)
        with pytest.raises(UsageError, match=said):
            key_in(tmp_path)


def test_a_key_that_cannot_be_made_says_which_variable_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match=r"cannot be read or made .*; name a file with CORPUSGEN_SIGNING_KEY"):
        key_in(tmp_path / "file")


@given(st.binary(), st.text(max_size=20))
def test_what_was_signed_comes_out_again(signer: Signer, payload: bytes, kind: str) -> None:
    assert open_envelope(signer.sign(kind, payload), {signer.key_id: signer.public_raw}) == (kind, payload)


def test_an_envelope_is_dsse_for_everybody(signer: Signer) -> None:
    envelope = json.loads(signer.sign(KIND, b"{}"))
    (signature,) = envelope["signatures"]
    assert (envelope["payloadType"], base64.b64decode(envelope["payload"])) == (KIND, b"{}")
    public = Ed25519PublicKey.from_public_bytes(read_public("key", signer.public_pem))
    # Raises InvalidSignature; the bytes are those of DSSE's own definition.
    public.verify(base64.b64decode(signature["sig"]), f"DSSEv1 {len(KIND)} {KIND} 2 {{}}".encode())


@given(st.data())
def test_every_changed_byte_of_an_envelope_is_noticed(signer: Signer, data: st.DataObject) -> None:
    content = bytearray(signer.sign(KIND, b'{"size":3}').encode())
    at, value = data.draw(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)))
    changed = content[at] != value
    content[at] = value
    try:
        opened = open_envelope(content.decode(), {signer.key_id: signer.public_raw})
    except (CorpusDamaged, UnicodeDecodeError):
        assert changed
    else:
        assert opened == (KIND, b'{"size":3}')
        assert not changed


def test_an_envelope_of_another_key_is_refused(signer: Signer, tmp_path: Path) -> None:
    other = key_in(tmp_path)
    with pytest.raises(CorpusDamaged, match=f"signed with key {other.key_id}, which is not among the keys here"):
        open_envelope(other.sign(KIND, b"{}"), {signer.key_id: signer.public_raw})
    with pytest.raises(CorpusDamaged, match=f"key {signer.key_id} was swapped"):
        open_envelope(signer.sign(KIND, b"{}"), {signer.key_id: other.public_raw})


def test_an_envelope_cannot_be_shown_as_another_kind(signer: Signer) -> None:
    envelope = json.loads(signer.sign(KIND, b"{}")) | {"payloadType": "application/vnd.corpusgen.checkpoint+json"}
    with pytest.raises(CorpusDamaged, match="changed, or forged"):
        open_envelope(json.dumps(envelope), {signer.key_id: signer.public_raw})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"payload": 3}', '{"payload":"","payloadType":"","signatures":[]}'])
def test_what_is_no_envelope_is_refused(text: str) -> None:
    with pytest.raises(CorpusDamaged, match="is no signed envelope"):
        open_envelope(text, {})


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_public_key_is_refused(pem: bytes) -> None:
    with pytest.raises(CorpusDamaged, match=r"k\.pub: is no public key"):
        read_public("k.pub", pem)
