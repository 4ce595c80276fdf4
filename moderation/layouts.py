"""The layouts: how a judge prompt's content and policies become the segments that answer it.

Knows token ids. Training reads the same prompts in its own way (`moderation/training/layers.py`); a
test holds that what is trained is what is served.
"""

from collections.abc import Sequence

from moderation.prompts import JudgePrompt
from moderation.segments import Seen, Segment


def answer_segments(
    prompt: JudgePrompt, content: Segment, policies: Sequence[Segment]
) -> list[Segment]:
    """The segments whose last tokens answer the questions of a prompt, in order.

    Args:
        prompt: what is asked.
        content: its prefix; the last segment of it, where it has several.
        policies: one for each leaf in the layout `compositional`, else none.
    """
    if not prompt.query:  # content first, then the policy with its question
        return [content.followed_by(leaf) for leaf in prompt.leaves]
    sees = (*content.sees, Seen(content, content.start))
    return [
        # the policy ends where the query begins, however long the content is
        Segment(prompt.query, content.end, (*sees, Seen(policy, content.end - len(policy.tokens))))
        for policy in policies
    ]
