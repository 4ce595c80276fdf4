"""Remembers messages that passed, so that a long chat is not judged anew at every turn.

Holds hashes and verdicts, never content. Only content that passed under the very same policies is
remembered, so forgetting one costs time and nothing else. Used on the event loop only.
"""

import hashlib
import json
from collections import OrderedDict

from moderation.content import Content, TextPart
from moderation.verdict import Verdict
from policies import PolicySet

CAPACITY = 4096
"""Verdicts kept; the one that was asked for longest ago goes first."""


class PassedMemory:
    """A bounded memory of verdicts that let content through."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._verdicts: OrderedDict[str, Verdict] = OrderedDict()

    def recall(self, content: Content, policy_set: PolicySet) -> Verdict | None:
        """The verdict that the same content got before; None when it is not remembered."""
        key = _key(content, policy_set)
        if key in self._verdicts:
            self._verdicts.move_to_end(key)
        return self._verdicts.get(key)

    def remember(self, content: Content, policy_set: PolicySet, verdict: Verdict) -> None:
        """Keeps the verdict of content that passed."""
        self._verdicts[_key(content, policy_set)] = verdict
        while len(self._verdicts) > self._capacity:
            self._verdicts.popitem(last=False)


def _key(content: Content, policy_set: PolicySet) -> str:
    # a text that spells an image's bytes is not that image
    parts = [
        ["text", part.text] if isinstance(part, TextPart) else ["file", part.data.hex()]
        for part in content.parts
    ]
    seen = json.dumps([content.surface, content.context, parts, policy_set.hash])
    return hashlib.sha256(seen.encode()).hexdigest()
