"""An agent that drafts, scores and revises until the reward stops rising.

Run: python examples/agent_loop.py
"""

from langchain_core.language_models import FakeListChatModel

from pgenrm_agent import PGenRM, PreferencePair, Scaling, UserSignals

QUESTION = "How do I get tea stains out of a mug?"
LIKED = PreferencePair(
    query="How do I sharpen a kitchen knife?",
    chosen="1. Soak the stone.\n2. Hold the blade at 20 degrees.\n3. Draw it along ten times.",
    rejected="It is a lovely craft! You could try a whetstone, or perhaps ask somebody who knows.",
)
KNOWN = UserSignals(user_id="ada", history=(LIKED,))
# Any chat model goes here; this one has its drafts ready, so that the example runs anywhere.
writer = FakeListChatModel(
    responses=[
        "Oh, the joys of a well-loved mug! A little patience will do wonders, my friend.",
        "Baking soda and a sponge.",
        "1. Wet the mug.\n2. Rub it with baking soda.\n3. Rinse it.",
    ]
)

with PGenRM(scaling=Scaling(individual=8, prototype=0, seed=7)) as rm:
    best, reward = "", 0.0
    for attempt in range(1, 4):
        draft = str(writer.invoke(f"{QUESTION}\nBetter than this, please: {best}").content)
        # Best and draft are scored together: rewards of two evaluations compare less well.
        candidates = [best, draft] if best else [draft]
        evaluation = rm.score("ada", QUESTION, candidates, signals=KNOWN)
        score = evaluation.scores[-1].mean
        if score is None or (best and evaluation.ranking[0] != f"answer-{len(candidates)}"):
            print(f"attempt {attempt}: no better, stopping")
            break
        best, reward = draft, score
        print(f"attempt {attempt}: {reward:.2f} of 10: {' '.join(best.split())}")
    print(f"answer: {' '.join(best.split())}")
