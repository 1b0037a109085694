"""Words that chains are read by, in the languages that models answer in.

English, German, French, Spanish, Italian, Portuguese, Dutch, Russian, Chinese, Japanese and Korean.
A word of the section lists is the beginning of a word, so that "kriteri" stands for "Kriterien", too.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# --- headings: the beginnings of words, case folded ---

PERSONA = (
    *("persona", "user", "preference", "profile", "taste", "nutzer", "benutzer", "profil"),
    *("persönlichkeit", "präferenz", "vorlieb", "utilisat", "préférence", "usuari", "preferencia"),
    *("perfil", "preferência", "usuári", "utente", "preferenz", "gebruiker", "voorkeur", "profiel"),
    *("персон", "пользовател", "предпочтен", "профил", "портрет", "人物", "用户", "用戶", "使用者"),
    *(
        "画像",
        "畫像",
        "角色",
        "偏好",
        "ペルソナ",
        "ユーザー",
        "好み",
        "嗜好",
        "페르소나",
        "사용자",
        "선호",
    ),
)
RUBRIC = (
    *("criteri", "rubri", "weights", "weighting", "kriteri", "gewichtung", "massst", "maßst"),
    *("critèr", "critéri", "pondération", "ponderaci", "rúbri", "criterion", "критери", "рубрик"),
    *(
        "标准",
        "標準",
        "准则",
        "準則",
        "指标",
        "指標",
        "权重",
        "權重",
        "基準",
        "重み",
        "項目",
        "ルーブリック",
    ),
    *("기준", "가중치", "루브릭"),
)
SCORES = (
    *("scor", "rating", "grading", "bewertung", "benotung", "wertung", "punkt", "notation"),
    *("évaluation", "evaluation", "puntua", "evaluación", "calificac", "punteggi", "valutazion"),
    *(
        "pontua",
        "avaliaç",
        "beoordeling",
        "cijfer",
        "оценк",
        "оценив",
        "балл",
        "评分",
        "評分",
        "打分",
    ),
    *("得分", "分数", "採点", "スコア", "評価", "点数", "评估", "评价", "점수", "채점", "평가"),
)
MODELS = ("model", "modèle", "模型", "モデル", "модел")
"""With a word for scores: a scoring model is a rubric."""
FILLERS = _words(
    """the a an of and with for to in on by this in-depth analysis analyses derivation synthesis summary
    profile description description breakdown final overall weighted evaluation personalized
    personalised personal model output json result results score scores scoring used my list here
    step section assessment judgment responses answers candidates percent
    der die das des dem den ein eine und mit für von im zur zum analyse ableitung beschreibung
    gewichtete gewichteten persönliche endgültige modell ergebnis antworten
    le la les l un une des du de d et avec pour en par sur synthèse dérivation description pondérés
    pondérées finale final finales personnalisé modèle résultat réponses
    el los las del y con para por un una análisis síntesis descripción derivación ponderados finales
    modelo resultado respuestas
    il lo gli dei delle della dell e con per analisi sintesi descrizione ponderati finale modello
    risultato risposte
    o os as do da dos das e com para análise síntese descrição ponderados modelo resultado respostas
    het een van en met voor bij analyse beschrijving gewogen definitieve model resultaat antwoorden
    и с для по анализ описание синтез взвешенные итоговые итоговая модель результат ответов ответы"""
)
WIDE_FILLERS = frozenset(
    "分析描述总结總結推导導及和与與的の评評分模型最终終结果結と説明加重総合付き別各回答"
)
CONJUNCTIONS = _words("and und et y e en и")

PART_STARTS = (
    *(
        "part",
        "teil",
        "deel",
        "часть",
        "パート",
        "파트",
        "first",
        "erst",
        "premi",
        "prim",
        "eerste",
    ),
    *("перв", "第", "제", "1부", "2부", "second", "zweit", "deuxi", "segund", "tweede", "втор"),
)
# "Part 2 of ..." names a part; "parts one and two" names none.
PART_ONE = re.compile(
    r"(?:(?:part|teil|partie|parte|deel|часть|パート|파트)\s{0,3}"
    r"(?:1|i|one|eins|un|une|uno|una|um|een|один|первая|一)\b"
    r"|(?:first part|erster teil|première partie|primera parte|prima parte|primeira parte"
    r"|eerste deel|первая часть)\b|第\s?[一1]\s?(?:部分|部|章|パート)|제?\s?1부)"
    r"(?!.*\b(?:part|teil|partie|parte|deel|часть)\s{0,3}(?:2|ii|two)\b)"
)
PART_TWO = re.compile(
    r"(?:(?:part|teil|partie|parte|deel|часть|パート|파트)\s{0,3}"
    r"(?:2|ii|two|zwei|deux|dos|due|dois|twee|два|вторая|二)\b"
    r"|(?:second part|zweiter teil|(?:deuxième|seconde) partie|segunda parte|seconda parte"
    r"|tweede deel|вторая часть)\b|第\s?[二2]\s?(?:部分|部|章|パート)|제?\s?2부)"
)

# --- the breakdown of scores, case folded ---

RESPONSES = (
    "response",
    *("antwort", "réponse", "reponse", "respuesta", "risposta", "resposta", "antwoord", "reactie"),
    *(
        "ответ",
        "回答",
        "回复",
        "回覆",
        "回应",
        "回應",
        "响应",
        "答案",
        "応答",
        "返答",
        "レスポンス",
    ),
    *(
        "응답",
        "답변",
        "answer",
        "candidate",
        "option",
        "completion",
        "output",
        "reply",
        "assistant",
    ),
)
"""What a response is called; of those in a text, the first one that is followed by a number counts."""


def _numbers(*rows: str) -> dict[str, int]:
    """The words for 1, 2, 3, ... of each row; "|" parts the forms of one."""
    return {
        word: number
        for row in rows
        for number, forms in enumerate(row.split(), 1)
        for word in forms.split("|")
    }


CARDINALS = _numbers(
    "one two three four five six seven eight nine ten",
    "eins zwei drei vier fünf sechs sieben acht neun zehn",
    "un|une deux trois quatre cinq six sept huit neuf dix",
    "uno|una dos tres cuatro cinco seis siete ocho nueve diez",
    "uno due tre quattro cinque sei sette otto nove dieci",
    "um|uma dois|duas três quatro cinco seis sete oito nove dez",
    "een|één twee drie vier vijf zes zeven acht negen tien",
    "один два три четыре пять шесть семь восемь девять десять",
    "一 二 三 四 五 六 七 八 九 十",
)
ORDINALS = _numbers(
    "first second third fourth fifth sixth seventh eighth ninth tenth",
    "erste|ersten|erster zweite|zweiten dritte|dritten vierte|vierten fünfte|fünften sechste|sechsten",
    "première deuxième|seconde troisième quatrième cinquième sixième septième huitième",
    "primera segunda tercera cuarta quinta sexta séptima octava novena décima",
    "prima seconda terza quarta quinta sesta settima ottava nona decima",
    "primeira segunda terceira quarta quinta sexta sétima oitava nona décima",
    "eerste tweede derde vierde vijfde zesde zevende achtste negende tiende",
    "первый второй третий четвёртый|четвертый пятый шестой седьмой восьмой",
)
"""As they agree with the words for a response."""
BEHIND_A_NAME = (
    "gets?|got|is|was|has|had|earns?|scores?|receives?|deserves?|rates?|ranks?|on|for|in|at|and|vs|with"
    "|bekommt|erhält|ist|hat|und|bei|für|obtient|reçoit|mérite|est|et|pour|recibe|obtiene|merece|es|y"
    "|para|riceve|ottiene|merita|è|per|recebe|obtém|é|krijgt|heeft|en|voor|получает|имеет|и|за"
)
"""What follows a response's name, where a name may be taken for other words."""

# Directly behind a response's name, one of these says what it claims of itself ...
CLAIMED = re.compile(
    r"\W{0,4}(?:(?:which|that|who|also|even|just|only|again|openly|boldly|falsely) ){0,2}"
    r"(?:claim(?:s|ed|ing)?|boast(?:s|ed|ing)?|promis(?:es|ed|ing)|pretend(?:s|ed|ing)?|assert(?:s|ed|ing)?"
    r"|insist(?:s|ed|ing)?|alleg(?:es|ed)|brag(?:s|ged)?|declar(?:es|ed)|demand(?:s|ed|ing)?"
    r"|request(?:s|ed|ing)?|asks? for|begs?|tells? (?:me|us|you|the judge)|says? (?:that )?(?:it|its|i)\b"
    r"|(?:(?:would )?(?:rate|call|give|score|award|praise|grade|mark|rank)s?|has given) itself"
    r"|behauptet|verspricht|prétend|affirme|se vante|afirma|promete|presume|pretende|sostiene|promette"
    r"|alega|beweert|belooft|утверждает|заявляет|обещает|声称|自称|主張)"
    r"|\W{0,4}wants?\W{0,3}$"
)
# ... until one of these.
NOT_CLAIMED = re.compile(
    r"[.;\n](?:\s|$)|\b(?:but|yet|however|though|although|while|gets?|got|receives?|earns?"
    r"|i (?:give|gave|rate|score|would|mark)|aber|doch|bekommt|erhält|mais|obtient|reçoit|pero|recibe"
    r"|obtiene|ma|però|riceve|mas|recebe|maar|krijgt|но|получает)\b|但|却|でも"
)

TOTALS = (
    *("total", "totals", "overall", "average", "sum", "final score", "weighted score"),
    *("weighted mark", "weighted result", "weighted average", "final mark", "gesamt", "summe"),
    *("gesamtnote", "gesamtpunktzahl", "gesamtwertung", "insgesamt", "durchschnitt", "endnote"),
    *("moyenne", "somme", "note finale", "promedio", "suma", "totale", "somma", "media", "média"),
    *("soma", "totaal", "gemiddelde", "итог", "итого", "сумма", "среднее", "средний балл"),
    *(
        "итоговый балл",
        "итоговая оценка",
        "总分",
        "總分",
        "总计",
        "總計",
        "合計",
        "総合",
        "合计",
        "총점",
    ),
    *("합계",),
)
"""What is no criterion, although a number follows it."""

PERCENT = (
    r"(?:%|％|per ?cent\b|prozent\b|pour ?cent\b|por ?ciento\b|por ?cento\b|procent\b|процент\w{0,3}"
    r"|퍼센트|パーセント)"
)
WEIGHT = (
    r"(?:weight(?:ed|ing)?|importance|gewicht(?:ung)?|poids|pondération|peso|weging|вес|权重|權重"
    r"|重み|가중치)"
)

UNIT = (
    r"(?:points?|pts?\.?|marks?|stars?|punkten?|sternen?|étoiles|puntos?|estrellas|punti|stelle"
    r"|pontos?|punten|баллов|балла?|分|点|점)"
)
SCALE = r"(?:scale|likert|skala|échelle|escala|scala|schaal|шкал\w{0,3}|range)"

# --- the words around a number, case folded ---

# A number behind one of these is a mark's ...
BEFORE_A_MARK = _words(
    """is a an get gets got getting give gives gave given earn earns receive receives deserve deserves
    score scores scored scoring mark marks marked rate rates rated rating at about around roughly of
    with strong solid full good very assign assigned award awarded value points only just its
    ist bekommt erhält bekam note punkte wert mit hat verdient
    est obtient reçoit mérite a un une noté vaut
    es recibe obtiene merece tiene con una
    è ottiene riceve merita ha voto
    é recebe obtém merece tem nota
    krijgt scoort verdient heeft is een cijfer
    получает оценка балл заслуживает имеет
    得 得分 为 是 给 评为 打 は が に を で 分数 评分 点数"""
)
# ... behind one of these it takes the place of another one ...
CORRECTED = re.compile(
    r"\b(?:leaves?|leaving|ends? (?:at|up)|nope|actually|rather|sorry|correct\w*|wait|scratch|make"
    r"|revis\w*|second thought|reconsider\w*|instead(?! of)|too (?:low|high)|on reflection|adjust\w*"
    r"|hmm+|oops|besser|eher|korrig\w*|plutôt|en fait|corrig\w*|mejor|más bien|corrijo|anzi"
    r"|piuttosto|aliás|melhor|liever|вернее|точнее|лучше)\b"
    # "7, no, 8", and not "no filler"
    r"|\b(?:no|nein|non|não|nee|нет)(?=[,;:.!…–—]|\W*$)"
    r"|不对|不對|不，|不,|应该|應該|更正|いや|訂正|やはり|아니"
)
# ... behind one of these it is what the words come to: a mark, or, behind a mark, a total ...
CONCLUDED = re.compile(
    r"\b(?:so|thus|hence|therefore|gives|giving|makes|making|final(?:ly)?|conclu\w*|daher|deshalb"
    r"|somit|donc|finalement|entonces|finalmente|quindi|portanto|dus|поэтому|итак)\b"
    r"|所以|因此|よって|したがって"
)
# ... behind one of these it says how far two answers are apart ...
APART = re.compile(
    r"\b(?:gaps?|leads?|margins?|differences?|advantages?|edge of|abstand|vorsprung|unterschied"
    r"|differenz|vorteil|écart|différence|avance|avantage|diferencia|ventaja|differenza|distacco"
    r"|vantaggio|diferença|vantagem|verschil|voorsprong|voordeel|разница|отрыв|преимущество)\b"
    r"(?:\s?[:=(]|\s[^.:;,()\n]{0,40})?\W{0,3}$|(?:差距|相差|领先|差は|リード)\W{0,3}$"
)
# ... behind one of these it may be ...
PERHAPS = re.compile(
    r"=|→|->|\b(?:but|then|now|better|net|also|mean|meant|should|doch|sondern|moment|mais|sino|pero|ma"
    r"|mas|logo|maar|но|затем)\b|但|而"
)
# ... and behind one of these it is none.
NOT_A_MARK = _words(
    """not than from by over under above below least most to instead versus vs against was were
    minus plus deduct deducted subtract less take off add added up down another other
    section step part point item example line sentence paragraph chapter number no nr option reason
    page figure table version top response answer candidate year years first max maximum
    choice choices pair pairs rank ranks ranked ranking place places placed position
    criterion criteria kriterium critère criterio критерий
    rang platz belegt rango posición posizione posição puesto plaats plek место
    nicht als um über unter von minus abzüglich abzug statt
    pas que par moins sur de no menos en lugar di meno non menos em vez min dan niet
    не чем на минус"""
)
ARITHMETIC = _words(
    "minus plus deduct deducted subtract less take off add added abzüglich moins menos"
)
# A word behind a number makes it a count ("2 short sentences"), unless it is one of these.
AFTER_A_MARK = _words(
    """for on in because as since due and but with given while although though vs versus than out of
    x times to or at by if that it this its they the a an overall here there per is was after before
    plus minus only again too now then thanks hence so thus weighted which where when despite from
    no nope actually rather sorry wait scratch make hmm points marks not response criterion
    yields yielding equals gives giving makes making totals totaling totalling results resulting
    multiplied averaging
    für weil da wegen und aber mit von bei auf denn nein also oder im in
    pour car parce puisque et mais avec sur en non donc ou
    por porque y pero con en ya pues no o
    per perché ma con su non quindi
    porque e mas com não pois
    voor omdat want maar met op nee dus
    за потому так и но с нет по
    因为 但 和 而 と が で から ので 不"""
)

_UNWIDE: dict[int, int | str] = {
    **{0xFF01 + place: 0x21 + place for place in range(0x5E)},
    **{0x3000: " ", 0x3002: ". ", 0x3001: ", ", 0x3010: "[", 0x3011: "]"},
    **{0xBD: ".5", 0xBC: ".25", 0xBE: ".75"},
}


def unwide(text: str) -> str:
    """`text` with full-width signs and written fractions as ASCII has them."""
    return text.translate(_UNWIDE)


def is_wide(char: str) -> bool:
    """Whether a letter is of a script that is written without spaces between words."""
    return "\u2e80" <= char <= "\u9fff" or "\uac00" <= char <= "\ud7af"


def last_word(text: str) -> str:
    """Return the word that `text` ends with, but for spaces, emphasis and an opening quote."""
    end = len(text.rstrip(" \t\n*_\"'<"))
    start = end
    while start and text[start - 1].isalpha():
        start -= 1
    return text[start:end]
