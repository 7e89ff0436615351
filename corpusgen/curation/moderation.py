"""Texts that somebody may not want to send or to learn from, by kind, found by patterns, offline.

The patterns are few, English, and look for turns of phrase rather than words: asking how to make a weapon is one,
the word bomb is not. They tell a person where to look. They miss most of what a moderation model finds, and anything
in another language, in a picture of words or merely implied; a text without a finding is not thereby harmless. A
finding is a remark unless the caller says that it drops the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from corpusgen.curation.finding import Finding
from corpusgen.curation.phrases import Rule, hits

CHECK: Final = "moderation"

_MAKE: Final = (
    r"\b(?:make|making|build|building|construct|assembl(?:e|ing)|synthesi[sz](?:e|ing)|cook(?:ing)?|"
    r"produc(?:e|ing)|manufacture|prepare|brew|"
    r"weaponi[sz]e|3d.print|(?:recipe|instructions|steps|guide|blueprints?|synthesis|procedure) (?:for|of|to))\b"
)
_MAKE_KEYS: Final = (
    "mak|build|construct|assembl|synthes|cook|produc|manufactur|prepar|brew|weaponi|print|recipe|instructions|"
    "steps|guide|blueprint|procedure"
)
_SOMEBODY: Final = (
    r"(?:some(?:one|body)|people|a (?:person|man|woman|child|cop|politician|stranger)|(?:my|his|her|our|their|your) "
    r"(?:\w{1,12} )?(?:neighbou?r|wife|husband|boss|colleagues?|co-?workers?|teacher|classmates?|girlfriend|boyfriend|"
    r"ex|parents?|mother|father|brother|sister|family|roommate|landlord|friend)s?|him|her|them|everyone|everybody|"
    r"the president|the police|another person)"
)
_GROUPS: Final = (
    r"(?:jews|muslims|christians|hindus|blacks|whites|asians|arabs|gypsies|roma|immigrants|refugees|foreigners|gays|"
    r"lesbians|homosexuals|trans people|women|disabled people|(?:black|white|jewish|gay|brown) people)"
)
_SEXUAL: Final = (
    r"(?:having sex|sex with|sexual (?:acts?|activity|contact|intercourse|content|fantas\w{1,4}|story|stories|scenes?|"
    r"relations?)|sexuali[sz]\w{1,6}|erotic\w{0,4}|porn\w{0,8}|nudes?|naked (?:photo|picture|image)s?|masturbat\w{1,4}|"
    r"orgasm\w{0,3}|molest\w{0,5}|seduc\w{1,4}|aroused|undress\w{0,3})"
)
_MINORS: Final = (
    r"(?:child(?:ren)?|kids?|minors?|toddlers?|under-?aged?|pre-?teens?|little (?:girl|boy)s?|school(?:girl|boy)s?|"
    r"(?:[1-9]|1[0-7]|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen)[- ]years?[- ]old)"
)

_RULES: Final = (
    Rule.of(
        "minors",
        "sexual content about minors",
        keys=(
            "sex|erotic|porn|nude|naked|masturbat|orgasm|molest|seduc|aroused|undress|csam",
            "child|kid|minor|toddler|under|teen|girl|boy|year|csam",
        ),
        patterns=(
            rf"\b{_SEXUAL}\b[^.!?\n]{{0,50}}?\b{_MINORS}\b",
            rf"\b{_MINORS}\b[^.!?\n]{{0,50}}?\b{_SEXUAL}\b",
            r"\bcsam\b",
        ),
    ),
    Rule.of(
        "self-harm",
        "self-harm or suicide",
        keys=(
            (
                "myself|my life|to die|suicid|yourself|end it all|self-harm|self harm|overdose|pro-ana|thinspo|"
                "want to be dead|better off dead"
            ),
        ),
        patterns=(
            (
                r"\b(?:kill|hang|cut|hurt|harm|shoot|starve?|drown|poison)(?:t?ing)? (?:myself|"
                r"yourself)\b(?! (?:shaving|laughing|off|"
                r"some|a slice|short|loose|up about))"
            ),
            r"\b(?:end|ending|take|taking) my (?:own )?life\b|\b(?:decided|want|going|plan|ready) to end it all\b",
            r"\b(?:i|we) (?:\w{1,10} ){0,2}?(?:want|wish|would like|long|am ready|plan) to (?:die|be dead)\b",
            (
                r"\b(?:painless|easiest|best|quickest|fastest|surest) (?:way|method)s? (?:to die|of dying|"
                r"to end (?:it|my life))\b"
            ),
            (
                r"\b(?:how (?:to|do i|can i|would i|could i|many)|ways? (?:to|of)|methods? (?:of|for)|"
                r"plan(?:ning)? (?:to|my|a|on)|"
                r"write (?:me )?(?:a|my))\b[^.!?\n]{0,30}?\b(?:suicid(?:e|al)|self-?harm|overdos(?:e|ing))\b"
            ),
            (
                r"\b(?:commit suicide|suicide (?:methods?|notes?|pact|plan))\b|\bpro-?ana\b|\bthinspo\b|\bi(?:'d|"
                r" would) be better off dead\b"
            ),
        ),
    ),
    Rule.of(
        "violence",
        "violence against people, threatened or asked for",
        keys=(
            (
                "kill|murder|poison|strangl|stab|tortur|kidnap|assassinat|behead|shoot|rape|bombing|attack|"
                "massacre|lynch|beat |hurt|injur"
            ),
        ),
        patterns=(
            (
                r"\b(?:how (?:to|do i|do you|can i|would i|could i|would one)|(?:best|easiest) way to|help me|"
                r"ways? to|instructions (?:to|for)|"
                rf"teach me to|plan to)\b[^.!?\n]{{0,40}}?\b(?:kill|murder|poison|strangle|stab|torture|kidnap|"
                rf"assassinate|behead|shoot|"
                rf"rape|lynch|beat|hurt|injure|attack)(?:ing)? (?:up )?{_SOMEBODY}\b"
            ),
            (
                r"\bi(?:'m| am)? ?(?:going to|gonna|will|'ll|shall|want to) (?:kill|murder|shoot|stab|strangle|"
                r"behead|rape|poison|beat) "
                rf"(?:up )?(?:you\b(?! laughing)|{_SOMEBODY})\b"
            ),
            (
                r"\b(?:plan|carry out|commit|stage|prepare|organi[sz]e)(?:[nt]?ing|s|ted)? (?:an? |"
                r"the )?(?:\w{1,12} )?(?:school shooting|mass shooting|"
                r"massacre|terror(?:ist)? attack|suicide bombing|lynching)\b"
            ),
        ),
    ),
    Rule.of(
        "weapons",
        "how to make a weapon or an explosive",
        keys=(
            _MAKE_KEYS,
            (
                "bomb|explosive|molotov|nerve agent|nerve gas|sarin|ricin|anthrax|mustard gas|chlorine gas|"
                "napalm|silencer|ghost gun|detonator|grenade|tatp|nitroglycerin|bioweapon|biological weapon|"
                "chemical weapon|semtex"
            ),
        ),
        patterns=(
            (
                rf"{_MAKE}[^.!?\n]{{0,50}}?\b(?:(?:pipe |dirty |nail |petrol |car |homemade |"
                rf"letter )?bombs?\b(?! (?:shelter|disposal|calorimeter|cyclone))|"
                r"(?:improvised |plastic |homemade )?explosives?|explosive devices?|molotov|nerve (?:agents?|"
                r"gas)|sarin|ricin|anthrax(?! (?:vaccin|outbreak|infect|spore test))|mustard gas|"
                r"chlorine gas|napalm|silencers?|ghost guns?|detonators?|hand grenades?|tatp|nitroglycerin|semtex|"
                r"(?:bio|biological |chemical )weapons?)\b"
            ),
        ),
    ),
    Rule.of(
        "drugs",
        "how to make or get illegal drugs",
        keys=(
            _MAKE_KEYS + "|buy|order|smuggl|get ",
            "meth|heroin|cocaine|fentanyl|lsd|mdma|ecstasy|ghb|krokodil|pcp",
        ),
        patterns=(
            (
                rf"(?:{_MAKE}|\b(?:smuggle|smuggling|where (?:can|do|could) (?:i|you|one) (?:buy|get|order|"
                rf"score)|how (?:to|do i|can i) (?:buy|get|order))\b)"
                r"[^.!?\n]{0,40}?\b(?:crystal meth|meth|methamphetamine|heroin|(?:crack )?cocaine|fentanyl|lsd|"
                r"mdma|ecstasy|ghb|krokodil|pcp)\b"
            ),
        ),
    ),
    Rule.of(
        "malware",
        "how to attack computers or steal by them",
        keys=(
            "ransomware|keylogger|malware|computer virus|trojan|botnet|phishing|skimmer|rootkit|spyware",
            "write|draft|creat|build|develop|code|program|give me|make|show me|how to|generate",
        ),
        patterns=(
            (
                r"\b(?:write|draft|create|build|develop|code|program|give me|make|show me how to|generate|"
                r"how to (?:write|create|build|make|deploy|spread))\b"
                r"[^.!?\n]{0,40}?(?<!anti-)(?<!against )\b(?:ransomware|keylogger|malware|computer virus|trojan|"
                r"botnet|phishing (?:page|e?-?mail|site|kit|"
                r"message|text)|card skimmer|rootkit|spyware)s?\b(?! (?:detect|scan|protect|filter|removal|"
                r"sample|analys|classif|aware|prevent))"
            ),
        ),
    ),
    Rule.of(
        "hate",
        "hatred of a group of people",
        keys=(
            (
                "jews|muslim|christian|hindu|blacks|whites|asians|arabs|gypsies|roma|immigrant|refugee|foreigner|"
                "gays|lesbian|homosexual|trans people|women|people|nigg|n1gg|fag|kike"
            ),
        ),
        patterns=(
            (
                rf"\b(?:all |those |these |the )?{_GROUPS} (?:are|should be|must be|deserve to be|ought to be|"
                rf"need to be) (?:all |nothing but |just |"
                r"a |an )?(?:vermin|subhuman|sub-human|parasites|animals|cockroaches|rats|filth|scum|inferior|"
                r"a disease|exterminated|eradicated|"
                r"killed|gassed|hanged|shot|wiped out|enslaved|burned|cancer)\b"
            ),
            (
                rf"\b(?:death to|kill|exterminate|gas|eradicate|hang|i hate|we hate|get rid of) (?:all |the |"
                rf"every |those ){{0,2}}{_GROUPS}\b"
            ),
            r"\bn[i1]gg(?:er|a)s?\b|\bf[a4]gg[o0]ts?\b|\bkikes?\b",
        ),
    ),
    Rule.of(
        "sexual",
        "explicit sexual content",
        keys=("sex|porn|erotic|blowjob|blow job|gangbang|masturbat|orgasm",),
        patterns=(
            r"\b(?:explicit|graphic|hardcore|steamy|dirty|kinky) (?:sex|sexual|porn|erotic)\w{0,10}\b",
            (
                r"\b(?:write|tell|give|describe|generate|continue)\b[^.!?\n]{0,30}?\b(?:erotic(?:a| (?:story|"
                r"scene|fiction))|porn(?:ographic)?|sex scene|"
                r"smut)\b"
            ),
            r"\b(?:blow ?jobs?|gangbangs?|cumshots?|deepthroat\w{0,3})\b",
        ),
    ),
)


def check(text: str, *, drop: bool = False) -> Finding | None:
    """The gravest kind of a text, if it is of any; a remark, unless ``drop`` is True."""
    return next(findings(text, drop=drop), None)


def findings(text: str, *, drop: bool = False) -> Iterator[Finding]:
    """Every kind a text is of, the gravest first."""
    for rule, passage in hits(_RULES, text):
        yield Finding(check=CHECK, kept=not drop, reason=rule.reason, detail=passage)
