import os
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("WARDGATE_"):
            monkeypatch.delenv(name)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "wardgate.yaml"
    path.write_text(text)
    return path


def test_the_defaults_are_the_safe_ones() -> None:
    settings = load_settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.policy_set == "default"


def test_every_setting_says_what_it_does() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_settings_never_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().port = 1


def test_command_line_comes_before_environment_before_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "port: 1\nhost: 10.0.0.1\nmodel: from-file\n")
    monkeypatch.setenv("WARDGATE_PORT", "2")
    monkeypatch.setenv("WARDGATE_HOST", "10.0.0.2")
    settings = load_settings(path, overrides={"port": 3, "host": None})
    assert (settings.port, settings.host, settings.model) == (3, "10.0.0.2", "from-file")


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDGATE_CONFIG", str(write(tmp_path, "port: 4")))
    assert load_settings().port == 4


def test_policy_folders_are_separated_like_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDGATE_POLICY_DIRS", os.pathsep.join(["/a", "/b"]))
    assert load_settings().policy_dirs == (Path("/a"), Path("/b"))


def test_policy_folders_of_a_file_are_a_list(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, "policy_dirs: [/a]")).policy_dirs == (Path("/a"),)


@pytest.mark.parametrize(("text", "value"), [("on", True), ("off", False), ("auto", "auto")])
@pytest.mark.parametrize("name", ["ocr", "evidence"])
def test_what_is_used_where_it_is_installed_reads_as_people_write_it(
    tmp_path: Path, name: str, text: str, value: object
) -> None:
    assert getattr(load_settings(write(tmp_path, f"{name}: {text}")), name) == value


def test_hosts_and_networks_of_downloads_are_separated_by_commas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WARDGATE_DOWNLOAD_HOSTS", "a.example, .b.example:8443,[fd00::1],*")
    monkeypatch.setenv("WARDGATE_DOWNLOAD_NETWORKS", "10.0.0.0/8,fd00::/8")
    settings = load_settings()
    assert settings.download_hosts == ("a.example", ".b.example:8443", "[fd00::1]", "*")
    assert settings.download_networks == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    "host",
    [
        "http://a.example",
        "a.example/",
        "*.example",
        "A.example",
        "bücher.example",
        "a.example.",
        "",
    ],
)
def test_a_host_of_downloads_that_would_match_nothing_is_an_error(
    tmp_path: Path, host: str
) -> None:
    with pytest.raises(SettingsError, match=r"wardgate\.yaml: download_hosts: "):
        load_settings(write(tmp_path, f"download_hosts: ['{host}']"))


def test_a_misspelt_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDGATE_POLICYSET", "strict")
    with pytest.raises(
        SettingsError, match=r"WARDGATE_POLICYSET is no setting; known: .*POLICY_SET"
    ):
        load_settings()


def test_a_misspelt_key_is_an_error_naming_the_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"wardgate\.yaml: unknown setting 'prot'; known: host"):
        load_settings(write(tmp_path, "prot: 1"))


def test_a_wrong_value_says_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match=r"wardgate\.yaml: port: .*less than or equal to 65535"):
        load_settings(write(tmp_path, "port: 70000"))
    with pytest.raises(SettingsError, match=r"^--port: .*65535"):
        load_settings(overrides={"port": 70000})
    monkeypatch.setenv("WARDGATE_PORT", "eighty")
    with pytest.raises(SettingsError, match=r"variable WARDGATE_PORT: .*integer"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a", "expected a mapping"), ("a: [", "not valid YAML"), (None, "cannot be read")],
)
def test_a_file_that_is_no_mapping_is_an_error(
    tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "missing.yaml" if text is None else write(tmp_path, text)
    with pytest.raises(SettingsError, match=message):
        load_settings(path)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, "")).port == 8080
