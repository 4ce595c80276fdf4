import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.errors import RunError
from evals.on_disk import OnDisk
from tests.evals.scripted import files_end_at

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(KEYS, st.binary(max_size=4)), max_size=20))
def test_it_is_a_sorted_dict_that_keeps_the_first_value(items: list[tuple[str, bytes]]) -> None:
    kept, expected = OnDisk[bytes](), dict[str, bytes]()
    for key, value in items:
        assert kept.add(key, value) == (key not in expected)
        expected.setdefault(key, value)
        assert kept.get(key) == expected[key]
        assert key in kept
    assert len(kept) == len(expected)
    assert [*kept.keys()] == sorted(expected)
    assert [*kept.values()] == [expected[key] for key in sorted(expected)]
    assert "unknown" not in kept
    assert kept.get("unknown") is None


def test_an_empty_one_can_be_sent_to_another_process() -> None:
    sent = pickle.loads(pickle.dumps(OnDisk[int]()))
    assert len(sent) == 0
    assert sent.add("a", 1)


def test_a_full_disk_is_one_clear_error() -> None:
    kept = OnDisk[bytes]()
    with files_end_at(1 << 20), pytest.raises(RunError, match="point TMPDIR to another disk"):
        all(kept.add(str(number), bytes(100_000)) for number in range(100))
