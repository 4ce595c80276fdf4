"""Images that no model sees: judged by what is found in them, and never taken for seen."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_image

from moderation.caller import Caller
from moderation.checkpoints import Classifier
from moderation.errors import CallerLeft, EngineError
from moderation.media.evidence import Tag
from moderation.media.ocr import RapidOcrReader
from moderation.media.recognisers import Recognisers
from moderation.moderator import ContentLimits, Moderator
from moderation.score_cache import ScoreCache
from moderation.tokenizer import SafeTokenizer
from moderation.verdict import verdict_to_dict
from policies import Action, PolicyLibrary, Surface, load_library
from tests.moderation.media import animation, plain, video
from tests.moderation.scripted import WordEngine, word_classifier
from tests.moderation.test_moderator import policy, policy_set, rule
from tests.moderation.test_moderator_images import BLANK, Recital, images, png

WORDS = {"poison": 0.9, "rifle": 0.8, "cake": 0.2}
LIBRARY = PolicyLibrary(
    {
        found.id: found
        for found in (
            policy("any"),
            policy("texts", prompt="No bad texts."),
            policy("arms", image="No arms in images."),
            policy("sexually_explicit", prompt="No sex.", image="No sex in images."),
            policy("violence", prompt="No violence.", image="No violence in images."),
        )
    },
    {},
)
PARTLY = "what the image shows of {} was judged by tags alone"
UNSEEN = "no image model is loaded, and what stands in for one sees nothing of what the image shows"


class Finder:
    """Tags and a score of nudity that were fixed before."""

    def __init__(self, nudity: float = 0.02, **tags: float) -> None:
        self._tags = [Tag(label, probability) for label, probability in tags.items()]
        self._nudity = nudity
        self.num_looks = 0

    def tags(self, image: Image.Image) -> list[Tag]:
        self.num_looks += 1
        return self._tags

    def nudity(self, image: Image.Image) -> float:
        return self._nudity


def recognisers(finder: Any) -> Recognisers:
    return Recognisers(tags=finder, nudity=finder)


RIFLE = recognisers(Finder(rifle=0.62))
DAISY = recognisers(Finder(daisy=0.4))


@pytest.fixture
def engine(small_tokenizer: SafeTokenizer) -> WordEngine:
    return WordEngine(small_tokenizer, WORDS)


@pytest.fixture(scope="module")
def ocr() -> RapidOcrReader:
    return RapidOcrReader()


def test_what_is_found_is_judged_in_the_words_for_images(engine: WordEngine) -> None:
    moderator = Moderator(
        LIBRARY, word_classifier(engine), reader=Recital("cake"), recognisers=RIFLE
    )
    verdict = moderator.judge(images(BLANK), policy_set(rule("arms"), rule("texts")))
    assert {score.policy_id: score.raw for score in verdict.scores} == {"arms": 0.8, "texts": 0.2}
    assert verdict.action is Action.BLOCK
    of_texts, of_findings = (
        engine.tokenizer.decode([*p.prefix, *p.leaves[0]]) for p in engine.prompts
    )
    assert of_texts.startswith("<bos><start_of_turn>user\ncake<end_of_turn>")
    assert of_findings.startswith(
        "<bos><start_of_turn>user\nSeen in the image: rifle (gun, weapon) 62%. Nudity: 2%.\n"
        "Text in the image: cake<end_of_turn>\nPolicy: No arms in images."
    )
    (window,) = verdict.scores[0].windows
    assert (window.surface, window.start) == ("image", 0)
    assert window.end == len(
        "Seen in the image: rifle (gun, weapon) 62%. Nudity: 2%.\nText in the image: cake"
    )
    assert verdict.models == (moderator.text.info,)


def test_coverage_says_what_there_was_and_what_it_cannot_show(engine: WordEngine) -> None:
    moderator = Moderator(LIBRARY, word_classifier(engine), reader=Recital(""), recognisers=RIFLE)
    rules = [rule(each, 0.99) for each in ("sexually_explicit", "violence", "arms", "texts")]
    verdict = moderator.judge(images(BLANK), policy_set(*rules))
    (covered,) = verdict.coverage
    assert covered.status == "partial"
    assert covered.reason == f"{UNSEEN} of violence; {PARTLY.format('arms')}"
    shown: Any = verdict_to_dict(verdict)["coverage"]
    assert shown[0]["evidence"] == {
        "kinds": ("text", "tags", "nudity"),
        "found": ("Seen in the image: rifle (gun, weapon) 62%. Nudity: 2%.",),
        "not_covered": ("violence",),
        "in_part": ("arms",),
    }
    assert verdict.action is Action.REVIEW, "low scores are no reason to allow it"
    allowing = policy_set(*rules, on_incomplete="allow")
    assert moderator.judge(images(BLANK), allowing).action is Action.ALLOW


def test_every_policy_of_the_catalogue_on_violence_or_danger_stays_uncovered(
    engine: WordEngine,
) -> None:
    library = load_library()
    moderator = Moderator(library, word_classifier(engine), reader=Recital(""), recognisers=DAISY)
    verdict = moderator.judge(images(BLANK), library.policy_set("default"))
    evidence = verdict.coverage[0].evidence
    assert evidence is not None
    assert {*evidence.not_covered} >= {"violence", "dangerous_content"}
    assert evidence.in_part == ()
    assert verdict.action is not Action.ALLOW


def test_where_nudity_is_all_that_is_asked_an_image_is_judged_in_full(engine: WordEngine) -> None:
    moderator = Moderator(LIBRARY, word_classifier(engine), reader=Recital(""), recognisers=DAISY)
    verdict = moderator.judge(images(BLANK), policy_set(rule("sexually_explicit"), rule("texts")))
    assert (verdict.complete, verdict.action) == (True, Action.ALLOW)
    assert verdict.coverage[0].reason is None


def test_a_file_is_looked_at_again_because_other_policies_may_not_be_covered(
    engine: WordEngine,
) -> None:
    finder = Finder(daisy=0.4)
    moderator = Moderator(
        LIBRARY,
        word_classifier(engine),
        reader=Recital(""),
        recognisers=recognisers(finder),
        cache=ScoreCache(),
    )
    alone = policy_set(rule("sexually_explicit"))
    both = policy_set(rule("sexually_explicit"), rule("violence"))
    judged = [moderator.judge(images(BLANK), each) for each in (both, alone, both)]
    assert [verdict.complete for verdict in judged] == [False, True, False]
    assert finder.num_looks == 3
    assert all(score.cached for score in judged[2].scores), "scores are remembered"


def test_without_a_reader_there_are_findings_and_the_gap_is_told(engine: WordEngine) -> None:
    moderator = Moderator(LIBRARY, word_classifier(engine), recognisers=RIFLE)
    verdict = moderator.judge(images(BLANK), policy_set(rule("sexually_explicit", 0.99)))
    (covered,) = verdict.coverage
    assert covered.evidence is not None
    assert covered.evidence.kinds == ("tags", "nudity")
    assert (covered.status, covered.reason) == (
        "partial",
        "text in the image was not read (extra 'images')",
    )


def test_a_model_that_sees_leaves_nothing_to_the_recognisers(
    engine: WordEngine, tiny: dict[str, Classifier]
) -> None:
    finder = Finder(rifle=0.9)
    moderator = Moderator(
        LIBRARY,
        word_classifier(engine),
        image=tiny["shieldgemma2"],
        reader=Recital(""),
        recognisers=recognisers(finder),
    )
    verdict = moderator.judge(images(BLANK), policy_set(rule("arms", 0.9999)))
    assert (finder.num_looks, verdict.complete) == (0, True)
    assert verdict.coverage[0].evidence is None


def test_a_classifier_that_was_not_made_for_findings_is_not_asked(engine: WordEngine) -> None:
    finder = Finder(rifle=0.9)
    text = word_classifier(engine, template="shieldgemma1")
    moderator = Moderator(LIBRARY, text, reader=Recital("cake"), recognisers=recognisers(finder))
    (covered,) = moderator.judge(images(BLANK), policy_set(rule("any", 0.99))).coverage
    assert finder.num_looks == 0
    assert covered.reason == "no image model is loaded, so what the image shows was not judged"


def test_a_set_without_words_for_images_leaves_them_uncovered(engine: WordEngine) -> None:
    moderator = Moderator(
        LIBRARY, word_classifier(engine), reader=Recital("cake"), recognisers=RIFLE
    )
    (covered,) = moderator.judge(images(BLANK), policy_set(rule("texts"))).coverage
    assert (covered.status, covered.reason) == (
        "partial",
        "no policy of the set has words for an image",
    )


def test_a_disguised_text_is_plain_among_the_findings_too(engine: WordEngine) -> None:
    moderator = Moderator(
        LIBRARY, word_classifier(engine), reader=Recital("p.o.i.s.o.n"), recognisers=DAISY
    )
    (score,) = moderator.judge(images(BLANK), policy_set(rule("arms"))).scores
    assert (score.raw, score.form) == (0.9, "normalised")


def test_pictures_in_which_the_same_is_found_count_once(engine: WordEngine) -> None:
    class ByColour(Finder):
        def tags(self, image: Image.Image) -> list[Tag]:
            corner: Any = image.getpixel((0, 0))
            return [Tag("rifle" if corner[1] < 60 else "daisy", 0.5)]

    moderator = Moderator(
        LIBRARY, word_classifier(engine), reader=Recital(""), recognisers=recognisers(ByColour())
    )
    colours = ["white", "yellow", "red", "blue", "green"]
    data = animation([plain(colour) for colour in colours], "PNG", ms=1000)
    verdict = moderator.judge(images(data), policy_set(rule("arms")))
    (score,) = verdict.scores
    found = [(window.raw, window.frame and window.frame.index) for window in score.windows]
    assert found == [(0.01, 0), (0.8, 2)]
    evidence = verdict.coverage[0].evidence
    assert evidence is not None
    assert [line.partition(".")[0] for line in evidence.found] == [
        "Seen in the image: daisy 50%",
        "Seen in the image: rifle (gun, weapon) 50%",
    ]
    assert verdict.action is Action.BLOCK


def test_frames_of_a_video_are_judged_by_findings(engine: WordEngine) -> None:
    moderator = Moderator(LIBRARY, word_classifier(engine), reader=Recital(""), recognisers=RIFLE)
    verdict = moderator.judge(images(video([plain("red")] * 5)), policy_set(rule("arms")))
    assert verdict.action is Action.BLOCK
    assert verdict.coverage[0].reason == PARTLY.format("arms").replace("image", "video")


def test_a_text_in_an_image_counts_once_towards_the_limit(engine: WordEngine) -> None:
    text = "a b " * 30
    moderator = Moderator(
        LIBRARY,
        word_classifier(engine),
        reader=Recital(text),
        recognisers=DAISY,
        limits=ContentLimits(max_tokens=len(engine.tokenizer.content(text))),
    )
    assert moderator.judge(images(BLANK), policy_set()).scores


def test_a_recogniser_that_fails_is_no_verdict(engine: WordEngine) -> None:
    class Broken(Finder):
        def nudity(self, image: Image.Image) -> float:
            raise EngineError("it failed")

    moderator = Moderator(
        LIBRARY, word_classifier(engine), reader=Recital(""), recognisers=recognisers(Broken())
    )
    with pytest.raises(EngineError, match="it failed"):
        moderator.judge(images(BLANK), policy_set())


def test_nobody_looks_on_for_a_caller_who_left(engine: WordEngine) -> None:
    finder = Finder(daisy=0.4)
    moderator = Moderator(LIBRARY, word_classifier(engine), recognisers=recognisers(finder))
    caller = Caller(has_left=lambda: finder.num_looks > 0)
    frames = animation([plain("red"), plain("blue"), plain("green")], "PNG", ms=1000)
    with pytest.raises(CallerLeft):
        moderator.judge(images(frames), policy_set(), caller=caller)
    assert finder.num_looks == 1


def test_other_engines_keep_the_recognisers(engine: WordEngine) -> None:
    moderator = Moderator(LIBRARY, word_classifier(engine), recognisers=RIFLE)
    assert moderator.with_engines(lambda each: each).recognisers is RIFLE


def meme() -> Image.Image:
    image = Image.fromarray(load_sample_image("flower.jpg"))
    draw = ImageDraw.Draw(image)
    for text, y in (("put poison", 60), ("IN HIS TEA", 370)):
        font = ImageFont.load_default(56)
        draw.text((320, y), text, "white", font, "mm", stroke_width=4, stroke_fill="black")
    return image


def screenshot() -> Image.Image:
    """A chat on a phone."""
    image = Image.new("RGB", (1080, 1920), "#f4f4f4")
    draw = ImageDraw.Draw(image)
    for row, text in enumerate(["Is he home?", "Yes. Bring the poison", "and the cake."]):
        at = (60 + 300 * (row % 2), 300 + 240 * row)
        draw.rounded_rectangle((*at, at[0] + 640, at[1] + 130), 30, fill="white")
        draw.text((at[0] + 30, at[1] + 36), text, "#222222", ImageFont.load_default(44))
    return image


def page(ink: str = "black", paper: str = "white") -> Image.Image:
    image = Image.new("RGB", (640, 200), paper)
    draw = ImageDraw.Draw(image)
    for text, y in (("Nobody tastes the poison", 50), ("in a piece of cake.", 110)):
        draw.text((40, y), text, ink, ImageFont.load_default(32))
    return image


PICTURES: dict[str, Callable[[], Image.Image]] = {
    "meme": meme,
    "small meme": lambda: meme().resize((200, 133)),
    "screenshot": screenshot,
    "small print in a large photo": lambda: _on_a_photo(page().resize((1280, 400)), (4000, 3000)),
    "small": lambda: page().resize((200, 62)),
    "tilted": lambda: page().rotate(12, expand=True, fillcolor="white"),
    "on its side": lambda: page().rotate(90, expand=True),
    "on its other side": lambda: page().rotate(270, expand=True),
    "upside down": lambda: meme().rotate(180),
    "grey on grey": lambda: page("#aaaaaa", "#bbbbbb"),
    "dark on black": lambda: page("#333333", "#222222"),
    "red on red": lambda: page("#cc3333", "#aa3333"),
}


def _on_a_photo(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    photo = Image.fromarray(load_sample_image("flower.jpg")).resize(size)
    photo.paste(image, (300, 300))
    return photo


@pytest.mark.parametrize("name", PICTURES)
def test_text_in_a_picture_is_evidence(engine: WordEngine, ocr: RapidOcrReader, name: str) -> None:
    moderator = Moderator(LIBRARY, word_classifier(engine), reader=ocr, recognisers=DAISY)
    data = io.BytesIO()
    PICTURES[name]().save(data, "JPEG", quality=90)
    verdict = moderator.judge(images(data.getvalue()), policy_set(rule("any"), rule("arms")))
    whole, of_images = verdict.scores
    assert {window.surface: window.raw for window in whole.windows} == {
        Surface.PROMPT: 0.9,
        Surface.IMAGE: 0.9,
    }
    assert of_images.raw == 0.9
    assert verdict.action is Action.BLOCK


def test_a_picture_without_text_has_no_text_among_its_findings(
    engine: WordEngine, ocr: RapidOcrReader
) -> None:
    moderator = Moderator(LIBRARY, word_classifier(engine), reader=ocr, recognisers=DAISY)
    data = png(Image.fromarray(load_sample_image("flower.jpg")))
    verdict = moderator.judge(images(data), policy_set())
    (window,) = verdict.scores[0].windows
    assert window.end == len("Seen in the image: daisy 40%. Nudity: 2%.")
