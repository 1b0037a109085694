"""Ask a server: in its dialect, at a bounded pace, again after what passes, and part for part."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from pgenrm_agent.background_loop import all_or_cancel
from pgenrm_agent.engines.answers import Answer
from pgenrm_agent.engines.confidential import WITHHELD_WORDS, unlogged
from pgenrm_agent.engines.dialect import Dialect, Request, learn
from pgenrm_agent.engines.masking import without_key
from pgenrm_agent.engines.outcomes import TIME_OVER, failed_samples
from pgenrm_agent.engines.protocol import (
    Completion,
    FinishReason,
    Prompt,
    SamplingParams,
    SchemaRefused,
)
from pgenrm_agent.engines.server_errors import (
    LONGEST_WAIT_S,
    Advice,
    Filtered,
    ServerFault,
    explain,
)
from pgenrm_agent.errors import ConfigurationError, EngineTimeout, PGenRMError

T = TypeVar("T")

logger = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 8.0
"""The longest wait between two attempts, unless the server names one."""


class Pace:
    """Bounds requests: so many at a time, and so many a minute, evenly spread.

    Raises ConfigurationError for numbers that bound nothing.
    """

    def __init__(self, concurrency: int, requests_per_minute: float | None = None) -> None:
        if concurrency < 1:
            raise ConfigurationError(f"concurrency is {concurrency}: pass at least 1")
        if requests_per_minute is not None and not requests_per_minute > 0:
            raise ConfigurationError(
                f"requests_per_minute is {requests_per_minute}: pass more than 0, or None for no cap"
            )
        self._slots = asyncio.Semaphore(concurrency)
        self._interval_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._turn = asyncio.Lock()
        self._next_start = 0.0

    @property
    def slot(self) -> asyncio.Semaphore:
        """One of the places for requests, to be held with `async with`."""
        return self._slots

    async def turn(self) -> None:
        """Wait until a request may be sent. One that is canceled while it waits takes no turn."""
        if not self._interval_s:
            return
        time = asyncio.get_running_loop().time
        async with self._turn:
            await asyncio.sleep(max(0.0, self._next_start - time()))
            self._next_start = time() + self._interval_s


class Asking:
    """What is known of one server, and the way to ask it.

    where: the server, for messages.
    keys: what no message may hold a part of.
    """

    def __init__(
        self,
        where: str,
        dialect: Dialect,
        *,
        pace: Pace,
        retries: int,
        advice: Advice,
        keys: Iterable[str] = (),
    ) -> None:
        if retries < 0:
            raise ConfigurationError(f"retries is {retries}: pass 0 or more")
        self.where = where
        self.dialect = dialect
        self._pace = pace
        self._retries = retries
        self._advice = advice
        self._keys = tuple(keys)
        self._schema_refusal = ""

    async def ask(
        self,
        request: Request,
        send: Callable[[Request], Awaitable[T]],
        gathering: Gathering,
        *,
        confidential: bool = False,
    ) -> tuple[Request, T]:
        """Return the request as it was answered, and the answer.

        send: makes one attempt; raises ServerFault. confidential: see `Prompt`.

        Raises SchemaRefused where the server knows no way to hold to a schema, and what `explain`
        makes of any other fault.
        """
        async with self._pace.slot:
            if gathering.hopeless is not None:
                raise gathering.hopeless
            return await self._ask(request, send, gathering, confidential)

    async def _ask(
        self,
        request: Request,
        send: Callable[[Request], Awaitable[T]],
        gathering: Gathering,
        confidential: bool,
    ) -> tuple[Request, T]:
        attempts, alone = 0, False
        while True:
            self._translated(request)  # What is refused anyway takes no turn.
            await self._pace.turn()
            if gathering.hopeless is not None and not attempts:
                raise gathering.hopeless
            told = self._translated(request)  # Much may have been learned meanwhile.
            try:
                with unlogged(confidential):
                    answer = await send(told)
            except ServerFault as caught:
                # Handled below, so that no error has it for its context: it may quote the key.
                fault = caught
            else:
                gathering.answered = True
                if alone:
                    self.adopt("n", "fewer samples are asked for in one request", together=1)
                return told, answer
            if confidential:
                fault.words = replace(fault.words, text=WITHHELD_WORDS)
                fault.__cause__ = None
            self._learn(told, fault)
            if self._translated(request) != told:
                continue
            attempts += 1
            if fault.is_about_length and "max_tokens" in request:
                # Less room is left than was asked for. Without a limit a server writes up to its
                # context's end, as the engines in this process do; a prompt too long is refused
                # again.
                request = {name: part for name, part in request.items() if name != "max_tokens"}
            elif "n" in told and fault.is_plain_refusal:
                # It may mean n without a word of it. If it does not, this one fails as well.
                request, alone = {**request, "n": 1}, True
            elif (wait := self._wait_s(fault, attempts)) is not None:
                await asyncio.sleep(wait)
            else:
                raise self._given_up(fault, attempts, gathering) from self._cause(fault)

    def sample(
        self, answer: Answer, params: SamplingParams, *, tokens: int, prompt_tokens: int
    ) -> Completion:
        """Return an answer as a sample, with no part of a key in what is said about it."""
        sample = answer.completion(
            stops=params.stop,
            tokens=tokens,
            prompt_tokens=prompt_tokens,
            max_tokens=params.max_tokens,
        )
        detail = without_key(sample.detail, self._keys)
        return sample if detail == sample.detail else sample.model_copy(update={"detail": detail})

    def adopt(self, part: str, consequence: str, **changes: object) -> None:
        """Change the dialect by what an answer showed, and say so once."""
        changed = replace(self.dialect, **changes)  # type: ignore[arg-type]
        if changed != self.dialect:
            self.dialect = changed
            logger.warning("%s and %s: %s", self.where, part, consequence)

    def stop_here(self, reason: str) -> None:
        """Send no stop strings any more: texts are cut here."""
        dropped = self.dialect.dropped | {"stop"}
        self.adopt("stop", f"{reason}: texts are cut here", dropped=dropped)

    def _translated(self, request: Request) -> Request:
        if "json_schema" in request and not self.dialect.schema_ways:
            raise SchemaRefused(
                f"{self.where} cannot hold an answer to a JSON schema"
                f" ({self._schema_refusal or 'it has no way to'}): use a format in prose"
            )
        return self.dialect.translate(request)

    def _learn(self, told: Request, fault: ServerFault) -> None:
        untaught = fault.is_about_length or fault.is_too_large or fault.is_about_answer
        if untaught or fault.is_filter:
            return
        learned, lessons = learn(self.dialect, told, fault)
        if learned.schema_ways != self.dialect.schema_ways:
            self._schema_refusal = without_key(fault.words.text, self._keys)
        self.dialect = learned
        for lesson in lessons:
            logger.warning("%s %s", self.where, lesson)

    def _wait_s(self, fault: ServerFault, attempts: int) -> float | None:
        """How long to wait before the next attempt; None if there is none."""
        if fault.retried or not fault.is_transient or attempts > self._retries:
            return None
        if fault.wait_s is not None:
            return fault.wait_s if fault.wait_s <= LONGEST_WAIT_S else None
        backoff: float = min(FIRST_BACKOFF_S * 2 ** (attempts - 1), LONGEST_BACKOFF_S)
        return backoff * random.uniform(0.75, 1.0)

    def _cause(self, fault: ServerFault) -> BaseException | None:
        """What the fault came from, unless its words hold a part of a key: a traceback shows them."""
        said = str(fault.__cause__)
        return fault.__cause__ if without_key(said, self._keys) == said else None

    def _given_up(self, fault: ServerFault, attempts: int, gathering: Gathering) -> PGenRMError:
        fault.words = replace(fault.words, text=without_key(fault.words.text, self._keys))
        error = explain(fault, self.where, attempts=attempts, advice=self._advice)
        if fault.concerns_all or (fault.is_transient and not gathering.answered):
            gathering.hopeless = error
        return error


class Gathering:
    """The samples of one call, as they come in. One that fails is a sample that says why.

    answered: whether any request of the call was.
    hopeless: what every request that has not begun would end in: the key is refused, or nothing was
        answered while the repetitions of a request were used up.
    """

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self._places: list[list[Completion | PGenRMError | None]] = [
            [None] * prompt.n for prompt in prompts
        ]
        self.answered = False
        self.hopeless: PGenRMError | None = None

    async def put(
        self,
        prompt: int,
        first: int,
        count: int,
        asked: Coroutine[object, object, list[Completion]],
    ) -> int:
        """Await samples for the places from `first` on, and return how many places have theirs now."""
        try:
            came: Sequence[Completion | PGenRMError] = await asked
        except PGenRMError as error:
            came = [error] * count
        self._places[prompt][first : first + len(came)] = came
        return len(came)

    async def finish(
        self,
        work: Sequence[Coroutine[object, object, object]],
        timeout_s: float | None,
        began: float | None = None,
    ) -> list[list[Completion]]:
        """Await the work, until `timeout_s` after the call began, and return the samples.

        Raises the first error where every sample ended in one, or the first `SchemaRefused`: without
        a schema there is an answer yet.
        """
        try:
            now = asyncio.get_running_loop().time()
            end = None if timeout_s is None else timeout_s + (began or now)
            async with asyncio.timeout_at(end):
                await all_or_cancel(work)
        except TimeoutError:
            if timeout_s is None:
                raise
        outcomes = [outcome for places in self._places for outcome in places]
        errors = [outcome for outcome in outcomes if isinstance(outcome, PGenRMError)]
        if errors and len(errors) == len(outcomes):
            raise next((error for error in errors if isinstance(error, SchemaRefused)), errors[0])
        [late] = failed_samples(1, TIME_OVER.format(seconds=timeout_s or 0.0), "timeout")
        return [
            [
                late
                if outcome is None
                else outcome
                if isinstance(outcome, Completion)
                else _failed(outcome)
                for outcome in places
            ]
            for places in self._places
        ]


async def asked_again(
    asked: Coroutine[object, object, list[Completion]], before: Completion
) -> list[Completion]:
    """Await a sample in place of `before`, and return it with the tokens of both.

    One that fails is a failed sample: the tokens of `before` are paid for.
    """
    try:
        [sample, *_] = await asked
    except SchemaRefused:
        raise
    except PGenRMError as error:
        sample = _failed(error)
    spent = {
        "tokens": before.tokens + sample.tokens,
        "prompt_tokens": before.prompt_tokens + sample.prompt_tokens,
    }
    return [sample.model_copy(update=spent)]


def _failed(error: PGenRMError) -> Completion:
    reason: FinishReason = (
        "timeout"
        if isinstance(error, EngineTimeout)
        else "filtered"
        if isinstance(error, Filtered)
        else "failed"
    )
    return failed_samples(1, str(error), reason)[0]
