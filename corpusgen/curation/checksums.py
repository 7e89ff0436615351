"""Check digits of numbers that people and things are known by; each function takes the value without separators."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

IBAN_TABLE = """
AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24
FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32
LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24
RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
"""
IBAN_LENGTHS = {row[:2]: int(row[2:]) for row in IBAN_TABLE.split()}
"""By country, from the register of SWIFT."""
VERHOEFF_D = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
VERHOEFF_P = (
    "0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258",
)  # fmt: skip
FISCAL_ODD_LETTERS = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
FISCAL_ODD = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, *FISCAL_ODD_LETTERS],
        strict=True,
    )
)
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
BECH32_STEPS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
BECH32_ENDS = (1, 0x2BC830A3)
"""What the polynomial leaves for bech32 and for bech32m."""


def weighted(digits: str, weights: Sequence[int]) -> int:
    """The sum of the digits, each times its weight; weights repeat when they run out."""
    return sum(int(digit) * weight for digit, weight in zip(digits, cycle(weights), strict=False))


def luhn(digits: str) -> bool:
    """Payment cards and many others: every second digit from the right doubled."""
    doubled = "0246813579"
    return sum(int(doubled[int(d)]) if i % 2 else int(d) for i, d in enumerate(reversed(digits))) % 10 == 0


def iban(value: str) -> bool:
    """Known country, its length, and remainder 1 by 97."""
    if IBAN_LENGTHS.get(value[:2]) != len(value):
        return False
    return int("".join(str(int(char, 36)) for char in value[4:] + value[:4])) % 97 == 1


def verhoeff(digits: str) -> bool:
    """Aadhaar numbers."""
    state = 0
    for place, digit in enumerate(reversed(digits)):
        state = int(VERHOEFF_D[state][int(VERHOEFF_P[place % 8][int(digit)])])
    return state == 0


def french_nir(value: str) -> bool:
    """15 characters; the last two are 97 less the remainder. Corsica's 2A and 2B count as 19 and 18."""
    number = value[:13].replace("2A", "19").replace("2B", "18")
    return number.isdigit() and 97 - int(number) % 97 == int(value[13:])


def german_tax_id(digits: str) -> bool:
    """11 digits: one of the first ten repeats (two or three times), the last follows ISO 7064 MOD 11,10."""
    counts = sorted((digits[:10].count(digit) for digit in set(digits[:10])), reverse=True)
    if digits[0] == "0" or counts[0] not in (2, 3) or counts[1] != 1:
        return False
    product = 10
    for digit in digits[:10]:
        product = 2 * ((int(digit) + product) % 10 or 10) % 11
    return (11 - product) % 10 == int(digits[10])


def spanish_id(value: str) -> bool:
    """DNI (8 digits and a letter) or NIE (X, Y or Z, 7 digits and a letter)."""
    digits = value[:-1].translate({88: "0", 89: "1", 90: "2"})
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(digits) % 23] == value[-1]


def codice_fiscale(value: str) -> bool:
    """16 characters, the last from a table of odd and even places."""
    odd = sum(FISCAL_ODD[char] for char in value[:15:2])
    even = sum(int(char, 36) - (0 if char.isdigit() else 10) for char in value[1:15:2])
    return (odd + even) % 26 == ord(value[15]) - 65


def dutch_bsn(digits: str) -> bool:
    """9 digits by the eleven test."""
    return int(digits) > 0 and weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def polish_pesel(digits: str) -> bool:
    """11 digits with a date in front (the century is hidden in the month)."""
    month, day = int(digits[2:4]) % 20, int(digits[4:6])
    return 1 <= month <= 12 and 1 <= day <= 31 and weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0


def nhs_number(digits: str) -> bool:
    """10 digits of the British health service, modulus 11."""
    check = 11 - weighted(digits[:9], (10, 9, 8, 7, 6, 5, 4, 3, 2)) % 11
    return check % 11 == int(digits[9]) and check != 10


def _brazilian(value: str, weights: Sequence[int]) -> bool:
    length = len(weights)
    total = sum((ord(char) - 48) * weight for char, weight in zip(value[:length], weights, strict=True))
    return (11 - total % 11) % 11 % 10 == int(value[length])


def brazilian_cpf(digits: str) -> bool:
    """11 digits, the last two check the others; eleven equal digits are none."""
    both = _brazilian(digits, range(10, 1, -1)) and _brazilian(digits, range(11, 1, -1))
    return both and len(set(digits)) > 1


def brazilian_cnpj(value: str) -> bool:
    """14 characters, the last two digits check the others; since 2026 the first twelve may be letters."""
    first = (5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)
    return _brazilian(value, first) and _brazilian(value, (6, *first)) and len(set(value)) > 1


def mrz_digit(value: str, check: str) -> bool:
    """A field of a machine-readable passport and its check digit (weights 7, 3, 1; ``<`` is 0)."""
    total = sum((0 if char == "<" else int(char, 36)) * (7, 3, 1)[place % 3] for place, char in enumerate(value))
    return str(total % 10) == check.replace("<", "0")


def isbn10(value: str) -> bool:
    """A book's ten-digit number, which looks much like a telephone number."""
    digits = [10 if char in "Xx" else int(char) for char in value]
    return sum(digit * weight for digit, weight in zip(digits, range(10, 0, -1), strict=True)) % 11 == 0


def base58check(value: str) -> bool:
    """Old Bitcoin addresses: 25 bytes, the last four from a double SHA-256."""
    from hashlib import sha256

    number = 0
    for char in value:
        number = number * 58 + BASE58.index(char)
    if number.bit_length() > 200:
        return False
    raw = number.to_bytes(25, "big")
    return sha256(sha256(raw[:21]).digest()).digest()[:4] == raw[21:]


def bech32(value: str) -> bool:
    """New Bitcoin addresses (``bc1…``), bech32 or bech32m."""
    hrp, _, data = value.lower().rpartition("1")
    state = 1
    for part in (*(ord(c) >> 5 for c in hrp), 0, *(ord(c) & 31 for c in hrp), *(BECH32.index(c) for c in data)):
        top, state = state >> 25, (state & 0x1FFFFFF) << 5 ^ part
        for bit, step in enumerate(BECH32_STEPS):
            state ^= step if top >> bit & 1 else 0
    return state in BECH32_ENDS


def github_token(value: str) -> bool:
    """The six last characters of a classic GitHub token: CRC-32 of the ones before it, in base 62."""
    from binascii import crc32

    crc, check = crc32(value[4:-6].encode()), ""
    for _ in range(6):
        crc, digit = divmod(crc, 62)
        check = BASE62[digit] + check
    return check == value[-6:]


def _rotated(word: int, by: int) -> int:
    return (word << by | word >> (64 - by)) & 0xFFFFFFFFFFFFFFFF if by else word


def _round_constants() -> list[int]:
    constants, state = [], 1
    for _ in range(24):
        word = 0
        for j in range(7):
            word |= (state & 1) << (2**j - 1)
            state = state << 1 ^ (0x171 if state >> 7 else 0)
        constants.append(word)
    return constants


def _theta(a: list[int]) -> None:
    columns = [a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20] for x in range(5)]
    for i in range(25):
        a[i] ^= columns[(i + 4) % 5] ^ _rotated(columns[(i + 1) % 5], 1)


def _rho_pi(a: list[int]) -> None:
    x, y, moving = 1, 0, a[1]
    for t in range(24):
        x, y = y, (2 * x + 3 * y) % 5
        a[x + 5 * y], moving = _rotated(moving, (t + 1) * (t + 2) // 2 % 64), a[x + 5 * y]


def _chi(a: list[int]) -> list[int]:
    return [a[i] ^ ~a[i - i % 5 + (i + 1) % 5] & a[i - i % 5 + (i + 2) % 5] for i in range(25)]


def keccak256(data: bytes) -> bytes:
    """Keccak as Ethereum uses it (not SHA-3, which pads otherwise), for messages under 136 bytes."""
    block = bytearray(data) + b"\x01" + bytes(135 - len(data))
    block[135] |= 0x80
    a = [int.from_bytes(block[i : i + 8], "little") for i in range(0, 136, 8)] + [0] * 8
    for constant in _round_constants():
        _theta(a)
        _rho_pi(a)
        a = _chi(a)
        a[0] ^= constant
    return b"".join(word.to_bytes(8, "little") for word in a[:4])


def ethereum(value: str) -> bool:
    """40 hexadecimal digits after ``0x``; where capitals and small letters mix they must spell the EIP-55 checksum."""
    digits = value[2:]
    if digits in (digits.lower(), digits.upper()):
        return len(set(digits.lower())) > 4
    marks = keccak256(digits.lower().encode()).hex()
    return all(
        char.isdigit() or char.isupper() == (int(mark, 16) > 7) for char, mark in zip(digits, marks, strict=False)
    )
