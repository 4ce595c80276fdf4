"""The policies that are in force: one loading of them, and the classifier that judges by it.

A reload puts another one in its place. Who has begun under this one ends under it.
"""

import base64
import time
from contextlib import suppress
from dataclasses import dataclass

from moderation.content import Content, ImagePart
from moderation.errors import UnsupportedModality
from policies import PolicyLibrary, PolicySet, Surface
from service.judging import Judging
from service.settings import Settings

_GREY = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAGElEQVR42mNsYMAPmBhGFYwqGFUwQhUAAJe+AMD8WknZ"
    "AAAAAElFTkSuQmCC"
)
"""A grey square of 32 pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """What a request is judged by."""

    settings: Settings
    library: PolicyLibrary
    policy_set: PolicySet
    """The operator's, of this library."""
    judging: Judging
    """Judges by this library."""

    @property
    def calibration_gaps(self) -> list[str]:
        """See `Moderator.calibration_gaps`."""
        return self.judging.calibration_gaps(self.policy_set)

    async def warm_up(self) -> None:
        """Judges a prompt, a response and, where images are judged, an image, so that no caller
        waits for what is computed once a policy, and no policy comes into force that nothing can be
        judged by.

        Raises:
            ModerationError: the classifier fails on these policies, or at all.
        """
        contents = [Content.prompt("Hello."), Content.response("Hello.")]
        if self.judging.judges_images:
            contents.append(Content(surface=Surface.PROMPT, parts=(ImagePart(_GREY),)))
        for content in contents:
            with suppress(UnsupportedModality):  # no policy of the set has words for it
                await self.judging.judge(
                    content,
                    self.policy_set,
                    deadline=time.monotonic() + self.settings.deadline_s,
                    admitted=True,
                )
