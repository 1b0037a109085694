"""Score three answers for one user with the bundled model. Run: python examples/score.py"""

from pgenrm_agent import PGenRM, PreferencePair, Scaling, UserSignals

# Ben chose numbered steps three times: once over a short answer, twice over a chatty one.
CHOICES = (
    PreferencePair(
        id="egg",
        query="How do I boil an egg?",
        chosen="1. Bring a pot of water to a boil.\n2. Lower the egg in with a spoon.\n3. Wait 8"
        " minutes.\n4. Cool it under cold water for 1 minute.",
        rejected="Lower it into boiling water, wait eight minutes, then cool it under the tap.",
    ),
    PreferencePair(
        id="kettle",
        query="How do I descale a kettle?",
        chosen="1. Fill the kettle with 500 ml of water and 500 ml of vinegar.\n2. Boil it once.\n"
        "3. Leave it for 20 minutes.\n4. Empty it and rinse it 2 times.",
        rejected="Ah, my own kettle looked just like yours last week! Don't worry, you can bring"
        " back its shine. Do you have a lemon at home? Give it a nice warm bath, and tell me how"
        " it goes, I am so curious!",
    ),
    PreferencePair(
        id="knife",
        query="How do I sharpen a kitchen knife?",
        chosen="1. Soak a whetstone in water for 10 minutes.\n2. Hold the blade at 20 degrees.\n"
        "3. Draw it along the stone 10 times.\n4. Turn it over and repeat.",
        rejected="What a lovely craft that is! I was so nervous the first time, and now it is my"
        " favorite Sunday ritual. Is there somebody who could show you? Take your time, be patient"
        " with yourself, and have fun!",
    ),
)
QUESTION = "How do I get tea stains out of a mug?"
ANSWERS = [
    "Oh, the joys of a well-loved mug! Don't you worry, my friend, I have been there too. A little"
    " patience works wonders. What is your favorite tea, by the way? I hope you enjoy your next"
    " cup!",
    "1. Wet the mug.\n2. Put 1 teaspoon of baking soda into it.\n3. Rub the stains for 2 minutes.\n"
    "4. Rinse it with hot water.",
    "Rub the stains with wet baking soda, leave it on for five minutes, and rinse the mug.",
]

with PGenRM(scaling=Scaling(individual=8, prototype=0, seed=7)) as rm:
    known = UserSignals(user_id="ben", history=CHOICES)
    evaluation = rm.score("ben", QUESTION, ANSWERS, signals=known)
    for answer in evaluation.ranking:
        score = evaluation.score_of(answer)
        chance = "-" if score.probability_best is None else f"{score.probability_best:.0%}"
        print(f"{answer}: {score.mean:.2f} of 10, best with {chance}")
    print(f"persona: {evaluation.chains[0].persona.text}")
