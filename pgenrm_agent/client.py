"""A client of `pgenrm serve`, plain and async, with the library's own arguments, results and errors.

    from pgenrm_agent.client import Client

    with Client("http://127.0.0.1:8000") as client:
        evaluation = client.score("ada", "How do I descale a kettle?", ["Use vinegar.", "Buy another."])

The model and the memory are the server's, so programs that have neither can use both, and several
programs can use one memory.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias, TypeVar
from urllib.parse import quote

import httpx

from pgenrm_agent.arguments import is_server_address, model_of, seconds_of, text_of, yes_or_no
from pgenrm_agent.background_loop import BackgroundLoop
from pgenrm_agent.errors import (
    ChainError,
    ConfigurationError,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    EntryConflict,
    EntryRefused,
    InvalidInput,
    MemoryStoreError,
    PGenRMError,
)
from pgenrm_agent.evaluation_input import evaluation_input, evaluation_request, stated_preference
from pgenrm_agent.evaluation_run import OnProgress, Progress, evaluate_each, ranked
from pgenrm_agent.feedback import feedback_pairs
from pgenrm_agent.fields import Model
from pgenrm_agent.memory import Entry, UserSummary
from pgenrm_agent.ranking import Fallback, RerankResult
from pgenrm_agent.schema import (
    Candidate,
    Evaluation,
    EvaluationRequest,
    Message,
    PreferencePair,
    Scaling,
    StatedPreference,
    UserSignals,
)
from pgenrm_agent.sync_wrappers import Closeable, at_home, blocking
from pgenrm_agent.user_ids import valid_user_id

__all__ = ["Client"]


class UnknownEntryError(ConfigurationError):
    """The server remembers no entry of this id."""


Body: TypeAlias = Mapping[str, object]
M = TypeVar("M", bound=Model)

KEY_VARIABLE = "PGENRM_KEY"
CONNECT_S = 10.0
PAGE = 1000
"""Users that are listed at once."""

ERROR_OF: Mapping[str, type[PGenRMError]] = {
    "no_usable_chain": ChainError,
    "engine_timeout": EngineTimeout,
    "engine_unavailable": EngineUnavailable,
    "engine_error": EngineError,
    "memory_unavailable": MemoryStoreError,
    "entry_conflict": EntryConflict,
    "entry_refused": EntryRefused,
    "entry_unknown": UnknownEntryError,
    "unusable_request": ConfigurationError,
    "invalid_request": ConfigurationError,
}
"""The error that a code of the server's stands for. With any other code the status tells."""


class Client(Closeable):
    """Asks a server that `pgenrm serve` runs; its methods are those of `PGenRM` and `UserMemory`.

    Each method comes twice, as in `PGenRM`: `score`, and `ascore` for async code. What the server
    refuses raises the error that the library would raise, and a server that cannot be reached
    EngineUnavailable. A server that is busy is asked again when it says so.

    Args:
        url: Where it listens, such as "http://127.0.0.1:8000".
        key: A tenant's key; left out, the environment variable PGENRM_KEY, or none.
        scaling: How many chains and from what, where a call does not say; None leaves it to the server.
        wait: Seconds to wait for an answer, and for a busy server to have a place.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        scaling: Scaling | None = None,
        wait: float | None = 600.0,
    ) -> None:
        if not is_server_address(text_of(url, "url")):
            raise ConfigurationError(
                f"url {url!r:.80} is no address of a server: write it like http://127.0.0.1:8000"
            )
        key = os.environ.get(KEY_VARIABLE) if key is None else text_of(key, "key")
        if key and not (key.isascii() and key.isprintable()):  # it goes into a header
            raise ConfigurationError(
                "the key has a character that no key has, such as a line break: pass what"
                " `pgenrm keys add` printed"
            )
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._scaling = None if scaling is None else model_of(Scaling, scaling, "scaling")
        self._wait = seconds_of(wait, "wait")
        self._background = BackgroundLoop("Client")
        self._http: httpx.AsyncClient | None = None

    # --- scoring ---

    @at_home
    async def ascore(
        self,
        user_id: str,
        query: str,
        candidates: Sequence[str | Candidate],
        *,
        conversation: Sequence[Message] = (),
        scaling: Scaling | None = None,
        signals: UserSignals | None = None,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Evaluation:
        """Score how much `user_id` would like each candidate; arguments as for `PGenRM.score`.

        on_progress: called in a thread of this object.
        """
        scaling = self._scaling if scaling is None else scaling
        request = evaluation_request(user_id, query, candidates, conversation)
        given = evaluation_input(request, scaling or Scaling(), signals)
        body = {**request.model_dump(mode="json"), "timeout": seconds_of(timeout, "timeout")}
        if scaling is not None:
            body["scaling"] = given.get("scaling")
        if signals is not None:
            names = ("history", "stated", "choices_known")
            body["signals"] = {name: given.get(name) for name in names}
        if on_progress is None:
            return self._read(Evaluation, await self._ask("POST", "/v1/evaluations", body))
        return await self._watch(body, on_progress)

    score = blocking(ascore)

    async def arerank(
        self,
        user_id: str,
        query: str,
        candidates: Sequence[str | Candidate],
        *,
        conversation: Sequence[Message] = (),
        scaling: Scaling | None = None,
        signals: UserSignals | None = None,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
        fallback: Fallback | None = None,
    ) -> RerankResult:
        """Order the candidates, what `user_id` would like best first; arguments as for `score`.

        fallback: "order" for the order given, where the model or the server cannot be asked.
        """
        asked = evaluation_request(user_id, query, candidates, conversation)
        scoring = self.ascore(
            user_id,
            query,
            asked.candidates,
            conversation=asked.conversation,
            scaling=scaling,
            signals=signals,
            timeout=timeout,
            on_progress=on_progress,
        )
        return await ranked(scoring, fallback, asked)

    rerank = blocking(arerank)

    async def ascore_many(
        self,
        requests: Sequence[EvaluationRequest],
        *,
        scaling: Scaling | None = None,
        timeout: float | None = None,
        concurrency: int = 32,
    ) -> list[Evaluation | PGenRMError]:
        """Score many requests, `concurrency` at a time; results, or errors, in their order."""

        async def score_request(request: EvaluationRequest) -> Evaluation:
            return await self.ascore(
                request.user_id,
                request.query,
                request.candidates,
                conversation=request.conversation,
                scaling=scaling,
                timeout=timeout,
            )

        return await evaluate_each(score_request, requests, concurrency)

    score_many = blocking(ascore_many)

    # --- memory ---

    @at_home
    async def aremember(self, user_id: str, pair: PreferencePair) -> str:
        """Store that `user_id` preferred one answer to another; returns the pair's id."""
        chosen = model_of(PreferencePair, pair, "pair").model_dump(mode="json")
        return str((await self._ask("POST", _of(user_id, "/preferences"), chosen))["id"])

    remember = blocking(aremember)

    @at_home
    async def astate_preference(self, user_id: str, stated: StatedPreference | str) -> str:
        """Store what `user_id` says they want; returns the statement's id."""
        body = stated_preference(stated).model_dump(mode="json")
        return str((await self._ask("POST", _of(user_id, "/statements"), body))["id"])

    state_preference = blocking(astate_preference)

    @at_home
    async def aforget(self, user_id: str) -> int:
        """Remove everything kept about `user_id`; returns how many entries the memory had."""
        forgotten = (await self._ask("DELETE", _of(user_id)))["forgotten"]
        return forgotten if isinstance(forgotten, int) else 0

    forget = blocking(aforget)

    async def aremember_feedback(
        self, evaluation: Evaluation, candidate_id: str, liked: bool
    ) -> list[str]:
        """Store a thumbs up, or down, as `PGenRM.remember_feedback` does; returns the pairs' ids."""
        evaluation = model_of(Evaluation, evaluation, "evaluation")
        pairs = feedback_pairs(evaluation, candidate_id, liked)
        return [await self._put(evaluation.request.user_id, pair) for pair in pairs]

    remember_feedback = blocking(aremember_feedback)

    @at_home
    async def aentries(self, user_id: str) -> tuple[Entry, ...]:
        """Return all choices of `user_id`, then all statements, oldest first, each with its id."""
        return self._entries(await self._ask("GET", _of(user_id)))

    entries = blocking(aentries)

    @at_home
    async def acorrect(
        self, user_id: str, entry_id: str, new: PreferencePair | StatedPreference | str
    ) -> str:
        """Put another choice, or statement, in the place of one; returns its id."""
        given = new if isinstance(new, PreferencePair) else stated_preference(new)
        kind = "preferences" if isinstance(given, PreferencePair) else "statements"
        body = {**given.model_dump(mode="json"), "id": text_of(entry_id, "entry_id")}
        return str((await self._ask("PUT", _of(user_id, f"/{kind}"), body))["id"])

    correct = blocking(acorrect)

    @at_home
    async def aforget_entry(self, user_id: str, entry_id: str) -> bool:
        """Remove one choice or statement of `user_id`; returns whether there was one of this id."""
        body = {"id": text_of(entry_id, "entry_id")}
        try:
            await self._ask("POST", _of(user_id, "/forget"), body)
        except UnknownEntryError:
            return False
        return True

    forget_entry = blocking(aforget_entry)

    @at_home
    async def aset_consent(self, user_id: str, consent: bool) -> None:
        """Set whether this user's choices may help to score answers for similar users."""
        body = {"consent": yes_or_no(consent, "consent")}
        await self._ask("PUT", _of(user_id, "/consent"), body)

    set_consent = blocking(aset_consent)

    @at_home
    async def aconsent(self, user_id: str) -> bool:
        """Return whether the user has agreed to take part; False until they do."""
        return (await self._ask("GET", _of(user_id)))["consent"] is True

    consent = blocking(aconsent)

    @at_home
    async def arecall(self, user_id: str) -> UserSignals:
        """Return what is known of a user, the newest choice first; without what is overruled."""
        known = await self._ask("GET", _of(user_id))
        choices = [entry for entry in self._entries(known)[::-1] if entry.pair]
        return self._read(
            UserSignals,
            {
                "user_id": known.get("user_id"),
                "history": [entry.pair for entry in choices if entry.overruled_by is None],
                "stated": known.get("stated"),
                "choices_known": len(choices),
            },
        )

    recall = blocking(arecall)

    @at_home
    async def ausers(self) -> list[UserSummary]:
        """Return everyone of whom anything is remembered, by id."""
        users: list[UserSummary] = []
        after = ""
        while True:
            page = await self._ask("GET", f"/v1/users?limit={PAGE}{after}")
            listed = page.get("users")
            rows = listed if isinstance(listed, list) else []
            users += [self._read(UserSummary, row) for row in rows]
            if page.get("next") is None:
                return users
            after = f"&after={quote(str(page['next']), safe='')}"

    users = blocking(ausers)

    # --- the server ---

    @at_home
    async def aready(self) -> bool:
        """Return whether the server has loaded its model; False, too, where nobody answers."""
        try:
            return (await self._ask("GET", "/readyz")).get("status") == "ok"
        except EngineError:
            return False

    ready = blocking(aready)

    def close(self) -> None:
        """Close the connections. Calling it again does nothing."""
        self._background.close(self._hang_up)

    # --- inside ---

    @property
    def _loop(self) -> BackgroundLoop:
        return self._background

    async def _hang_up(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    def _connection(self) -> httpx.AsyncClient:
        """Return the connections, opened on first use: they belong to the background loop."""
        if self._http is None:
            self._http = httpx.AsyncClient(
                base_url=self.url,
                headers=self._headers,
                timeout=httpx.Timeout(self._wait, connect=CONNECT_S),
            )
        return self._http

    async def _ask(self, method: str, path: str, body: Body | None = None) -> dict[str, object]:
        async with self._answer(method, path, body) as answer:
            return self._json(await answer.aread())

    async def _put(self, user_id: str, pair: PreferencePair) -> str:
        """Store a choice, in the place of the one with its id where there is one."""
        try:
            return await self.acorrect(user_id, pair.id, pair)
        except UnknownEntryError:
            pass
        try:
            return await self.aremember(user_id, pair)
        except EntryConflict:  # somebody else stored it in this moment
            return await self.acorrect(user_id, pair.id, pair)

    async def _watch(self, body: Body, on_progress: OnProgress) -> Evaluation:
        """Score, and tell of every stage."""
        async with self._answer("POST", "/v1/evaluations/stream", body) as answer:
            event = ""
            async for line in answer.aiter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    event = value
                elif field == "data" and event == "progress":
                    on_progress(self._read(Progress, self._json(value)))
                elif field == "data" and event == "result":
                    return self._read(Evaluation, self._json(value))
                elif field == "data":
                    raise _error(500, self._json(value), self.url)
        raise EngineError(f"the server at {self.url} ended its answer before the result")

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, body: Body | None
    ) -> AsyncIterator[httpx.Response]:
        """Send a request, and again while the server is busy; an error of it is raised."""
        http, content, headers = self._connection(), None, {}
        if body is not None:  # in ASCII: half a character is no UTF-8
            content = json.dumps(body).encode()
            headers = {"Content-Type": "application/json"}
        clock = asyncio.get_running_loop().time
        end = None if self._wait is None else clock() + self._wait
        try:
            while True:
                request = http.build_request(method, path, content=content, headers=headers)
                async with _closing(await http.send(request, stream=True)) as answer:
                    told = answer.headers.get("Retry-After", "")
                    pause = float(told) if told.isdecimal() else 1.0
                    busy = answer.status_code == httpx.codes.TOO_MANY_REQUESTS
                    if not busy or (end is not None and clock() + pause > end):
                        if not answer.is_success:
                            raise _error(answer.status_code, await answer.aread(), self.url)
                        yield answer
                        return
                await asyncio.sleep(pause)
        except httpx.TimeoutException as error:
            raise EngineTimeout(
                f"the server at {self.url} has not answered in time ({type(error).__name__}): wait"
                " longer, or ask for fewer chains"
            ) from error
        except httpx.HTTPError as error:
            raise EngineUnavailable(
                f"the server at {self.url} cannot be reached ({error}): start it with"
                " `pgenrm serve`, or correct the address"
            ) from error

    def _json(self, content: bytes | str) -> dict[str, object]:
        try:
            value = json.loads(content)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise EngineError(
                f"what answers at {self.url} is no `pgenrm serve`: it sent no JSON object"
            )
        return value

    def _entries(self, known: Mapping[str, object]) -> tuple[Entry, ...]:
        listed = known.get("entries")
        rows = listed if isinstance(listed, list) else []
        return tuple(self._read(Entry, row) for row in rows)

    def _read(self, kind: type[M], value: object) -> M:
        try:
            return kind.model_validate(value)
        except InvalidInput as error:
            raise EngineError(
                f"the answer of the server at {self.url} cannot be read, perhaps for another version"
                f" of pgenrm-agent: {error}"
            ) from error


@asynccontextmanager
async def _closing(answer: httpx.Response) -> AsyncIterator[httpx.Response]:
    try:
        yield answer
    finally:
        await answer.aclose()


def _of(user_id: str, part: str = "") -> str:
    return f"/v1/users/{quote(valid_user_id(user_id), safe='')}{part}"


def _error(status: int, body: bytes | Mapping[str, object], url: str) -> PGenRMError:
    """Return the error that the server's stands for."""
    if isinstance(body, bytes):
        try:
            body = json.loads(body)
        except ValueError:
            body = {}
    told = body if isinstance(body, dict) else {}
    code, message = str(told.get("code", "")), str(told.get("message", ""))
    said = message or f"the server at {url} answered {status}, and not as `pgenrm serve` does"
    if kind := ERROR_OF.get(code):
        return kind(said)
    if status == httpx.codes.NOT_FOUND:
        return EngineUnavailable(
            f"there is no `pgenrm serve` at {url} ({message or status}): correct the address (without"
            " /v1)"
        )
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return EngineUnavailable(said)
    if not message or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return EngineError(said)
    return ConfigurationError(said)
