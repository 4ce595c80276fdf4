"""`wardgate score`: the verdict on one content, or on every line of a file."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer
from rich.table import Table

from moderation.content import Content, ImagePart, TextPart
from moderation.errors import ContentError, InvalidText, ModerationError
from moderation.media.frames import FrameLimits
from moderation.verdict import Score, Verdict, verdict_to_dict
from policies import PolicyError, PolicySet, Surface, load_library
from wardgate.loading import ModelChoice, open_moderator, warn_of_raw_scores
from wardgate.models_commands import (
    CalibrationOption,
    DtypeOption,
    ImageModelOption,
    JsonOption,
    ModelOption,
)
from wardgate.output import (
    FAILED,
    error_object,
    exit_code,
    print_error,
    print_json,
    stderr,
    stdout,
)
from wardgate.policies_commands import PolicyDirOption
from wardgate.progress import RecordProgress
from wardgate.run_options import PoliciesOption

if TYPE_CHECKING:
    from moderation.moderator import Moderator

STDIN = Path("-")
MAX_TEXT_BYTES = 16 * 1024 * 1024
"""Far more than the tokens that are accepted in all could have."""


class UnreadableFile(ContentError):
    """A file that cannot be read, or is too large to be judged."""

    code = "unreadable_file"


class Spoken(StrEnum):
    """Who wrote the content."""

    PROMPT = "prompt"
    RESPONSE = "response"


def check_readable(path: Path | None) -> Path | None:
    """Callback of `--file`, `--image` and `--jsonl`: a file, a pipe, or - for stdin."""
    if path is not None and path != STDIN:
        try:
            with path.open("rb"):
                pass
        except OSError as exc:
            raise typer.BadParameter(f"{str(path)!r} cannot be read: {exc.strerror}") from exc
    return path


def score(
    text: Annotated[str | None, typer.Argument(help="The text to judge.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(callback=check_readable, help="A text file; - is stdin."),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            callback=check_readable,
            help="An image, an animation or a video file; - is stdin. Of what moves, one frame a"
            " second is judged, and the first after each cut.",
        ),
    ] = None,
    jsonl: Annotated[
        Path | None,
        typer.Option(
            callback=check_readable,
            help='Lines like {"text": "...", "role": "user|model", "prompt": "..."}, of which'
            " only text is needed; - is stdin. Prints one JSON verdict a line.",
        ),
    ] = None,
    policies: PoliciesOption = "default",
    policy_dir: PolicyDirOption = None,
    model: ModelOption = "embedded",
    image_model: ImageModelOption = None,
    surface: Annotated[
        Spoken, typer.Option(help="Whether a user's prompt or a generator's response.")
    ] = Spoken.PROMPT,
    context: Annotated[
        str | None, typer.Option(help="For a response: the prompt that it answers.")
    ] = None,
    dtype: DtypeOption = None,
    calibration: CalibrationOption = None,
    fail_on_violation: Annotated[
        bool, typer.Option("--fail-on-violation", help="Exit 1 on any action but allow.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Judge a text, a text file, an image or video, or every line of a JSONL file.

    Exits with 0 when everything was scored, whatever the verdict; with 1 when something could
    not be scored.
    """
    if sum(source is not None for source in (text, file, image, jsonl)) != 1:
        raise typer.BadParameter("give exactly one of TEXT, --file, --image and --jsonl")
    if context is not None and (surface is not Spoken.RESPONSE or jsonl is not None):
        raise typer.BadParameter("--context goes with --surface response and one content")
    try:
        library = load_library(policy_dir or ())
        policy_set = library.policy_set(policies)
        one: Content | None = None
        if jsonl is None:
            one = _content(text, file, image, Surface(surface.value), context)
        with RecordProgress(stderr()) as progress:
            moderator = open_moderator(
                library,
                ModelChoice(
                    name=model, image_model=image_model, calibration=calibration, dtype=dtype
                ),
                reads_images=image is not None,
                report=progress.report,
            )
            warn_of_raw_scores(
                moderator.text.info.calibration, moderator.calibration_gaps(policy_set)
            )
            if one is None:
                assert jsonl is not None  # exactly one source was given
                num_errors, num_flagged = _score_file(
                    jsonl, moderator, policy_set, Surface(surface.value), progress
                )
            else:
                progress.report("scoring")
                verdict = moderator.judge(one, policy_set)
                num_errors, num_flagged = 0, int(verdict.flagged)
    except (ModerationError, PolicyError) as exc:
        if jsonl is not None:  # one object a line, here as for the lines themselves
            print(json.dumps({"error": error_object(exc)}))
            raise typer.Exit(exit_code(exc)) from exc
        raise typer.Exit(print_error(exc, as_json=as_json)) from exc
    if one and as_json:
        print_json(verdict_to_dict(verdict))
    elif one:
        _print_verdict(verdict)
    if num_errors or (fail_on_violation and num_flagged):
        raise typer.Exit(FAILED)


def _content(
    text: str | None, file: Path | None, image: Path | None, surface: Surface, context: str | None
) -> Content:
    if image is not None:
        data = _read(image, FrameLimits().max_bytes)  # images have a lower limit of their own
        return Content(surface=surface, parts=(ImagePart(data),), context=context)
    if text is None:
        assert file is not None  # exactly one source was given
        data = _read(file, MAX_TEXT_BYTES)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise InvalidText(
                f"{file} is not a text in UTF-8: byte {data[exc.start]:#04x} at {exc.start};"
                " convert it first"
            ) from exc
    return Content(surface=surface, parts=(TextPart(text),), context=context)


def _read(path: Path, max_bytes: int) -> bytes:
    """The whole file, which is refused before more than it may have is read."""
    try:
        with _open(path) as handle:
            data = handle.read(max_bytes + 1)
    except OSError as exc:
        raise UnreadableFile(f"{path} cannot be read: {exc.strerror or exc}") from exc
    if len(data) > max_bytes:
        raise UnreadableFile(f"{path} has more than {max_bytes} bytes, the most that is judged")
    return data


def _score_file(
    path: Path,
    moderator: "Moderator",
    policy_set: PolicySet,
    surface: Surface,
    progress: RecordProgress,
) -> tuple[int, int]:
    from wardgate.score_lines import score_lines

    total = None
    if path.is_file():  # a pipe can be read only once
        with _open(path) as handle:
            total = sum(1 for line in handle if line.strip())
    progress.update(0, total)
    with _open(path) as handle:
        return score_lines(
            handle,
            moderator,
            policy_set,
            surface=surface,
            out=sys.stdout,
            done=lambda num_done: progress.update(num_done, total),
        )


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    if path == STDIN:
        yield sys.stdin.buffer
    else:
        with path.open("rb") as handle:
            yield handle


def _notes(score: Score, *, has_calibration: bool) -> str:
    """What should be known of a score beside its number."""
    form = f" ({score.form})" if score.form else ""
    return form + (" (raw)" if has_calibration and not score.is_calibrated else "")


def _print_verdict(verdict: Verdict) -> None:
    console = stdout()
    style = "green" if not verdict.flagged else "red"
    console.print(f"action: [bold {style}]{verdict.action.value}[/]")
    table = Table("Policy", "Score", "Threshold", "Action", box=None, pad_edge=False)
    has_calibration = any(model.calibration for model in verdict.models)
    for score in sorted(verdict.scores, key=lambda score: -score.calibrated):
        table.add_row(
            score.policy_id,
            f"{score.calibrated:.4f}{_notes(score, has_calibration=has_calibration)}",
            f"{score.threshold:g}",
            score.action.value + (" (shadow)" if score.mode == "shadow" else ""),
            style="red" if score.violates else None,
        )
    console.print(table)
    for part in verdict.coverage:
        told = f"part {part.part} ({part.modality}): {part.status.replace('_', ' ')},"
        told += f" {part.tokens} tokens in {part.windows} windows"
        if part.frames is not None:
            frames = part.frames
            told += f"; {frames.scored} of {frames.decoded} frames, standing for {frames.merged}"
            told += " more that look alike"
        console.print(f"{told}{f'; {part.reason}' if part.reason else ''}", markup=False)
        for found in part.evidence.found if part.evidence is not None else ():
            console.print(f"  {found}", markup=False)
    for model in verdict.models:
        calibrated = model.calibration or "not calibrated"
        console.print(f"{model.name} ({model.revision}, {model.dtype}, {calibrated})", markup=False)
    console.print(f"{verdict.policy_set} version {verdict.policy_set_version}", markup=False)
    console.print(f"scored in {verdict.scoring_ms:.0f} ms")
