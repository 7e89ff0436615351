"""Check a file of ``corpusgen prove`` without corpusgen: ``python check_proof.py proof.json [key.pub]``.

Give the public key that you were told by another way; without it, the proof's own key is used, which anybody can make.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
from typing import Any


def need(holds: bool, otherwise: str) -> None:
    """Nothing, or an error; not ``assert``, which python -O leaves out."""
    if not holds:
        raise ValueError(otherwise)


def only_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON in which each name stands once; of two, readers take one or the other."""
    found = dict(pairs)
    need(len(found) == len(pairs), "a name stands twice in an object")
    return found


def read(text: str | bytes, **fields: type) -> dict[str, Any]:
    """An object of JSON with at least these fields, of just these types."""
    found = json.loads(text, object_pairs_hook=only_once)
    need(type(found) is dict, "what must be an object is none")
    return typed({name: found[name] for name in fields}, **fields) and found


def typed(found: Any, **fields: type) -> dict[str, Any]:
    """An object with just these fields, of just these types."""
    need(type(found) is dict and set(found) == set(fields), f"an object has not just {', '.join(fields)}")
    for name, kind in fields.items():
        need(type(found[name]) is kind, f"{name} is no {kind.__name__}")
    return dict(found)


def in_hex(text: Any, digits: int) -> str:
    """So many small hexadecimal digits."""
    need(type(text) is str and len(text) == digits and not set(text) - set("0123456789abcdef"), "hex has no such form")
    return str(text)


def plain(value: Any) -> str:
    """Text that does nothing to a terminal, on one line."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in str(value))


def hashed(*parts: bytes) -> bytes:
    """The sha256 of all parts together."""
    return hashlib.sha256(b"".join(parts)).digest()


def leaf_of(fields: dict[str, Any], content: str, nonce: str) -> bytes:
    """A leaf has the fields as they are, and of the content only what nobody can guess it from."""
    commitment = hmac.new(bytes.fromhex(nonce), content.encode(), "sha256").hexdigest()
    leaf = json.dumps(fields | {"commitment": commitment}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return leaf.encode()


def root_above(leaf: bytes, index: int, size: int, path: list[str]) -> str:
    """The root of a tree of so many leaves (RFC 9162, 2.1.3.2), from one leaf and the hashes beside its way up."""
    need(0 <= index < size, "there is no such place in the tree")
    node, last = hashed(b"\x00", leaf), size - 1
    for beside in (bytes.fromhex(in_hex(one, 64)) for one in path):
        need(last > 0, "there are more hashes than levels")
        if index % 2 or index == last:
            node = hashed(b"\x01", beside, node)
            while index and index % 2 == 0:
                index, last = index // 2, last // 2
        else:
            node = hashed(b"\x01", node, beside)
        index, last = index // 2, last // 2
    need(last == 0, "there are fewer hashes than levels")
    return node.hex()


def check(proof: Any, pem: bytes) -> tuple[dict[str, Any], dict[str, Any], str]:
    """What the event and the checkpoint say, and the id of the key; raises an error where anything does not fit."""
    proof = typed(proof, schema=str, record=dict, event=dict, checkpoint=dict, public_key=str)
    need(proof["schema"] == "corpusgen.proof/1", "it is no proof that this script knows")
    record = typed(proof["record"], record_id=str, content=str, nonce=str, index=int, path=list)
    event = typed(proof["event"], seq=int, kind=str, occurred_us=int, content=str, nonce=str, path=list)
    envelope = typed(proof["checkpoint"], payload=str, payloadType=str, signatures=list)
    # 1. The record is a leaf of the dataset.
    in_hex(record["record_id"], len(record["record_id"]))
    in_hex(record["nonce"], 64 if record["nonce"] else 0)  # the first datasets were sealed without
    content = read(record["content"], record_id=str)
    need(content["record_id"] == record["record_id"], "the content is another record's")
    leaf = leaf_of({"record_id": record["record_id"]}, record["content"], record["nonce"])
    sealed = read(event["content"], dataset=str, rows=int, merkle_root=str, manifest_sha256=str)
    root = root_above(leaf, record["index"], sealed["rows"], record["path"])
    need(event["kind"] == "dataset_sealed" and root == sealed["merkle_root"], "the dataset has no such record")
    # 2. The dataset's sealing is a leaf of the ledger.
    payload = base64.b64decode(envelope["payload"], validate=True)
    signed = typed(json.loads(payload, object_pairs_hook=only_once), corpus_id=str, root=str, signed_time=str, size=int)
    leaf = leaf_of(
        {name: event[name] for name in ("seq", "kind", "occurred_us")}, event["content"], in_hex(event["nonce"], 64)
    )
    root = root_above(leaf, event["seq"] - 1, signed["size"], event["path"])
    need(root == signed["root"], "the ledger has no such event")
    in_hex(signed["corpus_id"], 32)
    # 3. The ledger's root is signed.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    key, kind, (only,) = load_pem_public_key(pem), envelope["payloadType"], envelope["signatures"]
    signature = typed(only, keyid=str, sig=str)
    if not isinstance(key, Ed25519PublicKey) or kind != "application/vnd.corpusgen.checkpoint+json":
        raise ValueError("what was signed is no checkpoint, or the key is no Ed25519 key")
    what = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    key.verify(base64.b64decode(signature["sig"], validate=True), what)
    key_id = hashed(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hex()[:32]
    need(len(signed["signed_time"]) <= 40 and signed["signed_time"][:4].isdecimal(), "the time of signing is no time")
    return sealed, signed, key_id


def main(file: str, key_file: str | None = None) -> str:
    """What a file proves, in words."""
    with open(file, encoding="utf-8") as opened:
        proof = json.loads(opened.read(), object_pairs_hook=only_once)
    need(type(proof) is dict and type(proof.get("public_key")) is str, "it is no proof")
    pem = open(key_file, "rb").read() if key_file else proof["public_key"].encode()  # noqa: SIM115
    sealed, signed, key_id = check(proof, pem)
    whose = "" if key_file else f"This key came with the proof: compare it with one you trust: {key_id}\n"
    return f"""{whose}proved: record {proof["record"]["record_id"]}, with just the content in {plain(file)},
  is one of the {sealed["rows"]} records of dataset {plain(sealed["dataset"])}, as event
  {proof["event"]["seq"]} sealed it in corpus {signed["corpus_id"]}. Key {key_id} signed its {signed["size"]} events
  on {plain(signed["signed_time"])}; their root is {signed["root"]}.
not proved: that what the record says is true; who has the key, or that its clock was right; that its owner has not
  written another ledger since; that the dataset was not revoked or the record not erased since. Compare size and root
  with a checkpoint that was kept elsewhere."""


if __name__ == "__main__":
    try:
        print(main(*sys.argv[1:3]))  # noqa: T201
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a proof, it proves nothing
        sys.exit(f"NOT PROVED: {type(error).__name__}: {plain(error)}")
