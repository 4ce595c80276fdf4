"""Turns content and policy definitions into the token ids of judge prompts.

Knows templates and tokenizers. Knows nothing of tensors, models or thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from moderation.errors import UnsupportedModality
from moderation.templates import IMAGE_SLOT, SurfaceTemplate, Template
from moderation.tokenizer import SafeTokenizer, Tokens
from policies.schema import Surface


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """One content and its questions, as token ids, in one of the two layouts.

    `shieldgemma`: the full prompt of question `i` is `prefix + leaves[i]`, policy and question
    behind the content. `compositional`, where there is a `query`: the content (`prefix`) and each
    policy (`leaves`) stand for themselves, and the query sees both. Either way the answer is read
    at the last token.
    """

    prefix: tuple[int, ...]
    leaves: tuple[tuple[int, ...], ...]
    query: tuple[int, ...] = ()
    num_static: int = 0
    """Tokens at the start of the prefix that are the same for every content."""

    def __post_init__(self) -> None:
        assert self.num_static < len(self.prefix), "a judge prompt has something to judge"
        assert self.leaves, "a judge prompt has a question"
        assert all(self.leaves), "no question is empty"

    @property
    def num_tokens(self) -> int:
        """Tokens of all its parts."""
        queries = len(self.leaves) * len(self.query)
        return len(self.prefix) + sum(map(len, self.leaves)) + queries

    @property
    def longest(self) -> int:
        """Tokens that the longest answer looks back on, which the model's context must hold."""
        leaf = max(map(len, self.leaves))
        if self.query:
            return max(len(self.prefix), leaf) + len(self.query)
        return len(self.prefix) + leaf


class PromptBuilder:
    """Builds judge prompts for one model: a template, its tokenizer and its image tokens."""

    def __init__(
        self, template: Template, tokenizer: SafeTokenizer, *, image_text: str | None = None
    ) -> None:
        """`image_text` is what one image expands to in the prompt (`Gemma3Processor`'s
        `full_image_sequence`); None for a model without images."""
        self.template = template
        self.tokenizer = tokenizer
        self._image_text = image_text
        self._bos = (tokenizer.token_id("<bos>"),) * template.num_bos
        self._leaf = lru_cache(maxsize=1024)(self._render_leaf)  # policies are few and stay

    @property
    def num_image_tokens(self) -> int:
        """Soft tokens that one image becomes; 0 for a model without images."""
        return (self._image_text or "").count("<image_soft_token>")

    def judges(self, surface: Surface) -> bool:
        """Whether the model's template has words for this surface."""
        return surface in self.template.surfaces

    @property
    def judges_findings(self) -> bool:
        """Whether it judges images by what is written about them, without seeing them."""
        return self.judges(Surface.IMAGE) and not self.template.has_pixels

    def text_prompt(
        self,
        surface: Surface,
        content: Sequence[int],
        definitions: Sequence[str],
        *,
        context: Sequence[int] = (),
    ) -> JudgePrompt:
        """The prompt for one text.

        Args:
            surface: prompt or response.
            content: ids of the judged text, from `SafeTokenizer.content`.
            definitions: one policy text a question.
            context: ids of the prompt that a response answers; empty when unknown.

        Raises:
            UnsupportedModality: the template has no words for this surface.
        """
        template = self._surface(surface)
        before_content = self.tokenizer.template(template.before_content)
        static = (*self._bos, *before_content)
        if template.before_context:
            static = (*self._bos, *self.tokenizer.template(template.before_context))
            content = (*context, *before_content, *content)
        leaves = tuple(self._leaf(surface, text) for text in definitions)
        return JudgePrompt(
            (*static, *content),
            leaves,
            self.tokenizer.template(template.query),
            num_static=len(static) if content else 0,
        )

    def image_prompt(self, definitions: Sequence[str]) -> JudgePrompt:
        """The prompt for one image, its soft tokens in the prefix as placeholders.

        Raises:
            UnsupportedModality: the model has no images.
        """
        template = self._surface(Surface.IMAGE)
        assert self._image_text is not None, "a template for images needs a model with images"
        prefix = self.tokenizer.template(
            template.before_content.replace(IMAGE_SLOT, self._image_text)
        )
        leaves = tuple(self._leaf(Surface.IMAGE, text) for text in definitions)
        return JudgePrompt((*self._bos, *prefix), leaves)

    def content_tokens(self, text: str) -> Tokens:
        """Tokenises untrusted text as it stands in the template's slots. Raises `InvalidText`."""
        return self.tokenizer.content(text, lead=self.template.slot_lead)

    def num_fixed_tokens(self, surface: Surface, definitions: Sequence[str]) -> int:
        """Tokens of the longest prompt around an empty content."""
        return self.text_prompt(surface, (), definitions).longest

    def leaf_tokens(self, surface: Surface, definition: str) -> tuple[int, ...]:
        """The leaf of one policy: what its question costs for every content."""
        return self._leaf(surface, definition)

    def _render_leaf(self, surface: Surface, definition: str) -> tuple[int, ...]:
        template = self._surface(surface)
        return (
            *(self._bos if template.query else ()),  # a policy that stands for itself
            *self.tokenizer.template(template.before_policy),
            *self.content_tokens(definition).ids,
            *self.tokenizer.template(template.after_policy),
        )

    def _surface(self, surface: Surface) -> SurfaceTemplate:
        if surface not in self.template.surfaces:
            known = ", ".join(self.template.surfaces)
            raise UnsupportedModality(
                f"template {self.template.name!r} has no words for surface {surface.value!r};"
                f" it judges: {known}"
            )
        return self.template.surfaces[surface]
