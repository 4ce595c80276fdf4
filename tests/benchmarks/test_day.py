"""The benchmark of memory: every sort of content is judged, and no two are the same."""

import asyncio
from itertools import chain
from pathlib import Path

from benchmarks.engine.day import POLICY_SET, SORTS, STEPS, contents_of, judge_all, make_moderator
from moderation.content import TextPart
from moderation.normal_form import normal_form
from moderation.score_cache import ScoreCache
from tests.moderation.checkpoints_on_disk import write_shieldgemma2


def test_no_two_contents_are_the_same() -> None:
    found = list(chain.from_iterable(contents_of(sort, n) for n in range(200) for sort in SORTS))
    assert len(set(found)) == len(found) == 200 * (len(SORTS) - 1 + STEPS)


def test_every_sort_is_what_it_is_called() -> None:
    [disguised], [image], [long], [text] = (
        [*contents_of(sort, 7)] for sort in ("disguised", "image", "long", "text")
    )
    assert isinstance(disguised.parts[0], TextPart)
    assert isinstance(text.parts[0], TextPart)
    assert normal_form(disguised.parts[0].text) is not None
    assert normal_form(text.parts[0].text) is None
    assert len(image.parts) == 2
    assert len(repr(long)) > 10 * len(repr(text))


def test_all_contents_are_judged_and_the_caches_stay_full(tmp_path: Path) -> None:
    cache = ScoreCache(max_bytes=10_000)
    moderator = make_moderator(write_shieldgemma2(tmp_path), cache, kept_image_bytes=1000)
    rows, asked = asyncio.run(judge_all(moderator, cache, 60))
    assert [row["contents"] for row in rows] == [6, 15, 30, 60]
    assert asked.total() == 60 + asked["grows"] * (STEPS - 1) // STEPS
    assert all(row["resident_mib"] > 0 for row in rows)
    assert rows[-1]["score_cache_entries"] == rows[-2]["score_cache_entries"] > 0
    policy_set = moderator.library.policy_set(POLICY_SET)
    for content in chain.from_iterable(contents_of(sort, 1000) for sort in SORTS):
        for part in moderator.judge(content, policy_set).coverage:
            assert part.windows, "nothing of it was judged"
