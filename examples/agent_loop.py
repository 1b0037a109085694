"""An agent that drafts, scores and revises until the reward stops rising.

Run: python examples/agent_loop.py
"""

import tempfile
from pathlib import Path

from langchain_core.language_models import FakeListChatModel

from pgenrm_agent import PGenRM, Scaling

QUESTION = "How do I get tea stains out of a mug?"
CHOICES = Path(__file__).with_name("choices.jsonl")
# Any chat model goes here; this one has its drafts ready, so that the example runs anywhere.
writer = FakeListChatModel(
    responses=[
        "Oh, the joys of a well-loved mug! Don't you worry, my friend, I have been there too. A"
        " little patience works wonders. What is your favorite tea, by the way? I hope you enjoy"
        " your next cup!",
        "1. Wet the mug.\n2. Put 1 teaspoon of baking soda into it.\n3. Rub the stains for 2"
        " minutes.\n4. Rinse it with hot water.",
        "Rub the stains with wet baking soda, leave it on for five minutes, and rinse the mug.",
    ]
)

scaling = Scaling(individual=8, prototype=0, seed=7)
with tempfile.TemporaryDirectory() as folder, PGenRM(memory=folder, scaling=scaling) as rm:
    rm.memory.import_jsonl(CHOICES)
    best, reward = "", 0.0
    for attempt in range(1, 4):
        draft = str(writer.invoke(f"{QUESTION}\nBetter than this, please: {best}").content)
        # Best and draft are scored together: rewards of two evaluations compare less well.
        candidates = [best, draft] if best else [draft]
        evaluation = rm.score("ada", QUESTION, candidates)
        score = evaluation.scores[-1].mean
        if score is None or (best and evaluation.ranking[0] != f"answer-{len(candidates)}"):
            print(f"attempt {attempt}: no better, stopping")
            break
        best, reward = draft, score
        print(f"attempt {attempt}: {reward:.2f} of 10: {' '.join(best.split())}")
    print(f"answer: {' '.join(best.split())}")
