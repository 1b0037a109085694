"""The OpenAI engine: any server with an OpenAI-compatible chat endpoint, vLLM's own included.

Connections and credentials are the official client's. What a server takes is learned in dialect.py,
repetitions and pace are in asking.py, its answers are read in answers.py: here they are put together.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pgenrm_agent.arguments import is_server_address
from pgenrm_agent.background_loop import BackgroundLoop, all_or_cancel
from pgenrm_agent.engines.answers import (
    Answer,
    Usage,
    check_read_whole,
    cut_short,
    foreign_form,
    read_answers,
    share_tokens,
)
from pgenrm_agent.engines.asking import Asking, Gathering, Pace, asked_again
from pgenrm_agent.engines.bodies import data_in
from pgenrm_agent.engines.dialect import LIMITS, Dialect, Request
from pgenrm_agent.engines.grammar import json_grammar
from pgenrm_agent.engines.identity import identity
from pgenrm_agent.engines.masking import without_credentials
from pgenrm_agent.engines.outcomes import read_once
from pgenrm_agent.engines.protocol import Capabilities, Completion, Prompt, SamplingParams
from pgenrm_agent.engines.server_errors import (
    TRANSIENT_STATUSES,
    Advice,
    ServerFault,
    ServerWords,
    read_words,
    wait_asked_for,
)
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.schema import Message

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["OpenAIEngine", "first_seed"]

LOOKUP_TIMEOUT_S = 5.0
LOOKUP_PAUSE_S = 60.0
NO_KEY = "none"
"""Stands in for a key: the client insists on one, servers of one's own often want none."""
SECRET_HEADER = re.compile(r"key|token|auth|secret|cookie", re.IGNORECASE)
# Else vLLM samples by the model's generation_config.json, not as asked.
VLLM_FIELDS = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "return_token_ids": True}
CONTINUING = {"continue_final_message": True, "add_generation_prompt": False}


def first_seed(seed: int) -> int:
    """The seed of a prompt's sample 0; sample j has this plus j, which is also how vLLM counts.

    Hashed, so that prompts with neighboring seeds do not share samples. In [0, 2**31 - 2**16),
    because some servers keep a seed in 32 bits.
    """
    digest = hashlib.blake2b(str(seed).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (2**31 - 2**16)


class OpenAIEngine:
    """A model behind an OpenAI-compatible server.

    model: the name under which the server offers it.
    base_url: such as "http://localhost:8000/v1"; None takes OPENAI_BASE_URL, then OpenAI itself.
    api_key: None takes OPENAI_API_KEY; a server given by `base_url` may need none.
    concurrency: most requests in flight, over all callers.
    requests_per_minute: most requests begun in a minute, evenly spread; None for no cap.
    timeout_s: seconds for one attempt.
    retries: further attempts after 408, 409, 425, 429 (or 400, 403, 413 with words of a rate limit),
        5xx, an error with status 200, a time-out or a lost connection, with growing pauses of 0.5 to
        8 s, or as long as the server asks (one that asks for more than 2 minutes is given up).
    max_tokens: new tokens a sample may take, thinking included, in place of what a call asks for.
    extra_body: further fields of every request; they count more than the engine's own.
    headers: further headers of every request.
    continues: whether the server extends a begun answer as vLLM does (`continue_final_message`).
        None looks it up: a vLLM server does, any other is taken not to. The look-up is one request
        at the first use, again after a minute where nothing useful was answered; `capabilities` waits
        for it, at most 5 s.

    What a server refuses by name is left out, renamed or said in another way from then on, with one
    line in the log: `stop`, `seed`, `n`, `temperature`, `top_p`, the token limit, the system role,
    the way to hold to a schema. A vLLM server is given a grammar of compact JSON: by a schema it lets
    the model write white space without end.

    Raises:
        ConfigurationError: the package `openai` is missing, no key is known, or a number is out of
            its range.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        concurrency: int = 16,
        requests_per_minute: float | None = None,
        timeout_s: float = 120.0,
        retries: int = 4,
        max_tokens: int | None = None,
        extra_body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        continues: bool | None = None,
    ) -> None:
        if timeout_s <= 0:
            raise ConfigurationError(f"timeout_s is {timeout_s}: pass more than 0 seconds")
        if max_tokens is not None and max_tokens < 1:
            raise ConfigurationError(f"max_tokens is {max_tokens}: pass at least 1")
        pace = Pace(concurrency, requests_per_minute)
        self._headers = dict(headers or {})
        self._client = _client(base_url, api_key, timeout_s, self._headers)
        self._model = model
        self._url = without_credentials(str(self._client.base_url)).rstrip("/")
        self._timeout_s = timeout_s
        self._max_tokens = max_tokens
        self._extra_body = dict(extra_body or {})
        self._continues = continues
        self._is_vllm: bool | None = None
        self._looking = asyncio.Lock()
        self._no_look_before = 0.0
        self._asking = Asking(
            f"{self.name} at {self._url}",
            _own_dialect(self._extra_body),
            pace=pace,
            retries=retries,
            advice=Advice(
                key="set OPENAI_API_KEY or pass api_key=...",
                timeout="raise timeout_s, or look at the server's load",
                unreachable="start the server, or correct base_url",
                overload="lower concurrency, set requests_per_minute, or raise retries",
                missing=f"ask {self._url}/models for the models it serves, and note that a base_url"
                " usually ends in /v1",
            ),
            keys=_secrets(self._client.api_key, str(self._client.base_url), self._headers),
        )
        self._loop = BackgroundLoop(self.name)

    def __repr__(self) -> str:
        return f"OpenAIEngine({self._model!r}, base_url={self._url!r})"

    @property
    def name(self) -> str:
        """Name the engine in results and errors."""
        return f"openai:{self._model}"

    @property
    def models(self) -> tuple[str, ...]:
        """The name under which the server offers the model."""
        return (self._model,)

    @property
    def source(self) -> str:
        """What is asked: the server's address, the model, and a digest of the settings that count."""
        return identity(
            self._url,
            self._model,
            max_tokens=self._max_tokens,
            extra_body=self._extra_body,
            headers={
                name: value
                for name, value in self._headers.items()
                if not SECRET_HEADER.search(name)
            },
        )

    @property
    def capabilities(self) -> Capabilities:
        """What the server can do. An unreachable server is taken to do the least, for now."""
        is_vllm = self._is_vllm
        if is_vllm is None:
            is_vllm = self._loop.run_blocking(self._look_up)
        dialect = self._asking.dialect
        return Capabilities(
            continues=is_vllm if self._continues is None else self._continues,
            seeds="per_batch" if is_vllm and "seed" not in dialect.dropped else "none",
            json_schema=bool(dialect.schema_ways),
        )

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        """Sample every prompt n times; see `Engine`.

        Raises, where every sample fails:
            ConfigurationError: the server refuses the request or the key, or is asked to continue
                an answer and cannot.
            SchemaRefused: the server knows no way to hold to a schema.
            EngineUnavailable: no such server or model, an answer in the form of another API, or still
                overloaded after the last retry.
            EngineTimeout: no answer in time.
            EngineError: the server failed, or its answer makes no sense.
        """
        if not prompts:
            return []
        return await self._loop.run(lambda: self._sample_all(prompts, params))

    async def aclose(self) -> None:
        """Cancel what is in flight and close the connections. Calling it again does nothing."""
        await asyncio.to_thread(self._loop.close, self._client.close)

    # --- on the background loop ---

    async def _sample_all(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        began = asyncio.get_running_loop().time()
        is_vllm = await self._look_up()
        can_continue = is_vllm if self._continues is None else self._continues
        if not can_continue and any(prompt.partial for prompt in prompts):
            raise ConfigurationError(
                f"{self._asking.where} is not known to continue a begun answer: serve the"
                " model with vLLM, or pass continues=True if the server knows"
                " continue_final_message"
            )
        if self._max_tokens is not None:
            params = params.model_copy(update={"max_tokens": self._max_tokens})
        gathering = Gathering(prompts)
        work = [
            _PromptSampling(self, self._asking, gathering, place, prompt, params).fill(0, prompt.n)
            for place, prompt in enumerate(prompts)
        ]
        return await gathering.finish(work, params.timeout_s, began)

    async def _look_up(self) -> bool:
        """Whether vLLM serves the model; looked up once, False (for a minute) if that fails."""
        async with self._looking:
            if self._is_vllm is None and time.monotonic() >= self._no_look_before:
                self._is_vllm = await self._asked_for_models()
                self._no_look_before = time.monotonic() + LOOKUP_PAUSE_S
        return bool(self._is_vllm)

    async def _asked_for_models(self) -> bool | None:
        """Whether vLLM serves the model, by the server's list; None where nothing tells for now."""
        import openai

        client = self._client.with_options(timeout=LOOKUP_TIMEOUT_S)
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                served = await client.models.list()
            owners = {entry.id: entry.owned_by for entry in served.data}
        except openai.APIStatusError as error:
            # A server without a list of models, or that shows it to others.
            return None if error.status_code in TRANSIENT_STATUSES else False
        except (TimeoutError, openai.OpenAIError, ValueError, AttributeError, TypeError):
            return None
        return owners.get(self._model) == "vllm"

    async def request(
        self, prompt: Prompt, params: SamplingParams, *, n: int, seed: int
    ) -> Request:
        """Return all that is wanted of an answer; the server's dialect makes a request of it."""
        request: Request = {
            "messages": prompt.messages,
            "temperature": params.temperature,
            "seed": seed,
            "n": n,
            "max_tokens": params.max_tokens,
        }
        if prompt.partial:
            begun = Message(role="assistant", content=prompt.partial)
            request |= {"messages": (*prompt.messages, begun), **CONTINUING}
        if params.stop:
            request["stop"] = list(params.stop)
        if params.top_p < 1 or self._is_vllm:
            request["top_p"] = params.top_p
        if self._is_vllm:
            request |= VLLM_FIELDS
        if prompt.json_schema is not None:
            request["json_schema"] = prompt.json_schema
            if self._is_vllm and self._asking.dialect.takes_grammar:
                with contextlib.suppress(ConfigurationError):  # A schema may say more than one can.
                    grammar = await asyncio.to_thread(json_grammar, prompt.json_schema)
                    request["json_grammar"] = grammar
        return request

    async def send(self, request: Request) -> tuple[list[Answer], Usage]:
        """Make one attempt and return what came of it. Raises ServerFault."""
        import openai

        messages = request["messages"]
        assert isinstance(messages, tuple)
        fields = {name: value for name, value in request.items() if name != "messages"}
        sent = {**fields, **self._extra_body}
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.chat.completions.with_raw_response.create(
                    model=self._model,
                    messages=[message.model_dump() for message in messages],
                    extra_body=sent,
                )
        except (TimeoutError, openai.APITimeoutError):
            words = ServerWords(f"within {self._timeout_s:g} s")
            raise ServerFault(words, kind="timeout") from None
        except openai.APIStatusError as error:
            words = read_words(data_in(error.response.text))
            # A gateway's 500 may be about an upstream's 400.
            status = words.status if error.status_code >= 500 else None
            fault = ServerFault(
                words,
                status=status or error.status_code,
                wait_s=wait_asked_for(error.response.headers, words),
            )
            if fault.is_about_reached_limit:
                count = request.get("n", 1)
                assert isinstance(count, int)
                return cut_short(sent, count)
            raise fault from None
        except openai.OpenAIError as error:
            raise ServerFault(ServerWords(_innermost(error)), kind="connection") from None
        return _read(data_in(response.text), response.headers)


@dataclass(frozen=True)
class _PromptSampling:
    """The samples of one prompt of a call."""

    engine: OpenAIEngine
    asking: Asking
    gathering: Gathering
    place: int
    prompt: Prompt
    params: SamplingParams

    async def fill(self, first: int, count: int) -> None:
        """Sample for `count` places from `first` on, in as few requests as the server allows."""
        together = min(count, self.asking.dialect.together or count)
        if self.params.temperature == 0:
            together = 1  # vLLM refuses more.
        starts = range(first, first + count, together)
        await all_or_cancel(
            [self._fill_part(start, min(together, first + count - start)) for start in starts]
        )

    async def _fill_part(self, first: int, count: int) -> None:
        stopped: dict[int, Completion] = {}
        came = await self.gathering.put(
            self.place, first, count, self._sample(first, count, stopped)
        )
        if stopped:
            self.asking.stop_here("it ends the thinking, too")
        again = [
            self.gathering.put(
                self.place, place, 1, asked_again(self._sample(place, 1, {}), sample)
            )
            for place, sample in stopped.items()
        ]
        if came < count:
            together = min(came, self.asking.dialect.together or came)
            self.asking.adopt("n", f"it gave {came} of {count} samples", together=together)
        await all_or_cancel(again)
        if came < count:
            await self.fill(first + came, count - came)

    async def _sample(
        self, first: int, count: int, stopped: dict[int, Completion]
    ) -> list[Completion]:
        """Sample for places from `first` on, for some at least.

        stopped: is told the places whose thinking a stop string ended, with what came of them.
        """
        seed = first_seed(self.prompt.seed) + first
        request = await self.engine.request(self.prompt, self.params, n=count, seed=seed)
        told, (answers, usage) = await self.asking.ask(
            request, self.engine.send, self.gathering, confidential=self.prompt.confidential
        )
        check_read_whole(request["messages"], usage)
        answers = answers[:count]
        shares = share_tokens(answers, usage.completion)
        samples = read_once(
            [
                self.asking.sample(answer, self.params, tokens=tokens, prompt_tokens=usage.prompt)
                for answer, tokens in zip(answers, shares, strict=True)
            ]
        )
        if "stop" in told and not self.prompt.partial:
            stopped |= {
                first + place: samples[place]
                for place, answer in enumerate(answers)
                if answer.ended == "stop" and answer.is_only_thought
            }
        return samples


def _client(
    base_url: str | None, api_key: str | None, timeout_s: float, headers: dict[str, str]
) -> AsyncOpenAI:
    try:
        import openai
    except ImportError as error:
        raise ConfigurationError(
            "the OpenAI engine needs the package openai: pip install 'pgenrm-agent[openai]'"
        ) from error
    make = partial(
        openai.AsyncOpenAI,
        base_url=base_url,
        timeout=timeout_s,
        max_retries=0,
        default_headers=headers,
    )
    named = "OPENAI_BASE_URL" if base_url is None else "base_url"
    address = os.environ.get(named) if base_url is None else base_url
    if address is not None and not is_server_address(address):
        # It is not shown: a password may be in it.
        raise ConfigurationError(
            f"{named} is no address of a server: write it like http://localhost:8000/v1"
        )
    try:
        return make(api_key=api_key)
    except openai.OpenAIError:
        if base_url is None:
            raise ConfigurationError(
                "no API key: set OPENAI_API_KEY or pass api_key=..., or pass the base_url of a"
                " server that needs none"
            ) from None
        return make(api_key=NO_KEY)


def _own_dialect(extra_body: Mapping[str, object]) -> Dialect:
    """The dialect in which the caller's own fields are not said a second time."""
    limit = {"max_tokens"} if any(name in extra_body for name in LIMITS) else set[str]()
    return Dialect(dropped=frozenset(extra_body) | limit)


def _secrets(api_key: str, url: str, headers: Mapping[str, str]) -> tuple[str, ...]:
    """What no message may hold a part of."""
    kept = [value for name, value in headers.items() if SECRET_HEADER.search(name)]
    kept = [word for value in kept for word in value.split() if len(word) >= 8]
    password = urlsplit(url).password
    return tuple(filter(None, ("" if api_key == NO_KEY else api_key, password, *kept)))


def _read(body: object, headers: Mapping[str, str]) -> tuple[list[Answer], Usage]:
    """Read a body that came with status 200. Raises ServerFault if it holds an error, or nothing."""
    if isinstance(body, list) and len(body) == 1:
        [body] = body  # Google's errors stand in a list.
    # Ollama streams an object a line.
    form = foreign_form(data_in(body.partition("\n")[0]) if isinstance(body, str) else body)
    if form:
        raise ServerFault(ServerWords(form), kind="foreign")
    if isinstance(body, str):
        words = read_words(body)
        raise ServerFault(ServerWords(f"it is no JSON: {words.text}"), kind="senseless")
    wrong = ""
    answers, usage = list[Answer](), Usage()
    try:
        answers, usage = read_answers(body)
    except ValueError as error:
        wrong = str(error)
    has_text = any(answer.text or answer.reasoning for answer in answers)
    if (
        isinstance(body, Mapping)
        and not has_text
        and (body.get("error") or not body.get("choices"))
    ):
        words = read_words(body)
        if words.everything:
            status = words.status or words.meaning
            if status is None and ServerFault(words).is_filter:
                status = 400
            if status is None and not body.get("error"):
                raise ServerFault(ServerWords(f"{wrong}: {words.text}"), kind="senseless")
            status = status or 500
            raise ServerFault(words, status=status, wait_s=wait_asked_for(headers, words))
    if wrong:
        raise ServerFault(ServerWords(wrong), kind="senseless")
    broken = [
        answer for answer in answers if answer.fault and answer.fault_status in TRANSIENT_STATUSES
    ]
    if len(broken) == len(answers):
        raise ServerFault(ServerWords(broken[0].fault), status=broken[0].fault_status)
    return answers, usage


def _innermost(error: BaseException) -> str:
    """The innermost cause: the client's own message is just "Connection error."."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error).strip() or type(error).__name__
