"""Loads classifiers for commands, with this project's progress instead of the libraries'."""

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from moderation.embedded.base import EmbeddedBase
from moderation.registry import describe, load_classifier
from policies import Policy, PolicyLibrary, PolicySet
from wardgate.environment import default_base, remote_api_key
from wardgate.output import stderr

if TYPE_CHECKING:
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
    if here:  # a download of gigabytes keeps its bar
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # transformers' notes to its developers
        return load_classifier(
            name,
            base=base,
            dtype=dtype,
            device=device,
            api_key=remote_api_key(),
            report=report,
            calibration=calibration,
        )


def open_measured(
    library: PolicyLibrary,
    policy_set: PolicySet,
    model: str,
    *,
    dtype: str | None,
    device: str,
    calibration: Path | None,
    normalise: bool,
    report: Callable[[str], None],
) -> "Moderator":
    """The moderator that an evaluation measures; says on stderr what it leaves raw.

    Raises:
        ModelError: see `load_classifier`.
    """
    from moderation.moderator import Moderator

    classifier = open_classifier(
        model,
        base=default_base(),
        dtype=dtype,
        device=device,
        report=report,
        calibration=calibration,
    )
    warn_of_raw_scores(classifier, [library.policy(rule.id) for rule in policy_set.policies])
    return Moderator(library, classifier, normalise=normalise)


def warn_of_raw_scores(classifier: "Classifier", policies: Iterable[Policy]) -> None:
    """Says on stderr which policies the loaded calibration leaves raw, and why."""
    calibration = classifier.calibration
    if calibration is not None and (gaps := calibration.gaps(policies)):
        stderr().print(
            f"warning: {calibration.id} leaves scores raw: {'; '.join(gaps)}",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
