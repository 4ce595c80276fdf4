import signal
import socket
import subprocess
from pathlib import Path

import httpx
import pytest
import torch

from moderation.checkpoints import preferred_dtype
from tests.e2e.serving import ROOT, run_serve, serve

POLICY = """\
id: own
version: 1
title: Own
definition: The text shall not mention the weather.
severity: low
"""


def test_check_names_file_and_line_of_a_policy_with_a_typo(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(POLICY.replace("title", "titel"))
    done = run_serve("--check", WARDGATE_POLICY_DIRS=str(tmp_path))
    assert done.returncode == 1
    assert "own.yaml:3" in done.stderr
    assert "titel" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WARDGATE_POLICYSET": "default"}, "WARDGATE_POLICYSET is no setting"),
        ({"WARDGATE_PORT": "many"}, "WARDGATE_PORT"),
        ({"WARDGATE_POLICY_SET": "strict"}, "unknown policy set 'strict'; known: all, default"),
        ({"WARDGATE_CONFIG": "/nowhere.yaml"}, "/nowhere.yaml: cannot be read"),
        ({"WARDGATE_MODEL": "/no/such/model"}, "/no/such/model"),
    ],
)
def test_check_fails_with_one_clear_line(variables: dict[str, str], words: str) -> None:
    done = run_serve("--check", **variables)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_settings_are_wrong_use() -> None:
    done = run_serve(WARDGATE_PROT="1")
    assert done.returncode == 2
    assert "WARDGATE_PROT is no setting" in done.stderr


def test_a_model_that_cannot_be_loaded_ends_the_process_with_the_reason() -> None:
    done = run_serve("--port", "0", WARDGATE_MODEL="/no/such/model")
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("error: the models could not be loaded: '/no/such/model' is no directory")
    )


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run_serve("--port", str(port))
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "--port" in done.stderr


def test_help_has_an_example_and_every_option() -> None:
    done = run_serve("--help")
    assert done.returncode == 0
    assert "Example: wardgate serve" in done.stdout
    assert all(option in done.stdout for option in ("--host", "--port", "--config", "--check"))


@pytest.mark.model
def test_check_passes_with_the_embedded_models(cache_dir: Path) -> None:
    done = run_serve("--check", WARDGATE_CACHE_DIR=str(cache_dir))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "ok  settings, policy set default (7 policies)",
        "ok  classifier embedded",
        "ok  generator gemma-3-270m",
    ]


@pytest.mark.model
def test_the_process_is_healthy_at_once_and_stops_when_told_while_loading(cache_dir: Path) -> None:
    with serve(WARDGATE_CACHE_DIR=str(cache_dir)) as served:
        assert httpx.get(f"{served.url}/healthz").status_code == 200
        assert httpx.get(f"{served.url}/readyz").json()["status"] == "loading"
    assert served.process.returncode in (0, -signal.SIGTERM)
    assert "Traceback" not in served.stderr


@pytest.mark.model
def test_the_calls_that_it_prints_work_as_printed_and_memory_stays_bounded(
    cache_dir: Path,
) -> None:
    with serve(WARDGATE_CACHE_DIR=str(cache_dir)) as served:
        served.wait_ready()
        printed = served.stderr.partition("To try it:\n")[2]
        calls = [
            block.partition(":\n")[2]
            for block in printed.split("\n\n")
            if block.lstrip().startswith(("moderate", "chat"))
        ]
        answers = [
            subprocess.run(
                ["bash", "-c", call], cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout
            for call in calls
        ]
        peak = served.peak_bytes()
    text, image, chat = answers
    assert '"policy":"dangerous_content"' in text
    assert '"modality":"image"' in image
    assert '"category_applied_input_types":{"harassment":["image"]' in image
    assert chat.rstrip().endswith("data: [DONE]")
    # the weights of classifier and generator take 1 GB more where the processor has no bfloat16
    assert peak < (3 if preferred_dtype("cpu") is torch.bfloat16 else 4) * 10**9
