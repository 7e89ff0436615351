"""How teachers say no, by language: an apology perhaps, that it cannot be done, and what it is that cannot be done."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

LOOKED_AT: Final = 400
"""Characters in which a refusal begins; what is quoted further on is part of the answer."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """Pieces of regular expressions, in small letters and parted by bars."""

    apology: str
    """Said first, or not at all."""
    as_machine: str
    """Begins a clause such as "as an AI language model", up to its comma."""
    cannot: str
    action: str
    """What cannot be done, up to ``gap`` characters after that, in the same sentence."""
    gap: int = 30
    unless: str = ""
    """What makes an ordinary sentence of it, directly after ``cannot``: "can't help but smile"."""
    whole: str = ""
    """Says it all by itself, right after the apology."""
    late: str = ""
    """Says it all by itself at the end of the first sentence, where a language puts the verb last."""
    late_if_sorry: str = ""
    """Says it at the end of the first sentence if there was an apology; without one it is a sentence like others."""


OPENINGS: Final = {
    "en": Opening(
        apology=r"(?:i(?:'m| am)(?: very| so| really| truly)? )?sorry(?: (?:that |if |to )[^.!]{0,60}?"
        r"| you[^.!]{0,40}?|, \w+)?"
        r"|i (?:have to|must) be (?:honest|clear)(?: with you)?"
        r"|i apologi[sz]e(?: for [^.!,]{0,40})?|(?:my )?apologies|unfortunately|regrettably|i'm afraid"
        r"|(?:i appreciate|thank you for|thanks for|i understand|i know|i see|i hear) [^.!]{0,60}?",
        as_machine=r"as an? (?:\w+ ){0,4}(?:ai|model|assistant|chatbot|intelligence)(?: \w+){0,3}"
        r"|i(?:'m| am)(?: just| only)? an? (?:\w+ ){0,4}(?:ai|model|assistant|chatbot)",
        cannot=r"(?:that |so )?(?:i(?:'m| am)?)?(?: just| simply| really| also)? ?(?:can't|cannot|can not|won't"
        r"|will not"
        r"|unable to|not able to|not allowed to|not permitted to|not going to|not willing to|not in a position to"
        r"|not programmed to|not designed to|not comfortable|would rather not|'d rather not|'d prefer not to"
        r"|would prefer not to|prefer not to|don't think i (?:can|should)|do not think i (?:can|should)"
        r"|(?:don't|do not) have the (?:ability|capability|permission) to|must (?:respectfully )?decline to"
        r"|have to decline to|decline to|refuse to|must refuse to)(?: be able to)?",
        action=r"help(?:ing)?(?= you| with|[.,!;]| in\b| people| create| write)|assist\b|comply|engage|participate"
        r"|make (?:phone )?(?:calls|purchases|bookings)|continue"
        r"|ful+fil+|complete|process|answer|respond|carry out|discuss|generat|produc|creat|writ(?:e|ing)|provid|offer"
        r"|share|sharing|give out|give (?:you )?(?:any|an?|the|that|advice|instruct|detail|medical|legal|financial"
        r"|specific|personal)"
        r"|support (?:this|that|any|request)|promote|facilitate|do (?:that|this|so|what)|translate|summari[sz]e"
        r"|describe|recommend (?:a|an|any|specific)\b|advise|access|browse|open (?:links|files|the)"
        r"|view (?:images|the)|see (?:images|the image|pictures|your)|play (?:music|videos)|pretend|role-?play"
        r"|impersonate|draft|compose|predict|express (?:personal|opinions|a )|have (?:personal|opinions|feelings)"
        r"|tell you (?:the|what|who|where|which|how to)\b|teach|explain how to|in good conscience|look (?:that|it) up",
        gap=25,
        unless=r"help but|help (?:\w+ing|myself|it)\b|[^.]{0,60}\b(?:enough|highly enough|in words)\b"
        r"|(?:describe|share|tell you|explain|express|give you) (?:how|up)\b(?! to)|continue (?:like|this way)"
        r"|answer (?:the (?:phone|door)|my phone)|do (?:that|this|so) (?:again|any|to (?:you|her|him|them))",
        whole=r"i(?:'ll| will| must| have to| need to| would have to|'m going to have to| am going to have to)"
        r"(?: have to)? (?:respectfully |politely )?(?:decline|refuse|pass on (?:this|that))\b(?! your | an | my )"
        r"|i(?:'m| am) not able to (?:help|assist)|(?:i )?(?:can't|cannot) (?:help|assist|comply|do that)\b(?! but)"
        r"|no[,.] i (?:can't|cannot|won't) (?:help|assist|do that|provide|write)"
        r"|(?:this|that|your|the) (?:request|question|content|prompt|topic) (?:goes against|violates|is against"
        r"|conflicts with|falls outside|may violate|appears to violate|asks for something i|is (?:one|something) i)"
        r"|(?:it|that|this)(?:'s not|'s| is not| isn't| is) (?:a (?:topic|subject|question"
        r"|request) (?:that )?)?(?:something )?"
        r"i(?:'m| am)? ?(?:can't|cannot|can|won't|will not|not able to|able to|not comfortable)"
        r"|(?:it|that|this)(?:'s| is) (?:outside|beyond) (?:of )?(?:what i (?:can|am able|may)|my (?:abilities"
        r"|capabilities))"
        r"|(?:it|that|this) (?:is not|isn't|would not be|wouldn't be) (?:appropriate|ethical|possible for me)"
        r"|it (?:is|would be) (?:inappropriate|unethical|irresponsible) (?:for me )?to (?:provid|help|writ|creat|shar)"
        r"|(?:it|this|that) (?:goes|is) against my (?:programming|guidelines|principles|policies|values)"
        r"|my (?:guidelines|programming|policies|principles|instructions|training) (?:do not|don't|does not|doesn't"
        r"|prevents? me|forbids?|prohibits?)|(?:let's|can we|could we) (?:talk about|discuss"
        r"|change to) (?:something else"
        r"|another topic|a different topic)"
        r"|i (?:don't|do not) (?:have access to|have real-time|have enough information to|have (?:personal )?opinions"
        r"|feel comfortable (?:writing|helping|with|providing|answering|creating|discussing))",
    ),
    "de": Opening(
        apology=r"(?:es )?tut mir (?:sehr |wirklich )?leid|leider|entschuldigung|entschuldige|ich bedaure|ich bedauere",
        as_machine=r"als (?:eine? )?(?:ki|künstliche intelligenz|sprachmodell|assistent)|ich bin (?:nur )?eine? (?:ki"
        r"|sprachmodell)",
        cannot=r"(?:dass |als (?:\S+ ){1,3}|(?:da|hier|das|dies)\w* |(?:auf|bei|zu|solche?) (?:\S+ ){1,3}){0,2}"
        r"(?:ich )?(?:kann|darf|werde|möchte)(?: ich)?(?=[^.!?]{0,70}\b(?:nicht|keine[nrm]?"
        r"|keinerlei)\b)",
        action=r"(?:weiter)?helfen|beantworten|behilflich|erklären|verraten|unterstützen|geben|schreiben|erstellen"
        r"|nachkommen|erfüllen"
        r"|bereitstellen|teilen|liefern|auskunft|verfassen|leisten|anbieten|generieren|ausführen"
        r"|(?<=nicht )(?:machen|tun)",
        gap=90,
        whole=r"(?:ich bin|bin ich) (?:leider )?nicht (?:in der lage|befugt)|ich muss (?:\w+ ){0,3}ablehnen"
        r"|(?:ich habe|habe ich) (?:leider )?keinen zugriff",
    ),
    "fr": Opening(
        apology=r"je suis (?:vraiment |sincèrement )?désolée?|désolée?|malheureusement|je regrette|je m'excuse"
        r"|toutes mes excuses",
        as_machine=r"en tant qu(?:e |')(?:une? )?(?:ia|intelligence|modèle|assistant)",
        cannot=r"(?:que )?je ne (?:peux|puis|pourrai|suis)(?: malheureusement)? (?:pas|ni)|il m'est impossible",
        action=r"aider|répondre|fournir|donner|créer|écrire|générer|accéder|satisfaire|rédiger|partager|traiter|accéder"
        r"|en mesure|autorisé|faire cela|faire ça|proposer|assister|discuter",
        unless=r"m'empêcher|(?:vous )?dire combien",
        whole=r"je dois (?:malheureusement )?(?:refuser|décliner)|je n'ai pas (?:accès|le droit|l'autorisation)",
    ),
    "es": Opening(
        apology=r"lo siento(?: mucho)?|lo lamento|lamentablemente|desafortunadamente|disculp[ae]|perdón|me temo que",
        as_machine=r"como (?:una? )?(?:ia|modelo|asistente|inteligencia)",
        cannot=r"no (?:puedo|podré|poder|me es posible|estoy en condiciones de|soy capaz de|estoy autorizad[oa] (?:a"
        r"|para))",
        action=r"ayudar|responder|proporcionar|ofrecer|dar(?:te|le|les)?\b|cumplir|escribir|crear|generar|asistir"
        r"|realizar"
        r"|hacer eso|compartir|acceder|brindar|participar|completar|continuar con|facilitar",
        gap=12,
        unless=r"dar crédito|dejar de",
        whole=r"debo (?:rechazar|negarme)|no tengo (?:acceso a|permiso)",
    ),
    "it": Opening(
        apology=r"mi dispiace(?: molto)?|(?:sono )?spiacente|purtroppo|mi scuso|scusa(?:mi)?|mi rincresce",
        as_machine=r"(?:come|in quanto) (?:ia|intelligenza|modello|assistente)",
        cannot=r"non (?:posso|potrò|sono in grado di|mi è possibile|sono autorizzat[oa] a)",
        action=r"aiutar|rispondere|fornir|dar[etlv]|assister|scriver|crear|generar|soddisfar|acceder|offrir|completar"
        r"|condivider|partecipar|eseguir",
        gap=12,
        unless=r"aiutarmi|fare a meno",
        whole=r"devo (?:rifiutare|declinare)|non ho (?:accesso|il permesso)",
    ),
    "pt": Opening(
        apology=r"sinto muito|lamento|desculp[ea](?:-me)?|infelizmente|peço desculpas?",
        as_machine=r"(?:como|sendo) (?:uma? )?(?:ia|modelo|assistente|inteligência)",
        cannot=r"(?:mas )?(?:eu )?não (?:posso|consigo|poderei|sou capaz de|estou autorizad[oa] a|me é possível)",
        action=r"ajud|responder|fornecer|oferecer|dar\b|atender|escrever|criar|gerar|auxiliar|acessar|aceder|realizar"
        r"|compartilhar|partilhar|continuar com|cumprir",
        gap=12,
        whole=r"devo recusar|(?:eu )?não tenho (?:acesso a|permissão)",
    ),
    "nl": Opening(
        apology=r"het spijt me(?: zeer)?|sorry|helaas|mijn excuses|mijn verontschuldigingen",
        as_machine=r"als (?:een )?(?:ai|taalmodel|assistent|kunstmatige)",
        cannot=r"(?:dat |als (?:\S+ ){1,3}|(?:daar|hier|dit)\w* ){0,2}(?:ik )?(?:kan|mag"
        r"|zal)(?: ik)?(?=[^.!?]{0,70}\b(?:niet|geen|niets)\b)",
        action=r"helpen|beantwoorden|geven|schrijven|voldoen|assisteren|verstrekken|bieden|delen|ingaan|genereren",
        gap=80,
        whole=r"(?:ik ben|ben ik) (?:helaas )?niet in staat|(?:ik heb|heb ik) geen toegang"
        r"|ik moet (?:\w+ ){0,3}weigeren",
    ),
    "pl": Opening(
        apology=r"(?:bardzo )?(?:mi )?przykro(?: mi)?|przepraszam|niestety|z przykrością",
        as_machine=r"jako (?:model|sztuczna|asystent)",
        cannot=r"nie (?:mogę|będę|jestem w stanie|wolno mi)",
        action=r"pomóc|odpowiedzieć|udzielić|spełnić|napisać|stworzyć|wygenerować|dostarczyć|udostępnić|zrealizować"
        r"|podać"
        r"|tego zrobić|pomagać|przedstawić",
        whole=r"muszę odmówić|nie mam dostępu",
    ),
    "sv": Opening(
        apology=r"(?:jag är |jag är verkligen )?ledsen|tyvärr|förlåt|ursäkta|jag beklagar",
        as_machine=r"som (?:en )?(?:ai|språkmodell|assistent)",
        cannot=r"(?:att )?(?:jag )?(?:kan|får|kommer)(?: jag)?(?: tyvärr)? (?:inte|ej)(?: att)?",
        action=r"hjälpa|svara|besvara|ge\b|skriva|skapa|tillhandahålla|bistå|dela|generera|uppfylla|utföra",
        whole=r"jag måste avböja|jag har (?:tyvärr )?inte tillgång",
    ),
    "ru": Opening(
        apology=r"к сожалению|извините|простите|мне (?:очень )?жаль|прошу прощения|сожалею",
        as_machine=r"(?:как|будучи) (?:языковая|языковой|ии|искусственн)",
        cannot=r"(?:я )?не (?:могу|смогу|в состоянии|буду|имею возможности)",
        action=r"помочь|помогать|ответить|отвечать|предостав|выполнить|написать|создать|дать|обсуждать|сделать это"
        r"|поделиться|продолжить эт|сгенерировать|удовлетворить",
        unless=r"(?:вам )?передать|не \w+",
        whole=r"(?:я )?вынужден[а]? отказать|у меня нет доступа",
    ),
    "uk": Opening(
        apology=r"на жаль|вибачте|мені (?:дуже )?шкода|перепрошую",
        as_machine=r"як (?:мовна|штучний|ші)",
        cannot=r"(?:я )?не (?:можу|зможу|маю змоги)",
        action=r"допомогти|відповісти|надати|виконати|написати|створити|дати|поділитися",
        whole=r"(?:я )?змушен[аий]+ відмовити|у мене немає доступу",
    ),
    "tr": Opening(
        apology=r"üzgünüm|maalesef|ne yazık ki|özür dilerim",
        as_machine=r"bir (?:yapay|dil)",
        cannot="",
        action="",
        late=r"yardımcı ol(?:amam|amıyorum|amayacağım)|yardım edem(?:em|iyorum)|(?:yanıt|cevap) verem(?:em|iyorum)"
        r"|sağlayam(?:am|ıyorum)|yerine getirem(?:em|iyorum)|oluşturam(?:am|ıyorum)|paylaşam(?:am|ıyorum)|erişimim yok",
        late_if_sorry=r"\w(?:ama|eme)(?:m|yız|yacağım|yeceğim)\b|\w(?:amı|emi)yor(?:um|uz)\b",
    ),
    "zh": Opening(
        apology=r"(?:我)?(?:非常|很|十分|真的)?(?:抱歉|对不起|對不起|不好意思|遗憾)",
        as_machine=r"(?:我是|作为)(?:一个|一名|一種|一种)?",
        cannot=r"(?:但是?|可是|但恐怕)?我?(?:恐怕|目前|可能)?(?:无法|不能|無法|没有办法|没办法|不可以|不便|没有能力)",
        action=r"帮助|幫助|協助|协助|提供|回答|满足|滿足|完成|生成|编写|撰写|处理|访问|讨论|参与|继续|执行|给出"
        r"|帮[您你]|分享|回应",
        gap=14,
        unless="理解|相信|忘记|不|否认",
    ),
    "ja": Opening(
        late_if_sorry=r"(?:でき(?:ません|かね)|いたしかね|しかねます|られません)",
        apology=r"(?:大変|誠に)?(?:申し訳(?:ございません|ありません)|すみません|すいません|恐れ入ります|残念ながら"
        r"|残念です|ごめんなさい)(?:が|けど)?",
        as_machine=r"(?:私は)?(?:ai|言語モデル)",
        cannot="",
        action="",
        late=r"お手伝い(?:すること)?は?(?:でき(?:ません|かね)|いたしかね)|お答え(?:すること)?は?(?:でき(?:ません|かね)"
        r"|いたしかね)"
        r"|(?:提供|対応|回答|支援|作成|生成|お応え|お教え|お伝え)(?:する)?(?:こと)?[はが]?(?:でき(?:ません|かね)"
        r"|いたしかね|しかね)"
        r"|(?:応じ|応え|答え)(?:る)?(?:こと)?[はが]?(?:でき(?:ません|かね)|られません|かねます)",
    ),
    "ko": Opening(
        late_if_sorry=r"\w\s?수(?:는|가)? 없",
        apology=r"(?:정말 |대단히 )?(?:죄송합니다|죄송하지만|미안합니다|미안하지만|유감스럽게도|유감이지만|안타깝게도"
        r"|아쉽지만)(?:만)?",
        as_machine=r"(?:저는 )?(?:ai|인공지능|언어 모델)",
        cannot="",
        action="",
        late=r"도와\s?드릴 수(?:는|가)? 없|도움을 드릴 수(?:는|가)? 없|답변(?:해|을)?\s?드릴 수(?:는|가)? 없"
        r"|답변할 수(?:는|가)? 없|도울 수(?:는|가)? 없"
        r"|제공(?:해\s?드릴|할) 수(?:는|가)? 없|응할 수(?:는|가)? 없|작성(?:해\s?드릴|할) 수(?:는|가)? 없"
        r"|수행할 수(?:는|가)? 없|생성할 수(?:는|가)? 없|알려\s?드릴 수(?:는|가)? 없",
    ),
    "ar": Opening(
        apology=r"عذر[اًا]*|(?:أنا )?آسف|أعتذر|للأسف|معذرة|المعذرة",
        as_machine=r"(?:بصفتي|كوني|أنا)",
        cannot=r"(?:و?لكن(?:ني|ي)?\s*)?(?:لا (?:أستطيع|يمكنني|أقدر)|لست قادرا على|ليس بإمكاني|لن أتمكن من)",
        action=r"مساعد|تقديم|الإجابة|توفير|تلبية|كتابة|إنشاء|أساعد|مشاركة|الرد|القيام|تنفيذ|إعطا|المشاركة",
        gap=14,
    ),
    "hi": Opening(
        late_if_sorry=r"नहीं [^।\n]{0,12}सकत",
        apology=r"मुझे (?:खेद|अफ़सोस|अफसोस) है|क्षमा करें|माफ़ कीजिए|माफ कीजिए|माफ करें|माफ़ करें|दुर्भाग्य से",
        as_machine=r"(?:एक )?(?:एआई|भाषा मॉडल)",
        cannot="",
        action="",
        late=r"(?:मदद|सहायता|उत्तर|जवाब|जानकारी|निर्देश|सलाह|प्रदान|पूरा|अनुरोध|लिख|बना)[^।\n]{0,25}?"
        r"(?:नहीं (?:कर|दे|लिख|बना)?\s?सकत|नहीं (?:कर|दे) पाऊ|असमर्थ)",
    ),
}
"""By ISO 639-1 code; matched without case at the very beginning of an answer."""

_JOINT: Final = r"[\s,.:;!،。，、！।—-]*"
_BUT: Final = (
    "but|that|however|aber|dass|mais|pero|ma|mas|maar|dat|ale|że|men|att|но|але|ama|ancak|fakat"
    "|하지만|그러나|لكن|लेकिन|कि|但是|但"
)


def _pattern(opening: Opening) -> re.Pattern[str]:
    sorry = f"(?:{opening.apology}){_JOINT}(?:(?:{_BUT})\\b{_JOINT})?"
    machine = f"(?:(?:{opening.as_machine})(?:[^,.，、،。\\n]{{0,60}}[,.，、،。])?{_JOINT}(?:(?:and|so|but)\\b )?)?"
    start = f"(?:{sorry})?{machine}(?:{sorry})?"
    ways = [f"{start}(?:{way})" for way in _ways(opening)]
    if opening.late_if_sorry:
        ways.append(f"{sorry}[^.!?。！？।\\n]{{0,80}}?(?:{opening.late_if_sorry})")
    return re.compile("|".join(ways))


def _ways(opening: Opening) -> Iterator[str]:
    """How it may be said after an apology or without one."""
    if opening.cannot:
        unless = f"(?!\\s*(?:{opening.unless}))" if opening.unless else ""
        yield f"(?:{opening.cannot}){unless}[^.!?。！？।\\n]{{0,{opening.gap}}}?(?:{opening.action})"
    if opening.whole:
        yield opening.whole
    if opening.late:
        yield f"[^.!?。！？।\\n]{{0,80}}?(?:{opening.late})"


_REFUSES: Final = {language: _pattern(opening) for language, opening in OPENINGS.items()}
_DECORATION: Final = re.compile(r"^[\s*_#>–—-]+")


def language_of_refusal(text: str) -> str | None:
    """The language in which the text begins like a refusal; None where it does not."""
    beginning = _folded(text[: 2 * LOOKED_AT])[:LOOKED_AT]
    return next((language for language, opening in _REFUSES.items() if opening.match(beginning)), None)


def _folded(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace("ʼ", "'")
    return _DECORATION.sub("", " ".join(plain.split()))
