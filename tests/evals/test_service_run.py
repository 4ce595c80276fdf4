"""Runs of services over real HTTP: Wardgate's own, and a peer that fails, limits and lies."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image
from pydantic import SecretStr

from evals.answers import Api, CategoryApi, WardgateApi
from evals.categories import Categories, read_categories
from evals.columns import add_columns
from evals.errors import RunRefused
from evals.finished import read_run
from evals.journal import JOURNAL, MANIFEST
from evals.records import Record
from evals.results import SCORES, SUMMARY, Results
from evals.run import RunPlan, read_workload, run_subject
from evals.service_run import Address, ServiceError, meet
from policies import Action, PolicyRule, PolicySet, load_library
from tests.evals.peer import MODEL, Reply, peer, result
from tests.evals.scripted import write_records
from tests.service.scripted import ScriptedEngine, scripted_moderator, serving

LIBRARY = load_library()
CATEGORIES = CategoryApi(
    Categories(policies={"harassment": ("harassment", "harassment/threatening")})
)
KEY = "sk-of-the-evaluator"


def policy_set(*ids: str, threshold: float = 0.5) -> PolicySet:
    rules = tuple(PolicyRule(id=each, threshold=threshold, action=Action.FLAG) for each in ids)
    return PolicySet(id="measured", version=1, policies=rules)


def records(*texts: str) -> list[Record]:
    return [
        Record(id=f"r-{number:03}", text=text, role="user", labels={"harassment": number % 2 == 0})
        for number, text in enumerate(texts)
    ]


def run(
    url: str,
    folder: Path,
    found: list[Record],
    *,
    api: Api = CATEGORIES,
    judged: PolicySet | None = None,
    connections: int = 4,
    timeout_s: float = 20.0,
) -> Results:
    """A run into `folder / "out"`."""
    plan = RunPlan(
        data=write_records(folder / "data.jsonl", found),
        policy_set=judged or policy_set("harassment"),
        out=folder / "out",
    )
    workload = read_workload(LIBRARY, plan)
    address = Address.of(
        url, api, api_key=SecretStr(KEY), connections=connections, timeout_s=timeout_s
    )
    return run_subject(meet(address, workload), workload)


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    """By record id; of runs of one policy."""
    frame = pl.read_parquet(folder / "out" / SCORES)
    return {row["record_id"]: row for row in frame.iter_rows(named=True)}


def by_length(text: str) -> float:
    return len(text) % 100 / 100


@pytest.fixture(scope="module")
def wardgate() -> Iterator[str]:
    with serving(scripted_moderator(ScriptedEngine(by_length))) as url:
        yield url


def test_a_row_holds_what_the_service_says_of_the_record(wardgate: str, tmp_path: Path) -> None:
    asked = [
        Record(
            id="a", text="one text", role="user", labels={"harassment": True, "violence": False}
        ),
        Record(id="b", text="and an answer", prompt="p", role="model", labels={"violence": True}),
    ]
    judged = policy_set("harassment", "violence", threshold=0.1)
    results = run(wardgate + "/v1/", tmp_path, asked, api=WardgateApi(), judged=judged)

    engine = scripted_moderator(ScriptedEngine(by_length))
    frame = pl.read_parquet(tmp_path / "out" / SCORES)
    assert frame.select("record_id", "policy").rows() == [
        ("a", "harassment"),
        ("a", "violence"),
        ("b", "violence"),
    ]
    for row in frame.iter_rows(named=True):
        record = {record.id: record for record in asked}[row["record_id"]]
        verdict = engine.judge(record.content, judged)
        score = next(each for each in verdict.scores if each.policy_id == row["policy"])
        assert row["raw"] == score.raw > 0
        assert (row["calibrated"], row["is_calibrated"]) == (score.raw, False)
        assert (row["threshold"], row["violates"]) == (0.1, score.violates)
        assert (row["tokens"], row["windows"]) == (len(record.text), 1)
        assert (row["coverage"], row["error"]) == ("scored", None)
    assert results.num_scored == 2
    assert results.wall_s > 0
    assert results.cpu_s == 0


def test_a_run_says_what_the_service_stated_and_nothing_of_the_key(
    wardgate: str, tmp_path: Path
) -> None:
    run(wardgate, tmp_path, records("text"), api=WardgateApi())
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["service"] == {"host": wardgate.removeprefix("http://"), "categories": None}
    assert manifest["model"] == {
        "name": "scripted",
        "revision": "1",
        "template": "compact",
        "dtype": "float32",
        "calibration": None,
    }
    hashes = {"harassment": LIBRARY.policy("harassment").hash}
    assert manifest["policy_set"]["policies"] == hashes
    assert read_run(tmp_path / "out").manifest.policy_set.policies == hashes
    for path in (tmp_path / "out").iterdir():
        assert KEY.encode() not in path.read_bytes()


def test_what_the_service_refuses_is_an_error_with_the_name_of_the_reason(
    wardgate: str, tmp_path: Path
) -> None:
    asked = records(" ", "x" * 40_000, "fine")
    data = write_records(tmp_path / "data.jsonl", asked)
    with data.open("a") as handle:  # no Record can be dumped with a lone surrogate
        handle.write('{"id": "surrogate", "text": "\\ud800", "role": "user",')
        handle.write(' "labels": {"harassment": true}}\n')
    workload = read_workload(
        LIBRARY, RunPlan(data=data, policy_set=policy_set("harassment"), out=tmp_path / "out")
    )
    address = Address.of(wardgate, WardgateApi(), api_key=None, connections=2, timeout_s=20)
    results = run_subject(meet(address, workload), workload)
    rows = rows_of(tmp_path)
    assert rows["r-000"]["error"].startswith("content_empty: ")
    assert rows["r-001"]["error"].startswith("content_too_long: ")
    assert rows["surrogate"]["error"].startswith("invalid_text: ")
    assert rows["r-002"]["error"] is None
    for unscored in ("r-000", "r-001", "surrogate"):
        assert (rows[unscored]["raw"], rows[unscored]["violates"]) == (None, None)
        assert rows[unscored]["coverage"] == "not_scored"
    assert results.summary["unscorable_records"] == 3


def test_a_policy_that_the_service_lacks_is_refused_before_anything_is_scored(
    wardgate: str, tmp_path: Path
) -> None:
    own = LIBRARY.policy("harassment").model_copy(update={"id": "own"})
    library = replace(LIBRARY, policies={**LIBRARY.policies, "own": own})
    record = Record(id="a", text="t", role="user", labels={"own": True})
    data = write_records(tmp_path / "data.jsonl", [record])
    plan = RunPlan(data=data, policy_set=policy_set("own"), out=tmp_path / "out")
    workload = read_workload(library, plan)
    address = Address.of(wardgate, WardgateApi(), api_key=None, connections=1, timeout_s=20)
    with pytest.raises(ServiceError, match=r"unknown_policy: the service answers with status 400"):
        meet(address, workload)


def test_categories_that_the_service_does_not_cover_are_no_zeros(
    wardgate: str, tmp_path: Path
) -> None:
    narrow = CategoryApi(Categories(policies={"harassment": ("hate/threatening",)}))
    with pytest.raises(ServiceError, match="no score for the category hate/threatening"):
        run(wardgate, tmp_path, records("text"), api=narrow)


def test_the_highest_category_counts_by_the_thresholds_of_the_run(tmp_path: Path) -> None:
    def answer(text: str) -> Reply:
        return Reply(result({"harassment": 0.2, "harassment/threatening": by_length(text)}))

    with peer(answer) as server:
        run(
            server.url,
            tmp_path,
            records("a" * 10, "b" * 30),
            judged=policy_set("harassment", threshold=0.3),
        )
    rows = rows_of(tmp_path)
    assert [(row["raw"], row["violates"]) for row in rows.values()] == [(0.2, False), (0.3, True)]
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["model"]["name"] == MODEL
    assert manifest["model"]["revision"] == "unstated"
    assert manifest["policy_set"]["policies"] == {
        "harassment": "highest of harassment, harassment/threatening"
    }
    assert {tuple(body) for body in server.asked} == {("input",)}
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    lengths = add_columns(read_run(tmp_path / "out").scores, ["length"])["length"]
    assert lengths.to_list() == [None, None], "it does not say how many tokens it read"


LIES: dict[str, Any] = {
    "nan": result({"harassment": float("nan")}),
    "above": result({"harassment": 1.5}),
    "below": result({"harassment": -0.1}),
    "a boolean": result({"harassment": True}),
    "in words": result({"harassment": "0.9"}),
    "null": result({"harassment": None}),
    "not applied": result({"harassment": 0.0}, category_applied_input_types={"harassment": []}),
    "missing": {"model": MODEL, "results": [{"category_scores": {"harassment": 0.9}}]},
    "no scores": {"model": MODEL, "results": [{"flagged": True}]},
    "no results": {"model": MODEL, "results": []},
    "two results": {"model": MODEL, "results": result()["results"] * 2},
    "an error": {"error": {"message": "no"}},
    "a page": b"<html>",
}


def test_an_answer_that_is_no_score_is_an_error_and_never_a_score(tmp_path: Path) -> None:
    with peer(lambda text: Reply(LIES.get(text, result()))) as server:
        results = run(server.url, tmp_path, records(*LIES, "the truth"))
    rows = list(rows_of(tmp_path).values())
    assert len(rows) == len(LIES) + 1
    for row, lie in zip(rows, LIES, strict=False):
        assert row["error"].startswith("no_score: "), lie
        assert (row["raw"], row["calibrated"], row["violates"]) == (None, None, None), lie
    assert rows[-1]["raw"] == 0.1
    assert results.num_scored == 1


def test_a_false_verdict_of_wardgates_shape_is_an_error(wardgate: str, tmp_path: Path) -> None:
    api = WardgateApi()
    good = _verdict_on("text", wardgate)

    def lie(change: Callable[[dict[str, Any]], object]) -> Any:
        answer = json.loads(json.dumps(good))
        change(answer["results"][0]["wardgate"])
        return answer

    lies = {
        "nan": lie(lambda v: v["scores"][0].update(raw=float("nan"))),
        "above": lie(lambda v: v["scores"][0].update(calibrated=1.01)),
        "words": lie(lambda v: v["scores"][0].update(raw="0.5")),
        "gap": lie(lambda v: v["scores"].clear()),
        "nobody": lie(lambda v: v["models"].clear()),
        "tokens": lie(lambda v: v["coverage"][0].update(tokens="many")),
        "shape": result(),
    }
    half = lie(lambda v: v.update(complete=False))
    told = {**lies, "half of it": half}
    with peer(lambda text: Reply(told.get(text, good))) as server:
        run(server.url, tmp_path, records(*told, "the truth"), api=api)
    rows = list(rows_of(tmp_path).values())
    assert [row["coverage"] for row in rows[-2:]] == ["partial", "scored"]
    for row, name in zip(rows, lies, strict=False):
        assert (row["error"] or "").startswith("no_score: "), name
        assert row["raw"] is None, name
    assert (rows[-1]["error"], rows[-1]["raw"]) == (None, by_length("text"))


def _verdict_on(text: str, url: str) -> Any:
    import httpx

    body = {"input": text, "policies": ["harassment"]}
    return httpx.post(f"{url}/v1/moderations", json=body).json()


def test_limits_and_outages_are_waited_for(tmp_path: Path) -> None:
    failures = [
        Reply({"error": {"message": "slow down"}}, 429, "1"),
        Reply({"error": {"message": "slow down"}}, 429, "0"),
        Reply(b"a page", 503, "0"),
    ]

    def answer(text: str) -> Reply:
        return failures.pop(0) if text == "limited" and failures else Reply(result())

    with peer(answer) as server:
        results = run(server.url, tmp_path, records("limited", "free"))
    assert results.num_scored == 2
    assert server.texts.count("limited") == 4
    entries = [json.loads(line) for line in (tmp_path / "out" / JOURNAL).read_text().splitlines()]
    assert {entry["id"]: entry["wall_s"] >= 1 for entry in entries} == {
        "r-000": True,
        "r-001": False,
    }, "the service said how long to wait"


def test_a_record_that_the_service_fails_on_is_an_error_without_its_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(text: str) -> Reply:
        quoted = {"error": {"message": f"cannot judge {text}", "code": "content_too_long"}}
        if text == "secret one":
            return Reply(quoted, 400)
        if text == "secret two":
            return Reply({"error": {"message": text, "code": text}}, 500)
        if text == "secret three":
            return Reply(result(), trickles_s=30)
        return Reply(result())

    with peer(answer) as server, caplog.at_level("DEBUG"):
        run(
            server.url,
            tmp_path,
            records("secret one", "secret two", "secret three", "d"),
            timeout_s=0.5,
        )
    rows = rows_of(tmp_path)
    assert [row["error"] for row in rows.values()] == [
        "content_too_long: the service answers with status 400",
        "error: the service answers with status 500",
        "timeout: no answer within 0.5 s",
        None,
    ]
    assert "secret" not in (tmp_path / "out" / JOURNAL).read_text()
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "is WARDGATE_REMOTE_API_KEY set"),
        (404, "status 404"),
        (429, "status 429"),
        (503, "status 503"),
    ],
)
def test_a_service_that_is_gone_ends_the_run_and_is_no_error_of_the_record(
    tmp_path: Path, status: int, words: str
) -> None:
    gone = True

    def answer(text: str) -> Reply:
        # a wait that is longer than the time of a record: no second try, however slow the first
        away = Reply({}, status, retry_after="60")
        return away if gone and text == "c" else Reply(result())

    asked = records("a", "b", "c", "d")
    with peer(answer) as server:
        with pytest.raises(ServiceError, match=f"{words}.*what is done is kept"):
            run(server.url, tmp_path, asked, connections=1, timeout_s=30)
        assert (tmp_path / "out" / JOURNAL).read_text().count("\n") == 2
        assert not (tmp_path / "out" / SUMMARY).exists()
        gone = False
        run(server.url, tmp_path, asked, connections=3)
        assert sorted(text for text in server.texts if text != "c") == ["a", "b", "d"]
    assert [row["error"] for row in rows_of(tmp_path).values()] == [None] * 4


def test_images_are_not_sent_and_not_left_out_in_silence(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    row = {"id": "a", "text": "", "image": "a.png", "role": "user", "labels": {"violence": True}}
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps(row) + "\n")
    plan = RunPlan(data=data, policy_set=policy_set("violence"), out=tmp_path / "out")
    workload = read_workload(LIBRARY, plan)
    with peer(lambda _: Reply(result())) as server:
        address = Address.of(server.url, CATEGORIES, api_key=None, connections=1, timeout_s=1)
        with pytest.raises(ServiceError, match="has images"):
            meet(address, workload)
    assert server.asked == []


def test_nobody_at_the_address_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:1: unreachable: .*does it run there"):
        run("http://127.0.0.1:1", tmp_path, records("a"), timeout_s=0.2)
    assert not (tmp_path / "out").exists()


def test_another_kind_of_service_is_told_at_the_start(tmp_path: Path) -> None:
    with peer(lambda _: Reply(result())) as server:
        with pytest.raises(ServiceError, match=r"no verdict of Wardgate's.*--categories"):
            run(server.url, tmp_path, records("a"), api=WardgateApi())
        narrow = CategoryApi(Categories(policies={"harassment": ("insults",)}))
        with pytest.raises(ServiceError, match="no score for the category insults"):
            run(server.url, tmp_path, records("a"), api=narrow)
    assert not (tmp_path / "out").exists()


def test_no_more_records_are_asked_about_at_a_time_than_was_said(tmp_path: Path) -> None:
    def answer(_: str) -> Reply:
        time.sleep(0.02)
        return Reply(result())

    with peer(answer) as server:
        run(server.url, tmp_path, records(*map(str, range(30))), connections=3)
    assert server.at_once == 3


def test_a_service_that_changes_its_model_is_not_mixed(tmp_path: Path) -> None:
    model = "first"

    def answer(text: str) -> Reply:
        return Reply(result(model="second" if text == "c" else model))

    asked = records("a", "b", "c", "d")
    with peer(answer) as server:
        with pytest.raises(
            ServiceError, match=r"changed its model.*'first'.*'second'.*another --out"
        ):
            run(server.url, tmp_path, asked, connections=1)
        assert (tmp_path / "out" / JOURNAL).read_text().count("\n") == 2
        model = "second"
        with pytest.raises(
            RunRefused, match=r'model\.name "first" where this command has "second"'
        ):
            run(server.url, tmp_path, asked, connections=1)
    assert server.texts == ["a", "b", "c"]


def test_a_service_that_changes_the_words_of_a_policy_is_not_mixed(
    wardgate: str, tmp_path: Path
) -> None:
    good = _verdict_on("text", wardgate)
    changed = json.loads(json.dumps(good))
    changed["results"][0]["wardgate"]["scores"][0]["hash"] = "other"
    with (
        peer(lambda text: Reply(changed if text == "b" else good)) as server,
        pytest.raises(ServiceError, match="changed the words of harassment since the run began"),
    ):
        run(server.url, tmp_path, records("a", "b"), api=WardgateApi(), connections=1)


def test_another_model_in_the_service_is_another_run(wardgate: str, tmp_path: Path) -> None:
    run(wardgate, tmp_path, records("a"), api=WardgateApi())
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    manifest["model"]["revision"] = "0"
    (tmp_path / "out" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(RunRefused, match=r'model\.revision "0" where this command has "1"'):
        run(wardgate, tmp_path, records("a"), api=WardgateApi())


def test_a_killed_run_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    asked = records(*(f"{'x' * number}" for number in range(1, 31)))

    def answer(text: str) -> Reply:
        time.sleep(0.02)
        return Reply(result({"harassment": by_length(text)}))

    journal = tmp_path / "out" / JOURNAL
    with peer(answer) as server:
        if not (child := os.fork()):
            try:
                run(server.url, tmp_path, asked, connections=2)
            finally:
                os._exit(1)  # it must not go on as a second test process
        deadline = time.monotonic() + 20
        while not journal.exists() or journal.read_bytes().count(b"\n") < 8:
            assert time.monotonic() < deadline, "waited too long for the run to begin"
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        kept = journal.read_bytes().count(b"\n")
        assert 8 <= kept < 30
        run(server.url, tmp_path, asked)
        again = [text for text in set(server.texts) if server.texts.count(text) > 1]
        assert len(again) <= 2, "those in flight"
        run(server.url, tmp_path / "whole", asked)
    for name in (SCORES, SUMMARY):
        written = (tmp_path / "out" / name).read_bytes()
        assert written == (tmp_path / "whole" / "out" / name).read_bytes()


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "ftp://host", "http://", "http://u:p@host", "http://host/?key=k"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Address.of(url, CATEGORIES, api_key=None, connections=1, timeout_s=1)


def test_openais_categories_are_those_of_the_catalogue() -> None:
    shipped = read_categories("openai")
    assert shipped.policies.keys() == LIBRARY.policies.keys() - {"prompt_injection"}
    assert len(shipped.policies["any_harm"]) == 13
    covered = shipped.covered(LIBRARY.policy_set("all"), LIBRARY)
    assert {rule.id for rule in covered.policies} == set(shipped.policies)
