"""Loads classifiers for commands, with this project's progress instead of the libraries'."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from moderation.embedded.base import EmbeddedBase
from moderation.errors import ModelRefused, ModelUnavailable
from moderation.registry import describe, load_classifier
from policies import PolicyLibrary, PolicySet, Surface
from wardgate.environment import default_base, remote_api_key
from wardgate.output import stderr

if TYPE_CHECKING:
    from evals.guards.formats import GuardFormat
    from evals.guards.model import Guard
    from moderation.checkpoints import Classifier
    from moderation.moderator import Moderator


def open_classifier(
    name: str,
    *,
    base: EmbeddedBase,
    dtype: str | None,
    report: Callable[[str], None],
    device: str = "cpu",
    calibration: Path | None = None,
) -> "Classifier":
    """`load_classifier`, quiet on stderr but for `report`.

    Raises:
        ModelError: see `load_classifier`.
    """
    here = Path(name).is_dir() or any(
        entry.name == name and entry.on_disk for entry in describe(base)
    )
    with _quiet(here=here):
        return load_classifier(
            name,
            base=base,
            dtype=dtype,
            device=device,
            api_key=remote_api_key(),
            report=report,
            calibration=calibration,
        )


def open_guard(
    form: "GuardFormat",
    source: str,
    *,
    dtype: str | None,
    device: str,
    report: Callable[[str], None],
) -> "Guard":
    """`load_guard`, quiet on stderr but for `report`. Raises `ModelError`."""
    import torch

    from evals.guards.model import load_guard

    report(f"loading {source}")
    with _quiet(here=Path(source).expanduser().is_dir()):
        return load_guard(
            form, source, dtype=getattr(torch, dtype) if dtype else None, device=device
        )


@contextmanager
def _quiet(*, here: bool) -> Iterator[None]:
    """Without the libraries' own words and bars; a download of gigabytes keeps its bar."""
    if here:
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # transformers' notes to its developers
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """What judges, as the options of a command name it."""

    name: str
    """Of the model of texts; of images too, where it sees."""
    image_model: str | None = None
    """Judges what images show; None leaves that to the recognisers."""
    calibration: Path | None = None
    dtype: str | None = None
    device: str = "cpu"
    normalise: bool = True
    """See `Moderator`."""

    def for_data(self, *, has_images: bool) -> Self:
        """Without a model of images where there are none."""
        return self if has_images else replace(self, image_model=None)


def open_measured(
    library: PolicyLibrary,
    policy_set: PolicySet,
    model: ModelChoice,
    *,
    report: Callable[[str], None],
    has_images: bool = False,
) -> "Moderator":
    """The moderator that an evaluation measures; says on stderr what it leaves raw.

    Args:
        library: the policies.
        policy_set: those that are measured.
        model: what judges.
        report: told what is being loaded.
        has_images: whether there are any; without, nothing that looks at them is loaded.

    Raises:
        ModelError: see `open_moderator`.
    """
    moderator = open_moderator(
        library, model.for_data(has_images=has_images), reads_images=has_images, report=report
    )
    warn_of_raw_scores(moderator.text.info.calibration, moderator.calibration_gaps(policy_set))
    return moderator


def open_moderator(
    library: PolicyLibrary,
    model: ModelChoice,
    *,
    reads_images: bool,
    report: Callable[[str], None],
) -> "Moderator":
    """A moderator with whatever looks at images, where there are any.

    Args:
        library: the policies.
        model: what judges.
        reads_images: loads the reader of texts in images, and the recognisers; where their extra
            is not installed, coverage says what nobody looked at.
        report: told what is being loaded.

    Raises:
        ModelError: see `load_classifier`; or the image model judges no images.
    """
    open_one = partial(
        open_classifier,
        base=default_base(),
        dtype=model.dtype,
        device=model.device,
        report=report,
    )
    text = open_one(model.name, calibration=model.calibration)
    # torch takes seconds to import; --help and wrong use must not wait for it
    from moderation.media.ocr import RapidOcrReader, TextReader
    from moderation.media.recognisers import Recognisers, load_recognisers
    from moderation.moderator import Moderator

    image = text if text.to_pixels is not None else None
    if model.image_model is not None and model.image_model != model.name:
        image = open_one(model.image_model)
        if image.to_pixels is None:
            raise ModelRefused(f"{model.image_model!r} judges no images; see wardgate models list")
    reader: TextReader | None = None
    if reads_images and text.builder.judges(Surface.PROMPT):
        report("starting the text reader")
        # without the extra the verdict's coverage says that text was not read
        with suppress(ModelUnavailable):
            reader = RapidOcrReader()
    recognisers: Recognisers | None = None
    if reads_images and image is None and text.builder.judges_findings:
        report("starting the recognisers")
        with suppress(ModelUnavailable):  # likewise
            recognisers = load_recognisers()
    return Moderator(
        library,
        text,
        image=image,
        reader=reader,
        recognisers=recognisers,
        normalise=model.normalise,
    )


def warn_of_raw_scores(calibration: str | None, gaps: Sequence[str]) -> None:
    """Says on stderr which policies a calibration leaves raw, and why; see
    `Moderator.calibration_gaps`."""
    if gaps:
        stderr().print(
            f"warning: {calibration} leaves scores raw: {'; '.join(gaps)}",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
