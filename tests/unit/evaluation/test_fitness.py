"""Is a judge fit? Scripted judges that know, miss, tie, guess by place, or cannot be read."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy import stats

from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.obvious import ObviousCase, read_obvious
from pgenrm_agent.evaluation.datasets.questions import read_source
from pgenrm_agent.evaluation.fitness import FIT, Fitness, assess_fitness
from pgenrm_agent.evaluation.judges import ChainJudge
from pgenrm_agent.evaluation.metrics import question_credit, wilson_interval
from pgenrm_agent.evaluation.report import fitness_cells, fitness_in_words
from pgenrm_agent.evaluation.running import RunDescription, evaluate
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Scaling
from pgenrm_agent.testing import ScriptedEngine, write_chain

CASES = read_obvious()
SHOWN = re.compile(r"\[The Start of Response \d+\]\n(.*?)\n\[The End of Response \d+\]", re.DOTALL)
DESCRIPTION = RunDescription(
    source="obvious",
    questions=0,
    engine="scripted",
    model="scripted",
    seed=1,
    machine="test",
)
Marks = Callable[[ObviousCase, list[str]], list[float]]
"""The marks of a scripted judge for the texts of a case, in the order shown."""


def knows(case: ObviousCase, shown: list[str]) -> list[float]:
    (best,) = (each.text for each in case.candidates if each.id == case.preferred)
    return [8.0 if text == best else 3.0 for text in shown]


def misses(case: ObviousCase, shown: list[str]) -> list[float]:
    return [11 - mark for mark in knows(case, shown)]


def ties(case: ObviousCase, shown: list[str]) -> list[float]:
    return [5.0 for _ in shown]


def likes_the_first(case: ObviousCase, shown: list[str]) -> list[float]:
    return [9.0 - place for place in range(len(shown))]


def knows_but_for(share: float) -> Marks:
    """Misses this share of the cases, evenly."""
    places = {case.id: place for place, case in enumerate(CASES)}

    def marks(case: ObviousCase, shown: list[str]) -> list[float]:
        place = places[case.id]
        missed = int((place + 1) * share) > int(place * share)
        return misses(case, shown) if missed else knows(case, shown)

    return marks


def script(marks: Marks) -> Callable[[Prompt, int], str]:
    by_text = {each.text: case for case in CASES for each in case.candidates}

    def reply(prompt: Prompt, sample: int) -> str:
        shown = SHOWN.findall(prompt.messages[-1].content)
        return write_chain(marks(by_text[shown[0]], shown))

    return reply


def judge(
    tmp_path: Path,
    reply: str | Callable[[Prompt, int], str],
    *,
    cases: list[ObviousCase] = CASES,
    runs: int = 1,
) -> Fitness:
    async def run() -> list[Fitness]:
        async with PGenRM(engine=ScriptedEngine(reply), memory=tmp_path / "memory") as model:
            chains = ChainJudge("p-genrm", model, Scaling(individual=2, prototype=0, resamples=0))
            records = await evaluate(
                [case.question for case in cases],
                [chains],
                tmp_path / "out",
                DESCRIPTION,
                runs=runs,
            )
        return assess_fitness(records, cases)

    (fitness,) = asyncio.run(run())
    return fitness


def test_a_judge_that_knows_the_person_is_fit(tmp_path: Path) -> None:
    fitness = judge(tmp_path, script(knows))
    assert fitness.verdict == "fit"
    assert (fitness.every.right, fitness.every.cases) == (1.0, 96)
    assert fitness.every.interval.low > 0.95
    assert {share.right for share in fitness.splits.values()} == {1.0}
    assert sum(fitness.splits[name].cases for name in fitness.splits if "choices" in name) == 96
    assert sum(fitness.splits[name].cases for name in fitness.splits if "taste" in name) == 96
    assert sum(fitness.splits[name].cases for name in fitness.splits if "candidates" in name) == 96
    assert fitness.chance == pytest.approx((1 / 2 * 48 + 1 / 3 * 32 + 1 / 4 * 16) / 96)
    assert (fitness.tied, fitness.not_scored, fitness.unreadable, fitness.contradictory) == (0,) * 4
    assert fitness.always_missed == ()
    assert fitness_in_words(fitness).startswith("p-genrm is fit: it is right in 100.0 % of 96")


def test_a_judge_that_misses_too_many_is_not_fit(tmp_path: Path) -> None:
    fitness = judge(tmp_path, script(knows_but_for(1 / 3)))
    assert fitness.verdict == "not fit"
    assert fitness.every.right == pytest.approx(2 / 3)
    assert len(fitness.always_missed) == 32
    assert "p-genrm is not fit" in fitness_in_words(fitness)


def test_of_a_judge_at_the_border_nothing_is_said_for_sure(tmp_path: Path) -> None:
    fitness = judge(tmp_path, script(knows_but_for(1 / 6)))
    assert fitness.verdict == "unsure"
    assert fitness.every.interval.low < FIT < fitness.every.right
    assert "cannot be said for sure" in fitness_in_words(fitness)


def test_a_few_cases_are_too_few_to_say_even_where_all_are_right(tmp_path: Path) -> None:
    assert judge(tmp_path, script(knows), cases=CASES[:8]).verdict == "unsure"


def test_sharing_the_first_place_is_wrong(tmp_path: Path) -> None:
    fitness = judge(tmp_path, script(ties), cases=CASES[:16])
    assert (fitness.verdict, fitness.every.right, fitness.tied) == ("not fit", 0.0, 1.0)


def test_beating_some_of_the_candidates_is_not_enough(tmp_path: Path) -> None:
    def second(case: ObviousCase, shown: list[str]) -> list[float]:
        """The preferred candidate comes second, before all but one."""
        rival = min(text for text, mark in zip(shown, knows(case, shown), strict=True) if mark < 8)
        marks = zip(shown, knows(case, shown), strict=True)
        return [9.0 if text == rival else mark for text, mark in marks]

    many = [case for case in CASES if len(case.candidates) == 4]
    assert judge(tmp_path, script(second), cases=many).every.right == 0.0


def test_a_judge_that_goes_by_the_place_is_found_out(tmp_path: Path) -> None:
    fitness = judge(tmp_path, script(likes_the_first))
    assert fitness.verdict == "not fit"
    assert fitness.prefers_first == 1.0
    assert fitness_cells(fitness)["first shown preferred, %"] == "100.0"


def test_texts_that_cannot_be_used_are_counted_by_kind(tmp_path: Path) -> None:
    def reply(prompt: Prompt, sample: int) -> str:
        whole = script(knows)(prompt, sample)
        if sample == 0 and prompt.seed is not None and prompt.seed % 2:
            return "I would rather talk about the weather."
        return whole

    fitness = judge(tmp_path / "some", reply)
    assert fitness.unreadable is not None
    assert 0.2 < fitness.unreadable < 0.8
    nothing = judge(tmp_path / "none", "Nice weather.", cases=CASES[:16])
    assert (nothing.verdict, nothing.unreadable, nothing.not_scored) == ("not fit", 1.0, 1.0)

    def contradicts(prompt: Prompt, sample: int) -> str:
        whole = script(knows)(prompt, sample)
        return whole.replace('_1": 8.0', '_1": 2.0').replace('_1": 3.0', '_1": 9.0')

    twice = judge(tmp_path / "contradicts", contradicts, cases=CASES[:16])
    assert twice.contradictory == twice.unreadable == 1.0


def test_runs_are_averaged_in_a_case_and_the_interval_is_over_cases(tmp_path: Path) -> None:
    counted = {"asked": 0}

    def every_other(case: ObviousCase, shown: list[str]) -> list[float]:
        counted["asked"] += 1
        return knows(case, shown) if counted["asked"] > 2 * 16 else misses(case, shown)

    fitness = judge(tmp_path, script(every_other), cases=CASES[:16], runs=2)
    assert (fitness.runs, fitness.every.cases) == (2, 16)
    assert fitness.every.right == pytest.approx(0.5, abs=0.1)
    assert fitness.every.interval == wilson_interval(fitness.every.right, 16)


@pytest.mark.parametrize(("right", "count"), [(0, 5), (3, 7), (16, 16), (80, 96)])
def test_the_interval_is_the_score_interval(right: int, count: int) -> None:
    exact = stats.binomtest(right, count).proportion_ci(method="wilson")
    interval = wilson_interval(right / count, count)
    assert (interval.low, interval.high) == pytest.approx((exact.low, exact.high))


def test_a_question_is_right_where_all_its_comparisons_are() -> None:
    assert question_credit([1.0, 1.0]) == 1.0
    assert question_credit([1.0, 0.5]) == 0.5
    assert question_credit([0.5, 0.0, 1.0]) == 0.0
    assert math.isnan(question_credit([1.0, math.nan]))


def test_the_parts_of_the_cases_are_read_by_name() -> None:
    def groups(source: str, limit: int | None = None) -> set[str]:
        read = read_source(source, split="test", history=3, seed=0, limit=limit)
        assert [case.id for case in read.obvious] == [question.id for question in read.questions]
        return {case.group for case in read.obvious}

    assert groups("obvious") == {"long", "short"}
    assert groups("obvious:long") == {"long"}
    assert groups("obvious:short") == {"short"}
    assert groups("obvious:pages") == {"pages"}
    assert len(read_obvious()) == len(read_obvious("long")) + len(read_obvious("short"))
    with pytest.raises(ConfigurationError, match=r"obvious:medium.*obvious:long"):
        read_source("obvious:medium", split="test", history=3, seed=0)


def test_the_first_cases_are_of_every_kind() -> None:
    first = read_obvious()[:16]
    assert len({(case.taste, case.group) for case in first}) == 16
    assert {len(case.history) for case in first} >= {1, 3}
    assert {len(case.candidates) for case in first} == {2, 3, 4}


def test_a_case_that_prefers_no_candidate_is_refused() -> None:
    case = CASES[0].model_dump()
    with pytest.raises(ValueError, match="none of the candidates"):
        ObviousCase.model_validate({**case, "preferred": "z"})
