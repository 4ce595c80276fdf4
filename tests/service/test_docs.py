"""`docs/service.md` says what the code does."""

from pathlib import Path

import pytest

from service.categories import POLICY_OF_CATEGORY
from service.errors import TABLE
from service.schemas import IGNORED_FIELDS, ChatRequest
from service.settings import Settings

PAGE = (Path(__file__).parent.parent.parent / "docs" / "service.md").read_text(encoding="utf-8")
SETTINGS = PAGE.partition("## Settings\n")[2]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_in_its_own_words(name: str) -> None:
    field = Settings.model_fields[name]
    (row,) = [line for line in SETTINGS.splitlines() if line.startswith(f"| `{name}` |")]
    assert str(field.description) in row
    if field.default not in (None, (), {}):
        assert f"`{field.default}`" in row


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
