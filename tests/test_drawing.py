"""Pictures of boxes, checked pixel by pixel."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from retinanet.drawing import (
    DrawingError,
    Image,
    class_colour,
    draw_boxes,
    fit,
    grid,
    hatch,
    label_text,
    outline,
    save_picture,
    scaled,
    side_by_side,
    titled,
    write_image,
)

NAMES = ("cat", "dog")


def plain(height: int, width: int, value: int = 0) -> Image:
    return np.full((height, width, 3), value, np.uint8)


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def labels(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def near(pixels: np.ndarray, label: int) -> np.ndarray:
    """Whether pixels (.., 3) have a class's colour; smoothed lines and corners are weaker."""
    return np.abs(pixels.astype(int) - class_colour(label)).max(axis=-1) <= 45


def test_colours_of_80_classes_differ() -> None:
    """All differ, and neighbours by far: at least 100 of 255 in some channel."""
    colours = [class_colour(label) for label in range(80)]
    assert len(set(colours)) == 80
    assert all(0 <= value <= 255 for colour in colours for value in colour)
    differences = np.abs(np.diff(np.array(colours), axis=0)).max(axis=1)
    assert differences.min() >= 100


def test_a_box_is_where_it_should_be() -> None:
    """Box (10, 40)-(60, 80) on black: its edges in the class's colour, nothing inside or beside."""
    drawn = draw_boxes(plain(100, 100), boxes((10, 40, 60, 80)), labels(1), NAMES)
    assert drawn.shape == (100, 100, 3) and drawn.dtype == np.uint8
    for y, x in ((80, 30), (60, 10), (60, 60), (80, 60)):
        assert near(drawn[y, x], 1)
    assert not drawn[43:78, 13:58].any()
    assert not drawn[83:].any() and not drawn[:, 63:].any() and not drawn[:, :8].any()
    assert drawn[27:40, 10:30].any()  # the name stands above the box
    assert not drawn[:20].any()


def test_coordinates_are_rounded() -> None:
    drawn = draw_boxes(plain(100, 100), boxes((9.6, 40.4, 60.4, 79.6)), labels(0), NAMES)
    whole = draw_boxes(plain(100, 100), boxes((10, 40, 60, 80)), labels(0), NAMES)
    assert np.array_equal(drawn, whole)


def test_lines_grow_with_the_picture() -> None:
    """1 px in a picture of 100 px, 3 px and their smoothed borders in one of 1,500 px."""
    widths = []
    for side in (100, 1500):
        drawn = draw_boxes(plain(side, side), boxes((10, 40, 90, 90)), labels(0), NAMES)
        widths.append(int(near(drawn[70, 50:], 0).sum()))
    assert widths[0] == 1 and 3 <= widths[1] <= 5


def test_scores_are_written() -> None:
    image, box = plain(100, 100), boxes((10, 40, 60, 80))
    drawn = [
        draw_boxes(image, box, labels(0), NAMES, np.array([score], np.float32))
        for score in (0.25, 0.75)
    ]
    unscored = draw_boxes(image, box, labels(0), NAMES)
    assert not np.array_equal(drawn[0], drawn[1])
    widths = [near(picture[38], 0).sum() for picture in (*drawn, unscored)]
    assert widths[0] == widths[1] > widths[2] + 10  # "cat 0.25" is longer than "cat"


def test_the_strongest_lies_on_top() -> None:
    """Detections come highest score first."""
    both = boxes((10, 40, 60, 80), (10, 40, 60, 80))
    drawn = draw_boxes(plain(100, 100), both, labels(0, 1), NAMES, np.array([0.9, 0.4], np.float32))
    assert near(drawn[80, 30], 0) and not near(drawn[80, 30], 1)


def test_no_boxes_give_the_same_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    assert np.array_equal(draw_boxes(image, boxes(), labels(), NAMES), image)


@pytest.mark.parametrize("copy", [False, True])
def test_the_image_is_not_modified(copy: bool) -> None:
    """A slice is drawn on, too: OpenCV alone would refuse it."""
    image = plain(60, 120)[:, ::2]
    image = image.copy() if copy else image
    image.flags.writeable = False
    drawn = draw_boxes(image, boxes((5, 5, 40, 40)), labels(0), NAMES)
    assert drawn.any() and not image.any()


@pytest.mark.parametrize(
    ("box", "visible"),
    [
        ((-20.0, -10.0, 30.0, 40.0), True),
        ((30.0, 30.0, 900.0, 900.0), True),
        ((0.0, 0.0, 60.0, 50.0), True),
        ((20.0, 20.0, 20.0, 20.0), True),
        ((-50.0, -50.0, 500.0, 500.0), False),
        ((200.0, 200.0, 300.0, 300.0), False),
    ],
)
def test_boxes_over_the_border(box: tuple[float, float, float, float], visible: bool) -> None:
    """Also boxes without area; those around or outside the picture leave it black."""
    drawn = draw_boxes(plain(50, 60), boxes(box), labels(0), NAMES, np.array([0.5], np.float32))
    assert drawn.shape == (50, 60, 3)
    assert drawn.any() == visible


def test_side_by_side() -> None:
    """Each picture under a bar of 18 px, the left one left."""
    left, right = plain(40, 30, 100), plain(40, 30, 200)
    sheet = side_by_side(left, right, ("a", "b"))
    assert sheet.shape == (58, 60, 3)
    assert (sheet[18:, :30] == 100).all() and (sheet[18:, 30:] == 200).all()
    assert (sheet[:18, :30] > 200).any() and (sheet[:18, 30:] > 200).any()  # the titles


def test_grid() -> None:
    """Cells of 44 x 54 px: the largest picture and 2 px around; row by row."""
    images = [plain(40, 30, 100), plain(20, 50, 150), plain(40, 50, 200)]
    sheet = grid(images, columns=2)
    assert sheet.shape == (88, 108, 3)
    assert (sheet[2:42, 2:32] == 100).all()
    assert (sheet[2:22, 56:106] == 150).all()
    assert (sheet[46:86, 2:52] == 200).all()
    assert (sheet[46:, 54:] == 32).all()  # the empty place


@pytest.mark.parametrize(("count", "shape"), [(1, (24, 34)), (2, (24, 68)), (5, (72, 68))])
def test_grid_sizes(count: int, shape: tuple[int, int]) -> None:
    assert grid([plain(20, 30)] * count, columns=2).shape == (*shape, 3)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((100, 200), (50, 100)),
        ((300, 100), (100, 33)),
        ((50, 100), (50, 100)),
        ((1, 500), (1, 100)),
    ],
)
def test_fit(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    """No side over 100 px, none under 1; small pictures stay as they are."""
    small = fit(plain(*size, 7), 100)
    assert small.shape == (*wanted, 3) and small.dtype == np.uint8
    assert (small == 7).all()


def test_outline_is_one_sharp_px() -> None:
    """Box (2, 3)-(8, 6): its border alone, in exactly the colour."""
    image = plain(10, 12)
    outline(image, boxes((2.2, 2.8, 8.4, 6.0)), (9, 200, 30), 1)
    wanted = plain(10, 12)
    wanted[3:7, 2:9] = (9, 200, 30)
    wanted[4:6, 3:8] = 0
    assert np.array_equal(image, wanted)


def test_hatch_covers_two_of_twelve_px_of_the_region() -> None:
    image = plain(24, 48, 100)
    region = np.zeros((24, 48), bool)
    region[:, :24] = True
    hatch(image, region, (255, 255, 255))
    assert (image[:, 24:] == 100).all()
    assert (image[:, :24] == 177).all(axis=-1).sum() == 24 * 24 // 6  # 50 + 127
    assert (image[0, :3] == 177).all(axis=-1).tolist() == [True, True, False]
    assert (image[1, :3] == 177).all(axis=-1).tolist() == [True, False, False]


def test_titled_adds_a_bar_a_line() -> None:
    sheet = titled(plain(20, 80, 100), "one", "two")
    assert sheet.shape == (56, 80, 3)
    assert (sheet[36:] == 100).all()
    assert (sheet[:18] > 200).any() and (sheet[18:36] > 200).any()


def test_scaled() -> None:
    """Enlarged pixels stay sharp; a shrunk picture is the mean."""
    image = plain(2, 2)
    image[0] = 200
    large = scaled(image, 3.0)
    assert large.shape == (6, 6, 3) and (large[:3] == 200).all() and (large[3:] == 0).all()
    assert scaled(image, 0.5).tolist() == [[[100, 100, 100]]]
    assert scaled(plain(3, 900), 0.1).shape == (1, 90, 3)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("cat 0.50", "cat 0.50"),
        ("Käse 猫", "Käse 猫"),
        ("a\nb\tc", "a b c"),
        ("\udcff\0\u202e", "???"),
        ("n" * 44, "n" * 44),
        ("n" * 300 + " 0.50", "n" * 28 + ".." + "n" * 9 + " 0.50"),
    ],
)
def test_label_text(text: str, wanted: str) -> None:
    assert label_text(text) == wanted
    image = plain(60, 60)
    drawn = draw_boxes(image, boxes((5, 30, 50, 50)), labels(0), (text,))
    assert titled(drawn, text).any()


def test_boxes_of_a_strip_have_thin_lines() -> None:
    """2,000 x 40 px: lines of 1 px, not of 4."""
    drawn = draw_boxes(plain(40, 2000), boxes((100, 20, 300, 35)), labels(1), NAMES)
    assert not drawn[23:32, 104:296].any()


@pytest.mark.parametrize("shape", [(8, 65_600), (65_600, 8)])
def test_a_jpeg_has_sides_of_at_most_65500(tmp_path: Path, shape: tuple[int, int]) -> None:
    write_image(tmp_path / "a.jpg", plain(*shape, 200))
    read = cv2.imread(str(tmp_path / "a.jpg"))
    assert read is not None and sorted(read.shape[:2]) == [8, 65_500]
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]


def test_an_encoder_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture that was there stays."""
    path = tmp_path / "a.jpg"
    path.write_text("earlier")
    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, None))
    with pytest.raises(DrawingError, match=r"a\.jpg: the JPEG encoder failed at 9x7 px"):
        write_image(path, plain(7, 9))
    assert save_picture(path, plain(7, 9)).startswith(f"no picture: {path}: the JPEG encoder")
    assert path.read_text() == "earlier"


def test_a_picture_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    assert save_picture(tmp_path / "a.jpg", plain(7, 9)) == (
        f"no picture: {tmp_path}/a.jpg: Is a directory"
    )
