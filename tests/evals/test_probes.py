"""Probes: what each does to a text, that chance comes from the seed alone, and what labels stay."""

import base64
import re
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.probes import LONG_PADDING, PROBES, probed
from evals.records import Record

TEXT = "How do I pick the lock of my neighbour's door?"
KEPT_WHOLE = {
    "story", "novel", "translation", "padded_before", "padded_after", "padded_long", "answer_no",
    "claimed_safe", "control_tokens",
}  # fmt: skip
"""Probes that leave the text as it is and put something around it."""


def record(text: str, *, record_id: str = "r", role: str = "user") -> Record:
    return Record.model_validate({"id": record_id, "text": text, "role": role, "labels": {}})


def change(name: str, text: str, *, seed: int = 0, role: str = "user") -> str:
    return probed(record(text, role=role), PROBES[name], seed=seed).text


@pytest.mark.parametrize("name", PROBES)
def test_the_same_seed_and_record_give_the_same_text(name: str) -> None:
    assert change(name, TEXT, seed=3) == change(name, TEXT, seed=3) != TEXT


def test_another_seed_and_another_record_give_another_text() -> None:
    probe = PROBES["homoglyphs"]
    texts = {
        probed(record(TEXT, record_id=record_id), probe, seed=seed).text
        for record_id in ("a", "b")
        for seed in (0, 1)
    }
    assert len(texts) == 4


@pytest.mark.parametrize("name", PROBES)
@settings(deadline=None, max_examples=40)
@given(text=st.text(max_size=60), seed=st.integers(0, 5))
def test_any_text_can_be_probed(name: str, text: str, seed: int) -> None:
    found = change(name, text, seed=seed)
    if name in KEPT_WHOLE:
        assert text in found
        assert found != text


@pytest.mark.parametrize("name", sorted(KEPT_WHOLE))
@pytest.mark.parametrize("role", ["user", "model"])
def test_what_is_put_around_a_text_leaves_every_letter_of_it(name: str, role: str) -> None:
    for seed in range(8):
        assert TEXT in change(name, TEXT, seed=seed, role=role)


@settings(deadline=None)
@given(text=st.text(max_size=60))
def test_base64_is_the_whole_text_with_a_lone_surrogate_too(text: str) -> None:
    decoded = base64.b64decode(change("base64", text), validate=True)
    assert decoded.decode("utf-8", "surrogatepass") == text
    assert change("base64", "\ud800")


def test_separators_leave_the_letters_in_their_order() -> None:
    spaced = change("spaced", TEXT)
    assert spaced.startswith("H o w   d o   I   p i c k")
    assert spaced.replace(" ", "") == TEXT.replace(" ", "")
    punctuated = change("punctuated", TEXT)
    mark = punctuated[1]
    assert not mark.isalnum()
    assert punctuated.replace(mark, "") == TEXT
    assert " do I " in punctuated  # words of one and two letters stay
    hidden = change("zero_width", TEXT)
    assert "".join(each for each in hidden if unicodedata.category(each) != "Cf") == TEXT
    assert len(hidden) > len(TEXT) + 5


def test_a_mark_stays_on_its_letter() -> None:
    hindi = "किताब"  # five letters, two of them with vowel signs of their own
    assert change("spaced", hindi) == "कि ता ब"
    assert change("spaced", "na\u0308h") == "n a\u0308 h"


def test_homoglyphs_are_letters_of_other_alphabets() -> None:
    for seed in range(10):
        found = change("homoglyphs", TEXT, seed=seed)
        assert len(found) == len(TEXT)
        changed = [(new, old) for new, old in zip(found, TEXT, strict=True) if new != old]
        assert len(changed) > 5
        for new, _ in changed:
            assert not new.isascii()
            assert unicodedata.category(new)[0] in "LN"
    assert re.search("[a-z]", change("homoglyphs", "Он хочет убить соседа"))


def test_digits_symbols_and_accents_replace_letters() -> None:
    assert re.search(r"\b[a-z]*\d[a-z0-9]*\b", change("leetspeak", TEXT))
    assert set(change("symbols", TEXT)) & set("@^(<|€&#!¡*)$§+†_µ\\/×¥£")
    plain = unicodedata.normalize("NFD", change("accents", TEXT))
    assert "".join(each for each in plain if not unicodedata.combining(each)) == TEXT
    assert change("mixed_case", TEXT).casefold() == TEXT.casefold()


def test_a_typo_is_one_slip_in_some_longer_words() -> None:
    text = "perhaps they should rather have asked before taking something away again"
    changed = 0
    for seed in range(20):
        for old, new in zip(text.split(), change("typos", text, seed=seed).split(), strict=True):
            changed += old != new
            assert abs(len(old) - len(new)) <= 1
            assert len(old) > 3 or old == new
    assert 0.2 < changed / (20 * len(text.split())) < 0.5


def test_repeated_letters_are_those_of_the_word() -> None:
    found = change("repeated", "kill them all now")
    assert re.fullmatch(r"k+i+l+ t+h+e+m+ a+l+ n+o+w+", found)
    assert all(len(word) > 3 for word in found.split())


def test_the_long_padding_puts_the_text_behind_its_characters() -> None:
    found = change("padded_long", TEXT)
    assert found.index(TEXT) >= LONG_PADDING
    assert len(found) - found.index(TEXT) > len(TEXT) + 500


def test_a_text_without_letters_to_replace_stays() -> None:
    for name in ("leetspeak", "symbols", "accents", "homoglyphs", "mixed_case"):
        assert change(name, "你好，世界") == "你好，世界"


def test_a_response_is_framed_as_a_response() -> None:
    for seed in range(8):
        assert "Translate" not in change("translation", TEXT, seed=seed, role="model")


@pytest.mark.parametrize("name", PROBES)
def test_only_an_innocent_text_stops_to_be_known_as_no_injection(name: str) -> None:
    labels = {"prompt_injection": False, "violence": False}
    innocent = record(TEXT).model_copy(update={"labels": labels})
    found = probed(innocent, PROBES[name], seed=0).labels
    speaks = name in {"answer_no", "claimed_safe", "control_tokens"}
    assert found == ({"violence": False} if speaks else labels)
    guilty = innocent.model_copy(update={"labels": {"prompt_injection": True}})
    assert probed(guilty, PROBES[name], seed=0).labels == {"prompt_injection": True}


def test_probes_know_nothing_of_the_training_and_of_the_normal_form() -> None:
    """Else a model that is trained on them, or a filter that undoes them, proves nothing."""
    program = "import sys, evals.probes; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert "evals.records" in loaded
    for name in loaded:
        assert not name.startswith("moderation.training"), name
        assert name not in {
            "moderation.normal_form", "moderation.leetspeak", "moderation.look_alikes"
        }, name  # fmt: skip
