"""Addresses of people and machines in a text: e-mail, IP, hardware, wallets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from corpusgen.curation.checksums import base58check, bech32, ethereum
from corpusgen.curation.found import Found, personal
from corpusgen.curation.outline import Span

LOCAL = re.compile(r"[\w%+'&-][\w%+'&.-]{0,63}+")
DOMAIN = re.compile(r"(?:[^\W_][\w-]{0,62}+\.){1,8}(?:xn--[A-Za-z0-9-]{2,50}+|[^\W\d_]{2,24}+)(?![\w@])")
FILES = frozenset(("png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "css", "js", "ts", "py", "md", "mp4", "pdf"))
"""Endings of ``icon@2x.png``, which is no address."""
MACHINE_USERS = frozenset(("git", "hg"))
"""``git@host:path`` names a repository."""
DOTTED = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}")
VERSION_BEFORE = re.compile(
    r"(?i:\bv[0-9]{0,2} ?|version:? ?|release:? ?|build:? ?|rev(?:ision)?\.? ?|section ?|chapter ?|§ ?"
    r"|(?:oid|identifier)[^0-9]{0,3}|(?:upgrade|update|downgrade|bump|patch)(?:d|s|ed)? \w{1,12} (?:to|from) )$"
)
ADDRESS_BEFORE = re.compile(
    r"(?i:\b(?:ip|address|host|server|dns|ping|gateway|subnet|router|proxy|client|peer|addr)\b)"
)
KNOWN = frozenset(("1.1.1.1", "1.0.0.1", "8.8.8.8", "8.8.4.4", "9.9.9.9"))
"""Servers for everybody whose addresses look like version numbers."""
NETWORK = re.compile(r"/[0-9]{1,3}(?![0-9])")
COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
BEFORE_COLONS = re.compile(r"[0-9A-Fa-f:]{0,39}+")
AFTER_COLONS = re.compile(r"[0-9A-Fa-f:]{0,45}+(?:\.[0-9]{1,3}){0,3}+")
MAC = re.compile(
    r"(?<![0-9A-Za-z:-])[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![0-9A-Za-z]|[:-][0-9A-Fa-f])"
)
CISCO_MAC = re.compile(r"(?<![0-9A-Za-z.])[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}(?![0-9A-Za-z]|\.[0-9A-Fa-f])")
DASHES = re.compile(r"-[0-9A-Fa-f]{2}-")
OLD_BITCOIN = re.compile(r"(?<![A-Za-z0-9])[13][1-9A-HJ-NP-Za-km-z]{25,34}+(?![A-Za-z0-9])")
NEW_BITCOIN = re.compile(r"(?<![A-Za-z0-9])(?:bc1[02-9ac-hj-np-z]{11,71}+|BC1[02-9AC-HJ-NP-Z]{11,71}+)(?![A-Za-z0-9])")
ETHEREUM = re.compile(r"(?<![A-Za-z0-9])0x[0-9A-Fa-f]{40}(?![A-Za-z0-9])")


def _domain_end(text: str, start: int) -> int:
    match = DOMAIN.match(text, start, min(len(text), start + 254))
    if match is None or "-." in match.group():
        return 0
    return 0 if match.group().rpartition(".")[2].lower() in FILES else match.end()


def emails(text: str) -> Iterator[Found]:
    """E-mail addresses, read from each ``@`` to both sides."""
    at = text.find("@")
    while at >= 0:
        local = LOCAL.match(text[max(0, at - 65) : at][::-1])
        name = local.group()[::-1].lstrip(".'&") if local else ""
        end = _domain_end(text, at + 1) if name and ".." not in name and name not in MACHINE_USERS else 0
        if end and len(name) <= 64:
            yield personal("email", at - len(name), end)
        at = text.find("@", at + 1)


def _ip_kind(value: str) -> str | None:
    from ipaddress import ip_address, ip_network

    try:
        address = ip_address(value)
    except ValueError:
        return None
    kind = f"ipv{address.version}"
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        return None
    if address.version == 4 and address in ip_network("100.64.0.0/10"):
        return f"{kind}_private"
    if address.is_global:
        return kind
    inner = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10")
    return f"{kind}_private" if any(address in ip_network(net) for net in inner) else None


def _is_joined(text: str, start: int, end: int) -> bool:
    """Part of something longer, or the name of a whole network."""
    if text[end - 2 : end] == ".0" and NETWORK.match(text, end):
        return True
    before, after = text[max(0, start - 1) : start], text[end : end + 2]
    return before.isalnum() or before == "." or after[:1].isalnum() or (after[:1] in ".-" and after[1:].isalnum())


def _is_version(text: str, start: int, value: str) -> bool:
    before = text[max(0, start - 24) : start]
    if VERSION_BEFORE.search(before):
        return True
    return len(value) == 7 and value not in KNOWN and not ADDRESS_BEFORE.search(before)


def dotted(text: str, start: int, end: int) -> Iterator[Found]:
    """IPv4 and dotted hardware addresses in a stretch of digits."""
    for match in DOTTED.finditer(text, start, end):
        if not _is_joined(text, *match.span()) and not _is_version(text, match.start(), match.group()):
            kind = _ip_kind(match.group())
            if kind:
                yield personal(kind, *match.span())
    for match in CISCO_MAC.finditer(text, max(0, start - 14), end + 14):
        if _is_mac(match.group()) and any(char.isalpha() for char in match.group()):
            yield personal("mac_address", *match.span())


def _sixes(text: str, at: int) -> tuple[int, int]:
    before = BEFORE_COLONS.match(text[max(0, at - 40) : at][::-1])
    after = AFTER_COLONS.match(text, at)
    return at - (before.end() if before else 0), after.end() if after else at


def _is_six(text: str, start: int, value: str) -> bool:
    """Enough of an address, with nothing joined to it, and no name of a network."""
    after = text[start + len(value) : start + len(value) + 4]
    if text[start - 1 : start].isalnum() or after[:1].isalnum() or (value.endswith("::") and NETWORK.match(after)):
        return False
    return len(value) >= 5 and value.count(":") >= 2 and any(char.isdigit() for char in value)


def colons(text: str) -> Iterator[Found]:
    """IPv6 addresses, read from each pair of colons to both sides."""
    done = 0
    for pair in COLONS.finditer(text):
        if pair.start() >= done:
            start, done = _sixes(text, pair.start())
            value = text[start:done] if text[start:done].endswith("::") else text[start:done].rstrip(":")
            kind = _ip_kind(value) if _is_six(text, start, value) else None
            if kind:
                yield personal(kind, start, start + len(value))


def _is_mac(value: str) -> bool:
    return len(set(value.lower()) - set(":-.")) > 2


def hardware(text: str) -> Iterator[Found]:
    """Hardware addresses, with colons, hyphens or (Cisco) dots."""
    done = 0
    for sign in (COLONS, DASHES):
        for pair in sign.finditer(text):
            match = MAC.search(text, max(done, pair.start() - 2), pair.end() + 16) if pair.start() >= done else None
            if match and _is_mac(match.group()):
                done = match.end()
                yield personal("mac_address", *match.span())
        done = 0


WALLETS = (
    ("ethereum_address", ETHEREUM, ethereum),
    ("bitcoin_address", OLD_BITCOIN, base58check),
    ("bitcoin_address", NEW_BITCOIN, bech32),
)


def wallets(text: str, runs: list[Span]) -> Iterator[Found]:
    """Addresses of Bitcoin and Ethereum among runs of key characters."""
    for start, end in runs:
        if end - start < 26 and not text.startswith(("bc1", "BC1"), start):
            continue
        for kind, pattern, holds in WALLETS:
            yield from (personal(kind, *m.span()) for m in pattern.finditer(text, start, end) if holds(m.group()))
