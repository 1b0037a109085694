"""Refusals in our words, where LangChain's own machinery would show pydantic's."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from pgenrm_agent.errors import InvalidInput
from pgenrm_agent.fields import refusal


class RefusesInOurWords(BaseModel):
    """Goes before LangChain's class.

    Raises:
        InvalidInput: A field is missing or of no use, such as a `reward_model` that is no `PGenRM`.
    """

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            refused = refusal(type(self), error)
            raise InvalidInput(
                f"{type(self).__name__} cannot be made: {refused.details}",
                place=refused.place,
                complaint=refused.complaint,
                details=refused.details,
            ) from None


def wrong_call(error: Any) -> str:
    """Return what the model that called a tool reads where its arguments cannot be used, in one line."""
    return f"these arguments cannot be used: {refusal(BaseModel, error).details}"
