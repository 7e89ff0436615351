"""Few words that change what a text asks, and few that do not, in several languages.

Kept small on purpose: what is not listed is judged by digits, capitals, signs and where in the text it stands.
"""

from __future__ import annotations


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _groups(lines: str) -> tuple[frozenset[str], ...]:
    """One group a line."""
    return tuple(_listed(line) for line in lines.strip().splitlines())


NEGATIONS = _listed(
    """
    not no never none nothing nobody nor neither without cannot except unless hardly barely
    nicht kein keine keinen keinem keiner keines nie niemals nichts ohne weder außer
    ne pas jamais aucun aucune rien sans ni sauf non
    nunca ningún ninguna ninguno nada sin tampoco não nenhum nenhuma sem jamais
    mai nessun nessuno nessuna niente senza
    niet geen nooit niets zonder
    не нет никогда ни без ничего кроме
    nie nigdy bez żaden
    değil yok asla ikke inte aldrig aldri
    لا لم لن ليس غير بدون नहीं मत बिना
    不 没 沒 無 无 非 未 别 勿 否
    안 못 아니
    """
)
"""A text with one of them and a text without it say different things."""

OPPOSITES = _groups(
    """
    all none some any every each most few many no both neither either only
    first second third fourth fifth sixth seventh eighth ninth tenth last next previous final initial
    one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred thousand \
        million billion half quarter third double triple once twice single pair dozen zero
    north south east west northern southern eastern western northeast northwest southeast southwest
    min max minimum maximum minimize maximize minimise maximise minimal maximal mean median mode sum average total \
        product difference
    increase decrease increases decreases increasing decreasing increased decreased rise fall rising falling raise \
        lower grow shrink
    before after during until since
    left right up down top bottom upper lower above below over under front back
    more less most least fewer greater smaller larger higher lower bigger longer shorter largest smallest longest \
        shortest highest lowest biggest best worst better worse
    true false yes no correct incorrect right wrong valid invalid
    always never sometimes often rarely seldom usually
    and or xor nor
    with without
    from to into
    in out inside outside on off
    ascending descending forward backward forwards backwards clockwise anticlockwise counterclockwise
    add subtract multiply divide plus minus times sum difference product quotient
    positive negative neutral
    open closed close open start stop begin end enable disable enabled disabled allow deny include exclude insert \
        delete remove add append push pop encode decode encrypt decrypt import export input output upload download
    row column rows columns
    he she him her his hers male female man woman men women boy girl mother father son daughter husband wife
    monday tuesday wednesday thursday friday saturday sunday
    january february march april may june july august september october november december
    morning noon afternoon evening night today tomorrow yesterday
    red green blue yellow black white orange purple brown grey gray pink
    formal informal
    active passive
    singular plural
    past present future
    true untrue
    hot cold warm cool
    old new young
    big small large
    high low
    long short
    fast slow
    early late
    even odd
    public private
    internal external
    local global
    easy hard difficult
    pros cons
    advantages disadvantages
    advantage disadvantage
    strengths weaknesses
    causes effects cause effect
    buy sell
    win lose
    accept reject
    pass fail
    must may should might
    agree disagree
    rich poor
    english french german spanish italian portuguese dutch russian chinese japanese korean arabic hindi turkish
    alle keine einige jeder jede jedes beide viele wenige
    erste zweite dritte vierte letzte ersten zweiten dritten vierten letzten nächste vorige
    eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf hundert tausend
    nord süd ost west norden süden osten westen
    vor nach während
    links rechts oben unten über unter
    mehr weniger größer kleiner höher niedriger
    wahr falsch ja nein richtig
    mit ohne
    und oder
    aus ein an
    tous toutes aucun aucune chaque certains quelques plusieurs
    premier première deuxième second troisième dernier
    un deux trois quatre cinq six sept huit neuf dix cent mille
    nord sud est ouest
    avant après pendant
    gauche droite haut bas dessus dessous
    plus moins
    vrai faux oui non
    avec sans
    et ou
    todos ninguno algunos cada ambos muchos pocos
    primero primera segundo segunda tercero tercera último última
    uno dos tres cuatro cinco seis siete ocho nueve diez cien mil
    norte sur este oeste
    antes después durante
    izquierda derecha arriba abajo
    más menos mayor menor
    verdadero falso sí no
    con sin
    y o
    все никто некоторые каждый оба
    первый второй третий последний
    один два три четыре пять шесть семь восемь девять десять сто тысяча
    север юг восток запад
    до после
    больше меньше
    да нет
    и или
    с без
    一 二 三 四 五 六 七 八 九 十 百 千 万 两 零
    东 南 西 北 東
    前 后 後
    上 下
    左 右
    大 小
    多 少
    男 女
    先 后
    最 更
    高 低
    有 无 無 没
    全 各 每 某
    あり なし
    """
)
"""Groups of words of which one cannot stand for another."""

OPPOSED_BEGINNINGS = (
    ("hyper", "hypo"), ("in", "ex"), ("im", "ex"), ("in", "de"), ("en", "de"), ("pre", "post"), ("inter", "intra"),
    ("micro", "macro"), ("over", "under"), ("max", "min"), ("up", "down"), ("homo", "hetero"), ("endo", "exo"),
    ("mono", "poly"), ("uni", "bi"), ("bi", "tri"), ("mono", "di"), ("di", "tri"), ("as", "des"), ("ad", "ab"),
    ("pro", "anti"), ("sub", "super"), ("out", "in"),
)  # fmt: skip
"""Two words that are equal but for these beginnings mean opposite things."""

NEGATING_BEGINNINGS = ("un", "in", "im", "il", "ir", "non", "dis", "a", "an", "anti", "mis", "de", "not")
"""A word and the same word after one of these mean opposite things."""

UNITS = _listed(
    """
    km m cm mm µm nm mi mile miles yard yards foot feet ft inch inches metre metres meter meters kilometre kilometres
    kilometer kilometers centimetre centimetres centimeter centimeters millimetre millimetres millimeter millimeters
    kg g mg µg lb lbs oz gram grams kilogram kilograms milligram milligrams pound pounds ounce ounces ton tons tonne
    tonnes stone l ml dl litre litres liter liters millilitre millilitres milliliter milliliters gallon gallons pint
    pints cup cups tablespoon tablespoons teaspoon teaspoons
    s ms µs ns second seconds minute minutes min mins hour hours hr hrs h day days week weeks month months year years
    decade decades century centuries
    hz khz mhz ghz b kb mb gb tb kib mib gib bit bits byte bytes kilobytes megabytes gigabytes
    v mv kv a ma w kw mw j kj kcal cal ev n pa kpa bar psi atm mol k c f celsius fahrenheit kelvin rad
    deg degree degrees
    percent dollar dollars euro euros cent cents yen usd eur gbp jpy rupees rubles yuan
    word words sentence sentences paragraph paragraphs line lines character characters item items point points
    bullet bullets page pages step steps example examples
    """
)
"""What stands after a number and says of what."""

FILLERS = _listed(
    """
    a an the this that these those is are was were be been do does did can could would will shall you your me my i we us
    our please kindly just really very quite also so then now well actually basically simply maybe perhaps ok okay hey
    hi hello thanks thank indeed rather too even still here there of for it its as exactly briefly clearly
    der die das ein eine einen einem einer des dem den bitte mal doch auch sehr ganz einfach nur mir uns ist sind
    le la les l un une des du de s'il vous te plaît merci moi très aussi bien est sont
    el los las una unos unas por favor muy también es son me nos
    il lo gli uno per favore molto anche è sono mi ci
    o os um uma uns umas muito também por favor é são
    het een alsjeblieft graag even ook heel is zijn
    пожалуйста очень просто же это мне
    من فضلك कृपया 请 請 的 了 吗 嗎 呢 吧 啊
    """
)
"""Politeness, articles and emphasis: with or without them a text asks the same.

Digests leave them out, so what was stored before a change here is found less well after it.
"""

COURTESY = _listed(
    """
    hello hi hey dear greetings good morning day afternoon evening many lot much in advance mind if possible assistant
    bot ai friend team sir madam regards best kind cheers appreciated appreciate grateful quick one question request
    hallo guten tag vielen dank danke voraus grüße liebe lieber beste bonjour merci beaucoup d'avance cordialement
    hola buenos días gracias muchas saludos ciao grazie mille olá obrigado obrigada bedankt dank wel alvast
    привет здравствуйте спасибо большое заранее 你 您 好 谢 謝 どうも ありがとう
    """
)
"""What a greeting or thanks are made of: at the beginning or the end of a text they ask nothing."""

INTERCHANGEABLE = (
    _listed("a an the this"),
    _listed("can could would will"),
    _listed("der die das ein eine einen einem einer dem den des"),
    _listed("le la les l un une des du"),
    _listed("el la los las un una unos unas lo il gli uno o os um uma uns umas het een"),
)
"""Fillers of which one may stand for another."""
