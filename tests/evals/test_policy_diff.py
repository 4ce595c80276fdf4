"""What became of a policy: its words and its examples."""

from evals.policy_diff import Edit, edits
from tests.evals.versions import change, version


def test_changed_words_are_marked() -> None:
    assert edits("The prompt shall not be rude or loud.", "The prompt shall not be rude.") == [
        Edit("same", "The prompt shall not be"),
        Edit("removed", "rude or loud."),
        Edit("added", "rude."),
    ]
    assert edits("", "New words") == [Edit("added", "New words")]
    assert edits("a\n  b", "a b") == [Edit("same", "a b")]
    assert change(version("One."), version("Two.")).words().keys() == {"definition"}
    assert change(version("One."), version({"prompt": "One.", "image": "Two."})).words().keys() == {
        "response", "image"
    }  # fmt: skip
