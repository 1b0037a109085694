"""A chat app that reranks its candidates and learns from thumbs.

Run: python examples/chat_rerank.py
"""

import tempfile

from pgenrm_agent import PGenRM, PreferencePair, Scaling

TURNS = {
    "How do I boil an egg?": [
        "Oh, I love a good egg! It depends on how you like yours, my friend. Soft and runny, or"
        " firm? Keep an eye on the pot, trust your feeling, and I am sure you will enjoy it!",
        "Lower it into boiling water, wait eight minutes, then cool it under the tap.",
    ],
    "How do I descale a kettle?": [
        "Boil equal parts of water and vinegar in it, wait twenty minutes, and rinse it well.",
        "Ah, my own kettle looked just like yours last week! Don't worry, you can bring back its"
        " shine. Do you have a lemon at home? Give it a nice warm bath, and tell me how it goes!",
    ],
    "How do I sharpen a kitchen knife?": [
        "What a lovely craft that is! I was so nervous the first time, and now it is my favorite"
        " Sunday ritual. Take your time, be patient with yourself, and have fun!",
        "Soak a whetstone, hold the blade at twenty degrees, and draw both sides along it.",
    ],
}
QUESTION = "How do I cook rice?"
ANSWERS = [
    "Rice is such a joy! I could talk about it all day, and so could my grandmother. Which kind do"
    " you like best? Be patient with it, my friend, and I am sure you will love what you get!",
    "Simmer one part of rice in two parts of water for twelve minutes, then let it rest.",
]


def show(rm: PGenRM) -> None:
    print(f"From {len(rm.memory.history('ada'))} past choices:")
    for place, item in enumerate(rm.rerank("ada", QUESTION, ANSWERS), start=1):
        score = "not scored" if item.score is None else f"{item.score:.2f}"
        print(f"  {place}. [{score}] {item.text}")


def thumbs(answers: list[str]) -> tuple[str, str]:
    """What the user in this example likes: the shorter answer. Yours clicks on something."""
    return min(answers, key=len), max(answers, key=len)


scaling = Scaling(individual=8, prototype=0, seed=7)
with tempfile.TemporaryDirectory() as folder, PGenRM(memory=folder, scaling=scaling) as rm:
    show(rm)
    for turn, (question, answers) in enumerate(TURNS.items()):
        up, down = thumbs(answers)
        choice = PreferencePair(id=f"turn-{turn}", query=question, chosen=up, rejected=down)
        rm.remember("ada", choice)
    show(rm)
