"""How a Gemma 3 with a vision tower reads the images of a conversation."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image as PIL
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from moderation.errors import ContentTooLong, UnreadableImage
from moderation.image_features import ImageFeatures
from moderation.media.images import ImageLimits
from moderation.media.pictures import read_still
from service.chat import Image
from service.errors import content_at

MAX_IMAGES = 64
"""Of one conversation; all are decoded before it is taken."""


class Vision:
    """The vision tower of a generator. Decodes as the moderator does: what is judged is read."""

    def __init__(
        self,
        model: Any,
        to_pixels: Callable[[PIL.Image], Tensor],
        *,
        image_text: str,
        limits: ImageLimits,
        kept_bytes: int,
    ) -> None:
        """
        Args:
            model: a `Gemma3ForConditionalGeneration`.
            to_pixels: from an RGB image to ``(1, 3, H, W)``.
            image_text: what one image expands to in a prompt.
            limits: of each image.
            kept_bytes: see `ImageFeatures`.
        """
        self.image_text = image_text
        self.token_id = int(model.config.image_token_id)
        """Of the soft tokens, which stand in a prompt for what the tower makes of an image."""
        self.num_tokens = int(model.config.mm_tokens_per_image)
        """Soft tokens of one image."""
        self._to_pixels = to_pixels
        self._limits = limits
        self._features = ImageFeatures(model.model, kept_bytes=kept_bytes)

    def check(self, images: Sequence[Image]) -> None:
        """Decodes images, one at a time, and keeps none: a picture may have a thousand times the
        bytes of its file.

        Raises:
            ContentTooLong: more than `MAX_IMAGES`.
            BadRequest: an image cannot be read; names its place.
        """
        if len(images) > MAX_IMAGES:
            raise ContentTooLong(
                f"the conversation has {len(images)} images; the generator reads at most"
                f" {MAX_IMAGES}"
            )
        for image in images:
            try:
                read_still(image.data, self._limits)
            except UnreadableImage as exc:
                raise content_at(exc, image.where) from exc

    def read(self, images: Sequence[Image]) -> BaseModelOutputWithPooling:
        """What the tower makes of checked images; on one thread at a time."""
        pixels = [self._to_pixels(read_still(image.data, self._limits)) for image in images]
        return BaseModelOutputWithPooling(pooler_output=torch.stack(self._features.of(pixels)))
