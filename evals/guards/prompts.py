"""What a guard model reads: its checkpoint's own chat template around what is judged.

Control tokens in what is judged are plain text, so that it cannot speak for the template. The
template is tried before anything is scored, and refused where it does not show what is judged.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from evals.guards.formats import GuardFormat
from evals.guards.reading import Answer
from moderation.content import Content, TextPart
from moderation.errors import InvalidText, ModelRefused
from policies import Surface

_TODAY = "{%- macro strftime_now(format) %}January 01, 2025{% endmacro %}"
"""Granite's template tells the model the date; scores must not change at midnight."""
_TRIED = {
    Surface.PROMPT: Content.prompt("Words of a user."),
    Surface.RESPONSE: Content.response("Words of an assistant.", context="Words of a user."),
}
_TRIED_CRITERIA = "Words of a policy."


@dataclass(frozen=True, slots=True)
class _Tried:
    """What the template does on one surface."""

    in_parts: bool
    """Whether it takes messages as lists of parts instead of texts."""
    num_controls: int
    """Control tokens in a prompt, whatever is judged."""
    answer: Answer


class GuardPrompts:
    """The prompts of one guard model, and its answers in tokens."""

    def __init__(self, form: GuardFormat, tokenizer: PreTrainedTokenizerBase) -> None:
        """Tries the template on both surfaces.

        Raises:
            ModelRefused: there is no template, it does not show what is judged, or the tokenizer
                cannot write the format's answers.
        """
        self._form = form
        self._tokenizer: Any = tokenizer
        try:
            template = form.template or tokenizer.get_chat_template()
        except ValueError as exc:
            raise ModelRefused(
                f"the checkpoint has no chat template; expected the one of {form.name}"
            ) from exc
        self._template = _TODAY + template
        self.revision = f"template-{hashlib.sha256(self._template.encode()).hexdigest()[:12]}"
        """Names the template, on which the scores depend as they do on the weights."""
        self._controls = {
            number for number, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        self._tried = {surface: self._try(surface) for surface in form.answer}

    def ids(self, content: Content, criteria: str | None = None) -> tuple[int, ...]:
        """A prompt.

        Args:
            content: one text. A response without its prompt answers an empty one.
            criteria: a policy's words, for formats that read them.

        Raises:
            InvalidText: the text has no UTF-8 form, or became a control token.
        """
        tried = self._tried[content.surface]
        try:
            (_text(content) + (content.context or "")).encode()
        except UnicodeEncodeError:  # its message would repeat the text
            raise InvalidText("the text has a lone surrogate, half of a character") from None
        ids = self._encoded(content, criteria, in_parts=tried.in_parts)
        if self._num_controls(ids) != tried.num_controls:
            raise InvalidText("the text became a control token of the model; refused")
        return ids

    def answer(self, surface: Surface) -> Answer:
        """What may stand behind a prompt."""
        return self._tried[surface].answer

    def num_tokens(self, content: Content) -> int:
        """Tokens of what is judged, without what stands around it."""
        return len(self._tokenizer(_text(content), add_special_tokens=False)["input_ids"])

    def _try(self, surface: Surface) -> _Tried:
        content = _TRIED[surface]
        criteria = _TRIED_CRITERIA if self._form.criteria is not None else None
        shown = [text for text in (_text(content), content.context, criteria) if text is not None]
        problem = "does not show the model what is judged"
        for in_parts in (False, True):
            try:
                rendered = self._apply(content, criteria, in_parts=in_parts, tokenize=False)
            except (TemplateError, TypeError) as exc:
                problem = f"fails ({exc})"
                continue
            if all(text in rendered for text in shown):
                break
        else:
            raise ModelRefused(
                f"the checkpoint's chat template {problem}; expected the one of {self._form.name}"
            )
        ids = self._encoded(content, criteria, in_parts=in_parts)

        def encode(words: str) -> tuple[int, ...]:
            written = self._tokenizer(rendered + words, add_special_tokens=False)["input_ids"]
            if tuple(written[: len(ids)]) != ids:
                raise ModelRefused(
                    f"the tokenizer merges the answer {words!r} with the end of the prompt;"
                    " expected the tokenizer that the guard was trained with"
                )
            return tuple(written[len(ids) :])

        choice = self._form.answer[surface]
        if rendered.endswith(choice.words):  # templates that write the answer's first newlines
            choice = replace(choice, words="")
        return _Tried(in_parts, self._num_controls(ids), Answer(choice, encode))

    def _encoded(
        self, content: Content, criteria: str | None, *, in_parts: bool
    ) -> tuple[int, ...]:
        return tuple(
            self._apply(
                content,
                criteria,
                in_parts=in_parts,
                tokenize=True,
                return_dict=False,
                sanitize_control_tokens=True,
            )
        )

    def _apply(
        self, content: Content, criteria: str | None, *, in_parts: bool, **options: Any
    ) -> Any:
        texts = [("user", _text(content))]
        if content.surface is Surface.RESPONSE:
            texts = [("user", content.context or ""), ("assistant", _text(content))]
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}] if in_parts else text}
            for role, text in texts
        ]
        if self._form.criteria is not None:
            options["guardian_config"] = {self._form.criteria: criteria}
        return self._tokenizer.apply_chat_template(
            messages,
            chat_template=self._template,
            add_generation_prompt=True,
            think=False,  # Granite Guardian 3.3 answers at once then
            **options,
        )

    def _num_controls(self, ids: tuple[int, ...]) -> int:
        return sum(each in self._controls for each in ids)


def _text(content: Content) -> str:
    (part,) = content.parts
    assert isinstance(part, TextPart), "guards are asked about texts alone"
    return part.text
