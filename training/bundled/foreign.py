"""Sentences in other languages and scripts, which the bundled model learns to leave unjudged."""

from __future__ import annotations

import numpy as np

__all__ = ["foreign_text"]

SENTENCES: tuple[tuple[str, ...], ...] = (
    (
        "La reunión empieza a las cinco.", "Es mejor llegar temprano y traer agua.", "Sí.",
        "No olvides cerrar la puerta antes de salir.", "El tren sale cada media hora desde el centro.",
        "Primero corta las verduras y luego añade la sal.", "¡Qué buena idea, amigo!",
        "Tal vez convenga preguntar al médico.",
    ),
    (
        "Le magasin ouvre à neuf heures.", "Il vaut mieux réserver une table à l'avance.", "Oui.",
        "N'oubliez pas de fermer la fenêtre.", "D'abord, coupez les légumes en petits morceaux.",
        "Bonne chance, mon ami !", "Cela dépend du temps qu'il fera demain.",
        "Le musée se trouve près de la gare.",
    ),
    (
        "Der Zug fährt um acht Uhr ab.", "Am besten gießt man die Pflanzen am Abend.", "Ja.",
        "Zuerst das Wasser kochen, dann die Nudeln hineingeben.", "Viel Glück, mein Freund!",
        "Vielleicht hilft es, einen Arzt zu fragen.", "Die Rechnung ist bis Freitag zu bezahlen.",
        "Das hängt vom Wetter ab.",
    ),
    (
        "Il negozio apre alle nove.", "Prima taglia le cipolle, poi aggiungi l'olio.", "Certo!",
        "È meglio prenotare in anticipo.", "Dipende dalla stagione.", "Grazie mille, a presto!",
        "Il museo è vicino alla stazione.", "Non dimenticare le chiavi.",
    ),
    (
        "A loja abre às nove horas.", "Primeiro corte os legumes, depois junte o sal.", "Sim.",
        "É melhor chegar cedo.", "Depende do tempo.", "Boa sorte, meu amigo!",
        "O museu fica perto da estação.", "Não se esqueça de fechar a porta.",
    ),
    (
        "De winkel gaat om negen uur open.", "Snijd eerst de groenten en voeg dan zout toe.", "Ja.",
        "Het hangt van het weer af.", "Veel succes, vriend!", "Vergeet de sleutels niet.",
        "Het museum ligt vlak bij het station.", "Het is beter om vroeg te komen.",
    ),
    (
        "Sklep otwiera się o dziewiątej.", "Najpierw pokrój warzywa, potem dodaj sól.", "Tak.",
        "To zależy od pogody.", "Powodzenia, przyjacielu!", "Nie zapomnij kluczy.",
        "Muzeum jest blisko dworca.", "Lepiej przyjść wcześniej.",
    ),
    (
        "Магазин открывается в девять часов.", "Сначала нарежьте овощи, затем добавьте соль.", "Да.",
        "Это зависит от погоды.", "Удачи, мой друг!", "Не забудьте ключи.",
        "Музей находится рядом с вокзалом.", "Лучше прийти пораньше.",
    ),
    (
        "Το μαγαζί ανοίγει στις εννέα.", "Πρώτα κόψτε τα λαχανικά.", "Ναι.",
        "Εξαρτάται από τον καιρό.", "Καλή τύχη, φίλε μου!", "Μην ξεχάσεις τα κλειδιά.",
    ),
    (
        "يفتح المتجر في الساعة التاسعة.", "اقطع الخضار أولاً ثم أضف الملح.", "نعم.",
        "هذا يعتمد على الطقس.", "حظاً سعيداً يا صديقي!", "لا تنس المفاتيح.",
    ),
    (
        "החנות נפתחת בתשע.", "קודם חותכים את הירקות.", "כן.", "זה תלוי במזג האוויר.",
        "בהצלחה, חבר!", "אל תשכח את המפתחות.",
    ),
    (
        "दुकान नौ बजे खुलती है।", "पहले सब्ज़ियाँ काटें, फिर नमक डालें।", "हाँ।",
        "यह मौसम पर निर्भर करता है।", "शुभकामनाएँ, मित्र!", "चाबियाँ मत भूलना।",
    ),
    (
        "商店九点开门。", "先把蔬菜切好，再加盐。", "是的。", "这取决于天气。", "祝你好运，朋友！",
        "别忘了带钥匙。", "博物馆就在车站旁边。", "最好早点到。",
    ),
    (
        "店は九時に開きます。", "まず野菜を切って、それから塩を加えます。", "はい。",
        "天気によります。", "頑張ってね！", "鍵を忘れないでください。", "博物館は駅の近くにあります。",
    ),
    (
        "가게는 아홉 시에 엽니다.", "먼저 채소를 썰고 소금을 넣으세요.", "네.", "날씨에 달려 있어요.",
        "행운을 빌어요!", "열쇠를 잊지 마세요.",
    ),
    (
        "Dükkan saat dokuzda açılır.", "Önce sebzeleri doğrayın, sonra tuz ekleyin.", "Evet.",
        "Havaya bağlı.", "İyi şanslar, dostum!", "Anahtarları unutma.",
    ),
)  # fmt: skip


def foreign_text(rng: np.random.Generator) -> str:
    """One to five sentences of one language."""
    language = SENTENCES[int(rng.integers(len(SENTENCES)))]
    count = int(rng.integers(1, 6))
    drawn = [language[int(rng.integers(len(language)))] for _ in range(count)]
    if rng.random() < 0.3:
        words = " ".join(drawn).split()
        rng.shuffle(words)
        return " ".join(words)
    return " ".join(drawn)
