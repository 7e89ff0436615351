"""How somebody asks a model to set its instructions aside, in seventeen languages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_VERBS: Final = (
    r"ignor(?:e|ing)|disregard(?:ing)?|forget|overrid(?:e|ing)|overrule|bypass|discard|neglect|cancel|erase|abandon|"
    r"nullify|skip|set aside|put aside|throw (?:away|out)|pay no (?:attention|heed) to|take no notice of|"
    r"(?:do not|don.?t|stop|quit|cease|never|no longer|under no circumstances)\W{1,3}(?:follow(?:ing)?|"
    r"obey(?:ing)?|adher(?:e|ing) to|heed(?:ing)?)"
)
_WEAK: Final = r"of|the|my|our|and|or|every|each|single|please|to|just|completely|about|whatever|both|such"
_STRONG: Final = (
    r"all|any|your|previous(?:ly)?|prior|above|earlier|preceding|foregoing|former|existing|original|initial|system|"
    r"safety|past|these|those|other|developer|developer.s|hidden|given|built.in|content|default|current|ethical|moral|"
    r"usage|security|internal|aforementioned|aforesaid"
)
_NOUNS: Final = (
    r"instructions?|directions?|directives?|prompts?|rules|guidelines?|commands?|orders|criteria|"
    r"constraints?|polic(?:y|ies)|restrictions?|programming|training|guardrails?|safeguards?|protocols?|briefing"
)
_SINCE: Final = (
    r"above|before this|(?:given|stated|listed|written|mentioned) (?:above|earlier|before|so far)|"
    r"(?:that )?you (?:were|have been|had been|got|have) "
    r"(?:given|told|received|been given)|so far|until now|up to (?:now|this point)|that came before|from before"
)
_VERB_KEYS: Final = (
    "ignor|disregard|forget|overrid|overrul|bypass|discard|neglect|cancel|erase|abandon|nullify|skip|aside|"
    "throw|pay no|take no|follow|obey|adher|heed"
)
_NOUN_KEYS: Final = (
    "instruction|direct|prompt|rules|guideline|command|orders|criteria|constraint|polic|restriction|"
    "programming|training|guardrail|safeguard|protocol|briefing"
)
_ENGLISH: Final = (
    (
        (_VERB_KEYS, _NOUN_KEYS),
        (
            (
                rf"\b(?:{_VERBS})(?:\W{{1,4}}(?:{_WEAK})){{0,3}}\W{{1,4}}(?:{_STRONG})"
                rf"(?:\W{{1,4}}(?:{_WEAK}|{_STRONG})){{0,4}}\W{{1,4}}(?:{_NOUNS})\b"
            ),
            rf"\b(?:{_VERBS})(?:\W{{1,4}}(?:{_WEAK})){{0,3}}\W{{1,4}}(?:{_NOUNS})\W{{1,4}}(?:{_SINCE})\b",
            (
                rf"\b(?:{_VERBS})(?:\W{{1,4}}\w{{1,12}}){{1,3}}\W{{1,4}}and\W{{1,4}}(?:the\W{{1,4}})?"
                rf"(?:above|previous|prior|earlier|preceding|system|original)\W{{1,4}}(?:{_NOUNS})\b"
            ),
        ),
    ),
    (
        (
            "ignor|disregard|forget",
            "above|before|you|said|told|previous|prior|earlier|preced",
        ),
        (
            (
                r"\b(?:ignore|disregard|forget)\W{1,4}(?:everything|anything|all|whatever|"
                r"the rest)\W{1,4}(?:that |of |i |we )?"
                r"(?:above|before|you(?:'ve| were| have| had)|was (?:said|written|told)|came|said|told|has been)\b"
            ),
            (
                r"\b(?:ignore|disregard|forget)\W{1,4}what\W{1,4}(?:you(?:'ve| were| have| had)|(?:was|came|"
                r"stands|is written) (?:above|before))"
            ),
            (
                r"\b(?:ignore|disregard|forget)\W{1,4}(?:about )?(?:all |any |the |of ){0,3}(?:previous|prior|"
                r"above|earlier|preceding) "
                r"(?:messages?|context|text|conversation|content|requests?|tasks?)\b"
            ),
        ),
    ),
    (
        (
            _NOUN_KEYS,
            (
                "void|cancel|revoked|superseded|obsolete|suspended|lifted|fake|invalid|appl|overrid|withdrawn|"
                "outdated|deleted|treat|change|updated|replaced"
            ),
        ),
        (
            (
                r"\b(?:previous|prior|above|earlier|preceding|original|your|these|all)\W{1,3}(?:instructions?|"
                r"directives?|prompts?|rules|"
                r"guidelines?|criteria|restrictions)\W{1,3}(?:above |you have been using |"
                r"you were given )?(?:are|is|were|was|have|has|no|"
                r"do not|don.t)\W{1,3}(?:been |now |hereby |all |longer ){0,2}(?:void|cancel+ed|revoked|"
                r"superseded|obsolete|suspended|lifted|fake|"
                r"invalid|appl(?:y|ies)|overridden|withdrawn|outdated|deleted|changed|updated|replaced)\b"
            ),
            (
                r"\b(?:instructions?|rules|guidelines?|criteria)\W{1,3}(?:that )?you (?:have been|were|are|"
                r"have)\b[^.!?\n]{0,30}?\bno longer appl"
            ),
            (
                r"\btreat (?:all |any |the ){0,2}(?:previous|prior|above|earlier|preceding) (?:instructions?|"
                r"rules|prompts?|guidelines?) as\b"
            ),
        ),
    ),
    (
        ("your ", "new |real|actual|true|only|sole"),
        (
            (
                r"\byour (?:new|real|actual|true|only|sole) (?:instructions?|task|goal|objective|mission|job|"
                r"purpose|orders?|role)"
                r"\W{1,3}(?:is|are|from now)\b"
            ),
        ),
    ),
    (
        ("new ", "instruction|prompt|rules|orders|directive"),
        (
            (
                r"\b(?:here (?:is|are)|follow|obey|these are|updated?) (?:your |the |my |these )?new "
                r"(?:system )?(?:instructions?|prompt|rules|orders)\b"
            ),
            r"(?:^|\n|[\]*#>])\W{0,6}new (?:system )?(?:instructions?|prompt|directive)\W{0,3}:",
        ),
    ),
)

_OTHERS: Final = (
    # German
    (
        (
            r"\b(?:ignorier(?:e|t|en)?|vergiss|vergesst|vergessen sie|missachte\w{0,2}|übergeh(?:e|t|en)?|"
            r"verwirf|beachte)\b"
        ),
        r"alle\w?|vorherig|bisherig|obig|vorig|früher|vorangegangen|vorstehend|deine|ihre|zuvor|oben|ursprünglich",
        r"anweisung|instruktion|vorgabe|befehl|richtlinie|regeln|aufforderung|prompt|anleitung|gesagte",
    ),
    # French
    (
        (
            r"\b(?:ignor(?:e|er|ez|ons)|oubli(?:e|er|ez)|n(?:e |')?t(?:iens|enez) (?:pas|aucun) compte|fai(?:s|"
            r"tes) abstraction"
            r"|néglige[rz]?|contourne[rz]?|ne (?:suis|suivez) (?:pas|plus))\b"
        ),
        r"précédent|antérieur|ci-dessus|tout|tes |vos |initia|système|avant|reçues",
        r"instruction|consigne|directive|règle|ordre|prompt|indication",
    ),
    # Spanish
    (
        (
            r"\b(?:ignor[ae][rdn]?|olvid[ae][rdn]?|olvídate|descart[ae]|omit[ae]|ha(?:z|ga) caso omiso|no sigas|"
            r"no hag(?:as|a) caso|pas[ae] por alto"
            r"|desobedece)\b"
        ),
        r"anterior|previ[ao]s|arriba|tod[ao]s?|tus |sus |inicial|sistema|recibid",
        r"instrucci|indicaci|órdenes|ordenes|reglas|directri|mensaje|prompt|lo que",
    ),
    # Portuguese
    (
        r"\b(?:ignor[ae]r?|esqueça|esqueçam|esquece|desconsider[ae]|descart[ae]|não siga)\b",
        r"anterior|prévi[ao]s|acima|tod[ao]s|tudo|suas|teus|sistema|inicia",
        r"instruç|ordens|regras|diretri|comandos|orientaç|prompt",
    ),
    # Italian
    (
        r"\b(?:ignora(?:te|re)?|dimentica(?:te|re)?|trascura|non seguire|tralascia|disobbedisci)\b",
        r"precedent|sopra|tutt[eio]|tue |vostre|inizial|sistema|ricevut",
        r"istruzion|ordini|regole|direttiv|indicazion|comandi|prompt",
    ),
    # Dutch
    (
        r"\b(?:negeer|vergeet|ontwijk|volg niet)\b",
        r"vorige|eerdere|bovenstaande|alle|voorgaande|jouw|je |uw |voorafgaande",
        r"instructie|opdracht|regels|aanwijzing|richtlijn|prompt",
    ),
    # Swedish, Norwegian, Danish
    (
        r"\b(?:ignorera|ignorer|glöm|glem|bortse från|se bort fra|se bort från|strunta i)\b",
        r"tidigare|tidligere|ovanstående|alla|alle|föregående|foregående|forrige|dina|dine",
        r"instruktion|instruks|anvisning|regler|order|ordre|prompt",
    ),
    # Polish
    (
        r"\b(?:zignoruj|ignoruj|zapomnij|pomiń|zlekceważ)\b",
        r"poprzedni|wcześniejsz|powyższ|wszystki|swoje|dotychczas",
        r"instrukcj|polece|zasad|wytyczn|prompt|rozkaz",
    ),
    # Russian, Ukrainian
    (
        r"\b(?:про|з)?(?:игнорируй|ігноруй)(?:те)?\b|\b(?:забудь|не следуй|отбрось|не обращай внимания)(?:те)?\b",
        r"предыдущ|попередн|прежн|выше|вс[её]|всі|свои|систем|ранее",
        r"инструкци|інструкц|указани|вказівк|команд|правил|промпт|сказанн",
    ),
    # Vietnamese
    (r"(?:bỏ qua|quên|phớt lờ)", r"trước|trên|tất cả|mọi", r"hướng dẫn|chỉ dẫn|lệnh|quy tắc|chỉ thị"),
    # Indonesian, Malay
    (r"\b(?:abaikan|lupakan|hiraukan)\b", r"sebelum|di atas|semua|awal", r"instruksi|perintah|aturan|petunjuk|arahan"),
    # Arabic
    (
        r"(?:تجاهل|انس|إنس|لا تتبع|أهمل|اهمل)",
        r"السابق|أعلاه|اعلاه|كل|جميع|المذكور|الأصلي",
        r"تعليمات|أوامر|اوامر|قواعد|إرشادات|توجيهات",
    ),
    # Chinese
    (
        r"忽略|无视|無視|忘记|忘記|忘掉|不要再?理[会會]|不要再?遵[守循]|抛开|拋開|别管",
        r"之前|以上|上面|先前|前面|所有|一切|上述|你的|此前",
        r"指令|指示|提示|规则|規則|命令|要求|说明|說明|设定|設定|内容|限制",
    ),
)
_VERB_LAST: Final = (
    # Turkish
    (
        r"önceki|yukarıdaki|tüm|bütün|daha önce",
        r"talimat|komut|kural|yönerge|istem",
        r"yok say|görmezden gel|unut|dikkate alma|boş ?ver",
    ),
    # Japanese
    (
        r"以前|これまで|上記|前の|先の|すべて|全て|今まで|元の|与えられた",
        r"指示|命令|プロンプト|ルール|規則|指令|設定",
        r"無視|忘れ|従わない|従うな|破棄",
    ),
    # Korean
    (r"이전|위의|앞의|앞선|지금까지|모든|기존", r"지시|명령|프롬프트|규칙|지침", r"무시|잊어|잊고|따르지"),
    # Hindi
    (
        r"पिछल|उपरोक्त|सभी|पहले|ऊपर",
        r"निर्देश|आदेश|नियम|प्रॉम्प्ट",
        (
            r"अनदेखा|अनदेखी|नज़रअंदाज़|नजरअंदाज|भूल|"
            r"ध्यान न|मत मान"
        ),
    ),
)


_NEGATED: Final = r"(?<!ne pas )(?<!non )(?<!не )(?<!não )(?<!nie )(?<!no )"
"""Before a verb that is denied: what must not be forgotten is an ordinary reminder."""
_REMINDED: Final = r"(?!\W{1,2}(?:nicht|pas|niet|inte|ikke|de ne pas)\b)"


def phrases() -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Patterns for folded text, kind by kind, each with the words that a text with a hit has: one of each group."""
    yield from _ENGLISH
    for verbs, marks, nouns in _OTHERS:
        far, near = ("[^,.!?。\\n]{0,12}?",) * 2 if verbs[0] > "\u2e80" else ("[^.!?\\n]{0,40}?", "[^.!?\\n]{0,30}?")
        rest = rf"(?:{marks}){near}(?:{nouns})|(?:{nouns}){near}(?:{marks})"
        yield (nouns,), (rf"{_NEGATED}(?:{verbs}){_REMINDED}{far}(?:{rest})",)
    for marks, nouns, verbs in _VERB_LAST:
        yield (nouns,), (rf"(?:{marks})[^.!?\n]{{0,30}}?(?:{nouns})[^.!?\n]{{0,40}}?(?:{verbs})",)
