"""What the vision tower makes of images: once for all policies, and once ever for the same pixels.

Knows pixels and features. Knows nothing of prompts or policies. Used under the engine's lock.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

KEPT_BYTES = 256 * 1024 * 1024
"""Of features: about 200 images of ShieldGemma 2 in bfloat16, 1.3 MB each."""
MAX_TOGETHER = 8
"""Images that go through the tower in one batch; its activations take some 100 MB an image."""


class ImageFeatures:
    """The vision tower of a model, with a bounded memory; the longest unused go first."""

    def __init__(self, model: Any, *, kept_bytes: int) -> None:
        """
        Args:
            model: has `get_image_features`, as transformers' `Gemma3Model` has.
            kept_bytes: of all features that are kept; 0 keeps none.
        """
        self._model = model
        self._kept_bytes = kept_bytes
        self._num_bytes = 0
        self._kept: OrderedDict[tuple[bytes, torch.Size], Tensor] = OrderedDict()

    def of(self, pixels: Sequence[Tensor]) -> list[Tensor]:
        """The features of some images, ``(N, D)`` each, in order.

        Args:
            pixels: ``(1, 3, H, W)`` each, on the CPU. The same pixels are encoded once.
        """
        keys = [_key(each) for each in pixels]
        found = {key: self._kept[key] for key in keys if key in self._kept}
        new = {key: each for key, each in zip(keys, pixels, strict=True) if key not in found}
        for together in _runs(list(new.items()), MAX_TOGETHER):
            encoded = self._encode(torch.cat([each for _, each in together]))
            for (key, _), features in zip(together, encoded, strict=True):
                found[key] = features.clone()  # as a view it would keep all of the batch
        for key in keys:
            self._keep(key, found[key])
        return [found[key] for key in keys]

    def _encode(self, pixels: Tensor) -> Tensor:
        """From ``(B, 3, H, W)`` to ``(B, N, D)``."""
        weight = next(self._model.parameters())
        encoded = self._model.get_image_features(
            pixels.to(weight.device, weight.dtype), return_dict=True
        )
        features: Tensor = encoded.pooler_output
        return features

    def _keep(self, key: tuple[bytes, torch.Size], features: Tensor) -> None:
        if key not in self._kept:
            self._kept[key] = features
            self._num_bytes += features.nbytes
        self._kept.move_to_end(key)
        while self._num_bytes > self._kept_bytes:
            self._num_bytes -= self._kept.popitem(last=False)[1].nbytes


def _key(pixels: Tensor) -> tuple[bytes, torch.Size]:
    """Of the bytes and the shape: another crop or size of an image is another one."""
    raw = pixels.contiguous().view(torch.uint8).numpy().data
    return hashlib.sha256(raw).digest(), pixels.shape


def _runs(items: Sequence[tuple[Any, Tensor]], most: int) -> Iterator[Sequence[tuple[Any, Tensor]]]:
    """Of at most so many images, and of one shape."""
    run: list[tuple[Any, Tensor]] = []
    for item in items:
        if run and (len(run) == most or run[0][1].shape != item[1].shape):
            yield run
            run = []
        run.append(item)
    if run:
        yield run
