"""`--fix` on files whose boxes were written in another way: it restores them exactly, or refuses.

Where nothing in a file shows the distortion, the boxes stay as they are; never is a part of them
changed, and none is turned into something else.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retinanet.doctor.repair.whole_file import repair_file
from retinanet.errors import UserError

Content = dict[str, Any]
Box = tuple[float, ...]
SIZES = {
    "landscape": [(480, 640)],
    "square": [(512, 512)],
    "mixed": [(480, 640), (640, 480), (600, 800), (500, 500)],
    "small": [(48, 64)],
}
"""Heights and widths that the images of a set have in turn."""
IMAGES = 40
TOLERANCE = 1e-3
"""px; sizes of a scaled copy are whole px, so that its boxes come back to a px or two."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write black images of each set."""
    root = tmp_path_factory.mktemp("images")
    for name, sizes in SIZES.items():
        (root / name).mkdir()
        files = [cv2.imencode(".png", np.zeros((*size, 3), np.uint8))[1] for size in sizes]
        for i in range(IMAGES):
            (root / name / f"{i:02}.png").write_bytes(files[i % len(files)].tobytes())
    return root


def draw(rng: random.Random, shape: str, images: int, boxes: int, largest: float) -> Content:
    """Return a sound set: every image has up to `boxes` boxes, a third of which end at a border."""
    content: Content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "cell"}],
    }
    for i in range(images):
        height, width = SIZES[shape][i % len(SIZES[shape])]
        content["images"].append(
            {"id": i + 1, "file_name": f"{i:02}.png", "width": width, "height": height}
        )
        for _ in range(rng.randint(0, boxes)):
            w = rng.randint(3, max(4, int(largest * width)))
            h = rng.randint(3, max(4, int(largest * height)))
            x = rng.choice([0, width - w, *[rng.randint(0, width - w)] * 4])
            y = rng.choice([0, height - h, *[rng.randint(0, height - h)] * 4])
            if any(r["bbox"] == [x, y, w, h] for r in content["annotations"][-boxes:]):
                continue  # a duplicate would be removed
            number = len(content["annotations"]) + 1
            content["annotations"].append(
                {"id": number, "image_id": i + 1, "category_id": 1, "bbox": [x, y, w, h]}
                | {"area": w * h, "iscrowd": 0}
            )
    return content


def each_box(change: Callable[..., Box]) -> Callable[[Content], None]:
    """Return a function that changes every box, given x, y, w, h and the width and height of
    its image."""

    def distort(content: Content) -> None:
        sizes = {i["id"]: (i["width"], i["height"]) for i in content["images"]}
        for record in content["annotations"]:
            record["bbox"] = list(change(*record["bbox"], *sizes[record["image_id"]]))

    return distort


def scaled(factor: float, *, boxes: bool) -> Callable[[Content], None]:
    """Return a function that scales the image sizes, and perhaps the boxes."""

    def distort(content: Content) -> None:
        factors = {}
        for image in content["images"]:
            before = image["width"], image["height"]
            image["width"], image["height"] = (max(1, round(side * factor)) for side in before)
            factors[image["id"]] = (image["width"] / before[0], image["height"] / before[1])
        for record in content["annotations"] if boxes else ():
            by = factors[record["image_id"]] * 2
            record["bbox"] = [value * f for value, f in zip(record["bbox"], by, strict=True)]

    return distort


def exchange_sides(content: Content) -> None:
    for image in content["images"]:
        image["width"], image["height"] = image["height"], image["width"]


LAYOUTS = {
    "corners": each_box(lambda x, y, w, h, iw, ih: (x, y, x + w, y + h)),
    "corners, y first": each_box(lambda x, y, w, h, iw, ih: (y, x, y + h, x + w)),
    "centres": each_box(lambda x, y, w, h, iw, ih: (x + w / 2, y + h / 2, w, h)),
    "y first": each_box(lambda x, y, w, h, iw, ih: (y, x, h, w)),
    "shares": each_box(lambda x, y, w, h, iw, ih: (x / iw, y / ih, w / iw, h / ih)),
    "shares, corners": each_box(
        lambda x, y, w, h, iw, ih: (x / iw, y / ih, (x + w) / iw, (y + h) / ih)
    ),
    "shares, centres": each_box(
        lambda x, y, w, h, iw, ih: ((x + w / 2) / iw, (y + h / 2) / ih, w / iw, h / ih)
    ),
    "percent": each_box(
        lambda x, y, w, h, iw, ih: tuple(100 * v for v in (x / iw, y / ih, w / iw, h / ih))
    ),
    "thousandths, corners, y first": each_box(
        lambda x, y, w, h, iw, ih: tuple(
            1000 * v for v in (y / ih, x / iw, (y + h) / ih, (x + w) / iw)
        )
    ),
    "last corner first": each_box(lambda x, y, w, h, iw, ih: (x + w, y + h, -w, -h)),
    "wrong sign": each_box(lambda x, y, w, h, iw, ih: (x, y, -w, h)),
}
FRAMES = {
    "half": scaled(0.5, boxes=True),
    "third": scaled(1 / 3, boxes=True),
    "twice": scaled(2, boxes=True),
    "half the size alone": scaled(0.5, boxes=False),
    "twice the size alone": scaled(2, boxes=False),
    "exchanged sides": exchange_sides,
}
DISTORTIONS = {**LAYOUTS, **FRAMES}


def repair_distorted(
    content: Content, names: list[str], folders: Path, shape: str, place: Path
) -> str:
    """Distort a set, repair it, and return the outcome."""
    truth = {r["id"]: list(r["bbox"]) for r in content["annotations"]}
    sizes = {i["id"]: (i["width"], i["height"]) for i in content["images"]}
    for name in names:
        DISTORTIONS[name](content)
    given = {r["id"]: list(r["bbox"]) for r in content["annotations"]}
    path, out = place / "in.json", place / "out.json"
    path.write_text(json.dumps(content))
    out.unlink(missing_ok=True)
    try:
        repair_file(path, out, folders / shape)
    except UserError as error:
        assert not out.exists()
        assert "Nothing was written" in str(error) or "nothing was written" in str(error)
        return "refused"
    after = json.loads(out.read_text())
    boxes = {r["id"]: r["bbox"] for r in after["annotations"]}
    px = 3 if {"half", "third"} & set(names) else TOLERANCE
    restored = boxes.keys() == truth.keys() and all(
        abs(a - b) <= px for key in truth for a, b in zip(boxes[key], truth[key], strict=True)
    )
    if restored and {i["id"]: (i["width"], i["height"]) for i in after["images"]} == sizes:
        return "restored"
    return "as it was" if boxes == given else f"changed: {boxes} from {given}"


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**32),
    shape=st.sampled_from(list(SIZES)),
    images=st.sampled_from([1, 3, 10, 40]),
    boxes=st.sampled_from([1, 2, 6]),
    largest=st.sampled_from([0.02, 0.2, 0.6]),
    names=st.one_of(
        st.lists(st.sampled_from(list(DISTORTIONS)), min_size=1, max_size=1),
        st.tuples(st.sampled_from(list(LAYOUTS)), st.sampled_from(list(FRAMES))).map(list),
        st.tuples(st.sampled_from(list(FRAMES)), st.sampled_from(list(LAYOUTS))).map(list),
    ),
)
def test_boxes_are_restored_exactly_or_the_file_is_refused(
    folders: Path,
    tmp_path: Path,
    seed: int,
    shape: str,
    images: int,
    boxes: int,
    largest: float,
    names: list[str],
) -> None:
    if shape == "square" and "y first" in names:
        return  # in a square nothing tells x from y
    content = draw(random.Random(seed), shape, images, boxes, largest)
    assert repair_distorted(content, names, folders, shape, tmp_path) in (
        "restored",
        "refused",
        "as it was",
    )


@pytest.mark.parametrize(
    "name",
    [
        *("corners", "centres", "shares", "shares, centres"),
        *("last corner first", "wrong sign", "half", "third", "twice"),
        *("half the size alone", "exchanged sides"),
    ],
)
def test_distortions_that_many_boxes_show_are_repaired(
    folders: Path, tmp_path: Path, name: str
) -> None:
    """240 boxes of landscape images leave no doubt about these."""
    content = draw(random.Random(3), "landscape", 40, 12, 0.5)
    assert repair_distorted(content, [name], folders, "landscape", tmp_path) == "restored"


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("shares, corners", "--fix-as boxes=xyxy unit=shares (corners"),
        ("percent", "--fix-as boxes=xywh unit=percent ([x, y, width, height] in percent"),
        ("thousandths, corners, y first", "--fix-as boxes=yxyx unit=thousandths (corners [y1"),
        ("twice the size alone", "--fix-as sizes=file"),
    ],
)
def test_distortions_that_no_box_shows_are_refused_with_the_choice(
    folders: Path, tmp_path: Path, name: str, choice: str
) -> None:
    """Swapped x and y do not show in shares; in a larger image, all boxes fit."""
    content = draw(random.Random(3), "landscape", 40, 12, 0.5)
    DISTORTIONS[name](content)
    path = tmp_path / "in.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        repair_file(path, tmp_path / "out.json", folders / "landscape")
    assert choice in str(error.value)
