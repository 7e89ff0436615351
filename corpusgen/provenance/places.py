"""Where a teacher works, and whether what is sent to it leaves this machine."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from corpusgen.provenance.linting import COUNTRY
from corpusgen.provenance.terms import TeacherRoute, host_name


def is_here(host: str) -> bool:
    """True if a host is this machine, whoever else there is on the network."""
    name = host_name(host)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


_LOCAL_ENDS = (".local", ".lan", ".internal", ".home.arpa", ".localdomain")


def is_near(host: str) -> bool:
    """True for this machine, a private address, and a name that only a local network knows."""
    name = host_name(host)
    if is_here(name) or name.endswith(_LOCAL_ENDS):
        return True
    try:
        return ipaddress.ip_address(name).is_private
    except ValueError:
        return "." not in name and ":" not in name


def leaves(teacher: TeacherRoute) -> bool:
    """True if what is sent to a teacher leaves this machine; a server of one's own on another machine counts."""
    if teacher.route == "mock" and not teacher.host:
        return False
    return not (teacher.route in ("mock", "self_hosted") and is_here(teacher.host))


def is_unpaid(teacher: TeacherRoute) -> bool:
    """True for a tier that costs nothing, said so or told by the model's id, as aggregators spell it."""
    return teacher.unpaid or "free" in teacher.model.lower().split(":")[1:]


def lies_in(regions: Mapping[str, Iterable[str]], place: str, allowed: Iterable[str]) -> bool:
    """True if a place is known to lie in one of the allowed regions, by their names or by what they hold."""
    place = place.lower()
    wanted, seen = [name.lower() for name in allowed], set[str]()
    while wanted:
        name = wanted.pop()
        if name == place:
            return True
        if name not in seen:
            seen.add(name)
            wanted.extend(regions.get(name, ()))
    return False


def is_known_place(regions: Mapping[str, Iterable[str]], place: str) -> bool:
    """True for a country code and for what the table of regions names, so that "not in it" can be told."""
    name = place.lower()
    return bool(COUNTRY.match(name)) or name in regions or any(name in inside for inside in regions.values())
