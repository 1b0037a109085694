"""LangChain's ChatOpenAI where it is installed; else a fake that asks and fails in the same way."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import SecretStr

ROLES = {"system": "system", "human": "user", "ai": "assistant"}


class BaseChatOpenAI(BaseChatModel):
    """What of langchain_openai's class of this name the engine meets (checked against 1.7.3).

    It sends the limit as `max_completion_tokens`, drops thinking, raises a ValueError with the error
    of an answer with status 200, and leaves everything else to the client of OpenAI.
    """

    model: str
    base_url: str
    api_key: SecretStr
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    extra_body: dict[str, Any] | None = None

    @property
    def _llm_type(self) -> str:
        return "fake-openai-chat"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        import openai

        wanted = {
            "model": self.model,
            "messages": [
                {"role": ROLES[message.type], "content": message.content} for message in messages
            ],
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_completion_tokens": self.max_tokens,
            "stop": stop,
            "extra_body": self.extra_body,
            **kwargs,
        }
        payload: dict[str, Any] = {
            name: value for name, value in wanted.items() if value is not None
        }
        client = openai.AsyncOpenAI(
            base_url=self.base_url, api_key=self.api_key.get_secret_value(), max_retries=0
        )
        async with client:
            completions = client.chat.completions
            ask = completions.parse if "response_format" in payload else completions.create
            response = await ask(**payload)
        return self._read(response)

    def _read(self, response: Any) -> ChatResult:
        body = response.model_dump(warnings=False)
        if body.get("error"):
            raise ValueError(body["error"])
        if body["choices"] is None:
            raise TypeError("Received response with null value for 'choices'.")
        generations = []
        for choice in body["choices"]:
            sent = choice["message"]
            refusal = {"refusal": sent["refusal"]} if sent.get("refusal") else {}
            message = AIMessage(content=sent["content"] or "", additional_kwargs=refusal)
            details = {"finish_reason": choice["finish_reason"]}
            generations.append(ChatGeneration(message=message, generation_info=details))
        return ChatResult(generations=generations)


class FakeChatOpenAI(BaseChatOpenAI):
    """The fake itself."""


def chat_openai(base_url: str, api_key: str) -> BaseChatModel:
    """Return a chat model for an OpenAI-compatible server."""
    try:
        from langchain_openai import ChatOpenAI
    except ImportError:
        return FakeChatOpenAI(model="m", base_url=base_url, api_key=SecretStr(api_key))
    return ChatOpenAI(model="m", base_url=base_url, api_key=SecretStr(api_key), max_retries=0)
