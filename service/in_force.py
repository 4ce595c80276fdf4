"""The policies that are in force: one loading of them, and the classifier that judges by it.

A reload puts another one in its place. Who has begun under this one ends under it.
"""

import time
from contextlib import suppress
from dataclasses import dataclass

from moderation.content import Content
from moderation.errors import UnsupportedModality
from policies import PolicyLibrary, PolicySet
from service.judging import Judging
from service.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """What a request is judged by."""

    settings: Settings
    library: PolicyLibrary
    policy_set: PolicySet
    """The operator's, of this library."""
    judging: Judging
    """Judges by this library."""

    async def warm_up(self) -> None:
        """Judges a prompt and a response, so that no caller waits for what is computed once a
        policy, and no policy comes into force that nothing can be judged by.

        Raises:
            ModerationError: the classifier fails on these policies, or at all.
        """
        for content in (Content.prompt("Hello."), Content.response("Hello.")):
            with suppress(UnsupportedModality):  # no policy of the set has words for it
                await self.judging.judge(
                    content,
                    self.policy_set,
                    deadline=time.monotonic() + self.settings.deadline_s,
                    admitted=True,
                )
