"""The OpenAI engine: any server with an OpenAI-compatible chat endpoint, vLLM's own included.

Retries with backoff, time-outs per attempt and connection reuse are the official client's; bounded
concurrency, samples that a server did not return, and continuing a begun answer are done here.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from pgenrm_agent.background_loop import BackgroundLoop, all_or_cancel
from pgenrm_agent.engines.protocol import Capabilities, Completion, Prompt, SamplingParams
from pgenrm_agent.errors import (
    ConfigurationError,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    PGenRMError,
)

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletionMessageParam

__all__ = ["OpenAIEngine", "first_seed"]

logger = logging.getLogger(__name__)

LOOKUP_TIMEOUT_S = 5.0
LONGEST_BACKOFF_S = 8.0
"""The official client's longest wait between two attempts, unless the server names one."""
NO_KEY = "none"
"""Stands in for a key: the client insists on one, servers of one's own often want none."""


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
    timeout_s: seconds for one attempt.
    retries: further attempts after 408, 409, 429, 5xx, a time-out or a lost connection, with
        growing pauses of 0.5 to 8 s, or as long as the server asks (2 minutes at most).
    continues: whether the server extends a begun answer as vLLM does (`continue_final_message`).
        None looks it up: a vLLM server does, any other is taken not to. The look-up is one request
        at the first use; `capabilities` waits for it, at most 5 s.

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
        timeout_s: float = 120.0,
        retries: int = 4,
        continues: bool | None = None,
    ) -> None:
        try:
            import openai
        except ImportError as error:
            raise ConfigurationError(
                "the OpenAI engine needs the package openai: pip install 'pgenrm-agent[openai]'"
            ) from error
        if concurrency < 1:
            raise ConfigurationError(f"concurrency is {concurrency}: pass at least 1")
        if timeout_s <= 0:
            raise ConfigurationError(f"timeout_s is {timeout_s}: pass more than 0 seconds")
        if retries < 0:
            raise ConfigurationError(f"retries is {retries}: pass 0 or more")
        try:
            self._client: AsyncOpenAI = openai.AsyncOpenAI(
                base_url=base_url,
                api_key=api_key,
                timeout=timeout_s,
                max_retries=retries,
            )
        except openai.OpenAIError:
            if base_url is None:
                raise ConfigurationError(
                    "no API key: set OPENAI_API_KEY or pass api_key=..., or pass the base_url of a"
                    " server that needs none"
                ) from None
            self._client = openai.AsyncOpenAI(
                base_url=base_url, api_key=NO_KEY, timeout=timeout_s, max_retries=retries
            )
        self._model = model
        self._url = str(self._client.base_url).rstrip("/")
        self._key = self._client.api_key
        self._timeout_s = timeout_s
        self._retries = retries
        self._continues = continues
        self._slots = asyncio.Semaphore(concurrency)
        self._is_vllm: bool | None = None
        self._one_at_a_time = False
        self._limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
        self._loop = BackgroundLoop(self.name)

    def __repr__(self) -> str:
        return f"OpenAIEngine({self._model!r}, base_url={self._url!r})"

    @property
    def name(self) -> str:
        return f"openai:{self._model}"

    @property
    def capabilities(self) -> Capabilities:
        """What the server can do. An unreachable server is taken to do the least, for now."""
        is_vllm = self._is_vllm
        if is_vllm is None:
            is_vllm = self._loop.run_blocking(self._look_up)
        return Capabilities(
            continues=is_vllm if self._continues is None else self._continues,
            seeds="per_batch" if is_vllm else "none",
        )

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        """Sample every prompt n times; see `Engine`.

        Raises:
            ConfigurationError: the server refuses the request or the key, or is asked to continue
                an answer and cannot.
            EngineUnavailable: no such server or model, or still overloaded after the last retry.
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
        is_vllm = await self._look_up()
        can_continue = is_vllm if self._continues is None else self._continues
        if not can_continue and any(prompt.partial for prompt in prompts):
            raise ConfigurationError(
                f"{self.name} at {self._url} is not known to continue a begun answer: serve the"
                " model with vLLM, or pass continues=True if the server knows"
                " continue_final_message"
            )
        return await all_or_cancel([self._sample_one(prompt, params) for prompt in prompts])

    async def _sample_one(self, prompt: Prompt, params: SamplingParams) -> list[Completion]:
        seed = first_seed(prompt.seed)
        answers: list[Completion] = []
        # At temperature 0 vLLM refuses n > 1.
        if prompt.n > 1 and params.temperature > 0 and not self._one_at_a_time:
            answers = await self._sample_together(prompt, params, seed)
        rest = [
            self._ask(prompt, params, n=1, seed=seed + number)
            for number in range(len(answers), prompt.n)
        ]
        answers.extend(
            completion for single in await all_or_cancel(rest) for completion in single[:1]
        )
        return answers

    async def _sample_together(
        self, prompt: Prompt, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """Ask for n samples in one request: up to n come back, from a server without n only one."""
        try:
            answers = await self._ask(prompt, params, n=prompt.n, seed=seed)
        except _Refused:
            # Some servers refuse n > 1. If that was not the reason, this one fails as well.
            answers = await self._ask(prompt, params, n=1, seed=seed)
        if len(answers) < prompt.n:
            self._one_at_a_time = True
            logger.warning(
                "%s at %s gave %d of %d samples: each sample is now a request of its own",
                self.name,
                self._url,
                len(answers),
                prompt.n,
            )
        return answers[: prompt.n]

    async def _ask(
        self, prompt: Prompt, params: SamplingParams, *, n: int, seed: int, limited: bool = True
    ) -> list[Completion]:
        import openai

        messages: list[dict[str, str]] = [message.model_dump() for message in prompt.messages]
        extra: dict[str, object] = {}
        if prompt.partial:
            messages.append({"role": "assistant", "content": prompt.partial})
            extra |= {"continue_final_message": True, "add_generation_prompt": False}
        if n > 1:
            extra["n"] = n
        if params.stop:
            extra["stop"] = list(params.stop)
        if limited:
            extra[self._limit_name] = params.max_tokens
        if params.top_p < 1 or self._is_vllm:
            extra["top_p"] = params.top_p
        if self._is_vllm:
            # Else the server samples by the model's generation_config.json, not as asked.
            extra |= {
                "top_k": -1,
                "min_p": 0.0,
                "repetition_penalty": 1.0,
                "return_token_ids": True,
            }
        used_name = self._limit_name
        try:
            async with self._slots, asyncio.timeout(self._whole_time_s):
                response: object = await self._client.chat.completions.create(
                    model=self._model,
                    messages=_typed(messages),
                    temperature=params.temperature,
                    seed=seed,
                    extra_body=extra,
                )
        except (TimeoutError, openai.APITimeoutError):
            raise EngineTimeout(
                f"{self.name} at {self._url} did not answer within {self._timeout_s:g} s, asked"
                f" {self._retries + 1} times: raise timeout_s, or look at the server's load"
            ) from None
        except openai.BadRequestError as error:
            if limited and used_name == "max_tokens" and _is_about_name(error):
                self._limit_name = "max_completion_tokens"
                return await self._ask(prompt, params, n=n, seed=seed)
            if limited and self._is_vllm and _is_about_length(error):
                # Less room is left than max_tokens. Without a limit vLLM writes up to its context's
                # end, as the engines in this process do; a prompt too long is refused again.
                return await self._ask(prompt, params, n=n, seed=seed, limited=False)
            raise self._explained(error) from None
        except openai.OpenAIError as error:
            raise self._explained(error) from None
        except ValueError as error:  # JSON that is none
            raise EngineError(f"{self._senseless()}: {error}") from None
        return self._read(response, n)

    @property
    def _whole_time_s(self) -> float:
        """A bound on one request with its retries: a server that trickles bytes never idles."""
        return self._timeout_s * (self._retries + 1) + LONGEST_BACKOFF_S * self._retries

    async def _look_up(self) -> bool:
        """Whether vLLM serves the model; looked up once, False (for now) if that fails."""
        if self._is_vllm is None:
            import openai

            client = self._client.with_options(timeout=LOOKUP_TIMEOUT_S, max_retries=0)
            try:
                async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                    served = await client.models.list()
                owners = {entry.id: entry.owned_by for entry in served.data}
            except openai.NotFoundError:
                owners = {}  # a server without a list of models
            except (TimeoutError, openai.OpenAIError, ValueError, AttributeError, TypeError):
                return False
            self._is_vllm = owners.get(self._model) == "vllm"
        return self._is_vllm

    # --- answers ---

    def _read(self, response: object, asked: int) -> list[Completion]:
        """The client does not validate what a server sends, so this does."""
        from openai.types import CompletionUsage
        from openai.types.chat import ChatCompletion
        from openai.types.chat.chat_completion import Choice

        choices: object = response.choices if isinstance(response, ChatCompletion) else None
        if not isinstance(response, ChatCompletion) or not isinstance(choices, list) or not choices:
            raise EngineError(f"{self._senseless()}: there are no choices in it")
        read: list[tuple[str, str, object]] = []
        for choice in sorted(
            choices,
            key=lambda choice: (
                choice.index if isinstance(getattr(choice, "index", None), int) else 0
            ),
        ):
            message = getattr(choice, "message", None)
            content = getattr(message, "content", None)
            if not isinstance(choice, Choice) or message is None:
                raise EngineError(f"{self._senseless()}: a choice has no message")
            if content is not None and not isinstance(content, str):
                raise EngineError(f"{self._senseless()}: a message's content is no text")
            token_ids = (choice.model_extra or {}).get("token_ids")
            read.append((content or "", str(choice.finish_reason), token_ids))

        usage = response.usage if isinstance(response.usage, CompletionUsage) else None
        total = usage.completion_tokens if usage else None
        counts = _token_counts([text for text, _, _ in read[:asked]], total)
        return [
            Completion(
                text=text,
                tokens=len(token_ids) if isinstance(token_ids, list) else count,
                prompt_tokens=(usage.prompt_tokens or 0) if usage else 0,
                # A content filter cuts an answer short too.
                finish_reason="length" if reason in {"length", "content_filter"} else "stop",
            )
            for (text, reason, token_ids), count in zip(read[:asked], counts, strict=True)
        ]

    def _senseless(self) -> str:
        return f"{self.name} at {self._url} sent an answer that is no chat completion"

    # --- errors ---

    def _explained(self, error: Exception) -> PGenRMError:
        """The client's error as one of ours: one line, without the key."""
        import openai

        where = f"{self.name} at {self._url}"
        said = self._without_key(_first_line(error))
        if isinstance(error, openai.APIConnectionError):
            return EngineUnavailable(
                f"{where} cannot be reached ({self._without_key(_reason(error))}): start the"
                " server, or correct base_url"
            )
        if not isinstance(error, openai.APIStatusError):
            return EngineError(f"{where}: {said}")
        status = error.status_code
        if status in {401, 403}:
            # What the server says here may quote the key.
            return ConfigurationError(
                f"{where} refuses the API key (HTTP {status}): set OPENAI_API_KEY or pass"
                " api_key=..."
            )
        if status == 404:
            return EngineUnavailable(
                f"{where}: not found (HTTP 404: {said}): ask {self._url}/models for the models it"
                " serves, and note that a base_url usually ends in /v1"
            )
        if status == 429:
            return EngineUnavailable(
                f"{where} still had too many requests after {self._retries + 1} attempts (HTTP 429:"
                f" {said}): lower concurrency or raise retries"
            )
        if status in {502, 503, 504}:
            return EngineUnavailable(
                f"{where} was unavailable in {self._retries + 1} attempts (HTTP {status}: {said})"
            )
        if status >= 500:
            return EngineError(
                f"{where} failed in {self._retries + 1} attempts (HTTP {status}: {said})"
            )
        if _is_about_length(error):
            return ConfigurationError(
                f"{where}: the prompt is too long for the model's context (HTTP {status}: {said}):"
                " show fewer past choices (scaling.history), or fewer or shorter candidates"
            )
        return _Refused(f"{where} refuses the request (HTTP {status}): {said}")

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key not in {"", NO_KEY} else text


class _Refused(ConfigurationError):
    """The server does not take the request as it is."""


def _typed(messages: Sequence[Mapping[str, str]]) -> list[ChatCompletionMessageParam]:
    return list(messages)  # type: ignore[arg-type]


def _token_counts(texts: Sequence[str], total: int | None) -> list[int]:
    """A server reports the tokens of all samples in one sum: shared out by length of text.

    Without a report, the words are counted.
    """
    if total is None:
        return [len(text.split()) for text in texts]
    characters = sum(map(len, texts))
    if characters == 0:
        return [total // len(texts)] * len(texts)
    ends = [0]
    for text in texts:
        ends.append(ends[-1] + len(text))
    places = [round(end * total / characters) for end in ends]
    return [end - start for start, end in pairwise(places)]


def _first_line(error: Exception) -> str:
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, Mapping) else None
    lines = (message if isinstance(message, str) else str(error)).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _reason(error: BaseException) -> str:
    """The innermost cause: the client's own message is just "Connection error."."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error).strip() or type(error).__name__


def _is_about_length(error: Exception) -> bool:
    said = _first_line(error).lower()
    return getattr(error, "code", None) == "context_length_exceeded" or any(
        words in said for words in ("context length", "context window", "maximum model length")
    )


def _is_about_name(error: Exception) -> bool:
    """Newer OpenAI models know the limit as max_completion_tokens only, and say so."""
    return getattr(error, "param", None) == "max_tokens" and "max_completion_tokens" in _first_line(
        error
    )
