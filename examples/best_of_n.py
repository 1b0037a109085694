"""Best of n: a chat model whose answers are picked for one user.

Run: python examples/best_of_n.py
"""

import tempfile
from pathlib import Path

from langchain_core.language_models import FakeListChatModel

from pgenrm_agent import Evaluation, PGenRM, Scaling
from pgenrm_agent.integrations.langchain.best_of_n import BestOfN

CHOICES = Path(__file__).with_name("choices.jsonl")
# Any chat model goes here; this one has its answers ready, so that the example runs anywhere.
model = FakeListChatModel(
    responses=[
        "Rice is such a joy! I could talk about it all day, and so could my grandmother. Which kind"
        " do you like best? Be patient with it, my friend, and I am sure you will love what you"
        " get!",
        "Simmer one part of rice in two parts of water for twelve minutes, then let it rest.",
        "1. Rinse 200 g of rice.\n2. Bring it to a boil in 400 ml of water.\n3. Simmer it with the"
        " lid on for 12 minutes.\n4. Let it rest for 5 minutes.",
    ]
)

scaling = Scaling(individual=8, prototype=0, seed=7)
with tempfile.TemporaryDirectory() as folder, PGenRM(memory=folder, scaling=scaling) as rm:
    rm.memory.import_jsonl(CHOICES)
    answer = BestOfN(model=model, reward_model=rm, n=3, user_id="ada").invoke("How do I cook rice?")
    why = answer.response_metadata["pgenrm"]
    evaluation = Evaluation.model_validate(why["evaluation"])
    print(f"answer {why['index'] + 1} of {why['n']}: {answer.text}")
    for candidate, score in zip(evaluation.request.candidates, evaluation.scores, strict=True):
        shown = "not scored" if score.mean is None else f"{score.mean:.2f}"
        print(f"  [{shown}] {' '.join(candidate.text.split())}")
