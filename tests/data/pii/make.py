"""Writes `positives.jsonl` and `technical.txt` beside it. All values are made up or published as examples.

Keys are stored in pieces (`parts`), so that a scanner of committed files does not take them for real ones.
Check digits are computed here and not by the code under test, or the value is a published example of its scheme.
"""

from __future__ import annotations

import base64
import json
import random
import string
from pathlib import Path

HERE = Path(__file__).parent
LETTERS, CAPITALS, DIGITS = string.ascii_letters, string.ascii_uppercase, string.digits
BASE62 = LETTERS + DIGITS
HEX = "0123456789abcdef"
random_ = random.Random(20260101)

IBANS = """AL47212110090000000235698741 AD1200012030200359100100 AT611904300234573201 BE68539007547034
BA391290079401028494 BG80BNBG96611020345678 HR1210010051863000160 CY17002001280000001200527600
CZ6508000000192000145399 DK5000400440116243 EE382200221020145685 FI2112345600000785 FR1420041010050500013M02606
GE29NB0000000101904917 DE89370400440532013000 GI75NWBK000000007099453 GR1601101250000000012300695
HU42117730161111101800000000 IS140159260076545510730339 IE29AIBK93115212345678 IL620108000000099999999
IT60X0542811101000000123456 LV80BANK0000435195001 LI21088100002324013AA LT121000011101001000 LU280019400644750000
MT84MALT011000012345MTLCAST001S MC5811222000010123456789030 NL91ABNA0417164300 NO9386011117947
PL61109010140000071219812874 PT50000201231234567890154 RO49AAAA1B31007593840000 SM86U0322509800000000270100
SK3112000000198742637541 SI56191000000123438 ES9121000418450200051332 SE4550000000058398257466 CH9300762011623852957
TR330006100519786457841326 GB29NWBK60161331926819 SA0380000000608010167519 AE070331234567890123456"""
CARDS = """4242424242424242 4000056655665556 5555555555554444 2223003122003222 5200828282828210 5105105105105100
378282246310005 371449635398431 6011111111111117 6011000990139424 3056930009020004 36227206271667 3566002020360505
6200000000000005 4012888888881881 378734493671000 30569309025904 38520000023237 3530111333300000 6205500000000000004
4111111111111111"""
PHONES = """+1 212-555-0187|(212) 555-0187|212-555-0187|212.555.0187|1-800-555-0199|+12125550187|+44 20 7946 0958
020 7946 0958|(020) 7946 0958|07700 900123|07700900123|+447700900123|01632 960123|0161 496 0123|+49 30 901820
030/901820|030 9018200|0171 1234567|0049 171 1234567|+49 (0)171 1234567|+49-89-636-48018|(089) 6364801
+33 1 42 68 53 00|01 42 68 53 00|06.12.34.56.78|0612345678|+33612345678|06-12-34-56-78|+91 98765 43210|98765 43210
+919876543210|+91-98765-43210|(11) 98765-4321|+55 11 98765-4321|11 98765-4321|+55 (21) 3456-7890|+34 612 345 678
+39 06 698 82123|+39 333 123 4567|+31 20 624 1111|06-12345678|+32 2 555 12 12|+41 44 668 18 00|044 668 18 00
+43 1 58858 0|+46 8 508 290 00|+47 22 12 34 56|+48 22 123 45 67|+351 21 123 4567|+61 2 9374 4000|0412 345 678
(02) 9374 4000|+81 3-1234-5678|03-1234-5678|090-1234-5678|+86 138 1234 5678|138 1234 5678|+7 912 345-67-89
8 (912) 345-67-89|+27 21 123 4567|+52 55 1234 5678|+54 11 4321-1234|+65 6123 4567|+971 4 123 4567|+90 212 123 45 67
+82 2-312-3456|+353 1 234 5678|+64 9 123 4567|+20 2 2345 6789|+234 803 123 4567|+972 3-123-4567"""
CALLED = """call 555-0187|phone: 5550187|Tel.: 6123 4567|tel 2125550187|Telefon: 612345678|teléfono 612 345 678
WhatsApp 9876543210|fax: 22 123 45 67|mobile 98765-43210|call me on 020 79460958|Handy: 0171/1234567|电话：010-12345678
text me at 415 555 0132|Telefone: 21234-5678"""
EMAILS = """jane.doe@example.com j_doe+lists@mail.example.org o'brien@example.ie x@example.co.uk 1234567@example.net
first.last@sub.domain.example.com jürgen@müller.example.de info@xn--mller-kva.example.com a-b@c-d.example.fr
HR@EXAMPLE.COM user%dept@example.com maria.garcía@example.es sales@example.museum k@kk.example.io ops@10kb.example.dev
test.user@example.photography bob@exa-mple.com naïve@example.com Li.Wei@example.cn no-reply@example.com.br"""
V4 = """93.184.216.34 8.8.8.8 151.101.1.140 217.160.0.187 80.67.169.12 45.33.32.156 104.16.132.229 185.199.108.153"""
V4_IN = "10.0.0.17 192.168.1.254 172.16.31.9 172.31.255.1 169.254.10.20 100.64.3.7"
V6 = """2a00:1450:4001:81b::200e 2606:4700:4700::1111 2001:4860:4860:0:0:0:0:8888 2620:fe::fe:9
2A02:26F0:0:0:0:0:17D7:83B1"""
V6_IN = "fe80::1ff:fe23:4567:890a fd12:3456:789a:1::1 fc00:0:0:1::5"
MACS = """00:1A:2B:3C:4D:5E 00-1a-2b-3c-4d-5e 001a.2b3c.4d5e a4:83:e7:12:9f:0b F0-18-98-AB-12-44 3c:22:fb:00:aa:b1"""
BORN = """born on 12 March 1987|DOB: 03/12/1987|date of birth 1987-03-12|Date of Birth: March 12, 1987
geboren am 12.03.1987|née le 12 mars 1987|né le 12/03/1987|fecha de nacimiento: 12/03/1987
nacido el 12 de marzo de 1987|nato il 12/03/1987|Geburtsdatum: 12. März 1987|birthday: 3/12/87|born 12th of March 1987
"date_of_birth": "1987-03-12"|birthdate=1987-03-12|D.O.B. 12-03-1987|data de nascimento 12/03/1987
was born on the 4 July 1999|born July 4, 1999|geboortedatum: 12-03-1987"""
PLACES = """52.5200° N, 13.4050° E|52°31′12″N 13°24′18″E|40° 42' 46" N, 74° 0' 22" W|coordinates: 52.52000, 13.40500
GPS 48.858370, 2.294481|lat: 40.712776, lon: -74.005974|{"lat": 51.507351, "lng": -0.127758}
latitude=35.689487&longitude=139.691711|location -33.868820, 151.209290|geo:37.786971,-122.399677
Koordinaten 48.137154, 11.576124|maps?ll=19.432608,-99.133209|33°51′S 151°12′E
{"latitude": 55.755826, "longitude": 37.617300}|position 64.146582;-21.942635"""
BTC = """1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa 1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2 3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy
bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4 bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0
BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4 bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3"""
ETH = """0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed 0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359
0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB 0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb
0x52908400098527886E0F7030069857D2E4169EE7 0xde709f2102306220921060314715629080e2fb77"""
PASSPORTS = (
    "P<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<<<<<<<<<\nL898902C36UTO7408122F1204159ZE184226B<<<<<10",
    "L898902C36UTO7408122F1204159ZE184226B<<<<<10",
    "I<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<\nD231458907UTO7408122F1204159<<<<<<<6",
    "I<UTOD231458907<<<<<<<<<<<<<<<\n7408122F1204159UTO<<<<<<<<<<<6\nERIKSSON<<ANNA<MARIA<<<<<<<<<<",
)
SENTENCES = (
    "{}",
    "Please use {} from now on.",
    "My details: {}",
    "({})",
    "She wrote: {}, then left.",
    '"{}"',
    "a;{};b",
    "see {}\nthanks",
    "x | {} | y",
    "{}!",
    "Contact → {}",
    "<td>{}</td>",
    "Kunde {} ist neu",
    "voilà {} merci",
    "番号は {} です",
)
positives: list[dict[str, object]] = []


def add(kind: str, value: str, sentence: str = "{}") -> None:
    before, after = sentence.split("{}")
    cut = max(1, len(value) // 3) if len(value) < 12 else 3
    pieces = [value[:cut], value[cut : len(value) // 2 + 1], value[len(value) // 2 + 1 :]]
    positives.append({"kind": kind, "parts": [before, *pieces, after]})


def rotated(kind: str, values: list[str]) -> None:
    for place, value in enumerate(values):
        add(kind, value, SENTENCES[place % len(SENTENCES)])


def some(alphabet: str, size: int) -> str:
    """Random characters with at least three digits among them, as keys nearly always have."""
    chars = [random_.choice(alphabet) for _ in range(size)]
    for place in (1, size // 2, size - 2):
        chars[place] = random_.choice("23456789" if "2" in alphabet else DIGITS)
    return "".join(chars)


def digits(size: int) -> str:
    return "".join(random_.choice(DIGITS) for _ in range(size))


def grouped(value: str, size: int = 4, sep: str = " ") -> str:
    return sep.join(value[i : i + size] for i in range(0, len(value), size))


def mod97(number: str) -> str:
    return f"{97 - int(number) % 97:02d}"


def iso7064(ten: str) -> str:
    product = 10
    for digit in ten:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return str((11 - product) % 10)


def cpf(nine: str) -> str:
    for size in (10, 11):
        rest = sum(int(d) * (size - i) for i, d in enumerate(nine)) * 10 % 11
        nine += str(rest % 10)
    return nine


def weighted_sum(value: str, weights: list[int]) -> int:
    return sum(int(d) * w for d, w in zip(value, weights, strict=True))


def states() -> None:
    rotated(
        "ssn",
        [
            "123-45-6789",
            "457-55-5462",
            "219 09 9999",
            "SSN 457555462",
            "social security number: 219099999",
            "912-71-1234",
        ],
    )
    rotated("uk_nino", ["AB123456C", "AB 12 34 56 C", "JG103759A", "CE 12 34 56 D", "PW 98 76 54 B"])
    rotated("uk_nhs", ["NHS number 943 476 5919", "NHS: 9434765919", "NHS no. 401-023-2137"])
    for start in ("1850578006048", "2551080168025", "1990775123456", "2120399999123", "1680413055001"):
        rotated("fr_nir", [start + mod97(start)])
        add(
            "fr_nir",
            " ".join((start[0], start[1:3], start[3:5], start[5:7], start[7:10], start[10:], mod97(start))),
            "NIR {}",
        )
    corsican = "18505" + "2A" + "004084"
    add("fr_nir", corsican + mod97(corsican.replace("2A", "19")))
    for ten in ("8609574271", "4703689281", "6592997048", "2695437182", "1234567899", "1123456789"):
        value = ten + iso7064(ten)
        add("de_tax_id", value, "Steuer-ID: {}")
        add("de_tax_id", f"{value[:2]} {value[2:5]} {value[5:8]} {value[8:]}")
    for number in ("12345678", "00000023", "87654321", "45612378"):
        letter = "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23]
        rotated("es_dni", [number + letter, f"{number}-{letter}"])
    for first, number in (("X", "1234567"), ("Y", "7654321"), ("Z", "0001112")):
        letter = "TRWAGMYFPDXBNJZSQVHLCKE"[int(str("XYZ".index(first)) + number) % 23]
        rotated("es_dni", [first + number + letter, f"{first}-{number}-{letter}"])
    rotated("it_codice_fiscale", ["RSSMRA85T10A562S", "MRTMTT91D08F205J", "RSSMRA80A01H501U", "RSS MRA 85T10 A562S"])
    rotated("nl_bsn", ["BSN 111222333", "BSN: 1112.22.333", "burgerservicenummer 123456782", "123456782 (BSN)"])
    rotated("pl_pesel", ["PESEL 44051401359", "PESEL: 02070803628", "nr PESEL 92060512186"])
    rotated("ch_ahv", ["756.9217.0769.85", "7569217076985", "756.1234.5678.97"])
    rotated("ca_sin", ["SIN 130 692 544", "social insurance number: 130-692-544"])
    rotated("in_aadhaar", ["2341 2341 2346", "Aadhaar: 234123412346", "4991 1866 5246"])
    rotated("in_pan", ["ABCPE1234F", "AFZPK7190K", "AAACB2894G"])
    for nine in ("529982247", "111444777", "123456789", "987654321", "390533447"):
        value = cpf(nine)
        rotated("br_cpf", [value])
        add("br_cpf", f"{value[:3]}.{value[3:6]}.{value[6:9]}-{value[9:]}", "CPF {}")
    rotated("br_cnpj", ["11.222.333/0001-81", "11222333000181", "12.ABC.345/01DE-35", "00.000.000/0001-91"])
    seventeen = "11010519491231002"
    weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]
    add("cn_resident_id", seventeen + "10X98765432"[weighted_sum(seventeen, weights) % 11])
    add("cn_resident_id", "44052419800101001" + "10X98765432"[weighted_sum("44052419800101001", weights) % 11])


def people() -> None:
    rotated("email", EMAILS.split())
    rotated("phone", PHONES.replace("\n", "|").split("|"))
    rotated("phone", CALLED.replace("\n", "|").split("|"))
    rotated("iban", IBANS.split())
    rotated("iban", [grouped(value) for value in IBANS.split()])
    rotated(
        "iban",
        [
            "IBAN: de89 3704 0044 0532 0130 00",
            "DE89-3704-0044-0532-0130-00",
            "BIC COBADEFFXXX IBAN DE89370400440532013000 Commerzbank",
        ],
    )
    rotated("credit_card", CARDS.split())
    rotated("credit_card", [grouped(value) for value in CARDS.split() if len(value) == 16])
    rotated("credit_card", ["4111-1111-1111-1111", "3782 822463 10005", "3714-496353-98431", "card: 4222222222222"])
    rotated("ipv4", V4.split())
    rotated("ipv4_private", V4_IN.split())
    rotated("ipv6", V6.split())
    rotated("ipv6_private", V6_IN.split())
    rotated("mac_address", MACS.split())
    rotated("date_of_birth", BORN.replace("\n", "|").split("|"))
    rotated("geo_coordinates", PLACES.replace("\n", "|").split("|"))
    rotated("bitcoin_address", BTC.split())
    rotated("ethereum_address", ETH.split())
    for value in PASSPORTS:
        add("passport_mrz", value, "scan:\n{}\n")


def vendor_keys() -> None:
    makes = {
        "aws_access_key": [
            "AKIA" + some(CAPITALS + "234567", 16),
            "ASIA" + some(CAPITALS + "234567", 16),
            "AKIAIOSFODNN7EXAMPLE",
        ],
        "gcp_api_key": [
            "AIza" + some(BASE62 + "_-", 35),
            "GOCSPX-" + some(BASE62, 28),
            "ya29." + some(BASE62 + "_-", 60),
        ],
        "github_token": [f"gh{kind}_" + some(BASE62, 36) for kind in "pousr"]
        + ["github_pat_" + some(BASE62, 22) + "_" + some(BASE62, 59)],
        "gitlab_token": ["glpat-" + some(BASE62, 20), "glrt-" + some(BASE62 + "_", 20), "gldt-" + some(BASE62, 20)],
        "slack_token": [f"xox{kind}-{digits(12)}-{digits(12)}-{some(BASE62, 24)}" for kind in "bp"]
        + [f"xapp-1-A{some(CAPITALS + DIGITS, 10)}-{digits(13)}-{some(HEX, 64)}"]
        + [
            (
                "https://hooks.slack.com/services/"
                f"T{some(CAPITALS + DIGITS, 9)}/B{some(CAPITALS + DIGITS, 9)}/{some(BASE62, 24)}"
            )
        ],
        "stripe_key": [
            "sk_live_" + some(BASE62, 24),
            "rk_live_" + some(BASE62, 99),
            "sk_test_" + some(BASE62, 24),
            "whsec_" + some(BASE62, 32),
        ],
        "twilio_key": ["SK" + some(HEX, 32), "SK" + some(HEX, 32)],
        "sendgrid_key": [
            f"SG.{some(BASE62 + '_-', 22)}.{some(BASE62 + '_-', 43)}",
            f"SG.{some(BASE62, 22)}.{some(BASE62, 43)}",
        ],
        "openai_key": [
            "sk-" + some(BASE62, 48),
            "sk-proj-" + some(BASE62 + "_-", 48),
            "sk-proj-" + some(BASE62 + "_-", 156),
            "sk-svcacct-" + some(BASE62 + "_-", 60),
            "sk-or-v1-" + some(HEX, 64),
            "sk-" + some(HEX, 32),
        ],
        "anthropic_key": [f"sk-ant-{kind}-" + some(BASE62 + "_-", 95) for kind in ("api03", "admin01", "sid01")],
        "huggingface_token": ["hf_" + some(LETTERS, 34), "hf_" + some(BASE62, 34), "api_org_" + some(LETTERS, 34)],
        "npm_token": ["npm_" + some(BASE62, 36), "npm_" + some(BASE62, 36)],
        "pypi_token": [
            "pypi-AgEIcHlwaS5vcmc" + some(BASE62 + "_-", 120),
            "pypi-AgENdGVzdC5weXBpLm9yZw" + some(BASE62, 90),
        ],
        "api_key": [
            "gsk_" + some(BASE62, 52),
            "xai-" + some(BASE62, 80),
            "r8_" + some(BASE62, 37),
            "nvapi-" + some(BASE62 + "_-", 64),
            "dckr_pat_" + some(BASE62, 27),
            "dop_v1_" + some(HEX, 64),
            "shpat_" + some(HEX, 32),
            "hvs." + some(BASE62, 24),
            "lin_api_" + some(BASE62, 40),
            "NRAK-" + some(CAPITALS + DIGITS, 27),
            digits(10) + ":AA" + some(BASE62 + "_-", 33),
        ],
    }
    holders = (
        "{}",
        "export KEY={}",
        'client = Client("{}")',
        "use {} for tests",
        "key: {}\n",
        "curl -H 'X-Key: {}'",
        "?key={}&x=1",
        "`{}`",
        "old-{}",
    )
    for kind, values in makes.items():
        for place, value in enumerate(values):
            add(kind, value, holders[place % 4])
            add(kind, value, holders[4 + place % 5])


def armour(name: str, lines: int) -> str:
    body = "\n".join(some(BASE62 + "+/", 64) for _ in range(lines))
    return f"-----BEGIN {name}-----\n{body}\n-----END {name}-----"


def private_keys() -> None:
    for name in (
        "RSA PRIVATE KEY",
        "PRIVATE KEY",
        "EC PRIVATE KEY",
        "DSA PRIVATE KEY",
        "ENCRYPTED PRIVATE KEY",
        "PGP PRIVATE KEY BLOCK",
    ):
        add("private_key", armour(name, 3), "key:\n{}\n")
    add("private_key", armour("PRIVATE KEY", 4).replace("\n", "\\n"), '{"private_key": "{}"}')
    add("private_key", armour("RSA PRIVATE KEY", 3).partition("-----END")[0], "cut off:\n{}")
    add(
        "private_key",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,"
        + some(HEX, 32)
        + "\n\n"
        + some(BASE62, 64),
    )
    add(
        "private_key",
        "PuTTY-User-Key-File-2: ssh-rsa\nEncryption: none\nPrivate-Lines: 2\n"
        + some(BASE62, 64)
        + "\n"
        + some(BASE62, 40),
    )
    add("ssh_private_key", armour("OPENSSH PRIVATE KEY", 5), "~/.ssh/id_ed25519\n{}")
    add("ssh_private_key", armour("OPENSSH PRIVATE KEY", 2), "{}")


def web() -> None:
    def coded(data: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")

    for header in ({"alg": "HS256", "typ": "JWT"}, {"typ": "JWT", "alg": "none"}, {"alg": "RS256", "kid": "k1"}):
        add("jwt", f"{coded(header)}.{coded({'sub': digits(8)})}.{some(BASE62 + '_-', 43)}", "Authorization: {}")
        add("jwt", f"{coded(header)}.{coded({'name': 'x', 'iat': 1516239022})}.{some(BASE62 + '_-', 43)}")
    for sentence in ("Authorization: Bearer {}", "-H 'authorization: bearer {}'", "send Bearer {} with it"):
        add("bearer_token", some(BASE62 + "_-", 40), sentence)
        add("bearer_token", some(HEX, 32), sentence)
    for user in ("admin:hunter22", "api:s3cr3t!", "jose:clave-1"):
        add("basic_auth", base64.b64encode(user.encode()).decode(), "Authorization: Basic {}")
    add("basic_auth", "tr0ub4dor", "curl -u alice:{} https://api.example.com")
    add("basic_auth", "s3cret!", "curl --user 'bob:{}' -X POST https://example.org/x")
    for sentence in (
        "https://alice:{}@example.com/path",
        "ftp://bob:{}@files.example.org",
        "git clone https://ci:{}@git.example.com/x.git",
    ):
        for word in ("hunter2", "p%40ss:w0rd", "correct-horse"):
            add("url_password", word, sentence)
    for scheme in (
        "postgres",
        "postgresql+asyncpg",
        "mysql",
        "mongodb+srv",
        "redis",
        "amqp",
        "mssql+pyodbc",
        "clickhouse",
    ):
        add("database_dsn", "Tr0ub4dor", scheme + "://app:{}@db.internal:5432/prod")
    add("database_dsn", "0nlypass", "REDIS_URL=redis://:{}@cache.internal:6379/0")


def assigned() -> None:
    words = (
        "hunter22!",
        "Tr0ub4dor&3",
        "correct-h0rse-battery",
        "P@ssw0rd",
        "xK9#mP2$vL5",
        "Sommer2024",
        "qwerty123",
        "n3v3r-guess_me",
    )
    forms = (
        "password={}",
        "password: {}",
        "PASSWORD='{}'",
        'db_password = "{}"',
        '{"password": "{}"}',
        "passwd={};",
        "pwd: {}",
        "DB_PASS_PASSWORD={}",
        "the password is {}",
        "Passwort: {}",
        "mot de passe : {}",
        "contraseña: {}",
        "senha: {}",
        "my password is {}.",
        "secret: {}",
        "Server=db;User Id=sa;Password={};",
        "pass: {}",
        "user=bob&password={}&x=1",
        "login bob, passphrase: {}",
        "密码：{}",
        "пароль: {}",
        "spring.datasource.password={}",
        "password for the server is {}",
        "<password>{}</password>",
        "PGPASSWORD={} psql",
        "--password={}",
        "--password {}",
    )
    for place, form in enumerate(forms):
        before, after = form.split("{}")
        value = words[place % len(words)]
        positives.append({"kind": "password", "parts": [before, value[:3], value[3:], after]})
    key_forms = (
        "api_key={}",
        'api_key: "{}"',
        "API-Key: {}",
        '"apiKey": "{}"',
        "ACCESS_TOKEN={}",
        "auth_token = '{}'",
        "client_secret={}",
        "X-Api-Key: {}",
        "token: {}",
        "?access_token={}&x",
        "OPENAI_API_KEY={}",
        "my api key is {}",
        "secret_key = {}",
        "refresh-token: {}",
    )
    for place, form in enumerate(key_forms):
        before, after = form.split("{}")
        value = some((BASE62, HEX, BASE62 + "_-")[place % 3], (32, 40, 24)[place % 3])
        positives.append({"kind": "api_key", "parts": [before, value[:5], value[5:11], value[11:], after]})
    for sentence in (
        "aws_secret_access_key = {}",
        "AWS secret: {}",
        '"SecretAccessKey": "{}"',
        "AKIAIOSFODNN7EXAMPLE\n{}",
        "AWS_SECRET_ACCESS_KEY={}",
    ):
        value = some(BASE62 + "+/", 40)
        before, after = sentence.split("{}")
        positives.append({"kind": "aws_secret_key", "parts": [before[:3], before[3:], value[:9], value[9:], after]})
    key = base64.b64encode(bytes(random_.randrange(256) for _ in range(64))).decode()
    account = "DefaultEndpointsProtocol=https;AccountName=x;AccountKey={};EndpointSuffix=core.windows.net"
    add("azure_storage_key", key, account)
    add("azure_storage_key", key, "azure storage key {}")
    shared = base64.b64encode(bytes(random_.randrange(256) for _ in range(32))).decode()
    add(
        "azure_storage_key",
        shared,
        "Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey={}",
    )


TECHNICAL = (
    "Version {a}.{b}.{c} fixes the crash that {a}.{b}.{d} brought, see section {a}.{b}.{c}.{d} of the manual.",
    "Released on 20{d2}-0{a}-1{b}, the driver v{a}.{b}.{c}.{d2} needs kernel {a}.{d2} or later.",
    "The order of {n5} parts costs $1,{d3}.99, or €{d3},50 when bought before 1{a}/0{b}/2026.",
    "ISBN 978-3-16-148410-0 has {d3} pages; the older edition is ISBN 0-306-40615-2 from 19{d2}.",
    "The run took {n5}.{d3} s and read {n7} rows, that is {d3}.{n5} rows per ms.",
    "Commit {h40} touches {a} files; the short form is {h7}.",
    "UUIDs such as {h8}-{h4}-4{h3}-a{h3}-{h12} are not secret.",
    "def connect(host: str, password: str | None = None, token: str = '') -> Connection:",
    "The password is required and must have at least {a} characters; the token is optional.",
    "password = os.environ['DB_PASSWORD']  # read at start, never logged",
    "Set api_key to your own key: api_key=<YOUR_API_KEY>, or export API_KEY=${{API_KEY}}.",
    "In 19{d2}-19{d2} the firm sold {n5} cars; by 20{d2} it sold {n7}.",
    "pi is 3.14159265358979, e is 2.718281828459045, and the ratio was {a}.{n7}.",
    "Between 18:{d2} and 19:{d2}:0{a} the queue held {n5} jobs (p99 {d3} ms).",
    "Error 0x8{h7} at address 0x{h8}: see std::vector<int>::at and chapter {a}.{b}.",
    "See https://docs.example.com/v{a}/guide?page={d2}#part-{b} for the {a}th step.",
    "The @property decorator and the @{w} mention are no addresses; nor is {w}@{w2}.",
    "sha256:{h40}{h24} is the digest of {w}-{a}.{b}.tar.gz.",
    "The train 1{d3} leaves at 1{a}:{d2}, platform {b}, coach {d2}, seats {d2} and {d2}.",
    "Population: {d3} {d3} in 20{d2}, {d3},{d3} in 19{d2}; growth {a}.{b} %.",
    "doi:10.1{d3}/s{n5}-02{b}-0{n4}-{a} and arXiv:2{b}0{a}.1{n4} discuss {w} learning.",
    "{{'{w}': {n5}, '{w2}': [{d2}, {d3}, {n4}], 'ratio': 0.{n7}}}",
    "SELECT {w}, count(*) FROM {w2} WHERE year = 20{d2} AND total > {n5} GROUP BY 1;",
    "The secret of a good {w} is patience: it takes {d2} minutes at {d3} °C.",
    "max_tokens: {n4}, temperature: 0.{a}, top_p: 0.{d2}, seed: {n7}, stop: ['\\n\\n']",
    "The {w} was born in 19{d2} in a village of {d3} people near {w2}.",
    "Room {d3}, floor {a}; opening hours {a}-1{b}, closed 2{a}.12.-0{b}.01.",
    "Basic knowledge of {w} helps; the bearer of the letter was {w2}.",
    "Score 3-{a}, then 6-{b} 6-{a} 7-5; the match of 0{a}.0{b}.20{d2} lasted {d3} minutes.",
    "Use sk-learn style names like sk-{w}-estimator or {w}_{w2}_transformer_block_{d2}.",
    "Timestamps: 17{n7}{a}, 20{d2}-0{a}-0{b}T1{a}:{d2}:{d2}Z and 20{d2}0{a}1{b}.",
    "logger.info('token count: %d, password: %s', count, '***')",
    "The weights are {a}, {b}, {c} and {d}: together {d2}; 1 + 2 + 3 + 4 = 10.",
    "Bytes 0{a} 1{b} 2{c} 3{d} {d2} {d2} {d2} {d2} open the file; 00:01:02 is its length.",
    "Model {w}-{d3}B reaches {d2}.{a} on task {b}, {d2}.{b} on task {c} (n = {n4}).",
    "The part no. {n4}-{n5}-{a} replaces serial {n7}{n5}.",
)
WORDS = (
    "river garden engine lantern pepper violin harbour carpet meadow thunder copper saddle anchor marble willow candle"
)


def technical(lines: int) -> list[str]:
    def fields() -> dict[str, str]:
        return {
            **{name: str(random_.randrange(1, 10)) for name in "abcd"},
            **{f"d{n}": str(random_.randrange(10 ** (n - 1), 10**n)) for n in (2, 3)},
            **{f"n{n}": str(random_.randrange(10 ** (n - 1), 10**n)) for n in (4, 5, 7)},
            **{f"h{n}": "".join(random_.choice(HEX) for _ in range(n)) for n in (3, 4, 7, 8, 12, 24, 40)},
            "w": random_.choice(WORDS.split()),
            "w2": random_.choice(WORDS.split()),
        }

    return [TECHNICAL[i % len(TECHNICAL)].format(**fields()) for i in range(lines)]


LATER = (
    ("phone", "call 555-123-4567"),
    ("phone", "555-123-4567"),
    ("phone", "(555) 123-4567"),
    ("phone", "+1 555 123 4567"),
    ("phone", "+1-555-123-4567"),
    ("phone", "+15551234567"),
    ("phone", "1 (800) 555-0199"),
    ("phone", "+49(0)30-123456"),
    ("phone", "+33 (0)6 12 34 56 78"),
    ("phone", "my number is 9876543210"),
    ("phone", "reach me at 9876543210"),
    ("phone", "Ring 07911 123456 after six"),
    ("phone", "tel:+442071838750"),
    ("phone", "Phone No: 022-2345-6789"),
    ("phone", "+1.415.555.2671"),
    ("phone", "+44 (0) 20 7183 8750"),
    ("phone", "fon 0711/123-4567"),
    ("ssn", "My SSN is 078-05-1120."),
    ("ssn", "SSN: 078051120"),
    ("credit_card", "5500 0000 0000 0004"),
    ("credit_card", "340000000000009"),
    ("credit_card", "30000000000004"),
    ("credit_card", "6011000000000004"),
    ("uk_nino", "NI number QQ123456C"),
    ("in_pan", "PAN: ABCDE1234F"),
    ("br_cpf", "123.456.789-09"),
    ("passport_number", "passport no. X1234567"),
    ("passport_number", "Passport number: 123456789"),
    ("iban", "GB82 WEST 1234 5698 7654 32"),
    ("iban", "my iban is FR14 2004 1010 0505 0001 3M02 606."),
    ("iban", "NL91ABNA0417164300"),
    ("date_of_birth", "DOB 01/02/1990"),
    ("date_of_birth", "Born: January 2nd, 1990"),
    ("date_of_birth", "birth date is 1990-01-02"),
    ("date_of_birth", "date of birth (dd/mm/yyyy): 01/02/1990"),
    ("date_of_birth", "D.O.B: 1990/01/02"),
    ("date_of_birth", "She was born in Rome on 3 May 1988"),
    ("geo_coordinates", "lat 40.7128 long -74.0060"),
    ("geo_coordinates", "Location: 40.7128, -74.0060"),
    ("geo_coordinates", "40.7128° N, 74.0060° W"),
    ("geo_coordinates", "at 40°26'46\"N 79°58'56\"W"),
    ("email", "john.smith@company.co.uk"),
    ("email", "<jane@x.io>"),
    ("email", "mailto:jane@x.io?subject=a"),
    ("email", "Email=jane@x.io;"),
    ("mac_address", "ether 3c:22:fb:12:34:56 txqueuelen"),
    ("ipv4", "from 8.8.4.4 port 22"),
    ("ipv4", "66.249.66.1 - - [10/Oct/2025"),
    ("ipv4", "http://93.184.216.34:8080/x"),
    ("ipv6", "[2606:4700::6810:84e5]:443"),
    ("password", "password=letmein"),
    ("password", "password: letmein"),
    ("password", "PASSWORD=secret"),
    ("password", '"password":"letmein"'),
    ("password", "Server=s;Database=d;User Id=u;Password=myPassword;"),
    ("password", "login with password Admin123!"),
    ("password", "db:\n  user: x\n  password: swordfish\n  host: y"),
    ("password", "password = 'it\"s5ecret'"),
    ("password", "pin: 482193"),
    ("password", "os.environ['DB_PASSWORD'] = 'hunter2x'"),
    ("password", "PGPASSWORD=letmein psql"),
    ("password", 'setPassword("hunter2x")'),
    ("password", "?user=a&password=letmein&b=c"),
    ("database_dsn", "postgres://user:pass@localhost/db"),
    ("database_dsn", "mongodb://root:example@mongo:27017"),
    ("url_password", "https://user:pass@example.com"),
    ("url_password", "smtp://me%40x.org:pa55@mail.x.org:587"),
    ("url_password", "http://u:p@ss@host/"),
    ("basic_auth", "Authorization: Basic dXNlcjpwYXNz"),
    ("basic_auth", "curl -u admin:secret https://x.org"),
)
"""Written when the patterns were there, to see what they miss."""


def write(folder: Path) -> None:
    random_.seed(20260101)
    positives.clear()
    for part in (people, states, vendor_keys, private_keys, web, assigned):
        part()
    for kind, text in LATER:
        add(kind, text)
    rows = [json.dumps(row, ensure_ascii=False) for row in positives]
    (folder / "positives.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "technical.txt").write_text("\n".join(technical(1080)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(HERE)
