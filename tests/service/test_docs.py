"""`docs/service.md` and `docs/faces.md` say what the code does."""

import re
from pathlib import Path

import pytest

from service.categories import POLICY_OF_CATEGORY
from service.errors import TABLE
from service.faces import FACES, azure, perspective
from service.schemas import IGNORED_FIELDS, ChatRequest
from service.settings import FaceName, Settings, load_settings

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "service.md").read_text(encoding="utf-8")
GATE_PAGE = (DOCS / "gate.md").read_text(encoding="utf-8")
FACES_PAGE = (DOCS / "faces.md").read_text(encoding="utf-8")
SETTINGS = PAGE.partition("## Settings\n")[2]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_in_its_own_words(name: str) -> None:
    field = Settings.model_fields[name]
    (row,) = [line for line in SETTINGS.splitlines() if line.startswith(f"| `{name}` |")]
    assert str(field.description) in row
    if field.default not in (None, (), {}):
        assert f"`{field.default}`" in row


@pytest.mark.parametrize(
    "block", re.findall(r"^```yaml wardgate\S*\n(.*?)^```$", GATE_PAGE, re.M | re.S)
)
def test_every_settings_file_of_the_gate_can_be_used(block: str, tmp_path: Path) -> None:
    (path := tmp_path / "wardgate.yaml").write_text(block, encoding="utf-8")
    assert load_settings(path, environ={}).model_fields_set


def test_every_status_is_documented() -> None:
    for status in {row.status for row in TABLE.values()}:
        assert f"| {status} |" in PAGE


def test_the_mapping_of_categories_is_documented() -> None:
    for category, policy in POLICY_OF_CATEGORY.items():
        assert (f"| `{category}` | `{policy}` |" in PAGE) is (policy is not None)


@pytest.mark.parametrize("name", IGNORED_FIELDS)
def test_every_ignored_field_is_a_field_and_documented(name: str) -> None:
    assert name in ChatRequest.model_fields
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", FACES)
def test_every_face_and_its_paths_are_documented(name: FaceName) -> None:
    assert f"`{name}`" in FACES_PAGE
    for path in FACES[name].paths:
        assert path.partition("/{")[0] in FACES_PAGE


def test_the_mappings_of_faces_are_documented() -> None:
    for category, policy in azure.POLICY_OF_CATEGORY.items():
        assert f"| `{category}` | `{policy}` |" in FACES_PAGE
    for attribute, policy in perspective.POLICY_OF_ATTRIBUTE.items():
        assert f"`{attribute}` is `{policy}`" in FACES_PAGE
    bands = " | ".join(f"{score:g}" for score in (0, *azure.SEVERITY_FROM))
    assert f"| score from | {bands} |" in FACES_PAGE
