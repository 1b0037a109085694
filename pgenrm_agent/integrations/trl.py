"""For trainers: a reward function in TRL's shape, and labeled pairs for DPO."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias, TypedDict, cast

from pgenrm_agent.arguments import items_of, path_of, refuse_other, text_of
from pgenrm_agent.chat_messages import ChatMessage, last_answer, question_in
from pgenrm_agent.errors import ChainError, ConfigurationError, InvalidInput, PGenRMError
from pgenrm_agent.evaluation_input import evaluation_request
from pgenrm_agent.fields import MAX_CANDIDATES, MAX_TEXT, whole_characters
from pgenrm_agent.files import exporting
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Evaluation, EvaluationRequest, Message
from pgenrm_agent.user_ids import user_id_of
from pgenrm_agent.wording import counted

__all__ = [
    "LabeledPair",
    "PersonalReward",
    "as_reward_func",
    "labeled_pairs",
    "write_labeled_pairs",
]

# TRL's two shapes of a prompt or completion: a text, or a conversation.
Text: TypeAlias = "str | Sequence[ChatMessage]"
# What the user asked, and the turns around it.
_Question: TypeAlias = "tuple[str, tuple[Message, ...]]"


class PersonalReward:
    """What each completion's user would think of it, 1-10; None for "not scored".

    Made by `as_reward_func`; pass it to a TRL trainer as one of `reward_funcs`. The
    training data needs a column with the user's id; what is known of the user comes from the
    memory. Prompts and completions are texts or conversations.

    A whole step goes into one call of the reward model: completions of the same prompt for the same
    user are the candidates of one evaluation, and all evaluations share the engine's batches.
    Equal completions are scored once and get the same reward.

    Of a conversation only the assistant's last text is judged. What came before it, such as calls of
    tools and what they returned, is context where it stands in the prompt, and is left out where it
    stands in the completion: there it differs from one completion to the next.

    None, for "not scored", goes to a completion that is empty or None, to one that ends with the call of a
    tool, to what is too long to be judged, to the completions of a blank prompt or of None, and to all of
    an evaluation without a readable chain. They are counted in `not_scored` (and as the trainer's metric
    "pgenrm/not_scored"). Other errors are raised: a training run must not go on without its reward.
    """

    def __init__(self, reward_model: PGenRM, *, user_column: str = "user_id") -> None:
        refuse_other(reward_model, PGenRM, "reward_model", "a PGenRM")
        self._reward_model = reward_model
        self._user_column = text_of(user_column, "user_column")
        # TRL names a reward's curve after this.
        self.__name__ = "personal_reward"
        self.not_scored = 0

    def __call__(
        self,
        prompts: Sequence[Text | None],
        completions: Sequence[Text | None],
        log_metric: Callable[[str, float], None] | None = None,
        **columns: object,
    ) -> list[float | None]:
        """Return one reward per completion, in order.

        Raises:
            ConfigurationError: The column of ids is missing or not as long as the completions; or a
                prompt or completion is neither a text nor a conversation.
            EngineError: The model cannot be asked.
            MemoryStoreError: The memory cannot be read.
        """
        prompts = _texts(prompts, "prompts")
        completions = _texts(completions, "completions")
        if len(prompts) != len(completions):
            raise ConfigurationError(
                f"{counted(len(prompts), 'prompt')} and {counted(len(completions), 'completion')}: pass one"
                " prompt for each completion"
            )
        users = self._users(columns, len(completions))
        asked = [_question(prompt) for prompt in prompts]
        texts = [_answer(completion) for completion in completions]
        # A dict keeps the order and each text once.
        answers: dict[tuple[str, _Question], dict[str, None]] = {}
        for user, question, text in zip(users, asked, texts, strict=True):
            answers.setdefault((user, question), {})[text] = None
        requests = [
            request
            for (user, question), different in answers.items()
            for request in _requests(user, question, list(different))
        ]
        means: dict[tuple[str, _Question, str], float] = {}
        for request, result in zip(requests, self._reward_model.score_many(requests), strict=True):
            for text, mean in _means(result).items():
                means[request.user_id, (request.query, request.conversation), text] = mean
        rewards = [
            means.get((user, question, text))
            for user, question, text in zip(users, asked, texts, strict=True)
        ]
        missing = rewards.count(None)
        self.not_scored += missing
        if log_metric is not None:
            log_metric("pgenrm/not_scored", missing / max(1, len(rewards)))
        return rewards

    def _users(self, columns: Mapping[str, object], count: int) -> list[str]:
        users = columns.get(self._user_column)
        if not isinstance(users, Sequence) or isinstance(users, str) or len(users) != count:
            raise ConfigurationError(
                f"the training data has no column {self._user_column!r} with one user's id per "
                f"completion ({count}): add it, or name another in as_reward_func(user_column=...)"
            )
        return [user_id_of(user, f"column {self._user_column!r}") for user in users]


def as_reward_func(reward_model: PGenRM, *, user_column: str = "user_id") -> PersonalReward:
    """Make a reward function for TRL's trainers: what each completion's user would think of it.

    Args:
        reward_model: What judges.
        user_column: The column of the training data with the user's id.

    Raises:
        ConfigurationError: `reward_model` is no PGenRM, or `user_column` no text.
    """
    return PersonalReward(reward_model, user_column=user_column)


class LabeledPair(TypedDict):
    """One row for DPO, in TRL's conversational preference format, and where it comes from.

    `margin` is `chosen_score` - `rejected_score`, on the 1-10 scale.
    """

    prompt: list[dict[str, str]]
    chosen: list[dict[str, str]]
    rejected: list[dict[str, str]]
    user_id: str
    chosen_score: float
    rejected_score: float
    margin: float


def labeled_pairs(
    evaluations: Iterable[Evaluation], *, min_margin: float = 0.5, every: bool = False
) -> Iterator[LabeledPair]:
    """Yield pairs of a better and a worse answer, as the reward model sees it, for training with DPO.

    Candidates that were not scored are in no pair.

    Args:
        evaluations: Where the pairs come from.
        min_margin: The least difference of the two scores; a pair nearer than that says little.
        every: All pairs of an evaluation, best first; otherwise its best against its worst answer.

    Raises:
        ConfigurationError: `min_margin` is negative.
    """
    if min_margin < 0:
        raise ConfigurationError(f"min_margin is {min_margin:g}: pass 0 or more")
    for evaluation in evaluations:
        texts = {candidate.id: candidate.text for candidate in evaluation.request.candidates}
        means = {
            candidate_id: evaluation.score_of(candidate_id).mean or 0.0
            for candidate_id in evaluation.ranking
        }
        ranked = list(evaluation.ranking)
        places = [
            (better, worse)
            for better in range(len(ranked))
            for worse in range(better + 1, len(ranked))
            if every or (better == 0 and worse == len(ranked) - 1)
        ]
        for better, worse in places:
            high, low = means[ranked[better]], means[ranked[worse]]
            # Equal scores are no preference, whatever the margin asked for.
            if high - low < min_margin or high == low:
                continue
            yield {
                "prompt": [
                    *(message.model_dump() for message in evaluation.request.conversation),
                    {"role": "user", "content": evaluation.request.query},
                ],
                "chosen": [{"role": "assistant", "content": texts[ranked[better]]}],
                "rejected": [{"role": "assistant", "content": texts[ranked[worse]]}],
                "user_id": evaluation.request.user_id,
                "chosen_score": high,
                "rejected_score": low,
                "margin": high - low,
            }


def write_labeled_pairs(
    path: Path | str,
    evaluations: Iterable[Evaluation],
    *,
    min_margin: float = 0.5,
    every: bool = False,
    replace: bool = False,
) -> int:
    """Write `labeled_pairs` as JSONL, which `datasets.load_dataset("json")` reads; returns how many.

    The file is for its owner alone to read. replace: it may take the place of an older file.
    """
    written = 0
    with (
        exporting(path_of(path, "path"), replace=replace) as beside,
        beside.open("w", encoding="utf-8", newline="\n") as file,
    ):
        for pair in labeled_pairs(evaluations, min_margin=min_margin, every=every):
            file.write(json.dumps(pair, ensure_ascii=False) + "\n")
            written += 1
    return written


def _texts(given: object, where: str) -> list[Text | None]:
    """Return what TRL passed; raises ConfigurationError for what is neither text nor conversation."""
    items = items_of(given, where, "texts or conversations")
    return [
        item
        if item is None or isinstance(item, str)
        else cast("Text", items_of(item, f"{where}[{place}]", "messages, or a text"))
        for place, item in enumerate(items)
    ]


def _question(prompt: Text | None) -> _Question:
    if prompt is None or isinstance(prompt, str):
        return whole_characters(prompt or ""), ()
    return question_in(prompt)


def _answer(completion: Text | None) -> str:
    if completion is None or isinstance(completion, str):
        return whole_characters(completion or "")
    return last_answer(completion)


def _requests(user: str, question: _Question, texts: Sequence[str]) -> Iterator[EvaluationRequest]:
    """Yield what is to be judged, in groups that a request can hold; nothing that is of no use."""
    query, conversation = question
    if not query.strip():
        return
    usable = [text for text in texts if text.strip() and len(text) <= MAX_TEXT]
    for first in range(0, len(usable), MAX_CANDIDATES):
        # What remains to be refused is a prompt that is longer than anybody reads.
        with suppress(InvalidInput):
            group = usable[first : first + MAX_CANDIDATES]
            yield evaluation_request(user, query, group, conversation)


def _means(result: Evaluation | PGenRMError) -> dict[str, float]:
    """Mean score by text; empty for an evaluation without a readable chain."""
    if isinstance(result, ChainError):
        return {}
    if isinstance(result, PGenRMError):
        raise result
    texts = {candidate.id: candidate.text for candidate in result.request.candidates}
    return {
        texts[score.candidate_id]: score.mean for score in result.scores if score.mean is not None
    }
