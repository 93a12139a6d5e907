"""The demo data set: drawn geometric shapes with exact boxes, in COCO format.

Shipped as code, not as images. Each image is a pure function of (seed, split, index): the same
OpenCV and NumPy releases draw the same bytes, however many images are drawn.
"""

import colorsys
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from retinanet.drawing import DrawingError, write_image
from retinanet.files import replacing

Array = NDArray[Any]
Contours = list[Array]  # closed, (N, 2) xy each, filled by the even-odd rule
CLASSES: tuple[str, ...] = ("ellipse", "rectangle", "triangle", "star", "cross", "ring")
GENERATOR_VERSION = 1  # raise it when the drawing changes, so that old folders are redrawn
HUE_SPREAD = 0.015  # standard deviation around the hue of a class, in turns of the colour circle
MAX_STRETCH = 1.3
MAX_TURN = math.radians(25)  # in either direction
MAX_COVERED = 0.3  # share of an object, or of clutter, that later objects may hide
CUT_SHARE, MAX_CUT = 0.15, 0.15  # share of shapes that may cross the border, and by how much
VISIBLE_ALPHA = 64  # coverage (of 255) from which a pixel belongs to the object's box
_FINE, _SHIFT = 4, 4  # masks are drawn at this multiple of the size, with this many fractional bits


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The content of an image. Sizes are square roots of box areas, in px."""

    canvases: tuple[tuple[int, int], ...]
    """(height, width) of the images."""
    empty_share: float
    """Share of images without objects."""
    max_objects: int
    smallest: float
    """From 18 on, the short sides of uncut shapes are at least 12 px."""
    largest: float
    """As a share of the canvas's short side."""
    clutter: tuple[int, int]
    """Minimum and maximum number of look-alikes in images with objects."""
    clutter_alone: tuple[int, int]
    """Minimum and maximum number of look-alikes in images without objects."""
    largest_clutter: float
    """As a share of the canvas's short side."""


SCENES = {
    "demo": Scene(
        canvases=((96, 128), (128, 96), (112, 128), (128, 112), (128, 128)),
        empty_share=0.06,
        max_objects=5,
        smallest=18.0,
        largest=0.85,
        clutter=(0, 2),
        clutter_alone=(2, 4),
        largest_clutter=0.6,
    ),
    # More than a thousand negatives for each positive, as on COCO: few small objects, much clutter.
    "hard": Scene(
        canvases=((224, 256), (256, 224), (256, 256)),
        empty_share=0.25,
        max_objects=2,
        smallest=18.0,
        largest=0.15,
        clutter=(10, 20),
        clutter_alone=(10, 20),
        largest_clutter=0.3,
    ),
}


def write_synthetic(
    folder: Path, *, train_images: int, val_images: int, seed: int, scene: str = "demo"
) -> None:
    """Draw the data set into `folder`, unless it is already there.

    Writes annotations/{train,val}.json and images/{train,val}/000001.jpg and so on. A split is kept
    if its annotations record the same seed, count and generator version.

    Args:
        folder: Folder to write to; created if missing.
        train_images: Number of training images, >= 0.
        val_images: Number of validation images, >= 0.
        seed: Any integer >= 0.
        scene: A name in `SCENES`.
    """
    for number, (split, count) in enumerate((("train", train_images), ("val", val_images))):
        target = folder / "annotations" / f"{split}.json"
        info: dict[str, Any] = {"generator_version": GENERATOR_VERSION, "seed": seed}
        info |= {"image_count": count}
        info |= {} if scene == "demo" else {"scene": scene}
        if recorded_info(target) == info:
            continue
        # Removed first, written last: an interrupted run leaves no annotations of missing images.
        target.unlink(missing_ok=True)
        coco = {
            "info": info,
            **_write_split(folder / "images" / split, SCENES[scene], [seed, number], count),
        }
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            temporary.write_text(json.dumps(coco))


def draw_image(rng: np.random.Generator, scene: Scene) -> tuple[Array, Array, Array]:
    """Draw one image of a scene; the result depends only on the state of `rng`.

    Returns:
        image: (H, W, 3) uint8 RGB.
        boxes: (G, 4) float32 xyxy px inside the image; tight, including hidden parts.
        labels: (G,) int64 indices into CLASSES.
    """
    height, width = scene.canvases[rng.integers(len(scene.canvases))]
    image = _background(rng, height, width)
    wanted = 0 if rng.random() < scene.empty_share else int(rng.integers(1, scene.max_objects + 1))
    fewest, most = scene.clutter if wanted else scene.clutter_alone
    largest = scene.largest_clutter * min(height, width)
    clutter = _draw_clutter(rng, image, int(rng.integers(fewest, most + 1)), largest)
    sizes = _object_sizes(rng, scene, wanted, min(height, width))
    masks, labels = _draw_objects(rng, image, sizes, clutter)
    # Sensor noise goes on last, so that flat fills do not give the shapes away.
    image += rng.uniform(1.0, 4.0) * rng.standard_normal(image.shape, np.float32)
    boxes = np.array([mask_box(mask) for mask in masks], np.float32).reshape(-1, 4)
    return image.clip(0, 255).astype(np.uint8), boxes, np.array(labels, np.int64)


def mask_box(mask: Array) -> tuple[int, int, int, int]:
    """Return the tight box (xyxy px, far edges exclusive) of a (H, W) uint8 coverage mask."""
    x, y, width, height = cv2.boundingRect(np.uint8(mask >= VISIBLE_ALPHA))
    return x, y, x + width, y + height


def recorded_info(path: Path) -> Any:
    """Return the `info` of an annotation file; None if the file is damaged or missing."""
    try:
        return json.loads(path.read_text())["info"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing or damaged: the split is drawn again


def _write_split(folder: Path, scene: Scene, seeds: list[int], count: int) -> dict[str, Any]:
    """Draw images 1..count into `folder`; return the COCO entries that describe them."""
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for index in range(1, count + 1):
        image, boxes, labels = draw_image(np.random.default_rng([*seeds, index]), scene)
        name = f"{index:06d}.jpg"
        try:
            write_image(folder / name, image)
        except DrawingError as error:
            raise OSError(str(error)) from None
        size = {"width": image.shape[1], "height": image.shape[0]}
        images.append({"id": index, "file_name": name, **size})
        for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist(), strict=True):
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            ids = {"id": len(annotations) + 1, "image_id": index, "category_id": label + 1}
            annotations.append(ids | box)
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _background(rng: np.random.Generator, height: int, width: int) -> Array:
    """Return (H, W, 3) float32 RGB of about 30..225: a muted gradient with soft blotches."""
    start, end = np.clip(rng.uniform(70, 185) + rng.uniform(-35, 35, (2, 3)), 50, 205)
    angle = rng.uniform(0, 2 * math.pi)
    x, y = np.linspace(-0.7, 0.7, width), np.linspace(-0.7, 0.7, height)[:, None]
    ramp = 0.5 + 0.5 * (math.cos(angle) * x + math.sin(angle) * y)
    image = start + (end - start) * ramp[..., None]
    for cells in (4, 24):
        coarse = rng.normal(0.0, rng.uniform(2, 7), (cells, cells, 1)).astype(np.float32)
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    return image.astype(np.float32)


def _draw_clutter(
    rng: np.random.Generator, image: Array, count: int, largest: float
) -> list[Array]:
    """Paint `count` unlabelled look-alikes into `image`; return their masks."""
    masks = []
    for _ in range(count):
        # Never tiny: nobody can tell a hexagon of 14 px from an ellipse.
        size = math.exp(rng.uniform(math.log(20.0), math.log(largest)))
        masks.append(
            _mask_at_random_place(rng, _stretch_and_turn(rng, _clutter_contours(rng), size), image)
        )
        # In the colours of the classes, so that colour alone does not identify an object.
        _paint(rng, image, masks[-1], hue_of=int(rng.integers(len(CLASSES))), outline=0)
    return masks


def _object_sizes(rng: np.random.Generator, scene: Scene, count: int, side: int) -> Array:
    smallest, largest = math.log(scene.smallest), math.log(scene.largest * side)
    return np.exp(rng.uniform(smallest, largest, count))


def _draw_objects(
    rng: np.random.Generator, image: Array, sizes: Array, clutter: list[Array]
) -> tuple[list[Array], list[int]]:
    """Paint objects of these sizes, if they fit; return their full masks and their labels."""
    masks, labels = list[Array](), list[int]()
    seen = whole = [mask >= VISIBLE_ALPHA for mask in clutter]  # visible part, and whole shape
    # Large ones first: later they would often not fit, which would skew the sizes.
    for size in sorted(sizes.tolist(), reverse=True):
        label = int(rng.integers(len(CLASSES)))
        contours = _stretch_and_turn(rng, _class_contours(CLASSES[label]), size)
        for _ in range(20):
            mask = _mask_at_random_place(rng, contours, image)
            hit = mask >= VISIBLE_ALPHA
            if _hides_little(hit, whole, seen, MAX_COVERED * rng.random()):
                break
        else:
            continue
        seen = [*(s & ~hit for s in seen), hit]
        whole = [*whole, hit]
        masks.append(mask)
        labels.append(label)
        # Not for ellipses: an outlined one looks much like a ring.
        outlined = size >= 24 and CLASSES[label] != "ellipse" and rng.random() < 0.3
        _paint(rng, image, mask, hue_of=label, outline=1 + round(size / 50) if outlined else 0)
    return masks, labels


def _hides_little(hit: Array, whole: list[Array], seen: list[Array], limit: float) -> bool:
    """Whether the (H, W) bool `hit` leaves each shape it touches covered by at most `limit`."""
    return all(
        not (visible & hit).any() or (visible & ~hit).sum() >= (1.0 - limit) * full.sum()
        for full, visible in zip(whole, seen, strict=True)
    )


def _paint(
    rng: np.random.Generator, image: Array, mask: Array, *, hue_of: int, outline: int
) -> None:
    """Blend the colour of a class into `image` (H, W, 3) under `mask`; `outline` is in px."""
    x, y, width, height = cv2.boundingRect(mask)
    window = np.s_[max(y - 4, 0) : y + height + 4, max(x - 4, 0) : x + width + 4]
    image, mask = image[window], mask[window]
    # The outline is inside the shape, so that the mask keeps its box.
    inner = cv2.erode(mask, np.ones((2 * outline + 1,) * 2, np.uint8))
    for layer in (mask, mask - inner) if outline else (mask,):
        colour = _contrasting_colour(rng, image, mask, hue_of)
        image += (colour - image) * (layer[..., None] / np.float32(255))


def _contrasting_colour(rng: np.random.Generator, image: Array, mask: Array, label: int) -> Array:
    """Return (3,) float32 RGB near the hue of a class, in contrast to the mask's surroundings."""
    around = image[(cv2.dilate(mask, np.ones((7, 7), np.uint8)) > 0) & (mask == 0)]
    candidates = np.stack([_random_colour(rng, label) for _ in range(16)])
    distance = np.linalg.norm(around[None] - candidates[:, None], axis=2)
    return candidates[(distance < 100).mean(axis=1).argmin()]


def _random_colour(rng: np.random.Generator, label: int) -> Array:
    """Return (3,) float32 RGB in 0..255; the hues of neighbouring classes overlap a little."""
    hue = (label / len(CLASSES) + rng.normal(0, HUE_SPREAD)) % 1
    rgb = colorsys.hsv_to_rgb(hue, rng.uniform(0.6, 1), rng.uniform(0.5, 1))
    return np.array(rgb, np.float32) * 255


def _stretch_and_turn(rng: np.random.Generator, contours: Contours, size: float) -> Contours:
    """Stretch and turn contours at random; centre their box at 0 with sqrt(area) `size`."""
    stretch = math.exp(rng.uniform(0, math.log(MAX_STRETCH)))
    angle = rng.uniform(-MAX_TURN, MAX_TURN)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    turned = [(contour * (stretch, 1.0)) @ turn for contour in contours]
    low, high = turned[0].min(axis=0), turned[0].max(axis=0)  # a second contour is a hole
    scale = size / math.sqrt(np.prod(high - low))
    return [(contour - (low + high) / 2) * scale for contour in turned]


def _mask_at_random_place(rng: np.random.Generator, contours: Contours, image: Array) -> Array:
    """Return (H, W) uint8 coverage of contours (px, centred at 0) at a random place in `image`."""
    height, width = image.shape[:2]
    extent = np.ptp(contours[0], axis=0)
    over = MAX_CUT * extent if rng.random() < CUT_SHARE else 0.0
    # A line can be longer than the canvas is wide; it then sits in the middle.
    margin = np.minimum(extent / 2 - over, (width / 2, height / 2))
    centre = rng.uniform(margin, (width, height) - margin)
    left, top = np.floor(centre - extent / 2).clip(0).astype(int)
    right, bottom = np.ceil(centre + extent / 2).clip(0, (width, height)).astype(int)
    # Not LINE_AA: it paints a pixel beyond the outline, which would close small rings.
    big = np.zeros(((bottom - top) * _FINE, (right - left) * _FINE), np.uint8)
    points = [((c + centre - (left, top)) * _FINE - 0.5) * (1 << _SHIFT) for c in contours]
    cv2.fillPoly(big, [np.rint(p).astype(np.int32) for p in points], 255, cv2.LINE_8, _SHIFT)
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = cv2.resize(big, None, None, 1 / _FINE, 1 / _FINE, cv2.INTER_AREA)
    return mask


def _polar_points(radii: Array, sweep: float = 2 * math.pi, hole: float | None = None) -> Array:
    """Return (N, 2) points at these radii over `sweep` radians, then back at `hole` times these."""
    angles = np.arange(len(radii)) * (sweep / len(radii))
    edge = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
    return edge if hole is None else np.concatenate([edge, hole * edge[::-1]])


def _class_contours(name: str) -> Contours:
    a = 0.34  # half the width of an arm of the cross
    cross = [[1, -a], [1, a], [a, a], [a, 1], [-a, 1], [-a, a]]
    return {
        "ellipse": [_polar_points(np.ones(72))],
        "rectangle": [_polar_points(np.ones(4))],
        "triangle": [_polar_points(np.ones(3))],
        "star": [_polar_points(np.tile([1.0, 0.42], 5))],
        "cross": [np.array(cross + [[-x, -y] for x, y in cross])],
        "ring": [_polar_points(np.ones(72)), _polar_points(np.full(72, 0.55))],
    }[name]


def _clutter_contours(rng: np.random.Generator) -> Contours:
    bare = _class_contours(CLASSES[rng.integers(1, 5)])[0]  # not a ring: a thin one is still a ring
    kinds: tuple[Contours, ...] = (
        [np.array([[-1, -0.04], [1, -0.04], [1, 0.04], [-1, 0.04]])],  # line
        [np.array([[-1, -1], [-0.5, -1], [-0.5, 0.5], [1, 0.5], [1, 1], [-1, 1]])],  # L
        [_polar_points(np.ones(rng.integers(5, 7)))],  # pentagon or hexagon
        [bare, 0.84 * bare],  # a class as an outline
        [_polar_points(np.ones(48), math.pi, 0.0)],  # half an ellipse
        [_polar_points(np.ones(48), rng.uniform(1.2, 3.6), 0.85)],
        [_polar_points(np.ones(48), rng.uniform(4.4, 5.2), 0.55)],  # broken ring
    )
    return kinds[rng.integers(len(kinds))]
