"""The pictures that are timed are as large as they say."""

import io

from PIL import Image

from benchmarks.pictures import pictures


def test_pictures_are_jpeg_files_of_twelve_megapixels() -> None:
    found = pictures()
    assert len(found) == len(set(found.values())) == 3
    for data in found.values():
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "JPEG"
            assert picture.width * picture.height == 12_000_000
