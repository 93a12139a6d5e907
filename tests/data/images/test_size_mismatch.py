"""In which way a file's size differs from its record's."""

import pytest

from retinanet.data.images.size_mismatch import (
    Mismatch,
    describe_mismatch,
    meant_size,
    mismatch_of,
    mismatch_remedy,
)


@pytest.mark.parametrize(
    ("file", "record", "mismatch", "words"),
    [
        ((480, 640), (640, 480), "swapped", ": width and height are swapped"),
        ((480, 640), (480, 639), "off by one", ": off by one pixel, as after rounding"),
        ((480, 640), (481, 639), "off by one", ": off by one pixel, as after rounding"),
        (
            (480, 640),
            (240, 320),
            "scaled",
            ", half that size: the boxes may belong to a scaled copy",
        ),
        (
            (480, 640),
            (960, 1280),
            "scaled",
            ", twice that size: the boxes may belong to a scaled copy",
        ),
        (
            (1080, 1920),
            (360, 640),
            "scaled",
            ", 0.333 times that size: the boxes may belong to a scaled copy",
        ),
        (
            (427, 640),
            (683, 1024),
            "scaled",
            ", 1.6 times that size: the boxes may belong to a scaled copy",
        ),
        ((480, 640), (480, 600), "other", ""),
        ((480, 640), (480, 642), "other", ""),
        ((480, 640), (0, 0), "other", ""),
    ],
)
def test_mismatch(
    file: tuple[int, int], record: tuple[int, int], mismatch: Mismatch, words: str
) -> None:
    assert mismatch_of(file, record) == mismatch
    assert describe_mismatch(file, record) == words


@pytest.mark.parametrize(
    ("record", "meant"),
    [
        ((481, 640), (480, 640)),  # off by one pixel from the size before turning
        ((640, 481), (640, 480)),
        ((240, 320), (480, 640)),
        ((320, 240), (640, 480)),
        ((99, 77), (640, 480)),  # from neither
    ],
)
def test_the_size_of_a_turned_image_that_a_record_comes_from(
    record: tuple[int, int], meant: tuple[int, int]
) -> None:
    assert meant_size((640, 480), (480, 640), record) == meant


def test_an_almost_square_image_is_not_guessed_at() -> None:
    assert meant_size((101, 100), (100, 101), (100, 100)) == (101, 100)


@pytest.mark.parametrize(
    ("mismatch", "remedy"),
    [
        (
            "swapped",
            "swap them: `retinanet check a.json --images b --fix OUT.json` does so if the boxes "
            "then fit",
        ),
        (
            "off by one",
            "write the file's size: `retinanet check a.json --images b --fix OUT.json` does so",
        ),
        (
            "scaled",
            "use the files that were annotated, or scale the boxes: `retinanet check a.json "
            "--images b --fix OUT.json` does so, or says what it needs to know",
        ),
        (
            "other",
            "use the file that was annotated, or write the file's size: `retinanet check a.json "
            "--images b` lists all",
        ),
    ],
)
def test_remedies(mismatch: Mismatch, remedy: str) -> None:
    assert mismatch_remedy(mismatch, "a.json", "b") == remedy
    assert "retinanet check ANNOTATIONS.json --images FOLDER" in mismatch_remedy(mismatch)
