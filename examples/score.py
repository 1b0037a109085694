"""Score three answers for one person with the bundled model. Run: python examples/score.py"""

from pgenrm_agent import PGenRM, PreferencePair, UserSignals

QUESTION = "How do I get tea stains out of a mug?"
ANSWERS = [
    "1. Wet the mug.\n2. Rub it with baking soda.\n3. Rinse it.",
    "Oh, the joys of a well-loved mug! Do not worry, a little patience will do wonders, my friend.",
    "Baking soda and a sponge.",
]
PAIR = PreferencePair(
    query="How do I sharpen a kitchen knife?",
    chosen="1. Soak the stone.\n2. Hold the blade at 20 degrees.\n3. Draw it along ten times.",
    rejected="It is a lovely craft! You could try a whetstone, or perhaps ask somebody who knows.",
)
KNOWN = UserSignals(user_id="ada", history=(PAIR,))

with PGenRM() as rm:
    evaluation = rm.score("ada", QUESTION, ANSWERS, signals=KNOWN)
    for place in evaluation.ranking:
        score = evaluation.score_of(place)
        print(f"{place}: {score.mean:.2f} of 10, best with {score.probability_best:.0%}")
    print(f"persona: {evaluation.chains[0].persona.text}")
