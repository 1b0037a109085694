"""The reward function in the shape TRL calls it, and the labeled pairs TRL's DPO reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pgenrm_agent import as_reward_func
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.integrations.trl import PersonalReward, labeled_pairs, write_labeled_pairs
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Scaling
from pgenrm_agent.testing import ScriptedEngine


def test_rewards_come_in_the_order_of_the_completions(rm: PGenRM) -> None:
    rewards = as_reward_func(rm)(
        prompts=["How?", "Why?", "How?", "How?"],
        completions=["So. 3", "Because. 7", "Thus. 8", "So. 3"],
        user_id=["ada", "bob", "ada", "ada"],
        completion_ids=[[1]] * 4,
    )
    assert rewards == [3.0, 7.0, 8.0, 3.0]


def test_completions_of_one_prompt_and_person_are_one_evaluation(
    engine: ScriptedEngine, scaling: Scaling, tmp_path: Path
) -> None:
    with PGenRM(engine=engine, memory=tmp_path, scaling=scaling) as rm:
        as_reward_func(rm)(
            prompts=["How?"] * 4,
            completions=["A 1", "B 2", "B 2", "C 3"],
            user_id=["ada", "ada", "ada", "bob"],
        )
    # Both evaluations run at the same time, so either may come first.
    shown = [call[0][0].messages[-1].content.count("Start of Response") for call in engine.calls]
    assert sorted(shown) == [1, 2]


def test_conversational_data_is_read_as_trl_writes_it(rm: PGenRM) -> None:
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How?"}]
    rewards = as_reward_func(rm, user_column="person")(
        prompts=[asked],
        completions=[[{"role": "assistant", "content": "So. 4"}]],
        person=["ada"],
    )
    assert rewards == [4.0]


def test_an_empty_completion_is_not_scored_and_counted(rm: PGenRM) -> None:
    logged: dict[str, float] = {}
    reward = as_reward_func(rm)
    rewards = reward(
        prompts=["How?"] * 2,
        completions=["So. 4", "  "],
        user_id=["ada"] * 2,
        log_metric=logged.__setitem__,
    )
    assert rewards == [4.0, None]
    assert reward.not_scored == 1
    assert logged == {"pgenrm/not_scored": 0.5}


def test_only_the_last_text_of_an_agents_completion_is_judged(
    engine: ScriptedEngine, scaling: Scaling, tmp_path: Path
) -> None:
    call = {"type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    step = {"role": "assistant", "content": "A look. 1", "tool_calls": [call]}
    output = {"role": "tool", "name": "look_up", "content": "Secret 9"}
    asked = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "How?"}]
    with PGenRM(engine=engine, memory=tmp_path, scaling=scaling) as rm:
        reward = as_reward_func(rm)
        rewards = reward(
            prompts=[asked] * 4,
            completions=[
                [step, output, {"role": "assistant", "content": "So. 4"}],
                [{"role": "assistant", "content": [{"type": "text", "text": "Thus. 6"}]}],
                [step, output],
                [step],
            ],
            user_id=["ada"] * 4,
        )
    assert rewards == [4.0, 6.0, None, None]
    assert reward.not_scored == 2
    shown = [message.content for call in engine.calls for p in call[0] for message in p.messages]
    assert not any("Secret" in text or "A look" in text for text in shown)


def test_a_row_that_cannot_be_judged_is_not_scored_and_stops_nobody(rm: PGenRM) -> None:
    blank = [{"role": "user", "content": " "}]
    image = [{"role": "user", "content": [{"type": "image"}]}]
    rewards = as_reward_func(rm)(
        prompts=["How?", "How?", "", blank, "x" * 60_000, image, "Half \ud83d"],
        completions=["So. 4", "y" * 60_000, "So. 4", "So. 4", "So. 4", "So. 4", "\ud83d So. 4"],
        user_id=["ada"] * 7,
    )
    assert rewards == [4.0, None, None, None, None, 4.0, 4.0]


def test_a_prompt_or_completion_that_is_none_is_not_scored(rm: PGenRM) -> None:
    reward = as_reward_func(rm)
    silent = [{"role": "assistant", "content": None}]
    unasked = [{"role": "user", "content": None}]
    rewards = reward(
        prompts=["How?", "How?", None, None, "How?", unasked],
        completions=["So. 4", None, "So. 4", None, silent, "So. 4"],
        user_id=["ada"] * 6,
    )
    assert rewards == [4.0, None, None, None, None, None]
    assert reward.not_scored == 5


@pytest.mark.parametrize("wrong", [5, float("nan"), {"role": "user"}, b"So.", [None], ["So."]])
def test_what_is_neither_a_text_nor_a_conversation_is_refused(rm: PGenRM, wrong: Any) -> None:
    reward = as_reward_func(rm)
    for prompts, completions in (
        (["How?", wrong], ["So. 4"] * 2),
        (["How?"] * 2, ["So. 4", wrong]),
    ):
        with pytest.raises(ConfigurationError, match=r"(prompts|completions|messages)\[[01]\] is "):
            reward(prompts=prompts, completions=completions, user_id=["ada"] * 2)


@pytest.mark.parametrize("wrong", [None, 5, "How?"])
def test_no_list_of_prompts_or_completions_is_refused(rm: PGenRM, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"prompts is .*: pass a list of texts"):
        as_reward_func(rm)(prompts=wrong, completions=["So. 4"], user_id=["ada"])
    with pytest.raises(ConfigurationError, match=r"completions is .*: pass a list of texts"):
        as_reward_func(rm)(prompts=["How?"], completions=wrong, user_id=["ada"])


def test_a_reward_of_no_reward_model_is_refused() -> None:
    for wrong in (None, "pgenrm-tiny", PGenRM):
        for make in (as_reward_func, PersonalReward):
            with pytest.raises(ConfigurationError, match=r"reward_model is .*: pass a PGenRM"):
                make(wrong)  # type: ignore[arg-type]


def test_more_completions_than_a_request_holds_are_judged_in_groups(rm: PGenRM) -> None:
    rewards = as_reward_func(rm)(
        prompts=["How?"] * 130,
        completions=[f"Number {number}. 7" for number in range(130)],
        user_id=["ada"] * 130,
    )
    assert rewards == [7.0] * 130


def test_a_prompt_without_a_user_is_refused(rm: PGenRM) -> None:
    with pytest.raises(ConfigurationError, match="no question to judge answers by"):
        as_reward_func(rm)(
            prompts=[[{"role": "system", "content": "Be brief."}]],
            completions=["So. 4"],
            user_id=["ada"],
        )


def test_a_model_that_writes_no_chain_rewards_nothing(scaling: Scaling, tmp_path: Path) -> None:
    with PGenRM(engine=ScriptedEngine("no chain"), memory=tmp_path, scaling=scaling) as rm:
        reward = as_reward_func(rm)
        assert reward(prompts=["How?"], completions=["So."], user_id=["ada"]) == [None]


def test_data_without_the_persons_column_is_refused(rm: PGenRM) -> None:
    with pytest.raises(ConfigurationError, match="no column 'user_id'"):
        as_reward_func(rm)(prompts=["How?"], completions=["So."])


def test_the_best_against_the_worst_makes_a_labeled_pair(rm: PGenRM, tmp_path: Path) -> None:
    evaluation = rm.score("ada", "How?", ["Fair. 5", "Good. 9", "Poor. 2"])
    (pair,) = labeled_pairs([evaluation])
    assert pair["prompt"] == [{"role": "user", "content": "How?"}]
    assert pair["chosen"] == [{"role": "assistant", "content": "Good. 9"}]
    assert pair["rejected"] == [{"role": "assistant", "content": "Poor. 2"}]
    assert (pair["user_id"], pair["margin"]) == ("ada", 7.0)
    assert len(list(labeled_pairs([evaluation], every=True))) == 3
    assert len(list(labeled_pairs([evaluation], every=True, min_margin=4))) == 2
    file = tmp_path / "pairs.jsonl"
    assert write_labeled_pairs(file, [evaluation]) == 1
    assert json.loads(file.read_text()) == pair


def test_equal_scores_are_no_preference(rm: PGenRM) -> None:
    tie = rm.score("ada", "How?", ["A 5", "B 5"])
    assert list(labeled_pairs([tie], min_margin=0)) == []


def test_prompts_that_do_not_go_with_the_completions_are_refused(rm: PGenRM) -> None:
    with pytest.raises(ConfigurationError, match="1 prompt and 2 completions"):
        as_reward_func(rm)(prompts=["How?"], completions=["A 1", "B 2"], user_id=["ada", "ada"])
