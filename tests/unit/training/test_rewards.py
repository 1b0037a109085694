"""Rewards by hand-computed cases."""

from __future__ import annotations

import pytest

from pgenrm_agent.chain import ParsedChain
from pgenrm_agent.embedding import HashingEmbedder
from pgenrm_agent.schema import StatedPreference
from pgenrm_agent.testing import ScriptedEngine, write_chain
from pgenrm_agent.training.rewards import (
    EngineRater,
    RatingTask,
    RuleRater,
    SimilarityRater,
    outcome_reward,
    read_chain,
    total_reward,
)


def chain(*criteria: tuple[str, float]) -> ParsedChain:
    parsed = read_chain(
        write_chain([8, 3], criteria=criteria or (("Fit", 100),)), chosen_first=True
    )
    assert parsed is not None
    return parsed


def wish(text: str) -> StatedPreference:
    return StatedPreference(text=text)


@pytest.mark.parametrize(
    ("marks", "chosen_first", "reward"),
    [([8, 3], True, 1.0), ([8, 3], False, 0.0), ([3, 8], False, 1.0), ([5, 5], True, 0.0)],
)
def test_the_outcome_is_whether_the_chosen_answer_is_ahead(
    marks: list[float], chosen_first: bool, reward: float
) -> None:
    assert outcome_reward(read_chain(write_chain(marks), chosen_first=chosen_first)) == reward


def test_a_text_that_is_no_chain_pays_and_earns_nothing() -> None:
    assert read_chain("I like the first one.", chosen_first=True) is None
    assert read_chain(write_chain([5]), chosen_first=True) is None  # the second one is not scored
    assert outcome_reward(None) == 0
    assert total_reward(None, 0, readable=False, alpha=0.5, beta=1) == -0.1


@pytest.mark.parametrize(
    ("process", "outcome", "alpha", "beta", "total"),
    [
        (0.5, 1.0, 0.5, 1.0, 1.25),
        (1.0, 0.0, 0.5, 1.0, 0.5),
        (None, 1.0, 0.5, 1.0, 1.0),
        (1.0, 1.0, 0.0, 1.0, 1.0),
        (0.5, 1.0, 1.0, 0.0, 0.5),
    ],
)
def test_the_total_is_alpha_process_plus_beta_outcome(
    process: float | None, outcome: float, alpha: float, beta: float, total: float
) -> None:
    assert total_reward(process, outcome, readable=True, alpha=alpha, beta=beta) == total


def test_the_rule_rater_rates_how_much_of_the_wishes_the_rubric_covers() -> None:
    short, warm = wish("Please keep it short."), wish("I prefer thorough answers.")
    rater = RuleRater()

    def rate(parsed: ParsedChain, *stated: StatedPreference) -> float | None:
        return rater.rate([RatingTask(parsed, stated)])[0]

    assert rate(chain(("Brevity", 60), ("Confident wording", 40)), short) == 1.0
    assert rate(chain(("Brevity", 25), ("Confident wording", 75)), short) == 0.5
    assert rate(chain(("Thoroughness", 100)), short) == 0.0  # the opposite
    assert rate(chain(("brevity", 50), ("Fit", 50)), short, warm) == 0.5
    assert rate(chain(("Brevity", 50), ("Thoroughness", 50)), short, warm) == 1.0
    assert rate(chain(("Brevity", 50), ("Fit", 50))) is None
    assert rate(chain(("Brevity", 50), ("Fit", 50)), wish("I collect stamps.")) is None


def test_similarity_rates_rubrics_by_what_the_person_wrote() -> None:
    rater = SimilarityRater(HashingEmbedder())
    why = (wish("It gives more details, and details convince me"),)
    details = chain(("More details", 80), ("Tone", 20))
    few = chain(("More details", 20), ("Tone", 80))
    tone = chain(("Tone", 100))
    rated = rater.rate(
        [RatingTask(chain, why) for chain in (details, few, tone)] + [RatingTask(tone, ())]
    )
    assert rated[3] is None
    assert rated[0] is not None
    assert rated[1] is not None
    assert 1 >= rated[0] > 3 * rated[1] > 0
    assert rated[2] == pytest.approx(0, abs=0.05)
    assert rater.rate([]) == []


def test_a_model_as_rater_is_asked_once_for_all_chains_and_not_about_silent_people() -> None:
    engine = ScriptedEngine(
        [
            "<think>Rating: 2?</think>Covers most.\nRating: 7",
            "<think>Rating: 3",
            "**Rating:** 10/10",
        ]
    )
    rater = EngineRater(engine)
    stated = (wish("Short, please."),)
    rated = rater.rate(
        [
            RatingTask(chain(), stated),
            RatingTask(chain(), ()),
            RatingTask(chain(), stated),
            RatingTask(chain(), stated),
        ]
    )
    rater.close()
    assert rated == [0.7, None, None, 1.0]
    ((prompts, params),) = engine.calls
    assert len(prompts) == 3
    assert "Short, please." in prompts[0].messages[1].content
    assert "This person wants a useful answer." in prompts[0].messages[1].content
    assert params.temperature == 0
