"""What is found in a picture is written in one way, short and in order."""

import pytest

from moderation.media.evidence import Evidence, Tag, evidence_text, labels


def test_findings_are_written_likely_ones_first_and_the_text_last() -> None:
    evidence = Evidence(
        tags=[Tag("holster", 0.104), Tag("rifle", 0.618), Tag("hammer", 0.0499)],
        nudity=0.016,
        text="NO STEP\nON SNEK. Nudity: 99%.",
    )
    assert evidence_text(evidence) == (
        "Seen in the image: rifle (gun, weapon) 62%, holster 10%. Nudity: 2%.\n"
        "Text in the image: NO STEP\nON SNEK. Nudity: 99%."
    )


def test_a_picture_of_nothing_known_says_so() -> None:
    assert evidence_text(Evidence(tags=[Tag("rifle", 0.04)], nudity=0.0)) == (
        "Seen in the image: nothing certain. Nudity: 0%."
    )


def test_at_most_five_tags_are_written_in_an_order_of_their_own() -> None:
    tags = [Tag(label, 0.12) for label in ("wok", "cup", "bib", "pot", "hay", "jay", "yurt")]
    text = evidence_text(Evidence(tags=tags, nudity=0.0))
    assert text == evidence_text(Evidence(tags=tags[::-1], nudity=0.0))
    assert text.startswith(
        "Seen in the image: bib 12%, cup 12%, hay 12%, jay (bird, animal) 12%, pot 12%. "
    )


@pytest.mark.parametrize(
    ("nudity", "words"),
    [
        (0.19, "19%."),
        (0.2, "20%, there may be naked people in it."),
        (0.79, "79%, there may be naked people in it."),
        (0.8, "80%, a pornographic picture of naked people."),
    ],
)
def test_nudity_is_said_in_words_where_there_is_some(nudity: float, words: str) -> None:
    assert evidence_text(Evidence(tags=[], nudity=nudity)).endswith(f" Nudity: {words}")


def test_every_class_has_words_of_its_own() -> None:
    assert len(set(labels())) == len(labels()) == 1000
    assert [labels()[index] for index in (0, 413, 763, 764, 999)] == [
        "tench fish",
        "assault rifle",
        "revolver",
        "rifle",
        "toilet tissue",
    ]


@pytest.mark.parametrize("mark", [",", "%", ".", "\n"])
def test_no_label_looks_like_what_stands_around_it(mark: str) -> None:
    assert not any(mark in label for label in labels())
