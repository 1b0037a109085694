"""Best of n: a chat model whose answers are picked for one person.

Run: python examples/best_of_n.py
"""

import tempfile

from langchain_core.language_models import FakeListChatModel

from pgenrm_agent import Evaluation, PGenRM, PreferencePair, Scaling
from pgenrm_agent.integrations.langchain.best_of_n import BestOfN

# Any chat model goes here; this one has its answers ready, so that the example runs anywhere.
model = FakeListChatModel(
    responses=[
        "Rice is such a joy! Let me tell you about my favourite kinds...",
        "One part rice, two parts water, 12 minutes.",
        "Have you thought of asking somebody who cooks it every day?",
    ]
)

scaling = Scaling(individual=8, prototype=0, seed=7)
with tempfile.TemporaryDirectory() as folder, PGenRM(memory=folder, scaling=scaling) as rm:
    rm.remember(
        "ada",
        PreferencePair(
            query="How do I boil an egg?",
            chosen="Eight minutes.",
            rejected="Oh, eggs! I love them. It depends on how you like yours...",
        ),
    )
    answer = BestOfN(model=model, reward_model=rm, n=3, user_id="ada").invoke("How do I cook rice?")
    why = answer.response_metadata["pgenrm"]
    evaluation = Evaluation.model_validate(why["evaluation"])
    print(f"answer {why['index'] + 1} of {why['n']}: {answer.text}")
    for candidate, score in zip(evaluation.request.candidates, evaluation.scores, strict=True):
        shown = "not scored" if score.mean is None else f"{score.mean:.2f}"
        print(f"  [{shown}] {candidate.text}")
