"""`/v1/completions`, the older endpoint: a prompt without roles."""

from collections.abc import Iterator

from moderation.content import Content
from service.errors import BadRequest, UnsupportedInput
from service.gate.dialects.choices import ChoiceAnswers
from service.gate.dialects.dialect import Item, Json, Place, count_of_choices
from service.gate.dialects.other_fields import item_of_other_fields
from service.remote_files import RemoteFile


class CompletionsDialect(ChoiceAnswers):
    """See `Dialect`."""

    endpoint = "completions"
    object_name = "text_completion"
    chunk_object_name = "text_completion"
    id_prefix = "cmpl"
    inside = frozenset()
    chosen = frozenset({"top_logprobs"})
    said = "text"

    def items(self, body: Json) -> list[Item]:
        """See `Dialect.items`."""
        prompts = _prompts(body)
        is_list = isinstance(body["prompt"], list)
        items = [
            Item(
                "prompt" if len(prompts) == 1 else f"prompt[{index}]",
                Content.prompt(text),
                places=(Place(0, ("prompt", index) if is_list else ("prompt",), 0, len(text)),),
            )
            for index, text in enumerate(prompts)
            if text.strip()
        ]
        others = item_of_other_fields(body, known=("prompt",))
        return [*items, *([others] if others else [])]

    def remote_files(self, _: Json, /) -> Iterator[RemoteFile]:
        """See `Dialect.remote_files`: a prompt is a text."""
        return iter(())

    def asked(self, body: Json) -> str | None:
        """The prompt, where there is one."""
        prompts = _prompts(body)
        return prompts[0] or None if len(prompts) == 1 else None

    def num_choices(self, body: Json) -> int:
        """`n` for each of the prompts."""
        return count_of_choices(body) * len(_prompts(body))

    def _text_of(self, choice: Json) -> str:
        return choice.get("text") or ""

    def _choice(self, index: int, text: str, finish_reason: str) -> Json:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}

    def _said(self, index: int, text: str) -> Json:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": None}

    def _saying(self, _: Json, text: str) -> Json:
        return {"text": text}

    def _end(self, index: int) -> Json:
        return self._choice(index, "", "content_filter")


def _prompts(body: Json) -> list[str]:
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and prompt and all(isinstance(text, str) for text in prompt):
        return list(prompt)
    if isinstance(prompt, list) and prompt:
        raise UnsupportedInput(
            "prompt is a list of tokens, which cannot be checked; send it as text", param="prompt"
        )
    raise BadRequest("prompt has to be a text or a list of texts", param="prompt")
