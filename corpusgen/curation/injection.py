"""Texts that try to command the model that reads them: phrases, markers and hidden signs, found by patterns, offline.

A finding is a remark unless the caller says that it drops the text. Patterns find the usual wordings and are easily
avoided by somebody who knows them; what protects a run is that seed text is data wherever it goes (see ``quoted`` in
``corpusgen/prompting/quoting.py``): it never decides a teacher, a route or a price.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from corpusgen.curation.finding import Finding
from corpusgen.curation.hidden_text import encoded, invisible, tagged
from corpusgen.curation.override_phrases import phrases
from corpusgen.curation.phrases import Rule, hits, shown

CHECK: Final = "injection"
_OVERRIDE = "asks to set instructions aside"
_ROLE = "has the markers of another speaker"
_ADDRESS = "speaks to a model that reads it"
_PERSONA = "asks to drop a role or its limits"
_PROMPT = "asks for the prompt it stands in"
_SENDING = "asks for a deed by a tool, or to send something elsewhere"
_BEACON = "has an image or a link that carries data out"
_HIDDEN = "has signs that a reader does not see"
_ENCODED = "has instructions in base64"

_GIVE = (
    r"(?:reveal|show|print|repeat|output|display|tell|give|write|copy|leak|disclose|share|quote|echo|recite|return|"
    r"expose|list|dump|paste|summari[sz]e|translate|spell|encode|provide|state|what|send|emit|type)"
)
_OF_PROMPT = (
    r"(?:system|initial|hidden|original|secret|full|entire|exact|complete|previous|prior|developer|internal|"
    r"confidential|first|whole|custom|private|above|underlying|pre-?)"
)
_PROMPTS = r"(?:prompts?|instructions?|messages?|directives?|guidelines|rules|configuration|preamble)"
_HERE = (
    r"(?:https?://|www\.|\b[\w.+-]{1,64}@[\w-]{1,64}\.|\b(?:this|the following|my) "
    r"(?:url|webhook|address|server|endpoint|site)\b)"
)
_SECRETS = (
    r"(?:conversations?|chats?|history|system prompts?|prompts?|api.?keys?|passwords?|credentials?|secrets?|tokens?|"
    r"environment variables|env vars|context|cookies?|private|confidential|personal data|contents?|messages|emails?|"
    r"files?|answers?|data|everything|instructions)"
)

_CARRIED = (
    r"\b(?:q|d|data|prompt|secret|text|payload|leak|exfil|conversation|chat|history|info|cookie|log|msg|"
    r"message|content|"
    r"summary|answers?|key|token)="
)

_RULES: Final = (
    *(Rule.of("override", _OVERRIDE, keys=keys, patterns=patterns) for keys, patterns in phrases()),
    Rule.of(
        "address",
        _ADDRESS,
        keys=(" ai| llm|model|assistant|chatbot| bot",),
        patterns=(
            (
                r"\bif you(?:'re| are) (?:an?|the) (?:ai|llm|large language model|language model|(?:ai )?(?:bot|"
                r"assistant|chatbot|reviewer|"
                r"grader|agent))\b"
            ),
            (
                r"\b(?:note|attention|message|memo|reminder|instructions?|hint)\W{1,3}(?:to|for)\W{1,3}(?:the |"
                r"any |all |every |you,? )?(?:ai|llm|"
                r"large language|language|chatbot|bot)s?(?: models?| assistants?| reviewers?| agents?|"
                r" graders?)?\W{0,3}(?:reading|processing|"
                r"reviewing|:|-|,)"
            ),
            r"\b(?:attention|hey|dear)\W{1,3}(?:ai|llm|language model|chatbot)\b",
        ),
    ),
    Rule.of(
        "persona",
        _PERSONA,
        keys=(
            "you |you'|mode|do anything now|without|no |free |jailbr|from now on",
            (
                "bound|not a|longer a|dan|unrestrict|unfilter|uncensor|jailbr|mode|anything now|restriction|"
                "rules|limit|filter|guideline|constraint|censorship|guardrail|safeguard|from |free of|now a|not any"
            ),
        ),
        patterns=(
            (
                r"\byou(?:'re| are) (?:now |hereby )?(?:no longer|not|free from|freed from) (?:bound (?:by|to)|"
                r"an? (?:ai|assistant|"
                r"language model|large language|chatbot)|constrained by|restricted by)\b"
            ),
            (
                r"\byou(?:'re| are) now (?:called |named |known as )?(?:dan\b|in (?:developer|god|jailbreak|"
                r"admin|root|sudo|unrestricted|dan) mode|"
                r"unrestricted|unfiltered|uncensored|jailbroken|free (?:of|from) (?:all|any|your|every|these)|"
                r"root\b|an? (?:unrestricted|"
                r"unfiltered|uncensored|evil|different|rogue|pirate|malicious))"
            ),
            (
                r"\b(?:an?|the|your) (?:unrestricted|unfiltered|uncensored|jailbroken|unaligned) (?:ai|model|"
                r"assistant|language model|version|"
                r"bot|chatbot|mode|persona|self)\b"
            ),
            (
                r"\b(?:enable|activate|enter|turn on|switch (?:in)?to|engage|unlock|boot into)\W{1,3}(?:the |"
                r"your )?(?:developer|god|"
                r"jailbreak|dan|unrestricted|sudo|admin(?:istrator)?|unsafe|unfiltered|evil) mode\b"
            ),
            r"\bdo anything now\b",
            (
                r"\b(?:pretend|act|behave|respond|answer|imagine|role-?play|reply|speak|operate|"
                r"continue)\b[^.!?\n]{0,60}?\b(?:without any|"
                r"without|no|free of|free from|devoid of)\W{1,3}(?:any |all |your |ethical |moral |safety |"
                r"content |usual ){0,2}"
                r"(?:restrictions?|rules|limits|limitations|filters?|guidelines|constraints|censorship|"
                r"guardrails|safeguards)\b(?! (?:on|for|in)\b)"
            ),
            (
                r"\bfrom (?:now on|this point on|here on|this moment on),? (?:you(?:'ll)? (?:will |must |shall |"
                r"are |only |answer|respond|"
                r"speak|have)|your (?:only|new|sole)|answer|respond|reply|ignore|say)"
            ),
            r"\byou (?:will|must|shall|are to)\b[^.!?\n]{1,60}?\bfrom now on\b",
            r"\bjailbr(?:eak|oken)\b[^\n]{0,40}?\b(?:you|mode|prompt|this model|yourself)\b",
        ),
    ),
    Rule.of(
        "role",
        _ROLE,
        keys=("<|[inst|[/inst|_turn>|###|```|system|assistant|human|developer|tool_|tool>|function_",),
        patterns=(
            r"<\|[a-z][a-z_0-9 -]{1,40}\|>",
            r"\[/?inst\]|<</?sys>>|</?(?:start_of_turn|end_of_turn)>",
            (
                r"</?(?:tool_calls?|tool_results?|tool_response|function_calls?|function_results?|system_prompt|"
                r"system_message|system-reminder)>"
            ),
            r"</(?:system|assistant|human|instructions?|developer|prompt)>",
            r"(?:^|\n)[ \t]{0,8}<(?:system|assistant|human|developer|instructions?)>",
            (
                r"(?:^|\n)[ \t#*>-]{0,8}\[?(?:system|developer|assistant)(?: (?:message|prompt|note|override|"
                r"instruction|notice|update))?"
                r"\]?\*{0,2}:\*{0,2}\s{0,4}(?:you\b|your\b|ignore|do not|don.t|never|always|from now|new\b|act\b|"
                r"respond|reply|answer|"
                r"output|reveal|print|sure|of course|as an? |i (?:am|will)|certainly|override|stop|disregard|"
                r"forget|please|grant|access|"
                r"the (?:user|assistant|previous|above|following|label|answer|correct|score|grade|rules|system))"
            ),
            r"\n\n(?:human|assistant): ",
            r"(?:^|\n)user: [^\n]{1,200}\nassistant: ",
            r"(?:^|\n)```(?:system|assistant|developer)\b",
            r"(?:^|\n)[ \t]{0,3}#{2,4} ?(?:system|instructions?|response|assistant)(?: prompt)?:",
            r"[\"']role[\"']\s{0,3}:\s{0,3}[\"'](?:system|developer|assistant)[\"']",
            r"\[(?:system|admin|developer) (?:message|override|note|prompt|notice|command)\]",
        ),
    ),
    Rule.of(
        "prompt",
        _PROMPT,
        keys=(
            (
                "prompt|instruction|message|above|before this|guideline|rules|directive|configuration|preamble|"
                "instruccion|instruç|istruzion|anweisung|提示|指令|промпт|подсказ|инструкц|プロンプト|프롬프트"
            ),
            (
                "your|the|this|that|its|every|any|all|you |tes |deine|tus |suas |tue |prompt|提示|指令|промпт|"
                "подсказ|инструкц|プロンプト|프롬프트"
            ),
        ),
        patterns=(
            (
                rf"\b{_GIVE}\b(?:\W{{1,3}}(?:me|us|out|back|are|is|were|was|the|all|of|exactly|verbatim|word for word|"
                rf"here|now|then|please|"
                rf"to)){{0,5}}\W{{1,3}}your(?:\W{{1,3}}{_OF_PROMPT}){{0,3}}\W{{1,3}}{_PROMPTS}\b(?!\W{{1,3}}(?:for|on|about|to)\b"
                r"(?! me\b))"
            ),
            rf"\b{_GIVE}\b[^.!?\n]{{0,40}}?\byour(?:\W{{1,3}}{_OF_PROMPT}){{1,3}}\W{{1,3}}{_PROMPTS}\b",
            (
                rf"\b{_GIVE}\b[^.!?\n]{{0,30}}?\b(?:the|this|that|its|every|"
                rf"any)(?:\W{{1,3}}{_OF_PROMPT}){{0,2}}\W{{1,3}}(?:system|developer|hidden|"
                r"secret|initial|confidential|original)\W{1,3}(?:prompts?|instructions?|message)\b"
            ),
            (
                r"\b(?:reveal|print|repeat|output|display|leak|disclose|echo|recite|dump|copy|write|show|"
                r"type)\b[^.!?\n]{0,20}?"
                r"\b(?:everything|all (?:of )?the (?:text|words)|anything)(?: that (?:is|was|came|stands?|"
                r"comes))?(?: written)? (?:above|before this)\b"
            ),
            (
                r"\b(?:reveal|print|repeat|output|display|leak|disclose|echo|recite|dump|copy|"
                r"write)\b[^.!?\n]{0,20}?\bthe (?:text|words|lines|content|"
                r"paragraphs?|messages?|instructions?) above\b[^.!?\n]{0,30}?\b(?:verbatim|word for word|exactly|"
                r"in full|code block|literally)\b"
            ),
            (
                r"\b(?:instructions|prompt|rules|guidelines|message)\W{1,3}(?:that )?(?:you(?:'ve| have|"
                r" had)? (?:were|been|got|received)"
                r"(?: given| told| started with)?|your (?:developers?|creators?|operators?|owners?) (?:gave|"
                r"wrote|set))\b"
            ),
            (
                r"\bwhat (?:does|do|did|is in|are in) (?:your|the) (?:system|hidden|initial) (?:prompt|"
                r"instructions|message)\b"
            ),
            r"(?:显示|告诉我|输出|重复|泄露|打印|说出|复述)[^。!?\n]{0,12}(?:系统|初始|隐藏|你的)(?:提示词|提示|指令)",
            r"(?:系统|初始|隐藏)(?:提示词|提示|指令)[^。!?\n]{0,12}(?:显示|告诉我|输出|泄露|打印|说出)",
            r"システム ?プロンプト[^。!?\n]{0,12}(?:表示|教え|出力|見せ|開示)",
            r"시스템 ?프롬프트[^.!?\n]{0,12}(?:보여|알려|출력|공개)",
            (
                r"(?:покажи|выведи|напиши|раскрой|повтори)[^.!?\n]{0,30}(?:системн|скрыт|"
                r"начальн)\w{0,4} (?:промпт|инструкци|подсказк)"
            ),
            (
                r"(?:affiche|montre|révèle|répète|donne|dis(?:-moi)?|quelles sont|muestra|revela|repite|"
                r"muéstrame|cuáles son|mostre|mostra(?:mi)?|rivela|"
                r"quali sono|zeig|nenne|verrate|wiederhole|gib|wie lauten|toon|"
                r"pokaż)\b[^.!?\n]{0,40}?(?:(?:système|sistema|system)[- ]?prompt|prompt "
                r"(?:del |do |de |di )?(?:sistema|système)|(?:tes|deine|tus|suas|tue|"
                r"versteckte\w?) (?:system-?anweisungen|anweisungen|"
                r"instructions|instrucciones|instruções|istruzioni)|instrucciones (?:del sistema|iniciales)|"
                r"promptu? systemow)"
            ),
        ),
    ),
    Rule.of(
        "sending",
        _SENDING,
        keys=(
            (
                "http|@|url|webhook|query|endpoint|image you|link you|rm -rf|this address|my address|this server|"
                "my server|this site|my site"
            ),
        ),
        patterns=(
            (
                r"\b(?:send|post|forward|e-?mail|upload|transmit|exfiltrate|submit|leak|deliver|report|copy|"
                r"append|encode)\b"
                rf"[^.!?\n]{{0,50}}?\b{_SECRETS}\b[^!?\n]{{0,60}}?\b(?:to|at|into|onto|via|as a parameter of|"
                rf"using)\b[^!?\n]{{0,30}}?{_HERE}"
            ),
            (
                r"\b(?:append|add|include|insert|embed|put|encode)\b[^.!?\n]{0,50}?\b(?:conversation|chat|"
                r"history|system prompt|api.?key|password|"
                r"credential|secret|token)s?\b[^!?\n]{0,50}?\b(?:url|query string|query parameter|image)\b"
            ),
            r"\b(?:make|issue|perform|send) an? (?:http |get |post |web |https )?request to https?://",
            (
                r"\b(?:visit|fetch|open|browse to|navigate to|load|download|call|get|"
                r"read)\W{1,3}(?:the )?(?:url |page |link |site )?https?://[^\s]{1,200}"
                r"\s{1,3}(?:and|then) (?:do|follow|obey|execute|run|carry out|act on|perform)"
            ),
            (
                r"https?://[^\s]{1,200}\s{1,2}followed by (?:everything|all|the (?:conversation|chat|history|"
                r"user|text|prompt))"
            ),
            (
                r"\b(?:in|into|to) (?:the|any|every) (?:image |link )?(?:url|link|image) you (?:show|write|"
                r"render|output|generate|make)\b"
            ),
            (
                r"\b(?:curl|wget)\b[^\n]{0,60}?https?://[^\n]{0,120}?(?:\$\(|\$\{?\w{0,20}(?:key|token|"
                r"secret|pass))"
            ),
            r"\brm -rf [/~*]",
        ),
    ),
    Rule.of(
        "tool",
        _SENDING,
        keys=(
            "tool|plugin|function|terminal|shell|browser|mail client|interpreter|connector",
            "use |call |invoke |run |execute |trigger ",
            "send|mail|delete|post|upload|transfer|forward|visit|wipe|buy|purchase|exfiltrat|pay|share|http",
        ),
        patterns=(
            (
                r"\b(?:use|call|invoke|run|execute|trigger)\W{1,3}(?:the|your|any|"
                r"a)\W{1,3}(?:\w{1,20}\W{1,3}){0,2}?(?:tool|plugin|function|terminal|"
                r"shell|browser|mail client|code interpreter|connector)s?\W{1,3}(?:available )?(?:to|"
                r"and) (?:send|e-?mail|delete|post|upload|transfer|"
                r"forward|visit|wipe|buy|purchase|exfiltrate|pay|share|fetch http|open http)"
            ),
        ),
    ),
    Rule.of(
        "beacon",
        _BEACON,
        keys=("![|<img|](",),
        patterns=(
            (
                rf"!\[[^\[\]\n]{{0,200}}\]\(\s{{0,3}}<?https?://[^)\s?]{{1,300}}\?[^)\s]{{0,120}}?(?:[{{\[<$]|"
                rf"%7b|{_CARRIED})"
            ),
            r"!\[[^\[\]\n]{0,200}\]\(\s{0,3}<?https?://[^)\s?]{1,300}/(?:[{<$]|%7b|\[(?!\]))",
            rf"<img\b[^<>\n]{{0,200}}?src\s{{0,3}}=\s{{0,3}}[\"']?https?://[^\"'>\s?]{{1,300}}\?[^\"'>\s]{{0,120}}?(?:[{{\[$]|%7b|{_CARRIED})",
            (
                r"(?<!!)\[[^\[\]\n]{0,200}\]\(\s{0,3}<?https?://[^)\s?]{1,300}\?[^)\s]{0,120}?(?:[{$]|%7b|"
                r"\[)(?:[a-z_ ]{0,20})(?:prompt|secret|"
                r"conversation|chat|history|summary|data|answer|key|token|password)"
            ),
        ),
    ),
    Rule.of(
        "encoded",
        _ENCODED,
        keys=(
            "decode|decrypt|obfuscate|unscramble",
            "follow|execute|obey|carry|do what|act on|comply|perform",
        ),
        patterns=(
            (
                r"\b(?:decode|decrypt|de-?obfuscate|unscramble)\b[^!?\n]{0,80}?\b(?:and|"
                r"then)\W{1,3}(?:\w{1,12} ){0,3}?(?:follow|execute|obey|"
                r"carry (?:it )?out|do what|act on|comply|perform)\b"
            ),
        ),
    ),
)


def check(text: str, *, drop: bool = False) -> Finding | None:
    """The first thing in a text that tries to command its reader; a remark, unless ``drop`` is True."""
    return next(findings(text, drop=drop), None)


def findings(text: str, *, drop: bool = False) -> Iterator[Finding]:
    """Everything of that kind in a text, each reason once."""
    told: set[str] = set()
    for reason, detail in _found(text):
        if reason not in told:
            told.add(reason)
            yield Finding(check=CHECK, kept=not drop, reason=reason, detail=detail)


def _found(text: str) -> Iterator[tuple[str, str]]:
    for rule, passage in hits(_RULES, text):
        yield rule.reason, passage
    spelt = tagged(text)
    for sign in invisible(text):
        yield _HIDDEN, f"spells {shown(spelt)!r}" if spelt else shown(text[max(0, sign.start() - 20) : sign.end() + 20])
    for inner in encoded(text):
        yield from ((_ENCODED, f"{rule.reason}: {passage}") for rule, passage in hits(_RULES, inner))
