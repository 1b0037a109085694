"""A chat app that reranks its candidates and learns from thumbs.

Run: python examples/chat_rerank.py
"""

import tempfile

from pgenrm_agent import PGenRM, PreferencePair, Scaling

TURNS = [
    (
        "How do I boil an egg?",
        ["Eight minutes.", "Oh, eggs! I love them. It depends on how you like yours..."],
    ),
    (
        "How do I cook rice?",
        ["Rice is such a joy! Let me tell you.", "One part rice, two parts water, 12 minutes."],
    ),
    (
        "How do I descale a kettle?",
        ["Kettles are like old friends, are they not?", "Boil it with vinegar, then rinse."],
    ),
]


def thumbs(answers: list[str]) -> tuple[str, str]:
    """What the person in this example likes: the shorter answer. Yours clicks on something."""
    return min(answers, key=len), max(answers, key=len)


scaling = Scaling(individual=8, prototype=0, seed=7)
with tempfile.TemporaryDirectory() as folder, PGenRM(memory=folder, scaling=scaling) as rm:
    for question, answers in TURNS:
        ranked = rm.rerank("ada", question, answers)
        known = len(rm.memory.history("ada"))
        print(f"{question} (from {known} past choices)")
        for place, item in enumerate(ranked, start=1):
            score = "not scored" if item.score is None else f"{item.score:.2f}"
            print(f"  {place}. [{score}] {item.text}")
        liked, disliked = thumbs(answers)
        rm.remember("ada", PreferencePair(query=question, chosen=liked, rejected=disliked))
    print(f"{len(rm.memory.history('ada'))} choices remembered")
