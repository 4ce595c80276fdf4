"""The client of the moderation service: sync and async, typed, with retries.

Needs httpx alone and imports nothing else of this distribution, so that a program which asks for
verdicts loads no models, no web framework and no policies.
"""

from wardgate_client.client import AsyncClient, Client
from wardgate_client.content import Image, Part, Text
from wardgate_client.errors import (
    ErrorAnswer,
    Overloaded,
    RequestRefused,
    ServiceFailed,
    TimeUp,
    UnexpectedAnswer,
    Unreachable,
    WardgateError,
)
from wardgate_client.moderation import (
    Frame,
    FrameCoverage,
    Model,
    Moderation,
    PartCoverage,
    PolicySet,
    Score,
    Window,
)

__all__ = [
    "AsyncClient",
    "Client",
    "ErrorAnswer",
    "Frame",
    "FrameCoverage",
    "Image",
    "Model",
    "Moderation",
    "Overloaded",
    "Part",
    "PartCoverage",
    "PolicySet",
    "RequestRefused",
    "Score",
    "ServiceFailed",
    "Text",
    "TimeUp",
    "UnexpectedAnswer",
    "Unreachable",
    "WardgateError",
    "Window",
]
