"""Many streams at once: a short run of `benchmarks.gate.load`."""

from benchmarks.gate.load import many_streams, missed_goals, overload


def test_many_streams_at_once_neither_stall_nor_leak_and_overload_is_said() -> None:
    assert missed_goals({"load": many_streams(40, 1), "overload": overload(40)}) == []
