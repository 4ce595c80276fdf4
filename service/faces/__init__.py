"""Faces: the APIs of other moderation services over our moderator, so that their clients stay.

A face reads a request of its kind, has it judged by the operator's policy set, and tells the
verdicts in its own words. One module each; what they share is in `plan` and `messages`.
"""

from collections.abc import Iterable, Sequence

from service.faces import azure, litellm, llama_stack, llm_guard, nemo, perspective
from service.faces.plan import Face
from service.settings import FaceName

FACES: dict[FaceName, Face] = {
    "azure": azure.FACE,
    "litellm": litellm.FACE,
    "llama-stack": llama_stack.FACE,
    "llm-guard": llm_guard.FACE,
    "nemo": nemo.FACE,
    "perspective": perspective.FACE,
}


def served_faces(names: Iterable[FaceName] | None) -> Sequence[Face]:
    """The faces of these names; all of them for None."""
    return [FACES[name] for name in dict.fromkeys(FACES if names is None else names)]
