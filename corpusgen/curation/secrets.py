"""Keys, tokens and passwords in a text.

Cheap anchors come first (a long run of key characters, ``=`` or ``:`` behind a telling word, ``://``); the dear
patterns are tried only there. Every quantifier has an upper end or is possessive: time grows with the length alone.
"""

from __future__ import annotations

import re
from binascii import Error as NotBase64
from binascii import a2b_base64
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from math import log2

from corpusgen.curation.found import Found
from corpusgen.curation.outline import CLASSES, KEY_LETTERS, LEAST_RUN, Span, coarse, runs_of, signs_of

TOKENS: tuple[tuple[str, str, str], ...] = (
    ("aws_access_key", r"(?:AKIA|ASIA|ABIA|ACCA)", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("gcp_api_key", r"AIza", r"[A-Za-z0-9_-]{30,45}+"),
    ("gcp_api_key", r"GOCSPX-", r"[A-Za-z0-9_-]{20,40}+"),
    ("gcp_api_key", r"ya29\.", r"[A-Za-z0-9_-]{20,512}+"),
    ("github_token", r"gh[pousr]_", r"[A-Za-z0-9]{36,251}+"),
    ("github_token", r"github_pat_", r"[A-Za-z0-9_]{22,251}+"),
    ("gitlab_token", r"gl(?:pat|dt|rt|ptt|soat|cbt|imt|ft|agent|oas|ffct)-", r"[A-Za-z0-9_-]{20,255}+"),
    ("slack_token", r"xox[abeoprs]-", r"[A-Za-z0-9-]{10,255}+"),
    ("slack_token", r"xapp-", r"[A-Za-z0-9-]{20,255}+"),
    ("stripe_key", r"[sr]k_(?:live|test)_", r"[A-Za-z0-9]{16,255}+"),
    ("stripe_key", r"whsec_", r"[A-Za-z0-9+/=]{24,128}+"),
    ("twilio_key", r"SK", r"[0-9a-f]{32}(?![A-Za-z0-9])"),
    ("sendgrid_key", r"SG\.", r"[A-Za-z0-9_-]{16,32}+\.[A-Za-z0-9_-]{16,64}+"),
    ("anthropic_key", r"sk-ant-", r"[A-Za-z0-9_-]{16,255}+"),
    ("huggingface_token", r"(?:hf_|api_org_)", r"[A-Za-z0-9]{30,64}+"),
    ("npm_token", r"npm_", r"[A-Za-z0-9]{36}(?![A-Za-z0-9])"),
    ("pypi_token", r"pypi-", r"[A-Za-z0-9_-]{40,512}+"),
    ("jwt", r"eyJ", r"[A-Za-z0-9_-]{8,2048}+\.[A-Za-z0-9_-]{2,8192}+\.[A-Za-z0-9_-]{0,2048}+"),
    ("openai_key", r"sk-", r"[A-Za-z0-9_-]{20,255}+"),
    ("api_key", r"gsk_", r"[A-Za-z0-9]{32,128}+"),
    ("api_key", r"xai-", r"[A-Za-z0-9]{40,128}+"),
    ("api_key", r"pplx-", r"[A-Za-z0-9]{32,128}+"),
    ("api_key", r"nvapi-", r"[A-Za-z0-9_-]{40,128}+"),
    ("api_key", r"r8_", r"[A-Za-z0-9]{37}(?![A-Za-z0-9])"),
    ("api_key", r"dckr_[po]at_", r"[A-Za-z0-9_-]{20,64}+"),
    ("api_key", r"do[opr]_v1_", r"[0-9a-f]{64}(?![A-Za-z0-9])"),
    ("api_key", r"shp(?:at|ca|pa|ss)_", r"[0-9A-Fa-f]{32}(?![A-Za-z0-9])"),
    ("api_key", r"sq0(?:atp|csp)-", r"[A-Za-z0-9_-]{22,43}+"),
    ("api_key", r"dapi", r"[0-9a-f]{32}(?![A-Za-z0-9])"),
    ("api_key", r"NRAK-", r"[A-Z0-9]{27}(?![A-Za-z0-9])"),
    ("api_key", r"hv[sb]\.", r"[A-Za-z0-9_-]{20,255}+"),
    ("api_key", r"ATATT3", r"[A-Za-z0-9_=-]{30,255}+"),
    ("api_key", r"lin_api_", r"[A-Za-z0-9]{32,64}+"),
    ("api_key", r"gl(?:sa|c)_", r"[A-Za-z0-9_+/=]{32,255}+"),
    ("api_key", r"rubygems_", r"[0-9a-f]{48}(?![A-Za-z0-9])"),
    ("api_key", r"AGE-SECRET-KEY-1", r"[A-Z0-9]{58}(?![A-Za-z0-9])"),
    ("api_key", r"key-", r"[0-9a-f]{32}(?![A-Za-z0-9])"),
    ("api_key", r"(?<=[0-9]{8}:)AA", r"[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])"),
)
SK_PLAIN = re.compile(r"sk-(?:(?:proj|svcacct|admin|None|or)-|[A-Za-z0-9]{20})")
"""Not the name of a class or a package, such as ``sk-circle-fade``."""
TWO_DIGITS = re.compile(r"[0-9][^0-9]*+[0-9]")
PREFIX = re.compile("(?<![A-Za-z0-9])(?:" + "|".join(prefix for _, prefix, _ in TOKENS) + ")")
BEHIND = re.compile(r"\(\?<=[^)]{1,32}+\)")
LONGEST_PREFIX = 24
IN_ONE_CALL = 65_536
BEFORE_RUN = 6
"""A prefix may end in a dot, which a run does not hold."""

QUOTED = re.compile(r"[=:：]>?[ \t]{0,4}+\\{0,3}+(?P<quote>[\"'`])(?P<value>(?:(?!(?P=quote))[^\\\n]){4,256}+)")
BARE = re.compile(r"[=:：]>?[ \t]{0,4}+(?P<value>[^\s\"'`,;&]{4,256}+)")
KEY_OF_LINE = re.compile(r"[ \t]*+(?:- )?+[\w.-]{1,40}+[ \t]*+")
NAME = re.compile(r"[\s\\\"'`\])]{0,6}+([^\W_][\w \-.]{1,40}+)")
"""A name read backwards from the sign that sets it."""
PASSWORD_NAMES = (
    "password", "passwd", "passwort", "passphrase", "passcode", "pwd", "kennwort", "motdepasse", "contraseña",
    "contrasena",
    "senha", "wachtwoord", "hasło", "пароль", "lösenord", "密码", "密碼", "パスワード", "비밀번호", "secret",
)  # fmt: skip
KEY_NAMES = (
    "apikey", "token", "accesskey", "secretkey", "privatekey", "clientsecret", "secretaccesskey", "accountkey",
    "authkey",
    "sharedaccesskey", "signingkey", "encryptionkey", "apisecret", "appsecret", "consumersecret", "webhooksecret",
    "sessionsecret", "jwtsecret", "masterkey", "licensekey", "licencekey", "credential", "credentials", "auth", "sig",
)  # fmt: skip
NAMES = PASSWORD_NAMES + KEY_NAMES
SHORT_NAMES = ("pass", "pw", "mdp", "clave", "pin")
ENDINGS = frozenset({name[-1] for name in NAMES + SHORT_NAMES} | set("rg \t\\\"'`])"))
"""What stands before a sign that sets a secret: the end of its name, of ``str`` or ``string``, a space, a quote."""
SET = bytes(
    0x3D if byte in b"=:" else 0x65 if byte == 0x3F or chr(byte).lower() in ENDINGS else 0x20 for byte in range(256)
)
"""Signs that set a value become ``=``, and what may stand before one ``e``: of the coarse text also every ``?``."""
TOLD_STEMS = ("assw", "ASSW", "assphrase", "asscode", "ot de passe", "ontrase", "enha ", "pi key", "PI key")
TOLD = re.compile(
    r"(?i:pass ?(?:word|wort|phrase|code)|mot de passe|contrase[nñ]a|senha|(?P<key>api[ _-]key))"
    r"(?i: (?:(?:for|of|to|on) (?:the |my |our )?\w{1,20}+ )?(?:is|was|ist|lautet|est|es|é|to):?[ \t]{1,3}+"
    r"|>|\((?=[\"'])|(?P<plain> ))"
    r"[\"'`“‘«]?(?P<value>[^\s\"'`”’»<]{6,256}+)"
)
LONGEST_TELLING = 96
"""What is before a value, and the least of it; a little more."""
FLAG = re.compile(
    r"--(?:[a-z]{1,12}-)?(?:pass(?:word|wd|phrase)|secret|(?P<key>token|api-?key|access-key))[ \t]{1,3}+"
    r"[\"']?(?P<value>[^\s\"'<>-][^\s\"'<>]{5,256}+)"
)
SCHEME = re.compile(r"[A-Za-z0-9+.\-]{2,24}+")
USERINFO = re.compile(r"[^\s/?#:@\"'<>]{0,128}+:(?P<value>[^\s/?#\"'<>]{1,256})@[\w\[]")
DATABASES = (
    "postgres", "postgresql", "mysql", "mariadb", "mssql", "sqlserver", "oracle", "mongodb", "redis", "rediss", "amqp",
    "amqps", "clickhouse", "cassandra", "couchdb", "neo4j", "bolt", "snowflake", "redshift", "cockroachdb", "trino",
    "db2",
)  # fmt: skip
ARMOUR = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,12}+ ){0,4}?(?P<ssh>OPENSSH )?PRIVATE KEY(?: BLOCK)?-----")
KEY_BODY = re.compile(r"(?:\s|\\[nr]|[A-Za-z0-9-]{1,20}+: [^\n\\]{0,80}+(?:\n|\\n)|[>|\"']){0,400}+[A-Za-z0-9+/=]{16}")
SHORT_BODY = re.compile(r"[ \t]{0,4}+(?:\r?\n|\\n)[ \t]{0,16}+[A-Za-z0-9+/=]{4,64}+(?:\s|\\n|\.)")
KEY_REST = re.compile(r"(?:[A-Za-z0-9+/=\s\\:,]|-(?!-)){0,16384}+")
LONGEST_KEY = 32_768
PUTTY = re.compile(r"Private-Lines: \d{1,4}\s{1,4}[A-Za-z0-9+/=\s]{16,16384}+")
BASIC = re.compile(r"asic[ \t]{1,3}+(?P<value>[A-Za-z0-9+/]{8,512}+={0,2})(?![\w+/=])")
BEARER = re.compile(r"earer[ \t]{1,3}+(?P<value>[A-Za-z0-9._~+/-]{16,4096}+={0,2})")
CURL = re.compile(r"(?:-u|--user)[ =][\"']?[^\s:\"'/]{1,64}+:(?P<value>[^\s\"']{4,128}+)")
WEBHOOK = re.compile(
    r"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<value>[A-Z0-9]{8,14}+/[A-Za-z0-9/]{12,80}+)"
)
AWS_LENGTH = 40
BASE64_LETTERS = KEY_LETTERS.replace(b"_-", b"/+")
BASE64 = bytes(0x6B if byte in BASE64_LETTERS else 0x20 for byte in range(256))
AWS_STEMS = ("aws", "AWS", "ecret", "ECRET", "AKIA")
AZURE_LENGTH = 86
AZURE_NEAR = re.compile(r"(?i:azure|account.?key|storage|cosmos)")
NEAR = 160
"""How far from a telling word a key may end, in characters."""
BEFORE_WORD = 16
"""How far before it one may begin."""

SHORT = 2048
PLACEHOLDER = 80
"""How much of a value is looked at for signs of a placeholder."""
STANDS_FOR = re.compile(
    r"(?i:x{4}|\*{3}|\.{3}|…|placeholder|redacted|your[-_ ]|-here$|_here$|changeme|\bmy[-_](?:pass|api|tok))"
)
CALLS = re.compile(
    r"[A-Za-z_][\w.]{0,80}+[(\[{]|(?:self|os|process|config|settings|env|args|params|request|ctx|this)\."
)
DIGIT = re.compile(r"[0-9]")
LETTER = re.compile(r"[A-Za-z]")
SORTS = (re.compile(r"[a-z]"), re.compile(r"[A-Z]"), DIGIT, re.compile(r"[^A-Za-z0-9]"))
SIGNS_OF_PLACEHOLDER = (
    "xxxx", "***", "...", "placeholder", "redacted", "your", "here", "changeme", "my-", "my_",
)  # fmt: skip
"""Each match of ``STANDS_FOR`` in ASCII holds one of these."""
NAMES_ONLY = re.compile(r"!?[A-Za-z_]++(?:[./-][A-Za-z_]++)*+[.!?:)\]}]*+", re.ASCII)
ATTRIBUTE = re.compile(r"[A-Za-z_]\w{0,19}+(?:\.[A-Za-z_]\w{0,19}+){1,4}+", re.ASCII)
KEY_CHARACTERS = re.compile(r"[A-Za-z0-9_\-./+=~:%]{12,256}+")
ORDINARY_WORDS = """password passwort required optional string integer number boolean object invalid incorrect example
changed missing username hidden masked disabled enabled undefined
generated encrypted unchanged incorrecto obligatorio forgotten"""
ORDINARY = frozenset((*ORDINARY_WORDS.split(), *PASSWORD_NAMES)) - {"secret"}


def entropy(value: str) -> float:
    """Shannon entropy in bits a character."""
    size = len(value)
    return -sum([count / size * log2(count / size) for count in map(value.count, dict.fromkeys(value))])


def mixed(value: str) -> bool:
    """Letters and digits, as keys have and names seldom do."""
    if value.isascii():
        return DIGIT.search(value) is not None and LETTER.search(value) is not None
    return any(char.isdigit() for char in value) and any(char.isalpha() for char in value)


def stands_for(value: str) -> bool:
    """A placeholder or a piece of code where a value would be."""
    value = value[:PLACEHOLDER]
    if value[0] in "<{[(:" or "://" in value or value.startswith(("${", "$(", "%(", "{{", "$env:")):
        return True
    variable = value[0] in "$%@" and value.strip("$%@").replace("_", "").isupper()
    return variable or _says_it_stands_for(value) or CALLS.match(value) is not None


def _says_it_stands_for(value: str) -> bool:
    if value.isascii():
        folded = value.lower()
        for sign in SIGNS_OF_PLACEHOLDER:
            if sign in folded:
                break
        else:
            return False
    return STANDS_FOR.search(value) is not None


def is_password(value: str, *, clear: bool) -> bool:
    """Long enough, no placeholder, and with a digit or a sign in it; or no ordinary word, if it is clearly a value."""
    few = len(set(value[:16])) < 3 and len(set(value)) < 3
    if len(value) < 6 or " " in value or few or stands_for(value):
        return False
    if NAMES_ONLY.fullmatch(value):
        return clear and value.lower() not in ORDINARY and entropy(value) >= 1.5
    return value.isascii() or DIGIT.search(value) is not None


def is_strong(value: str) -> bool:
    """Three of small letters, capitals, digits and signs, eight characters or more."""
    if len(value) < 8:
        return False
    if value.isascii():
        found = sum([sort.search(value) is not None for sort in SORTS])
    else:
        sorts = (str.islower, str.isupper, str.isdigit, lambda char: not char.isalnum())
        found = sum(any(map(sort, value)) for sort in sorts)
    return found >= 3 and not stands_for(value)


def is_key(value: str) -> bool:
    """Twelve characters or more that keys are made of, mixed, with entropy."""
    usable = KEY_CHARACTERS.fullmatch(value) is not None and mixed(value)
    return usable and entropy(value) >= 3.0 and not stands_for(value) and ATTRIBUTE.fullmatch(value) is None


def _decoded(value: str) -> bytes:
    try:
        return a2b_base64(value.replace("-", "+").replace("_", "/") + "=" * (-len(value) % 4))
    except NotBase64:
        return b""


def _is_jwt(value: str) -> bool:
    header = _decoded(value.partition(".")[0])
    return header.lstrip().startswith(b"{") and (b'"alg"' in header or b'"enc"' in header or b'"typ"' in header)


def _is_pypi(value: str) -> bool:
    return mixed(value) and value != value.lower()


def _is_sk(value: str) -> bool:
    if SK_PLAIN.match(value) is not None:
        return True
    return value != value.lower() and TWO_DIGITS.search(value) is not None and entropy(value) >= 3.0


CHECKS: dict[str, Callable[[str], bool]] = {"jwt": _is_jwt, "pypi_token": _is_pypi, "openai_key": _is_sk}


def _found(kind: str, start: int, end: int) -> Found:
    return Found(kind=kind, start=start, end=end, secret=True)


def _value(kind: str, match: re.Match[str]) -> Found:
    return _found(kind, *match.span("value"))


@cache
def _token(prefix: str) -> re.Pattern[str]:
    """Those of the tokens that begin like this."""
    alike = [i for i, (_, first, _) in enumerate(TOKENS) if re.match(BEHIND.sub("", first), prefix)]
    return re.compile("|".join(f"(?P<t{i}>{TOKENS[i][1]}{TOKENS[i][2]})" for i in alike))


def _prefixes(text: str, at: int, end: int) -> Iterator[re.Match[str]]:
    """As ``PREFIX.finditer``, but never long in one call of ``re``, during which no other thread runs."""
    while at < end:
        found = PREFIX.search(text, at, min(end, at + IN_ONE_CALL + LONGEST_PREFIX))
        if found is not None and found.start() < at + IN_ONE_CALL:
            yield found
            at = found.end()
        else:
            at += IN_ONE_CALL


def tokens(text: str, runs: list[Span]) -> Iterator[Found]:
    """Keys known by their first letters."""
    for start, end in runs:
        for prefix in _prefixes(text, max(0, start - BEFORE_RUN), end):
            match = _token(prefix.group()).match(text, prefix.start())
            if match and match.lastgroup:
                kind = TOKENS[int(match.lastgroup[1:])][0]
                if kind not in CHECKS or CHECKS[kind](match.group()):
                    yield _found(kind, *match.span())


def _named(text: str, at: int) -> str:
    """The name before a sign that sets a value, folded: ``DB_PASSWORD=`` gives ``dbpassword``."""
    match = NAME.match(text[max(0, at - 48) : at][::-1])
    name = match[1][::-1].lower().replace("_", "").replace("-", "").replace(" ", "") if match else ""
    if name not in ("str", "string"):
        return name
    colon = text.rfind(":", max(0, at - 12), at)
    return _named(text, colon) if colon >= 0 else ""


def _kind_of_key(name: str, value: str) -> str:
    if name.endswith(("accountkey", "sharedaccesskey", "sig")) and len(value) > 40:
        return "azure_storage_key"
    return "aws_secret_key" if name.endswith(("secretaccesskey", "awssecretkey")) else "api_key"


def _alone(text: str, sign: int, end: int) -> bool:
    """A setting by itself: ``password=…`` up to ``&``, ``;`` or the line's end (``PASSWORD=… command``), or a line."""
    after = ("", "\n", "\r", "&", ";", " ") if text[sign - 1].isupper() else ("", "\n", "\r", "&", ";")
    if text[end : end + 1] not in after:
        return False
    if text[sign] == "=":
        return not text[sign + 1 : sign + 2].isspace()
    start = text.rfind("\n", max(0, sign - 48), sign) + 1
    return (start > 0 or sign < 48) and KEY_OF_LINE.fullmatch(text, start, sign) is not None


def _judged(text: str, name: str, sign: int) -> Found | None:
    quoted = QUOTED.match(text, sign)
    match = quoted or BARE.match(text, sign)
    value = "" if match is None else match["value"] if quoted else match["value"].rstrip(".)]}>!?:|")
    if match is None or not value:
        return None
    start, end = match.start("value"), match.start("value") + len(value)
    if name.endswith(KEY_NAMES) and is_key(value):
        return _found(_kind_of_key(name, value), start, end)
    clear = quoted is not None or (_alone(text, sign, end) and value.lower() not in name)
    if (name.endswith(PASSWORD_NAMES) or name in SHORT_NAMES) and is_password(value, clear=clear):
        return _found("password", start, end)
    return None


def assignments(text: str, signs: Iterable[int]) -> Iterator[Found]:
    """Values set with ``=`` or ``:`` under a telling name."""
    for sign in signs:
        name = _named(text, sign) if text[sign - 1 : sign].lower() in ENDINGS else ""
        if name.endswith(NAMES) or name in SHORT_NAMES:
            found = _judged(text, name, sign)
            if found:
                yield found


def offsets(text: str, stem: str) -> Iterator[int]:
    """Where a word stands."""
    at = text.find(stem)
    while at >= 0:
        yield at
        at = text.find(stem, at + len(stem))


def _told(match: re.Match[str]) -> Iterator[Found]:
    value = match["value"].rstrip(".,;:)!?")
    plain = match.re is TOLD and match["plain"] is not None
    fits = is_key(value) if match["key"] else is_strong(value) if plain else is_password(value, clear=False)
    if fits:
        start = match.start("value")
        yield _found("api_key" if match["key"] else "password", start, start + len(value))


def told(text: str) -> Iterator[Found]:
    """Passwords in a sentence: ``the password is …``."""
    seen: set[Span] = set()
    for match in _near(text):
        if match.span() not in seen:  # each is in the neighbourhood of several words
            seen.add(match.span())
            yield from _told(match)


def _near(text: str) -> Iterator[re.Match[str]]:
    """Matches in the neighbourhood of telling words."""
    for stem in TOLD_STEMS:
        vain = 0
        for at in offsets(text, stem) if stem in text else ():
            found = [*TOLD.finditer(text, max(vain, at - BEFORE_WORD), at + NEAR)]
            yield from found
            if not found:  # what has room for a match and begins none in this neighbourhood begins none in the next
                vain = at + NEAR - LONGEST_TELLING


def flags(text: str) -> Iterator[Found]:
    """Passwords on a command line: ``--password …``."""
    for at in offsets(text, "--"):
        match = FLAG.match(text, at)
        if match:
            yield from _told(match)


def addresses(text: str) -> Iterator[Found]:
    """Passwords in addresses: ``scheme://user:password@host``."""
    for at in offsets(text, "://"):
        match = USERINFO.match(text, at + 3)
        if match and not stands_for(match["value"]):
            scheme = SCHEME.match(text[max(0, at - 24) : at][::-1])
            name = scheme.group()[::-1].lower().partition("+")[0] if scheme else ""
            yield _value("database_dsn" if name in DATABASES else "url_password", match)


def armoured(text: str) -> Iterator[Found]:
    """Private keys between their BEGIN and END lines; the end may be missing."""
    following = 0
    for at in offsets(text, "-----BEGIN "):
        head = ARMOUR.match(text, at)
        if head and 0 <= following < head.end():
            following = text.find("-----END", head.end())
        close = following if head and following + len("-----END") <= at + LONGEST_KEY else -1
        if head and text.find("-----BEGIN ", head.end(), max(close, 0)) >= 0:
            close = -1  # that end is another key's; this one was cut off
        rest = KEY_REST.match(text, head.end()) if head else None
        if head and rest and (KEY_BODY.match(text, head.end()) or (close >= 0 and SHORT_BODY.match(text, head.end()))):
            end = rest.end() if close < 0 else text.find("-----", close + 8, close + 80) + 5
            yield _found("ssh_private_key" if head["ssh"] else "private_key", at, max(end, head.end()))


def _is_basic(value: str) -> bool:
    user, colon, _ = _decoded(value).partition(b":")
    return bool(colon) and user.isascii() and user.decode().isprintable()


def basic(text: str) -> Iterator[Found]:
    """Credentials after ``Basic``."""
    for at in offsets(text, "asic "):
        match = BASIC.match(text, at)
        if match and _is_basic(match["value"]):
            yield _value("basic_auth", match)


def bearer(text: str) -> Iterator[Found]:
    """Tokens after ``Bearer``."""
    for at in offsets(text, "earer "):
        match = BEARER.match(text, at)
        if match and is_key(match["value"][:256]):
            yield _value("bearer_token", match)


def curled(text: str) -> Iterator[Found]:
    """Passwords of ``curl -u``."""
    found = CURL.finditer(text) if "curl" in text else ()
    yield from (_value("basic_auth", match) for match in found if not stands_for(match["value"]))


def microsoft(text: str) -> Iterator[Found]:
    """Keys of storage accounts without their name."""
    for start, end in runs_of(coarse(text).translate(BASE64), b"k" * AZURE_LENGTH):
        whole = end - start == AZURE_LENGTH and text.startswith("==", end) and text[start - 1 : start] != "="
        if whole and AZURE_NEAR.search(text, max(0, start - NEAR), start):
            yield _found("azure_storage_key", start, end + 2)


def amazon(text: str) -> Iterator[Found]:
    """Secret keys near a word that tells of them."""
    # The runs are looked at and not each word's neighbourhood, of which there may be one for every three characters.
    runs = runs_of(coarse(text).translate(BASE64), b"k" * AWS_LENGTH)
    words = [list(offsets(text, stem)) for stem in AWS_STEMS] if runs else []
    for start, end in runs:
        value = text[start : start + AWS_LENGTH]
        if text[start - 1 : start] != "=" and _is_near(words, text, start, end) and mixed(value) and entropy(value) > 4:
            yield _found("aws_secret_key", start, start + AWS_LENGTH)


def _is_near(words: list[list[int]], text: str, start: int, end: int) -> bool:
    """Whether a run begins in the neighbourhood of a word, and is as long as a key or cut off there by its end."""
    last = start + AWS_LENGTH - NEAR
    whole = end - start == AWS_LENGTH and text[end : end + 1] != "="
    for places in words:
        at = bisect_left(places, last)
        if at < len(places) and (places[at] == last or (whole and places[at] <= start + BEFORE_WORD)):
            return True
    return False


def webhooks(text: str) -> Iterator[Found]:
    """Addresses that let anybody post to Slack."""
    yield from (_value("slack_token", match) for match in WEBHOOK.finditer(text))


def putty(text: str) -> Iterator[Found]:
    """The private part of PuTTY's key files."""
    yield from (_found("private_key", *match.span()) for match in PUTTY.finditer(text))


Search = Callable[[str], Iterator[Found]]
ANCHORED: tuple[tuple[int, str, Search], ...] = (
    (0, "-----BEGIN ", armoured),
    (0, "Private-Lines:", putty),
    (0, "://", addresses),
    (0, "asic ", basic),
    (0, "-u", curled),
    (0, "--", flags),
    *((0, stem, told) for stem in TOLD_STEMS),
    (16, "earer ", bearer),
    (16, "hooks.slack.com/", webhooks),
    (40, "==", microsoft),
    *((40, stem, amazon) for stem in AWS_STEMS),
)
"""What must be in a text before a search for it is worth while: so many letters of ``JOINED`` in a row, and a word."""
PIECES = ("-", "/", "ass", "=")
"""Looked for in place of the anchors that hold it: one look tells of several, or is sooner over."""
JOINED = bytes(0x6B if byte in KEY_LETTERS + b"./+~" else 0x20 for byte in range(256))
"""What keys and tokens that are known by their length consist of becomes ``k``; prose has no sixteen in a row."""

Anchored = tuple[tuple[str, tuple[tuple[str, Search], ...]], ...]


def _by_piece(least: int) -> Anchored:
    found: dict[str, tuple[tuple[str, Search], ...]] = {}
    for _, anchor, search in (one for one in ANCHORED if one[0] == least):
        piece = next((piece for piece in PIECES if piece in anchor), anchor)
        found[piece] = (*found.get(piece, ()), (anchor, search))
    return tuple(found.items())


ANYWHERE, BESIDE_RUN, BESIDE_LONG_RUN = _by_piece(0), _by_piece(16), _by_piece(40)
"""The anchors by what is looked for first: a text that holds no piece holds none of its anchors."""
LONG_RUN = b"k" * 40


def _signs(text: str, raw: bytes) -> Iterator[int]:
    """Signs that may set a value. In a short text it is cheaper to look at each than to look once more at all of it."""
    if len(raw) < SHORT:
        return signs_of(text, raw.translate(CLASSES))
    return signs_of(text, raw.translate(SET), b"e=")


def _beside_runs(text: str, joined: bytes) -> list[tuple[tuple[str, Search], ...]]:
    """The anchors of what is searched for beside a run, as far as their pieces are in the text."""
    near = [anchored for piece, anchored in BESIDE_RUN if piece in text]
    if joined.find(LONG_RUN) >= 0:
        near += [anchored for piece, anchored in BESIDE_LONG_RUN if piece in text]
    return near


def candidates(text: str, raw: bytes) -> Iterator[Found]:
    """Everything that looks like a secret; places may overlap. ``raw`` is the coarse text."""
    near = [anchored for piece, anchored in ANYWHERE if piece in text]
    joined = raw.translate(JOINED)
    if joined.find(LEAST_RUN) >= 0:
        yield from tokens(text, runs_of(raw.translate(CLASSES)))
        near += _beside_runs(text, joined)
    if "=" in text or ":" in text or "：" in text:
        yield from assignments(text, _signs(text, raw))
    for search in dict.fromkeys([search for anchored in near for anchor, search in anchored if anchor in text]):
        yield from search(text)
