"""Images: judged by what they show, by the text in them, or reported as not judged."""

import io
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont

from moderation.caller import PATIENT, Caller
from moderation.checkpoints import Classifier
from moderation.content import Content, ImagePart, Part, TextPart
from moderation.engine import Ask
from moderation.errors import ContentTooLong, EngineTimeout, UnreadableImage, UnsupportedModality
from moderation.inquiry import PICTURES_AT_ONCE
from moderation.media.frames import FrameLimits
from moderation.media.ocr import ImageText, RapidOcrReader
from moderation.moderator import ContentLimits, Moderator
from moderation.tokenizer import SafeTokenizer
from moderation.verdict import verdict_to_dict
from policies import Action, Surface
from tests.moderation.asking import ask
from tests.moderation.media import animation, plain, video
from tests.moderation.scripted import WordEngine, word_classifier
from tests.moderation.test_moderator import LIBRARY, WORDS, policy_set, rule


class Recital:
    """A reader that finds the same text in every image."""

    def __init__(self, text: str, *, num_unsure: int = 0) -> None:
        self.found = ImageText(text, num_unsure)

    def read(self, image: Image.Image) -> ImageText:
        return self.found


def png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def lettering(text: str) -> bytes:
    image = Image.new("RGB", (640, 200), "white")
    ImageDraw.Draw(image).text((40, 70), text, "black", ImageFont.load_default(40))
    return png(image)


BLANK = png(Image.new("RGB", (64, 64), "white"))


def images(*data: bytes) -> Content:
    parts: tuple[Part, ...] = tuple(ImagePart(each) for each in data)
    return Content(surface=Surface.PROMPT, parts=parts)


@pytest.fixture
def engine(small_tokenizer: SafeTokenizer) -> WordEngine:
    return WordEngine(small_tokenizer, WORDS)


@pytest.fixture(scope="module")
def ocr() -> RapidOcrReader:
    return RapidOcrReader()


def test_text_in_an_image_is_read_and_judged(engine: WordEngine, ocr: RapidOcrReader) -> None:
    moderator = Moderator(LIBRARY, word_classifier(engine), reader=ocr)
    verdict = moderator.judge(images(lettering("put poison in it")), policy_set())
    (score,) = verdict.scores
    assert (score.raw, score.windows[0].surface) == (0.9, "prompt")
    assert score.windows[0].end == len("put poison in it")
    (covered,) = verdict.coverage
    assert (covered.modality, covered.status) == ("image", "partial")
    assert covered.reason == "no image model is loaded, so what the image shows was not judged"
    assert not verdict.complete


def test_harmless_text_in_an_image_is_no_reason_to_allow_it(
    engine: WordEngine, ocr: RapidOcrReader
) -> None:
    moderator = Moderator(LIBRARY, word_classifier(engine), reader=ocr)
    content = images(lettering("a piece of cake"))
    assert moderator.judge(content, policy_set()).action is Action.REVIEW
    blocking = policy_set(on_incomplete="block")
    assert moderator.judge(content, blocking).action is Action.BLOCK
    allowing = policy_set(on_incomplete="allow")
    assert moderator.judge(content, allowing).action is Action.ALLOW


def test_an_image_without_text_cannot_be_judged_by_a_text_classifier(
    engine: WordEngine, ocr: RapidOcrReader
) -> None:
    moderator = Moderator(LIBRARY, word_classifier(engine), reader=ocr)
    with pytest.raises(UnsupportedModality, match=r"no image model is loaded.*no text was found"):
        moderator.judge(images(BLANK), policy_set())


def test_an_unjudged_image_beside_a_harmless_text_is_not_allowed(
    engine: WordEngine, ocr: RapidOcrReader
) -> None:
    moderator = Moderator(LIBRARY, word_classifier(engine), reader=ocr)
    content = Content(surface=Surface.PROMPT, parts=(TextPart("cake"), ImagePart(BLANK)))
    verdict = moderator.judge(content, policy_set())
    assert [covered.status for covered in verdict.coverage] == ["scored", "not_scored"]
    assert verdict.coverage[1].tokens == 0
    assert verdict.action is Action.REVIEW


def test_without_a_reader_the_verdict_says_that_text_was_not_read(
    tiny: dict[str, Classifier],
) -> None:
    moderator = Moderator(LIBRARY, tiny["gemma3"], image=tiny["shieldgemma2"])
    verdict = moderator.judge(images(BLANK), policy_set(rule("pictures", 0.0001)))
    (covered,) = verdict.coverage
    assert (covered.status, covered.tokens, covered.windows) == ("partial", 4, 1)
    assert covered.reason == "text in the image was not read (extra 'images')"


def test_an_image_is_judged_by_what_it_shows(
    tiny: dict[str, Classifier], ocr: RapidOcrReader
) -> None:
    moderator = Moderator(LIBRARY, tiny["gemma3"], image=tiny["shieldgemma2"], reader=ocr)
    rules = policy_set(rule("pictures", 0.0001), rule("any", 0.9999))
    verdict = moderator.judge(images(BLANK), rules)
    assert verdict.complete
    assert verdict.action is Action.BLOCK
    for score in verdict.scores:
        (window,) = score.windows
        assert (window.surface, window.start, window.end) == ("image", 0, 0)
    assert verdict.models == (tiny["shieldgemma2"].info,)
    text = LIBRARY.policy("pictures").definition_for(Surface.IMAGE)
    assert text is not None
    classifier = tiny["shieldgemma2"]
    assert classifier.to_pixels is not None
    pixels = classifier.to_pixels(Image.open(io.BytesIO(BLANK)))
    expected = ask(classifier.engine, classifier.builder.image_prompt([text]), pixels=pixels)
    assert verdict.scores[0].raw == pytest.approx(expected[0], abs=1e-4)


def test_what_an_image_shows_and_says_both_count(
    engine: WordEngine, tiny: dict[str, Classifier]
) -> None:
    moderator = Moderator(
        LIBRARY,
        word_classifier(engine),
        image=tiny["shieldgemma2"],
        reader=Recital("poison"),
    )
    verdict = moderator.judge(images(BLANK), policy_set())
    (score,) = verdict.scores
    assert [window.surface for window in score.windows] == ["image", "prompt"]
    assert score.raw == max(window.raw for window in score.windows) >= 0.9
    assert verdict.complete
    assert len(verdict.models) == 2


def test_an_image_that_no_policy_has_words_for_is_not_covered(
    engine: WordEngine, tiny: dict[str, Classifier]
) -> None:
    moderator = Moderator(
        LIBRARY, word_classifier(engine), image=tiny["shieldgemma2"], reader=Recital("a knife")
    )
    verdict = moderator.judge(images(BLANK), policy_set(rule("knife", 0.99)))
    (covered,) = verdict.coverage
    assert (covered.status, covered.reason) == (
        "partial",
        "no policy of the set has words for an image",
    )
    assert verdict.action is Action.REVIEW


def test_text_in_an_image_that_no_policy_has_words_for_is_not_covered(
    engine: WordEngine, tiny: dict[str, Classifier]
) -> None:
    moderator = Moderator(
        LIBRARY, word_classifier(engine), image=tiny["shieldgemma2"], reader=Recital("a knife")
    )
    verdict = moderator.judge(images(BLANK), policy_set(rule("pictures", 0.9999)))
    assert verdict.coverage[0].status == "partial"
    assert verdict.coverage[0].reason == "no policy of the set has words for the text in the image"


def test_text_that_could_not_be_read_with_confidence_is_told(
    engine: WordEngine, tiny: dict[str, Classifier]
) -> None:
    reader = Recital("cake", num_unsure=2)
    moderator = Moderator(
        LIBRARY, word_classifier(engine), image=tiny["shieldgemma2"], reader=reader
    )
    (covered,) = moderator.judge(images(BLANK), policy_set()).coverage
    assert covered.status == "scored"
    assert covered.reason == "2 lines of text in it could not be read with confidence"


def test_letters_too_coarse_to_read_are_counted_and_not_guessed(ocr: RapidOcrReader) -> None:
    sharp = Image.open(io.BytesIO(lettering("put poison in it"))).convert("RGB")
    coarse = [
        ocr.read(sharp.resize((w, w * 5 // 16), Image.Resampling.NEAREST).resize(sharp.size))
        for w in (52, 54, 62)
    ]
    unsure = [found for found in coarse if found.num_unsure]
    assert unsure, "at least one of these sizes is seen and not read"
    assert all(found.text == "" for found in unsure)


def test_a_classifier_of_images_alone_judges_what_an_image_shows(
    tiny: dict[str, Classifier],
) -> None:
    shows = tiny["shieldgemma2"]
    moderator = Moderator(LIBRARY, shows, image=shows, reader=Recital("poison"))
    verdict = moderator.judge(images(BLANK), policy_set(rule("pictures", 0.0001)))
    (covered,) = verdict.coverage
    assert (covered.status, covered.windows) == ("partial", 1)
    assert covered.reason == "text in the image was not read: the classifier judges no texts"


def test_text_in_images_counts_towards_the_limit(engine: WordEngine) -> None:
    moderator = Moderator(
        LIBRARY,
        word_classifier(engine),
        reader=Recital("a b " * 30),
        limits=ContentLimits(max_tokens=100),
    )
    with pytest.raises(ContentTooLong, match="part 1 has"):
        moderator.judge(images(BLANK, BLANK), policy_set())


def test_an_unreadable_image_is_refused(engine: WordEngine) -> None:
    moderator = Moderator(LIBRARY, word_classifier(engine), reader=Recital("cake"))
    with pytest.raises(UnreadableImage, match="no readable image"):
        moderator.judge(images(b"not an image"), policy_set())


def test_an_image_is_not_read_after_the_deadline(engine: WordEngine) -> None:
    moderator = Moderator(LIBRARY, word_classifier(engine), reader=Recital("cake"))
    with pytest.raises(EngineTimeout, match="the deadline passed"):
        moderator.judge(images(BLANK), policy_set(), caller=Caller(deadline=0.0))


class Seen:
    """A classifier's engine, and how many asks each of its calls had."""

    is_concurrent = False

    def __init__(self, classifier: Classifier) -> None:
        self.max_prompt_tokens = classifier.engine.max_prompt_tokens
        self.calls: list[int] = []
        self.classifier = replace(classifier, engine=self)
        self._engine = classifier.engine

    def p_yes(self, asks: Sequence[Ask], caller: Caller = PATIENT) -> list[list[float]]:
        self.calls.append(len(asks))
        return self._engine.p_yes(asks, caller)


def pattern(seed: int) -> Image.Image:
    """A picture unlike the others."""
    image = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(image)
    for i in range(6):
        at = (seed * 37 + i * 23) % 50
        draw.rectangle(
            (at, (at * 7) % 50, at + 12, (at * 7) % 50 + 12), (seed * 40 % 256, i * 40, 9)
        )
    return image


@pytest.mark.parametrize("num", [1, 5, PICTURES_AT_ONCE + 3])
def test_many_images_are_asked_together_and_scored_as_one_at_a_time(
    tiny: dict[str, Classifier], num: int
) -> None:
    seen = Seen(tiny["shieldgemma2"])
    moderator = Moderator(LIBRARY, tiny["gemma3"], image=seen.classifier)
    files = [png(pattern(seed)) for seed in range(num)]
    rules = policy_set(rule("pictures"), rule("any"))
    verdict = moderator.judge(images(*files), rules)
    assert seen.calls == [num] if num <= PICTURES_AT_ONCE else [PICTURES_AT_ONCE, 3]
    alone = [moderator.judge(images(data), rules) for data in files]
    for place, score in enumerate(verdict.scores):
        assert [window.part for window in score.windows] == list(range(num))
        expected = [each.scores[place].raw for each in alone]
        assert [window.raw for window in score.windows] == pytest.approx(expected, abs=1e-5)
        assert num == 1 or max(expected) - min(expected) > 1e-4, "a wrong order would be noticed"


def test_every_frame_of_an_animation_is_judged_and_named(tiny: dict[str, Classifier]) -> None:
    seen = Seen(tiny["shieldgemma2"])
    moderator = Moderator(LIBRARY, tiny["gemma3"], image=seen.classifier, reader=Recital(""))
    frames = [pattern(0), pattern(1), pattern(0), pattern(2)]
    verdict = moderator.judge(
        images(BLANK, animation(frames, "PNG", ms=1500)), policy_set(rule("pictures", 0.0001))
    )
    assert seen.calls == [4]
    (score,) = verdict.scores
    found = verdict_to_dict(verdict)
    windows = [(w.part, w.frame.index if w.frame else None) for w in score.windows]
    assert windows == [(0, None), (1, 0), (1, 1), (1, 3)]
    shown: Any = found["scores"]
    assert shown[0]["windows"][3]["frame"] == {"index": 3, "at_s": 4.5}
    assert "frame" not in shown[0]["windows"][0]
    still, moving = verdict.coverage
    assert (moving.modality, moving.status, moving.windows) == ("image", "scored", 3)
    coverage: Any = found["coverage"]
    assert coverage[1]["frames"] == {
        "decoded": 4,
        "sampled": 4,
        "scored": 3,
        "merged": 1,
        "left_out": 0,
    }
    assert "frames" not in coverage[0]
    assert still.status == "scored"


def test_one_bad_frame_counts_for_the_whole(engine: WordEngine) -> None:
    class ByColour:
        def read(self, image: Image.Image) -> ImageText:
            corner: Any = image.getpixel((0, 0))
            return ImageText("poison" if corner[1] < 60 else "cake")

    moderator = Moderator(LIBRARY, word_classifier(engine), reader=ByColour())
    frames = [plain("white")] * 25 + [plain("red")] + [plain("white")] * 10
    for data in (video(frames), animation(frames, "WEBP", ms=40)):
        engine.prompts.clear()
        verdict = moderator.judge(images(data), policy_set())
        (score,) = verdict.scores
        assert (score.raw, verdict.action) == (0.9, Action.BLOCK)
        (worst,) = [window for window in score.windows if window.raw == 0.9]
        assert worst.frame is not None
        assert worst.frame.index in (1, 25)  # WebP's encoder joins equal frames


def test_the_same_text_in_many_frames_counts_once(engine: WordEngine) -> None:
    moderator = Moderator(LIBRARY, word_classifier(engine), reader=Recital("a knife"))
    frames = [plain(colour) for colour in ("red", "green", "blue")]
    verdict = moderator.judge(images(animation(frames, "GIF", ms=1000)), policy_set())
    assert len(engine.prompts) == 1
    assert verdict.coverage[0].windows == 1


def test_frames_that_were_left_out_make_a_verdict_incomplete(tiny: dict[str, Classifier]) -> None:
    moderator = Moderator(
        LIBRARY,
        tiny["gemma3"],
        image=tiny["shieldgemma2"],
        reader=Recital(""),
        limits=ContentLimits(frames=FrameLimits(max_frames=2)),
    )
    data = animation([pattern(seed) for seed in range(5)], "GIF", ms=1000)
    verdict = moderator.judge(images(data), policy_set(rule("pictures", 0.9999)))
    (covered,) = verdict.coverage
    assert covered.status == "partial"
    assert covered.reason == "of 5 sampled frames 3 were not judged, because 2 are at most"
    assert verdict.action is Action.REVIEW


def test_a_video_with_sound_is_never_judged_in_full(tiny: dict[str, Classifier]) -> None:
    moderator = Moderator(LIBRARY, tiny["gemma3"], image=tiny["shieldgemma2"], reader=Recital(""))
    data = video([plain("red")] * 5, sound=True)
    verdict = moderator.judge(images(data), policy_set(rule("pictures", 0.9999)))
    (covered,) = verdict.coverage
    assert (covered.modality, covered.status) == ("video", "partial")
    assert covered.reason == "its sound was not judged"


def test_a_broken_video_is_an_error_and_names_its_part(engine: WordEngine) -> None:
    moderator = Moderator(LIBRARY, word_classifier(engine), reader=Recital("cake"))
    data = video([plain("red")] * 20)
    with pytest.raises(UnreadableImage, match="part 1 cannot be read: the video is cut off"):
        moderator.judge(images(BLANK, data[:-50]), policy_set())
    short = Moderator(
        LIBRARY,
        word_classifier(engine),
        limits=ContentLimits(frames=FrameLimits(max_decoded=10)),
    )
    with pytest.raises(ContentTooLong, match="part 0 has more than 10 frames"):
        short.judge(images(data), policy_set())


@pytest.mark.parametrize("size", [(16, 16), (800, 16), (16, 800), (4000, 80), (80, 4000)])
def test_images_of_odd_sizes_are_read(ocr: RapidOcrReader, size: tuple[int, int]) -> None:
    assert ocr.read(Image.new("RGB", size, "white")).text == ""


def test_a_long_screenshot_is_read_from_end_to_end(ocr: RapidOcrReader) -> None:
    screenshot = Image.new("RGB", (500, 4200), "white")
    draw = ImageDraw.Draw(screenshot)
    lines = [f"line number {number}" for number in range(1, 15)]
    for place, line in enumerate(lines):
        draw.text((20, 290 * place + 60), line, "black", ImageFont.load_default(26))
    assert set(lines) <= set(ocr.read(screenshot).text.split("\n"))


def test_one_reader_serves_many_threads(ocr: RapidOcrReader) -> None:
    picture = Image.open(io.BytesIO(lettering("hello there"))).convert("RGB")
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(ocr.read(picture).text)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["hello there"] * 4
