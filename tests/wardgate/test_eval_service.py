"""`wardgate eval run --service` as it is called."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.evals.peer import Reply, peer, result
from tests.service.scripted import serving
from wardgate.main import app

KEY = "sk-of-the-evaluator"


@pytest.fixture(scope="module")
def wardgate() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {
            "id": text,
            "text": text,
            "role": "user",
            "labels": {"harassment": text == "BAD", "prompt_injection": False},
        }
        for text in ("BAD", "good")
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments: object) -> tuple[int, str, str]:
    return evaluate("run", *arguments)


def evaluate(*arguments: object) -> tuple[int, str, str]:
    called = CliRunner().invoke(
        app, ["eval", *map(str, arguments)], env={"COLUMNS": "300", "NO_COLOR": "1"}
    )
    return called.exit_code, called.stdout, called.stderr


def test_a_service_is_measured_and_the_finished_run_is_read(
    wardgate: str, data: Path, tmp_path: Path
) -> None:
    arguments = ("--service", wardgate, "--data", data, "--out", tmp_path / "out")
    code, out, err = run(*arguments)
    assert code == 0, err
    host = wardgate.removeprefix("http://")
    assert f"all by scripted (1) at {host}" in out
    assert "2 records scored, 0." in out
    assert "s until an answer on average" in out
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["service"] == host
    assert summary["policies"]["harassment"]["f1_at_threshold"] == 1.0
    assert summary["timing"]["records"] == 2


def test_another_server_is_measured_by_its_categories(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARDGATE_REMOTE_API_KEY", KEY)

    def answer(text: str) -> Reply:
        return Reply(result({"harassment/threatening": 0.9 if text == "BAD" else 0.2}))

    arguments = ("--data", data, "--out", tmp_path / "out", "--categories", "openai", "--json")
    with peer(answer) as server:
        code, out, err = run("--service", server.url, *arguments)
    assert code == 0, err
    summary = json.loads(out)
    assert summary["policies"]["harassment"]["auroc"] == 1.0
    assert summary["labels_left_out"]["not_in_policy_set"] == {"prompt_injection": 2}
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert {body["model"] for body in server.asked} == {"omni-moderation-latest"}
    assert KEY not in out + err


def test_what_reads_runs_reads_those_of_services(wardgate: str, data: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    assert run("--service", wardgate, "--data", data, "--out", ours)[0] == 0
    with peer(lambda _: Reply(result())) as server:
        arguments = ("--categories", "openai", "--data", data, "--out", theirs)
        assert run("--service", server.url, *arguments)[0] == 0
    code, out, err = evaluate("compare", ours, theirs, "--json")
    assert code == 0, err
    assert json.loads(out)["differs"]["name"] == ["scripted", "peer-2026-01-01"]
    code, _, err = evaluate("slices", theirs, "--by", "length,surface", "--min-records", "1")
    assert code == 0, err
    code, _, err = evaluate("report", ours, theirs, "--out", tmp_path / "report.html")
    assert code == 0, err
    assert (tmp_path / "report.html").is_file()


def test_a_service_that_is_gone_fails_in_one_line(data: Path, tmp_path: Path) -> None:
    arguments = ("--data", data, "--out", tmp_path / "out", "--timeout", "0.1")
    code, _, err = run("--service", "http://127.0.0.1:1", *arguments)
    assert code == 1
    assert "error: 127.0.0.1:1: unreachable" in err
    assert "Traceback" not in err
    code, out, _ = run("--service", "http://127.0.0.1:1", *arguments, "--json")
    assert code == 1
    assert json.loads(out)["error"]["code"] == "service_error"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--service", "http://h", "--model", "embedded"), "--model: is the service's own affair"),
        (("--service", "http://h", "--raw-text"), "--raw-text: is the service's own affair"),
        (("--categories", "openai"), "--categories: needs --service"),
        (("--timeout", "5"), "--timeout: needs --service"),
        (("--service", "http://user:key@h"), "expected no key in the URL"),
        (("--service", "localhost:8080"), "expected a URL such as"),
    ],
)
def test_options_that_do_not_fit_are_wrong_use(
    data: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    code, _, err = run("--data", data, "--out", tmp_path / "out", *arguments)
    assert code == 2
    assert words in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("policies: {harassment: []}", "categories.yaml:1: policies.harassment: Tuple should have"),
        ("policies: {odd: [a]}", "unknown policy 'odd'; known: any_harm"),
        ("policies: {harassment: [a]}\nodd: 1", "categories.yaml:2: odd: "),
        ("policies: {}", "categories.yaml:1: policies: "),
        ("- a", "expected a mapping"),
        ("policies: {any_harm: [a]}", "no policy of the set 'default' has categories; those"),
    ],
)
def test_a_wrong_file_of_categories_is_told_with_its_line(
    data: Path, tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "categories.yaml"
    path.write_text(text)
    arguments = ("--data", data, "--out", tmp_path / "out", "--categories", path)
    code, _, err = run("--service", "http://127.0.0.1:1", "--policies", "default", *arguments)
    assert code == (2 if "unknown" in words else 1)
    assert words in err
    assert not (tmp_path / "out").exists()
