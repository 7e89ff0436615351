"""Answers that open or close with stock phrases of an assistant, which a student would learn to repeat."""

from __future__ import annotations

import re
from typing import Final

from pydantic import Field

from corpusgen.curation import judging
from corpusgen.curation.finding import Finding
from corpusgen.curation.judging import fails, shown
from corpusgen.records import Json, Record

SUMMARY: Final = "stock openings and closing offers of an assistant"
EXAMPLE: Final[dict[str, Json]] = {"action": "remark"}
_LOOKED_AT: Final = 300

_OPENINGS: Final = (
    r"as an? (?:\w+ ){0,3}(?:ai|language model|ai model|chatbot)(?: [\w-]+){0,4},",
    r"i(?:'m| am)(?: just| only)? an? (?:\w+ ){0,3}(?:ai|language model)\b",
    (
        r"(?:sure|certainly|of course|absolutely|gladly|no problem|okay|ok)(?: thing)?[!,.:—-]+ ?(?:here(?:'s| is"
        r"| are)\b"
        r"|below\b"
        r"|i(?:'d| would) be (?:happy|glad|delighted)|i(?:'ll| will| can) (?:help|write|explain|provide|give|gladly"
        r"|happily)"
        r"|let me (?:help|explain|write|break|provide)|let's (?:dive|break|take a look|go through|get started))"
    ),
    r"(?:certainly|absolutely|of course|sure thing|sure)!(?:\s|$)",
    r"(?:(?:what|that's|that is|this is) an? )?(?:great|excellent|good|fantastic|wonderful|interesting) question[!.,]",
    r"(?:i'd|i would) be (?:happy|glad|delighted) to (?:help|assist|explain|write|provide)",
    r"(?:i'm|i am) (?:happy|glad|here) to (?:help|assist)[!.,]",
    r"thank you for (?:your question|asking|reaching out|your request)[!.,]",
    (
        r"here(?:'s| is| are) (?:an? |the |your |my |some |one |two |three |four |five )?(?:\w+ ){0,8}?(?:for you"
        r"|you asked for"
        r"|you requested|based on your|as requested|that (?:meets|fits|matches) your)\b"
    ),
    r"(?:selbstverständlich|natürlich|gerne?|klar|sicher)[!,.]+ ?(?:hier (?:ist|sind)|ich helfe)",
    r"(?:gerne|natürlich|selbstverständlich|klar)!(?:\s|$)",
    r"als (?:ki|ki-)?[- ]?(?:sprachmodell|ki)\b",
    r"(?:bien sûr|certainement|avec plaisir|volontiers|d'accord) ?[!,.]+ ?(?:voici|je (?:vais|serais|suis))",
    r"(?:bien sûr|avec plaisir) ?!(?:\s|$)",
    r"en tant qu(?:e |')(?:une? )?(?:ia|intelligence artificielle|modèle de langage)",
    r"¡?(?:claro(?: que sí)?|por supuesto|desde luego|con gusto)[!,.]+ ?(?:aquí (?:tienes|está|te)|a continuación)",
    r"¡(?:claro(?: que sí)?|por supuesto|con gusto)!(?:\s|$)",
    r"como (?:una? )?(?:modelo de lenguaje|ia|inteligencia artificial)",
    r"(?:certo|certamente|certamente|volentieri)[!,.]+ ?(?:ecco|sarò)",
    r"(?:claro|com certeza|certamente|com prazer)[!,.]+ ?(?:aqui (?:está|estão|vai)|segue)",
    r"(?:natuurlijk|zeker|uiteraard|graag)[!,.]+ ?(?:hier (?:is|zijn)|ik help)",
    r"(?:конечно|разумеется|с удовольствием)[!,.]+ ?(?:вот|я помогу)",
    r"как языковая модель",
    r"(?:当然|好的|没问题)[!！,，。][^。\n]{0,12}(?:以下是|这是|下面是|这里是)",
    r"作为(?:一个|一名)?(?:人工智能|ai|语言模型|大型语言模型)",
    r"(?:もちろん(?:です)?|はい|承知(?:しました|いたしました))[!！、。][^。\n]{0,12}(?:以下|こちら)",
    r"(?:물론(?:입니다|이죠)?|네)[!,.] ?[^.\n]{0,12}(?:다음은|아래는|여기)",
)
_CLOSINGS: Final = (
    r"i hope (?:this|that|it|these)(?: \w+){0,2} (?:help|clarif|answer|is helpful|was helpful|is useful|are helpful)",
    r"hope (?:this|that) helps",
    (
        r"(?:please )?(?:let me know|feel free to (?:ask|reach|let)|don't hesitate to (?:ask|reach|contact"
        r"|let))\b[^.!?]{0,40}"
        r"\b(?:questions?|further|anything else|more (?:help|information|details?)|any other|need (?:more|any|help"
        r"|further)"
        r"|(?:you(?:'d| would) like|want) me to|adjust|clarif\w*|modif\w*|assist\w*|revis\w*)"
    ),
    r"(?:is there|was there) anything else (?:i can|you(?:'d| would) like)",
    r"would you like me to (?!be\b)\w+",
    (
        r"(?:do you|if you) (?:need|have|want|require) (?:any )?(?:further|more|additional|other) (?:help|assistance"
        r"|questions?"
        r"|information|clarification|details)"
    ),
    (
        r"if you (?:have|need) any (?:\w+ )?(?:questions?|help|assistance)\b[^.!?]{0,40}(?:ask|let me know|reach out"
        r"|hesitate)"
    ),
    r"(?:happy|glad) to (?:help|assist|clarify|elaborate)(?: \w+){0,4}[.!]?$",
    (
        r"(?:ich hoffe,? (?:das|dies|diese \w+) (?:hilft|helfen)|lass(?:en sie)? (?:es )?mich wissen, (?:wenn|ob|falls)"
        r"|wenn (?:du|sie) (?:noch |weitere )+fragen ha)"
    ),
    (
        r"(?:j'espère que (?:cela|ça|ceci)|n'hésite[sz]? pas à|si vous avez d'autres questions"
        r"|si tu as d'autres questions)"
    ),
    (
        r"(?:espero que (?:esto|te|le) (?:ayude|sirva|haya)|no dud(?:es|e) en (?:preguntar|decir|consultar)"
        r"|si (?:tienes|tiene|necesitas|necesita) (?:alguna otra|más) )"
    ),
    r"(?:spero che (?:questo|ti|le|sia)|non esit(?:are|i) a (?:chiedere|contatt|farmi)|fammi sapere se)",
    (
        r"(?:espero (?:que isso|ter) ajud|se tiver (?:mais|alguma|outra)[^.!?]{0,20} (?:dúvida|pergunta)"
        r"|fique à vontade para)"
    ),
    r"(?:laat het me weten als|ik hoop dat dit helpt|als je nog vragen hebt)",
    r"(?:надеюсь, (?:это|что это) помо|если у вас (?:есть|возникнут|остались)[^.!?]{0,20} вопрос|дайте знать, если)",
    (
        r"(?:希望(?:这|以上|对你|对您)[^。]{0,12}(?:帮助|有用)|如果(?:你|您)(?:还|有)[^。]{0,12}(?:问题"
        r"|需要)[^。]{0,20}(?:告诉我|问|联系|告知))"
    ),
    r"(?:お役に立て(?:れば|ば)|ご(?:不明|質問)[^。]{0,20}(?:お知らせ|お気軽|ください))",
    (
        r"(?:도움이 되(?:었|셨)?[^.]{0,6}(?:바랍니다|좋겠습니다|기를)|(?:추가|더|다른)[^.]{0,12}(?:질문"
        r"|궁금)[^.]{0,20}(?:말씀|알려|물어))"
    ),
)
_OPENS: Final = re.compile("|".join(f"(?:{phrase})" for phrase in _OPENINGS))
_CLOSES: Final = re.compile("|".join(f"(?:{phrase})" for phrase in _CLOSINGS))
_SENTENCE_END: Final = re.compile(r"[.!?。！？।:\n]\s*")
_DECORATION: Final = re.compile(r"^[\s*_#>–—-]+")


class Settings(judging.Settings):
    """Where stock phrases are looked for."""

    openings: bool = Field(True, description='Openings such as "Certainly! Here is" and "As an AI language model"')
    closings: bool = Field(True, description='Offers at the end such as "Let me know if you have any questions"')
    phrases: tuple[str, ...] = Field(
        (), max_length=1_000, description="More texts that no answer may begin or end with, in any case and spacing"
    )


def check(record: Record, settings: Settings) -> Finding | None:
    """Whether the answer begins and ends with something of its own."""
    beginning = _DECORATION.sub("", _folded(record.response[:_LOOKED_AT]))
    ending = _folded(record.response[-_LOOKED_AT:])
    phrases = tuple(filter(None, map(_folded, settings.phrases)))
    if phrases and (beginning.startswith(phrases) or ending.endswith(phrases)):
        return fails("boilerplate", "begins or ends with one of the phrases", detail=shown(record.response))
    if settings.openings and _OPENS.match(beginning):
        return fails("boilerplate", "opens with a stock phrase", detail=shown(record.response))
    if settings.closings and (offer := _offer_at_end(record.response)):
        return fails("boilerplate", "ends with a stock offer", detail=shown(offer))
    return None


def _offer_at_end(text: str) -> str | None:
    """The last sentence, or the last two, where they offer help."""
    ending = _folded(text.rstrip()[-_LOOKED_AT:])
    starts = [0, *(found.end() for found in _SENTENCE_END.finditer(ending) if found.end() < len(ending))]
    candidates = (_DECORATION.sub("", ending[start:]) for start in starts[-2:])
    return next(filter(_CLOSES.match, candidates), None)


def _folded(text: str) -> str:
    return " ".join(text.casefold().replace("’", "'").split())
