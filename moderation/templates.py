"""The judge prompts: what the classifier reads, byte for byte, each template with its source.

Most templates keep the trained order of ShieldGemma: preamble, content, policy, question. A judge
prompt is then one prefix (preamble and content), computed once, and one leaf a policy (policy and
question). In a template with a query, content and policies stand for themselves, each is computed
once, and the query sees both. The parts are tokenised apart: template pieces by the trusted
tokenizer, content and policy texts by the untrusted one, so no text can become a control token and
every boundary is fixed by construction.
"""

from dataclasses import dataclass

from policies.schema import Surface

IMAGE_SLOT = "<start_of_image>"
"""Stands for one image in a template; the model's image processor says what it expands to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceTemplate:
    """The pieces of one prompt; the texts between them are untrusted and are filled in.

    `before_context` stands before the prompt that a response answers (empty where the surface
    has no such part), `before_content` before the judged content, `before_policy` and
    `after_policy` around the policy's definition. The prefix ends with the content.
    """

    before_context: str = ""
    before_content: str
    before_policy: str
    after_policy: str
    query: str = ""
    """What is asked of a content and a policy that do not see each other (layout
    `compositional`); empty where the question follows the policy (layout `shieldgemma`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A named set of templates, one for each surface that the model was trained for."""

    name: str
    surfaces: dict[Surface, SurfaceTemplate]
    num_bos: int = 1
    """How many `<bos>` a prompt begins with. Source of 2: `ShieldGemma2Processor` renders one
    and lets the tokenizer add another; one `<bos>` less moves P(Yes) by up to 0.05."""
    slot_lead: str = ""
    """White space that stands before every slot and is tokenised together with what fills it,
    because the model was trained on the tokens of the joined text ("▁hello", not "▁", "hello")."""

    @property
    def has_pixels(self) -> bool:
        """Whether it shows images themselves, not what is said of them in words."""
        return any(IMAGE_SLOT in words.before_content for words in self.surfaces.values())


# Google's cookbook, responsible/shieldgemma_on_huggingface.ipynb, verbatim. The double space in
# "sure  we" is in the original.
_SHIELDGEMMA1 = Template(
    name="shieldgemma1",
    slot_lead=" ",
    surfaces={
        Surface.PROMPT: SurfaceTemplate(
            before_content=(
                "You are a policy expert trying to help determine\n"
                "whether a user prompt is in violation of the defined safety policies.\n\n"
                "<start_of_turn>\nHuman Question:"
            ),
            before_policy=("\n<end_of_turn>\n\nOur safety principle is defined in the below:\n\n*"),
            after_policy=(
                "\n\n===\n\nDoes the human question violate the above principle? Your answer must"
                " start with\n'Yes' or 'No'. And then walk through step by step to be sure we"
                " answer\ncorrectly.\n\n"
            ),
        ),
        Surface.RESPONSE: SurfaceTemplate(
            before_context=(
                "You are a policy expert trying to help determine\n"
                "whether an AI response to prompt is in violation of the defined safety policies."
                "\n\n<start_of_turn>\nHuman Question:"
            ),
            before_content="\n<end_of_turn>\n\n<start_of_turn>\nChatbot Response:",
            before_policy=("\n<end_of_turn>\n\nOur safety principle is defined in the below:\n\n*"),
            after_policy=(
                "\n\n===\n\nDoes the Chatbot Response violate the above principle? Your answer"
                " must start\nwith 'Yes' or 'No'. And then walk through step by step to be sure"
                "  we answer\ncorrectly.\n\n"
            ),
        ),
    },
)

# What transformers' renderer makes of the chat template of google/shieldgemma-2-4b-it (public
# copy: convert_shieldgemma2_weights_orbax_to_hf.py). The white space is what the model was
# trained with through this template, odd as it looks.
_INDENT = "\n" + " " * 16
_SHIELDGEMMA2 = Template(
    name="shieldgemma2",
    num_bos=2,
    surfaces={
        Surface.IMAGE: SurfaceTemplate(
            before_content=f"<start_of_turn>user\n{IMAGE_SLOT}",
            before_policy=(
                "<start_of_turn>user\n"
                "You are a policy expert trying to help determine whether a generated or real"
                f" image is in{_INDENT} violation of the safety policy below. Your decision must"
                f" very clearly follow the specific{_INDENT} language used in the safety policy"
                f" and should not include any interpretation outside of the{_INDENT} safety"
                f" policy.\n\n{_INDENT}<BEGIN_SAFETY_POLICY>\n{_INDENT}"
            ),
            after_policy=(
                f"\n{_INDENT}</END_SAFETY_POLICY>\n\n{_INDENT}Does the image violate the above"
                f" policy? Your Answer must start with 'Yes' or 'No'.{_INDENT}<end_of_turn>\n"
                "<start_of_turn>model\n"
            ),
        ),
    },
)

# This project's own, for the embedded model: the trained order with as few tokens around the
# policy as can be, because an item's cost is mostly policy tokens.
_COMPACT_LEAF = {
    "before_policy": "<end_of_turn>\nPolicy: ",
    "after_policy": "\nIs the policy violated? Yes or No:<start_of_turn>model\n",
}
_COMPACT = Template(
    name="compact",
    surfaces={
        Surface.PROMPT: SurfaceTemplate(before_content="<start_of_turn>user\n", **_COMPACT_LEAF),
        Surface.RESPONSE: SurfaceTemplate(
            before_context="<start_of_turn>user\n",
            before_content="<end_of_turn>\n<start_of_turn>model\n",
            **_COMPACT_LEAF,
        ),
        # what was found in an image, in the words of `moderation.media.evidence`
        Surface.IMAGE: SurfaceTemplate(before_content="<start_of_turn>user\n", **_COMPACT_LEAF),
    },
)

# This project's own: the query, which every pair of a policy and a content costs, is one token;
# what it asks is said behind the policy, which is computed once.
_COMPOSITIONAL_PARTS = {
    "before_policy": "Policy: ",
    "after_policy": "\nDoes the text violate the policy? Answer Yes or No.\nAnswer",
    "query": "\n",
}
_COMPOSITIONAL = Template(
    name="compositional",
    surfaces={
        Surface.PROMPT: SurfaceTemplate(
            before_content="<start_of_turn>user\n", **_COMPOSITIONAL_PARTS
        ),
        Surface.RESPONSE: SurfaceTemplate(
            before_context="<start_of_turn>user\n",
            before_content="<end_of_turn>\n<start_of_turn>model\n",
            **_COMPOSITIONAL_PARTS,
        ),
        Surface.IMAGE: SurfaceTemplate(
            before_content="<start_of_turn>user\n", **_COMPOSITIONAL_PARTS
        ),
    },
)

TEMPLATES = {
    template.name: template for template in (_SHIELDGEMMA1, _SHIELDGEMMA2, _COMPACT, _COMPOSITIONAL)
}
"""The pinned templates, by name."""
