"""Chain formats: a folder with two Jinja templates and a format.json, bundled or your own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import Field, ValidationError

from pgenrm_agent.chain.escape import escape
from pgenrm_agent.chain.sections import Section, split_reasoning, split_sections
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.schema import Message, Model, PreferencePair, StatedPreference

__all__ = ["ChainFormat"]

JSON_END = "<JSON_END>"


class _Clip(Model):
    """Longest text shown, in characters."""

    query: int = Field(gt=0)
    answer: int = Field(gt=0)
    stated: int = Field(gt=0)


class _Headings(Model):
    """The headings that open the second and the third section."""

    rubric: str
    scores: str


class _Settings(Model):
    name: str
    max_candidates: int | None = Field(ge=1)
    max_history: int | None = Field(ge=0)
    max_tokens: int = Field(ge=1)
    clip: _Clip | None
    headings: _Headings


@dataclass(frozen=True)
class ChainFormat:
    """How a prompt is written, and where an answer's sections begin and end.

    max_candidates: most responses in one prompt; None for no limit of the format's own.
    max_history: most past choices in one prompt; further ones are left out, the first ones kept.
    max_tokens: new tokens that a whole chain may take.
    """

    settings: _Settings
    system: Template
    user: Template

    @classmethod
    def load(cls, name_or_folder: str | Path) -> ChainFormat:
        """A bundled format ("published", "compact-1") by name, or a folder of your own.

        Raises:
            ConfigurationError: no such format, or one of its three files is missing or wrong.
        """
        if isinstance(name_or_folder, Path) or "/" in name_or_folder or "\\" in name_or_folder:
            folder: Traversable = Path(name_or_folder)
        else:
            formats = resources.files("pgenrm_agent.chain") / "formats"
            folder = formats / name_or_folder
            if not folder.is_dir():
                known = ", ".join(sorted(item.name for item in formats.iterdir() if item.is_dir()))
                raise ConfigurationError(
                    f"no chain format named {name_or_folder!r}; bundled are: {known}."
                    " A folder of your own is given as a path"
                )
        # A folder may come with a downloaded model, so its templates get to see data only.
        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False
        )
        try:
            settings = _Settings.model_validate(
                json.loads((folder / "format.json").read_text(encoding="utf-8"))
            )
            templates = [
                environment.from_string((folder / file).read_text(encoding="utf-8"))
                for file in ("system.j2", "user.j2")
            ]
        except (OSError, ValueError, ValidationError, TemplateError) as error:
            raise ConfigurationError(
                f"chain format {str(name_or_folder)!r} cannot be read: {error}; a format is a folder"
                " with format.json, system.j2 and user.j2"
            ) from error
        return cls(settings, *templates)

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def max_candidates(self) -> int | None:
        return self.settings.max_candidates

    @property
    def max_tokens(self) -> int:
        return self.settings.max_tokens

    def messages(
        self,
        *,
        query: str,
        candidates: Sequence[str],
        history: Sequence[PreferencePair] = (),
        stated: Sequence[StatedPreference] = (),
        conversation: Sequence[Message] = (),
    ) -> tuple[Message, ...]:
        """The prompt for one answer order; all texts are escaped first.

        candidates: their texts, in the order shown.

        Raises:
            ConfigurationError: no candidates, or more than `max_candidates`.
        """
        if not candidates:
            raise ConfigurationError("there are no candidates to show; pass at least one")
        limit = self.max_candidates
        if limit is not None and len(candidates) > limit:
            raise ConfigurationError(
                f"{len(candidates)} candidates in one prompt, and chain format {self.name} shows at"
                f" most {limit}; split them into groups"
            )
        clip = self.settings.clip
        query_size = clip.query if clip else None
        answer_size = clip.answer if clip else None
        shown = {
            "query": _shown(query, query_size),
            "candidates": [_shown(text, answer_size) for text in candidates],
            "conversation": _turns(conversation),
            "history": [
                {
                    "query": _shown(pair.query, query_size),
                    "chosen": _shown(pair.chosen, answer_size),
                    "rejected": _shown(pair.rejected, answer_size),
                    "conversation": _turns(pair.conversation),
                }
                for pair in history[: self.settings.max_history]
            ],
            "stated": [
                {
                    "kind": statement.kind,
                    "text": _shown(statement.text, clip.stated if clip else None),
                }
                for statement in stated
            ],
        }
        try:
            system, user = self.system.render(shown), self.user.render(shown)
        except TemplateError as error:
            raise ConfigurationError(
                f"chain format {self.name} cannot be rendered: {error}; its templates are given"
                f" {', '.join(sorted(shown))}"
            ) from error
        return (Message(role="system", content=system), Message(role="user", content=user))

    def stop(self, section: Section) -> tuple[str, ...]:
        """Strings at which sampling of `section` ends."""
        headings = self.settings.headings
        if section == "persona":
            return (f"\n{headings.rubric}", f"\n{headings.scores}", JSON_END)
        if section == "rubric":
            return (f"\n{headings.scores}", JSON_END)
        return (JSON_END,)

    def finish(self, section: Section, text: str) -> str:
        """`text`, closed after `section`: what comes next can be sampled as its continuation."""
        through = self.complete_through(text)
        if (
            through == "scores"
            or through == section
            or (through == "rubric" and section == "persona")
        ):
            return text
        headings = self.settings.headings
        body = text.rstrip()
        if section == "persona":
            return f"{body}\n{headings.rubric}\n"
        if section == "rubric":
            return f"{body}\n{headings.scores}\n"
        return f"{body}\n{JSON_END}"

    def complete_through(self, text: str) -> Section | None:
        """The last section of `text` that is complete; None while the persona is being written."""
        if JSON_END in split_reasoning(text).answer:
            return "scores"
        sections = split_sections(text)
        if sections.scores is not None:
            return "rubric"
        if sections.rubric is not None:
            return "persona"
        return None


def _shown(text: str, size: int | None) -> str:
    """Text as a prompt shows it: escaped, and cut at a word where it is too long."""
    text = text.strip()
    if size is not None and len(text) > size:
        text = f"{text[:size].rsplit(' ', 1)[0]} ..."
    return escape(text)


def _turns(conversation: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": _shown(turn.content, None)} for turn in conversation]
