"""`wardgate score`, with the real embedded model where anything is scored."""

import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from moderation.checkpoints import Classifier
from moderation.moderator import Moderator
from policies import PolicySet, Surface, load_library
from tests.moderation.checkpoints_on_disk import write_shieldgemma2
from tests.moderation.media import plain, video
from wardgate.main import app
from wardgate.score_lines import score_lines

SETS = """\
id: {name}
version: 1
policies:
  - {{id: any_harm, threshold: {threshold}, action: block}}
"""


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Two policy sets that do not depend on what the model thinks."""
    folder = tmp_path / "sets"
    folder.mkdir()
    for name, threshold in (("always", 1e-9), ("never", 0.999999999)):
        text = SETS.format(name=name, threshold=f"{threshold:.9f}")
        (folder / f"{name}.yaml").write_text(text)
    return folder


def run(*arguments: str | Path, stdin: bytes | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["score", *map(str, arguments)], input=stdin)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def cached(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDGATE_CACHE_DIR", str(cache_dir))


def test_a_file_that_is_no_text_is_refused_before_a_model_loads(tmp_path: Path) -> None:
    path = tmp_path / "text.bin"
    path.write_bytes(b"secret \xff")
    code, out, err = run("--file", path)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {path} is not a text in UTF-8: byte 0xff at 7; convert it")
    assert "secret" not in err


def test_an_error_is_an_object_with_json(tmp_path: Path) -> None:
    path = tmp_path / "text.bin"
    path.write_bytes(b"\xff")
    code, out, _ = run("--file", path, "--json")
    assert code == 1
    assert json.loads(out)["error"]["code"] == "invalid_text"


@pytest.mark.parametrize("option", ["--file", "--image"])
def test_a_file_without_end_is_refused_before_all_of_it_is_read(option: str) -> None:
    code, out, err = run(option, Path("/dev/zero"))
    assert (code, out) == (1, "")
    assert "/dev/zero has more than" in err


def test_what_cannot_be_read_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    assert run("--file", tmp_path)[0] == 2
    assert run("--file", "x" * 300)[0] == 2
    code, _, err = run("--file", "/proc/self/mem")
    assert (code, err.split(":")[0]) == (1, "error")
    assert "cannot be read" in err


def test_an_error_before_the_first_line_is_one_line_too(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"text": "hello"}\n')
    code, out, _ = run("--jsonl", path, "--policies", "nope")
    (line,) = out.splitlines()
    assert (code, json.loads(line)["error"]["code"]) == (2, "unknown_policy")


@pytest.mark.model
def test_verdicts_go_where_stdout_goes_while_a_terminal_shows_progress(
    tmp_path: Path, cache_dir: Path
) -> None:
    """A pseudo-terminal as stderr, a file as stdout, a pipe as input."""
    terminal, end = pty.openpty()
    command = [sys.executable, "-c", "from wardgate.main import main; main()"]
    with (tmp_path / "out.jsonl").open("wb") as out:
        process = subprocess.Popen(
            [*command, "score", "--jsonl", "/dev/stdin", "--policies", "all"],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=end,
            env={**os.environ, "WARDGATE_CACHE_DIR": str(cache_dir)},
        )
    os.close(end)
    assert process.stdin is not None
    process.stdin.write(b'{"text": "hello"}\n{"text": "bye"}\n')
    process.stdin.close()
    shown = b""
    with suppress(OSError):  # the terminal ends with the process
        while part := os.read(terminal, 4096):
            shown += part
    assert process.wait() == 0
    os.close(terminal)
    verdicts = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [verdict["line"] for verdict in verdicts] == [1, 2]
    assert len(verdicts[0]["scores"]) == len(load_library().policies)
    assert b"scoring" in shown
    assert b"action" not in shown
    assert b"None" not in shown


@pytest.mark.model
@pytest.mark.usefixtures("cached")
def test_an_image_model_that_cannot_see_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (64, 64), "red").save(path)
    code, _, err = run("--image", path, "--image-model", "embedded-base")
    assert code == 1
    assert "'embedded-base' judges no images" in err


@pytest.mark.model
@pytest.mark.usefixtures("cached")
def test_a_violation_exits_with_zero_unless_asked_otherwise(sets: Path) -> None:
    options = ("--policy-dir", sets, "--policies", "always", "--json")
    code, out, err = run("hello", *options)
    verdict = json.loads(out)
    assert code == 0
    assert verdict["action"] == "block"
    assert [score["policy"] for score in verdict["scores"]] == ["any_harm"]
    assert verdict["models"][0]["calibrated"] is False
    assert "loading embedded" in err
    assert run("hello", *options, "--fail-on-violation")[0] == 1


@pytest.mark.model
@pytest.mark.usefixtures("cached")
def test_a_benign_response_from_stdin_passes_and_prints_a_table(sets: Path) -> None:
    code, out, _ = run(
        *("--file", "-", "--surface", "response", "--context", "Say hello."),
        *("--policy-dir", sets, "--policies", "never", "--fail-on-violation"),
        stdin="Grüß dich!".encode(),
    )
    assert code == 0
    assert "action: allow" in out
    assert "any_harm" in out
    assert "Grüß" not in out


@pytest.mark.model
@pytest.mark.usefixtures("cached")
def test_an_image_of_which_nothing_can_be_judged_is_a_failure_and_no_verdict(
    tmp_path: Path, sets: Path
) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (64, 64), "red").save(path)
    code, out, _ = run("--image", path, "--policy-dir", sets, "--policies", "never", "--json")
    assert code == 1
    assert json.loads(out)["error"]["code"] == "unsupported_modality"


@pytest.mark.model
@pytest.mark.usefixtures("cached")
def test_an_image_that_no_model_sees_is_judged_by_evidence(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (64, 64), "red").save(path)
    code, out, _ = run("--image", path, "--json")
    verdict = json.loads(out)
    assert code == 0
    assert verdict["action"] != "allow"
    assert {w["surface"] for score in verdict["scores"] for w in score["windows"]} == {"image"}
    (covered,) = verdict["coverage"]
    assert covered["status"] == "partial"
    assert covered["evidence"]["kinds"] == ["text", "tags", "nudity"]
    assert covered["evidence"]["not_covered"] == ["dangerous_content", "violence"]
    _, out, _ = run("--image", path)
    assert covered["evidence"]["found"][0] in out


def test_an_image_is_judged_by_shieldgemma_2(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (64, 64), "red").save(path)
    write_shieldgemma2(tmp_path)
    code, out, _ = run(
        *("--image", path, "--model", tmp_path, "--dtype", "float32"),
        *("--policies", "shieldgemma2", "--json"),
    )
    verdict = json.loads(out)
    assert code == 0
    assert [score["policy"] for score in verdict["scores"]] == [
        "dangerous_content",
        "sexually_explicit",
        "violence",
    ]
    assert {w["surface"] for score in verdict["scores"] for w in score["windows"]} == {"image"}
    assert "text in the image was not read" in verdict["coverage"][0]["reason"]
    assert verdict["complete"] is False


@pytest.mark.parametrize("container", ["mp4", "webm"])
def test_a_video_is_judged_by_its_frames(tmp_path: Path, container: str) -> None:
    path = tmp_path / "clip"  # what it is, its bytes say
    path.write_bytes(video([plain("red")] * 5 + [plain("blue")] * 5, container))
    write_shieldgemma2(tmp_path)
    asked = ("--image", path, "--model", tmp_path, "--dtype", "float32")
    code, out, _ = run(*asked, "--policies", "shieldgemma2", "--json")
    assert code == 0
    (covered,) = json.loads(out)["coverage"]
    assert covered["modality"] == "video"
    assert (covered["frames"]["decoded"], covered["frames"]["scored"]) == (10, 2)
    code, out, _ = run(*asked, "--policies", "shieldgemma2")
    assert "2 of 10 frames" in out


@pytest.mark.model
@pytest.mark.usefixtures("cached")
def test_an_image_model_stands_beside_the_text_model(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (64, 64), "red").save(path)
    write_shieldgemma2(tmp_path)
    code, out, _ = run("--image", path, "--image-model", tmp_path, "--json")
    verdict = json.loads(out)
    assert code == 0
    assert [model["name"] for model in verdict["models"]] == [str(tmp_path)]
    assert verdict["complete"] is True


@pytest.mark.model
@pytest.mark.usefixtures("cached")
def test_a_bad_line_gets_an_error_and_the_others_a_verdict(tmp_path: Path, sets: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"text": "hello"}\nnonsense\n{"text": "bye", "id": "b"}\n')
    code, out, err = run("--jsonl", path, "--policy-dir", sets, "--policies", "never")
    first, second, third = map(json.loads, out.splitlines())
    assert code == 1
    assert (first["line"], first["action"]) == (1, "allow")
    assert (second["line"], second["error"]["code"]) == (2, "invalid_line")
    assert (third["id"], third["action"]) == ("b", "allow")
    assert "3/3 records" in err


@pytest.fixture(scope="module")
def moderator(embedded: Classifier) -> Moderator:
    return Moderator(load_library(), embedded)


@pytest.fixture(scope="module")
def any_harm() -> PolicySet:
    return PolicySet.model_validate(
        {
            "id": "one",
            "version": 1,
            "policies": [{"id": "any_harm", "threshold": 0.999, "action": "block"}],
        }
    )


@pytest.mark.model
@pytest.mark.parametrize(
    ("line", "surface"),
    [
        ({"text": "hi"}, "prompt"),
        ({"text": "hi", "role": "user"}, "prompt"),
        ({"text": "hi", "role": "model"}, "response"),
        ({"text": "hi", "prompt": "Say hi."}, "response"),
        ({"text": "hi", "role": "assistant", "prompt": "Say hi.", "labels": {}}, "response"),
    ],
)
def test_a_line_says_by_which_words_it_is_judged(
    moderator: Moderator, any_harm: PolicySet, line: dict[str, object], surface: str
) -> None:
    out = io.StringIO()
    counts = score_lines(
        [json.dumps(line)],
        moderator,
        any_harm,
        surface=Surface.PROMPT,
        out=out,
        done=lambda _: None,
    )
    assert counts == (0, 0)
    assert json.loads(out.getvalue())["scores"][0]["windows"][0]["surface"] == surface


@pytest.mark.model
@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (b"[1]", "invalid_line", "expected a JSON object"),
        (b'{"txt": "secret"}', "invalid_line", "text: Field required"),
        (b'{"text": 7}', "invalid_line", "text: expected a valid string"),
        (b'{"text": "secret", "role": "judge"}', "invalid_line", "role: expected 'user'"),
        (b'{"text": "secret", "id": []}', "invalid_line", "id: expected"),
        (b'{"text": "secret', "invalid_line", "cannot be read at column"),
        (b'{"text": "\xff"}', "invalid_line", "expected one JSON object in UTF-8"),
        (b"[" * 100_000, "invalid_line", "expected one JSON object"),
        (b'{"text": "\\ud800"}', "invalid_text", "lone surrogate"),
        (b'{"text": "x", "id": "\\ud800"}', "invalid_line", "id: holds lone surrogates"),
        (b'{"text": "secret", "text": "x"}', "invalid_line", "a key stands twice"),
        (b'{"text": " "}', "content_empty", "empty text"),
        (b'{"text": "secret", "role": "user", "prompt": "x"}', "invalid_content", "answers"),
    ],
)
def test_a_bad_line_is_named_and_never_repeated(
    moderator: Moderator, any_harm: PolicySet, line: bytes, code: str, message: str
) -> None:
    out, done = io.StringIO(), list[int]()
    counts = score_lines(
        [b"\n", line], moderator, any_harm, surface=Surface.PROMPT, out=out, done=done.append
    )
    answer = json.loads(out.getvalue())
    assert counts == (1, 0)
    assert done == [1]
    assert (answer["line"], answer["error"]["code"]) == (2, code)
    assert message in answer["error"]["message"]
    assert "secret" not in out.getvalue()


@pytest.mark.model
def test_a_bad_line_keeps_its_id(moderator: Moderator, any_harm: PolicySet) -> None:
    out = io.StringIO()
    score_lines(
        [b'{"text": 7, "id": "r7"}'],
        moderator,
        any_harm,
        surface=Surface.PROMPT,
        out=out,
        done=lambda _: None,
    )
    assert json.loads(out.getvalue())["id"] == "r7"


@pytest.mark.model
def test_lines_are_answered_one_by_one(moderator: Moderator, any_harm: PolicySet) -> None:
    out = io.StringIO()

    def lines() -> Iterator[str]:
        yield '{"text": "one"}'
        assert out.getvalue().count("\n") == 1, "the first line is answered before the second"
        yield '{"text": "two"}'

    score_lines(lines(), moderator, any_harm, surface=Surface.PROMPT, out=out, done=lambda _: None)
    assert out.getvalue().count("\n") == 2
