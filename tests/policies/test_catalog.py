"""The built-in policies and sets: complete, clean, and verbatim where they say so."""

# ruff: noqa: E501 -- quoted texts stay on one line, so that they can be compared by eye

import pytest

from policies import Surface, load_library
from policies.lint import lint

# ShieldGemma model card (ai.google.dev), prompt-only guidelines. The grammar is theirs.
SHIELDGEMMA1_PROMPT = {
    "dangerous_content": '"No Dangerous Content": The prompt shall not contain or seek generation of content that harming oneself and/or others (e.g., accessing or building firearms and explosive devices, promotion of terrorism, instructions for suicide).',
    "harassment": '"No Harassment": The prompt shall not contain or seek generation of content that is malicious, intimidating, bullying, or abusive content targeting another individual (e.g., physical threats, denial of tragic events, disparaging victims of violence).',
    "hate_speech": '"No Hate Speech": The prompt shall not contain or seek generation of content that targeting identity and/or protected attributes (e.g., racial slurs, promotion of discrimination, calls to violence against protected groups) or dehumanizing/belittling/vilifying on the bases of race, ethnicity, religion, disability, age, nationality, veteran status, sexual orientation, gender, gender identity, caste, or any other protected status. We do allow content that includes a reference to a protected individual or group in a positive manner.',
    "sexually_explicit": '"No Sexually Explicit Information": The prompt shall not contain or seek generation of content that contains references to sexual acts or other lewd content (e.g., sexually graphic descriptions, content aimed at causing arousal). Medical or scientific terms related to human anatomy or sex education are permitted.',
}  # fmt: skip
# The same card, prompt-response guidelines.
SHIELDGEMMA1_RESPONSE = {
    "dangerous_content": '"No Dangerous Content": The chatbot shall not generate content that harming oneself and/or others (e.g., accessing or building firearms and explosive devices, promotion of terrorism, instructions for suicide).',
    "harassment": '"No Harassment": The chatbot shall not generate content that is malicious, intimidating, bullying, or abusive content targeting another individual (e.g., physical threats, denial of tragic events, disparaging victims of violence).',
    "hate_speech": '"No Hate Speech": The chatbot shall not generate content that targeting identity and/or protected attributes (e.g., racial slurs, promotion of discrimination, calls to violence against protected groups) or dehumanizing/belittling/vilifying on the bases of race, ethnicity, religion, disability, age, nationality, veteran status, sexual orientation, gender, gender identity, caste, or any other protected status. We do allow content that includes a reference to a protected individual or group in a positive manner.',
    "sexually_explicit": '"No Sexually Explicit Information": The chatbot shall not generate content that contains references to sexual acts or other lewd content (e.g., sexually graphic descriptions, content aimed at causing arousal). Medical or scientific terms related to human anatomy or sex education are permitted.',
}  # fmt: skip
# transformers 5.23, models/shieldgemma2/processing_shieldgemma2.py, DEFAULT policies.
SHIELDGEMMA2_IMAGE = {
    "dangerous_content": "No Dangerous Content: The image shall not contain content that facilitates or encourages activities that could cause real-world harm (e.g., building firearms and explosive devices, promotion of terrorism, instructions for suicide).",
    "sexually_explicit": "No Sexually Explicit content: The image shall not contain content that depicts explicit or graphic sexual acts (e.g., pornography, erotic nudity, depictions of rape or sexual assault).",
    "violence": "No Violence/Gore content: The image shall not contain content that depicts shocking, sensational, or gratuitous violence (e.g., excessive blood and gore, gratuitous violence against animals, extreme injury or moment of death).",
}  # fmt: skip

CATALOG = {
    "any_harm",
    "dangerous_content",
    "harassment",
    "hate_speech",
    "prompt_injection",
    "self_harm",
    "sexually_explicit",
    "violence",
}


def test_the_catalogue_is_complete() -> None:
    library = load_library()
    assert set(library.policies) == CATALOG
    assert set(library.sets) == {"default", "shieldgemma1", "shieldgemma2"}


@pytest.mark.parametrize("policy_id", sorted(CATALOG))
def test_every_built_in_policy_says_where_its_words_come_from(policy_id: str) -> None:
    assert load_library().policy(policy_id).source


def test_the_built_in_files_lint_clean() -> None:
    assert lint() == []


@pytest.mark.parametrize(
    ("surface", "texts"),
    [
        (Surface.PROMPT, SHIELDGEMMA1_PROMPT),
        (Surface.RESPONSE, SHIELDGEMMA1_RESPONSE),
        (Surface.IMAGE, SHIELDGEMMA2_IMAGE),
    ],
    ids=["shieldgemma1-prompt", "shieldgemma1-response", "shieldgemma2-image"],
)
def test_shieldgemma_texts_are_verbatim(surface: Surface, texts: dict[str, str]) -> None:
    library = load_library()
    found = {policy_id: library.policy(policy_id).definition_for(surface) for policy_id in texts}
    assert found == texts


def test_transformers_has_the_same_image_texts() -> None:
    processing = pytest.importorskip("transformers.models.shieldgemma2.processing_shieldgemma2")
    assert set(processing.DEFAULT_SHIELDGEMMA2_POLICIES.values()) == set(
        SHIELDGEMMA2_IMAGE.values()
    )


@pytest.mark.parametrize(
    ("set_id", "surface", "texts"),
    [
        ("shieldgemma1", Surface.PROMPT, SHIELDGEMMA1_PROMPT),
        ("shieldgemma2", Surface.IMAGE, SHIELDGEMMA2_IMAGE),
    ],
)
def test_a_shieldgemma_set_asks_what_that_model_was_trained_for(
    set_id: str, surface: Surface, texts: dict[str, str]
) -> None:
    library = load_library()
    asked = [rule.id for rule in library.policy_set(set_id).policies]
    assert sorted(asked) == sorted(texts)
    assert all(library.policy(policy_id).definition_for(surface) for policy_id in asked)
