"""Windows of an image: numbers by hand, and what must hold for every image and every seed."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retinanet.data.canvas import Size
from retinanet.data.image_views import (
    ImageView,
    crop_to_view,
    resize_image,
    resize_onto_canvas,
    whole_view,
)
from retinanet.data.images.reading import UnreadableImageError, read_image
from retinanet.data.presets import jitter, mosaic_view, quadrants, safe_crop


class Scripted(np.random.Generator):
    """A generator whose draws from 0..1 are given: uniform(a, b) is a + (b - a) * draw."""

    def __init__(self, *draws: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.draws = list(draws)

    def random(self, size: int | None = None) -> object:  # type: ignore[override]
        if size is None:
            return self.draws.pop(0)
        return np.array([self.draws.pop(0) for _ in range(size)])

    def uniform(self, low: float, high: float) -> float:  # type: ignore[override]
        return low + (high - low) * self.draws.pop(0)


NONE = np.zeros((0, 4), np.float32)
NO_CROWD = np.zeros(0, np.bool_)


def boxes_of(*boxes: tuple[float, ...]) -> np.ndarray:
    return np.array(boxes, np.float32).reshape(-1, 4)


def show(
    image: np.ndarray, boxes: np.ndarray, crowd: np.ndarray, view: ImageView
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what a view shows, the boxes left in it, and their rows."""
    window, left, rows = crop_to_view(image, boxes, crowd, view)
    return resize_image(window, view.size), left, rows


def kept_of(view: ImageView, *boxes: tuple[float, ...], crowd: bool = False) -> tuple[list, list]:
    """Return boxes and rows that a view of 100 x 100 px leaves."""
    image = np.zeros((100, 100, 3), np.uint8)
    _, left, rows = crop_to_view(image, boxes_of(*boxes), np.full(len(boxes), crowd), view)
    return left.tolist(), rows.tolist()


# --- numbers by hand


def test_a_whole_view() -> None:
    """480 x 640 at short side 240: half; on a canvas of 200 x 400 it must shrink to 200 high."""
    view = whole_view((480, 640), short_side=240, long_side=1000, canvas=(256, 320))
    assert view == ImageView(window=(0, 0, 640, 480), size=(240, 320))
    view = whole_view((480, 640), short_side=240, long_side=1000, canvas=(200, 400))
    assert view == ImageView(window=(0, 0, 640, 480), size=(200, 266))  # 320 * 200 / 240 = 266.7
    assert whole_view((1, 900), short_side=64, long_side=96, canvas=(64, 96)).size == (1, 96)


def test_jitter_enlarges_and_crops() -> None:
    """64 x 128 px fits on 128 x 128 as it is; at twice that, half of its width is seen."""
    view = jitter(Scripted(1.0, 0.5, 0.25), (64, 128), (128, 128))
    assert view.size == (128, 128)  # scale 0.1 + 1.9 * 1 = 2: it would be 128 x 256
    assert view.window == (16, 0, 80, 64)  # 64 px wide, at 0.25 of the 64 px that are free


def test_jitter_makes_smaller() -> None:
    """Draw 9/19: scale 0.1 + 1.9 * 9 / 19 = 1; draw 0: a tenth, and nothing is cropped."""
    assert jitter(Scripted(9 / 19, 0, 0), (64, 128), (128, 128)).size == (64, 128)
    view = jitter(Scripted(0, 0.7, 0.7), (64, 128), (128, 128))
    assert view == ImageView(window=(0, 0, 128, 64), size=(6, 13))


def test_safe_crop() -> None:
    """Draw 0: half of each side, 50 x 100 of 100 x 200; the box lets it lie at x 40..60, y 20..30.

    Its place is drawn inside that: 0.5 and 1 of the way.
    """
    view = ImageView(window=(0, 0, 200, 100), size=(50, 100))
    cropped = safe_crop(Scripted(0, 0.5, 1), (100, 200), boxes_of((60, 30, 140, 70)), view)
    assert cropped == ImageView(window=(50, 30, 150, 80), size=(50, 100))


def test_safe_crop_grows_to_hold_the_boxes() -> None:
    """Boxes 160 px apart need 0.8 of the width, so 0.8 of the height is seen as well."""
    view = ImageView(window=(0, 0, 200, 100), size=(50, 100))
    boxes = boxes_of((20, 50, 30, 60), (170, 50, 180, 60))
    cropped = safe_crop(Scripted(0, 0.3, 0), (100, 200), boxes, view)
    assert cropped.window == (20, 0, 180, 80)


def test_safe_crop_without_boxes_and_with_one_that_covers_everything() -> None:
    view = ImageView(window=(0, 0, 200, 100), size=(50, 100))
    assert safe_crop(Scripted(0, 1, 1), (100, 200), NONE, view).window == (100, 50, 200, 100)
    everything = boxes_of((0, 0, 200, 100))
    assert safe_crop(Scripted(0, 0.5, 0.5), (100, 200), everything, view) == view


def test_quadrants() -> None:
    """Draws 0.5 and 0: they meet at half the height and 0.3 of the width."""
    assert quadrants(Scripted(0.5, 0), (100, 200)) == [
        (0, 0, 60, 50),
        (60, 0, 200, 50),
        (0, 50, 60, 100),
        (60, 50, 200, 100),
    ]


def test_a_mosaic_view_fills_its_part() -> None:
    """On a canvas of 100 x 100, 50 x 100 px fits as it is; draw 1: at 1.5 times that."""
    view = mosaic_view(Scripted(1, 0, 1), (50, 100), (60, 75), (100, 100))
    assert view == ImageView(window=(50, 0, 100, 40), size=(60, 75))  # 60 / 1.5 = 40, 75 / 1.5 = 50
    # Draw 0 is half of what fits, but 60 px of height need 1.2 times the image.
    view = mosaic_view(Scripted(0, 0, 0), (50, 100), (60, 75), (100, 100))
    assert view == ImageView(window=(0, 0, 62.5, 50), size=(60, 75))


@pytest.mark.parametrize(
    ("window", "size", "reduction"),
    [
        ((0, 0, 640, 480), (480, 640), 1),
        ((0, 0, 640, 480), (241, 320), 1),  # 480 / 241 = 1.99
        ((0, 0, 640, 480), (240, 320), 2),
        ((0, 0, 640, 480), (120, 320), 2),  # the lesser shrinking counts
        ((0, 0, 640, 480), (100, 100), 4),
        ((0, 0, 640, 480), (60, 80), 8),
        ((0, 0, 640, 480), (1, 1), 8),
        ((100, 100, 260, 220), (120, 160), 1),
        ((100, 100, 260, 220), (60, 80), 2),
    ],
)
def test_reduction(window: tuple[float, float, float, float], size: Size, reduction: int) -> None:
    view = ImageView(window=window, size=size)
    assert view.reduction == reduction
    smaller = ImageView(window=tuple(value / reduction for value in window), size=size)
    assert view.reduced() == smaller


def test_cropping_moves_and_scales_boxes() -> None:
    """The right lower quarter, twice as large: (60, 70) lies 10 and 20 px behind its corner."""
    view = ImageView(window=(50, 50, 100, 100), size=(100, 100))
    assert kept_of(view, (60, 70, 80, 90), (50, 50, 100, 100)) == (
        [[20, 40, 60, 80], [0, 0, 100, 100]],
        [0, 1],
    )


def test_cropping_takes_whole_px_and_boxes_follow_them() -> None:
    """10.5..29.5 are the px 10..29: 20 of them on 40, so a box of 12..20 is at 4..20."""
    view = ImageView(window=(10.5, 0, 29.5, 100), size=(100, 40))
    assert kept_of(view, (12, 0, 20, 50)) == ([[4, 0, 20, 50]], [0])


def test_a_box_of_which_too_little_is_seen_is_dropped() -> None:
    """40 px wide boxes of which 4, 3.9 and 0 px lie in the left half: 10 %, less, nothing."""
    view = ImageView(window=(0, 0, 50, 100), size=(100, 50))
    cut = [(46, 0, 86, 10), (46.1, 0, 86.1, 10), (50, 0, 90, 10)]
    assert kept_of(view, *cut) == ([[46, 0, 50, 10]], [0])


def test_any_part_of_a_crowd_stays() -> None:
    """What a crop leaves of an ignored region is still not background."""
    view = ImageView(window=(0, 0, 50, 100), size=(100, 50))
    cut = [(46, 0, 86, 10), (49, 0, 89, 10), (50, 0, 90, 10)]
    assert kept_of(view, *cut, crowd=True) == ([[46, 0, 50, 10], [49, 0, 50, 10]], [0, 1])


def test_a_part_under_one_px_of_the_view_is_dropped() -> None:
    """An eighth of the size: 8 px become 1, 7 px less."""
    view = ImageView(window=(0, 0, 80, 80), size=(10, 10))
    assert kept_of(view, (0, 0, 8, 8), (0, 0, 7, 50)) == ([[0, 0, 1, 1]], [0])


def test_a_whole_image_keeps_every_box() -> None:
    """As evaluation and training without a preset do: small boxes are a matter of min_box_side."""
    view = ImageView(window=(0, 0, 100, 100), size=(10, 10))
    assert kept_of(view, (0, 0, 3, 3))[1] == [0]


def test_no_boxes() -> None:
    """(0, 4)."""
    for window in ((0, 0, 100, 100), (20, 20, 40, 40)):
        view = ImageView(window=window, size=(10, 10))
        image = np.zeros((100, 100, 3), np.uint8)
        pixels, boxes, rows = show(image, NONE, NO_CROWD, view)
        assert pixels.shape == (10, 10, 3)
        assert (boxes.shape, boxes.dtype, rows.shape) == ((0, 4), np.float32, (0,))
        outside = boxes_of((70, 70, 80, 80))
        if window[2] < 100:
            assert show(image, outside, np.array([True]), view)[1].shape == (0, 4)


# --- what always holds

sides = st.integers(1, 700)
sizes = st.one_of(
    st.tuples(sides, sides), st.tuples(st.just(1), sides), st.tuples(sides, st.just(1))
)
canvases = st.tuples(*[st.integers(1, 12).map(lambda n: 32 * n)] * 2)
seeds = st.integers(0, 2**40)


@st.composite
def images_with_boxes(draw: st.DrawFn) -> tuple[Size, np.ndarray]:
    """Draw a size and float32 boxes inside it; some touch its borders."""
    height, width = draw(sizes)
    count = draw(st.integers(0, 6))
    random = np.random.default_rng(draw(seeds))
    places = np.sort(random.random((count, 2, 2)), axis=1)  # of each box: two corners, x and y
    places[random.random((count, 2, 2)) < 0.2] = 0
    places[random.random((count, 2, 2)) < 0.2] = 1
    corners = np.sort(places, axis=1) * (width, height)
    return (height, width), corners.reshape(count, 4).astype(np.float32)


def inside(view: ImageView, size: Size, limit: Size) -> None:
    x1, y1, x2, y2 = view.window
    assert 0 <= x1 < x2 <= size[1] + 1e-6
    assert 0 <= y1 < y2 <= size[0] + 1e-6
    assert 1 <= view.size[0] <= limit[0]
    assert 1 <= view.size[1] <= limit[1]
    assert all(isinstance(side, int) for side in view.size)


@given(sizes, canvases, seeds, st.integers(1, 400))
@settings(max_examples=150, deadline=None)
def test_every_view_lies_in_the_image_and_on_the_canvas(
    size: Size, canvas: Size, seed: int, short_side: int
) -> None:
    random = np.random.default_rng(seed)
    seen = whole_view(size, short_side=short_side, long_side=2 * short_side, canvas=canvas)
    inside(seen, size, canvas)
    assert seen.window == (0, 0, size[1], size[0])
    inside(jitter(random, size, canvas), size, canvas)
    inside(safe_crop(random, size, NONE, seen), size, canvas)


@given(sizes, canvases, seeds)
@settings(max_examples=150, deadline=None)
def test_a_mosaic_has_no_gap(size: Size, canvas: Size, seed: int) -> None:
    """Its parts are a partition of the canvas, and a view fills its part to the last px."""
    random = np.random.default_rng(seed)
    covered = np.zeros(canvas, int)
    for x1, y1, x2, y2 in quadrants(random, canvas):
        view = mosaic_view(random, size, (y2 - y1, x2 - x1), canvas)
        inside(view, size, canvas)
        assert view.size == (y2 - y1, x2 - x1)
        covered[y1:y2, x1:x2] += 1
    assert (covered == 1).all()


@given(images_with_boxes(), seeds)
@settings(max_examples=150, deadline=None)
def test_a_safe_crop_cuts_no_box_and_keeps_the_shape(
    image: tuple[Size, np.ndarray], seed: int
) -> None:
    size, boxes = image
    seen = whole_view(size, short_side=64, long_side=128, canvas=(128, 128))
    view = safe_crop(np.random.default_rng(seed), size, boxes, seen)
    inside(view, size, (128, 128))
    x1, y1, x2, y2 = view.window
    assert view.size == seen.size
    assert (x2 - x1) / size[1] == pytest.approx((y2 - y1) / size[0])
    assert 0.5 - 1e-9 <= (x2 - x1) / size[1] <= 1
    tolerance = 1e-3
    assert (boxes[:, :2] >= np.array([x1, y1]) - tolerance).all()
    assert (boxes[:, 2:] <= np.array([x2, y2]) + tolerance).all()
    # And what is cut out has every box that is large enough to be seen, in full.
    pixels = np.zeros((*size, 3), np.uint8)
    _, left, rows = show(pixels, boxes, np.zeros(len(boxes), bool), view)
    scale = np.array([view.size[1] / (x2 - x1), view.size[0] / (y2 - y1)])
    clear = ((boxes[:, 2:] - boxes[:, :2]) * scale >= 4).all(axis=1)  # whole px are cut: < twice
    assert set(np.flatnonzero(clear)) <= set(rows)
    assert (left[:, :2] >= -tolerance).all()
    assert (left <= np.tile(np.array(view.size)[::-1], 2) + tolerance).all()


@given(images_with_boxes(), canvases, seeds)
@settings(max_examples=150, deadline=None)
def test_boxes_that_are_left_lie_in_the_view(
    image: tuple[Size, np.ndarray], canvas: Size, seed: int
) -> None:
    size, boxes = image
    pixels = np.zeros((*size, 3), np.uint8)
    crowd = np.arange(len(boxes)) % 2 == 1
    random = np.random.default_rng(seed)
    for view in (jitter(random, size, canvas), mosaic_view(random, size, canvas, canvas)):
        shown, left, rows = show(pixels, boxes, crowd, view)
        assert shown.shape == (*view.size, 3)
        assert left.shape == (len(rows), 4) and left.dtype == np.float32
        assert (left >= 0).all()
        assert (left <= np.tile(np.array(view.size)[::-1], 2) + 1e-3).all()
        assert (left[:, 2:] >= left[:, :2]).all()
        assert (np.diff(rows) > 0).all()


COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)], np.uint8)
BOXES = boxes_of((8, 12, 48, 52), (80, 16, 120, 48), (16, 80, 60, 120), (100, 72, 140, 116))


def rectangles(factor: int = 1) -> np.ndarray:
    """Return 128 x 160 px (times a factor), a rectangle of its own colour for each of BOXES."""
    image = np.full((128 * factor, 160 * factor, 3), 90, np.uint8)
    for colour, (x1, y1, x2, y2) in zip(COLOURS, factor * BOXES.astype(int), strict=True):
        image[y1:y2, x1:x2] = colour
    return image


def seen_box(image: np.ndarray, row: int) -> tuple[int, int, int, int] | None:
    """Return the box of the pixels that have the colour of a row."""
    there = (np.abs(image.astype(int) - COLOURS[row]) < 100).all(axis=2)
    if not there.any():
        return None
    y, x = np.nonzero(there)
    return x.min(), y.min(), x.max() + 1, y.max() + 1


@pytest.mark.parametrize("way", ["jitter", "safe_crop", "fill"])
def test_boxes_follow_the_pixels(way: str) -> None:
    """Each box that is left is found again around the pixels of its own colour."""
    random = np.random.default_rng(0)
    canvas, size, found = (128, 192), (128, 160), 0
    for _ in range(60):
        if way == "jitter":
            view = jitter(random, size, canvas)
        elif way == "safe_crop":
            chosen = BOXES[[1, 3]]
            seen = whole_view(size, short_side=96, long_side=192, canvas=canvas)
            view = safe_crop(random, size, chosen, seen)
        else:
            view = mosaic_view(random, size, (70, 90), canvas)
        shown, left, rows = show(rectangles(), BOXES, np.zeros(4, bool), view)
        for box, row in zip(left, rows, strict=True):
            if (box[2:] - box[:2]).min() >= 6:  # of less, interpolation leaves no pure colour
                scale = view.size[0] / (view.window[3] - view.window[1])
                np.testing.assert_allclose(box, seen_box(shown, row), atol=max(1.5, 0.75 * scale))
                found += 1
    assert found > 60


@given(sizes, sizes, st.integers(0, 3), st.integers(0, 3), seeds)
@settings(max_examples=200, deadline=None)
def test_an_image_is_laid_on_its_canvas_as_it_is_resized(
    size: Size, after: Size, right: int, below: int, seed: int
) -> None:
    """Bit for bit, in the top left corner, and 0 beside it."""
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    canvas = np.full((after[0] + below, after[1] + right, 3), 7, np.uint8)
    resize_onto_canvas(image, after, canvas)
    expected = np.zeros_like(canvas)
    expected[: after[0], : after[1]] = resize_image(image, after)
    assert np.array_equal(canvas, expected)


@pytest.mark.parametrize("after", [(20, 30), (10, 10), (50, 50), (3, 90), (20, 31)])
def test_a_part_of_an_image_is_laid_as_well(after: Size) -> None:
    """A window is a view into the decoded image: its rows are not contiguous."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)[5:25, 7:37]
    canvas = np.full((64, 96, 3), 7, np.uint8)
    resize_onto_canvas(image, after, canvas)
    expected = resize_image(np.ascontiguousarray(image), after)
    assert np.array_equal(canvas[: after[0], : after[1]], expected)
    assert canvas.sum() == expected.sum()


# --- decoding at a fraction of the size


def photo(height: int, width: int) -> np.ndarray:
    """Return smooth noise, something like a photograph."""
    random = np.random.default_rng(height * width)
    small = random.integers(0, 256, (height // 64 + 2, width // 64 + 2, 3), np.uint8)
    return np.ascontiguousarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))


def save(path: Path, image: np.ndarray, orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(path, exif=exif, quality=95)
    return path


def turned(size: Size, orientation: int) -> Size:
    return size[::-1] if orientation >= 5 else size


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("follow", [True, False])
def test_a_jpeg_decoded_smaller_shows_the_same(
    tmp_path: Path, reduction: int, orientation: int, follow: bool
) -> None:
    """At every orientation, as the JSON says rotated or unrotated.

    Odd sides, so that the fractions are rounded up: 301 px at 1/8 are 38, which stand for 304. The
    view is that much off, under 1 px of its own, and so are the boxes.
    """
    stored = (301, 403)
    path = save(tmp_path / "a.jpg", photo(*stored), orientation)
    size = turned(stored, orientation) if follow else stored
    small = read_image(path, size, reduction=reduction)
    assert small.shape[:2] == (-(-size[0] // reduction), -(-size[1] // reduction))
    full = read_image(path, size)
    assert full.shape[:2] == size
    view = ImageView(window=(0, 0, size[1], size[0]), size=(32, 40))
    boxes = boxes_of((20, 30, 200, 250), (0, 0, size[1], size[0]))
    crowd = np.zeros(2, bool)
    a, a_boxes, a_rows = show(full, boxes, crowd, view)
    reduced = ImageView(window=tuple(value / reduction for value in view.window), size=view.size)
    b, b_boxes, b_rows = show(small, boxes / np.float32(reduction), crowd, reduced)
    assert a.shape == b.shape and a_rows.tolist() == b_rows.tolist() == [0, 1]
    np.testing.assert_allclose(a_boxes, b_boxes, atol=1)
    assert np.abs(a.astype(int) - b).mean() < 6  # a turned or mirrored one: 40 and more


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_sides_that_divide_show_nearly_the_same_pixels(tmp_path: Path, reduction: int) -> None:
    path = save(tmp_path / "a.jpg", photo(304, 400))
    full, small = (read_image(path, (304, 400), reduction=r) for r in (1, reduction))
    difference = resize_image(full, (32, 40)).astype(int) - resize_image(small, (32, 40))
    assert np.abs(difference).mean() < 1.5


def test_the_test_above_would_notice_another_orientation(tmp_path: Path) -> None:
    image = resize_image(photo(301, 403), (32, 40)).astype(int)
    for other in (image[::-1], image[:, ::-1], image[::-1, ::-1]):
        assert np.abs(image - other).mean() > 40


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_boxes_follow_the_pixels_of_a_jpeg_decoded_smaller(tmp_path: Path, reduction: int) -> None:
    Image.fromarray(rectangles(factor=reduction)).save(tmp_path / "a.jpg", quality=98)
    size = (128 * reduction, 160 * reduction)
    view = ImageView(window=(0, 0, size[1], size[0]), size=(100, 125))
    assert view.reduction == reduction
    small = read_image(tmp_path / "a.jpg", size, reduction=reduction)
    shown, left, rows = show(small, BOXES, np.zeros(4, bool), view.reduced())
    assert rows.tolist() == [0, 1, 2, 3]
    for box, row in zip(left, rows, strict=True):
        np.testing.assert_allclose(box, seen_box(shown, row), atol=1.5)


def test_other_formats_come_in_full(tmp_path: Path) -> None:
    Image.fromarray(photo(80, 120)).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", (80, 120), reduction=4)
    assert np.array_equal(image, photo(80, 120))


def test_a_jpeg_of_unknown_size_comes_in_full(tmp_path: Path) -> None:
    assert read_image(save(tmp_path / "a.jpg", photo(80, 120)), reduction=4).shape == (80, 120, 3)


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_rounding_hides_no_wrong_size(tmp_path: Path, reduction: int) -> None:
    """80 x 120 and 79 x 119 are alike at half the size; the file's own tells."""
    path = save(tmp_path / "a.jpg", photo(80, 120))
    with pytest.raises(UnreadableImageError, match=r"is 120x80 px, but .* gives 119x79"):
        read_image(path, (79, 119), reduction=reduction)


def test_where_rounding_makes_a_square_the_way_round_is_kept(tmp_path: Path) -> None:
    """63 x 64 at an eighth is 8 x 8 either way round; one of them is turned by a quarter."""
    path = save(tmp_path / "a.jpg", photo(63, 64), orientation=6)
    turned, stored = (read_image(path, size, reduction=8) for size in ((64, 63), (63, 64)))
    assert turned.shape == stored.shape == (8, 8, 3)
    assert np.array_equal(turned, np.rot90(stored, -1))


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_a_truncated_jpeg_is_refused_at_every_size(
    tmp_path: Path, reduction: int, share: float
) -> None:
    path = save(tmp_path / "a.jpg", photo(160, 240))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UnreadableImageError, match="decoded: a truncated JPEG file"):
        read_image(path, (160, 240), reduction=reduction)


@pytest.mark.parametrize(("mode", "progressive"), [("L", False), ("CMYK", False), ("RGB", True)])
def test_other_jpegs_decoded_smaller(tmp_path: Path, mode: str, progressive: bool) -> None:
    image = Image.fromarray(photo(160, 240)).convert(mode)
    image.save(tmp_path / "a.jpg", quality=95, progressive=progressive)
    small = read_image(tmp_path / "a.jpg", (160, 240), reduction=4)
    assert small.shape == (40, 60, 3) and small.dtype == np.uint8
    full = resize_image(read_image(tmp_path / "a.jpg", (160, 240)), (40, 60))
    assert np.abs(full.astype(int) - small).mean() < 4
