"""The result for one image: reading, selecting, drawing, saving, handing on."""

import copy
import json
import math
import pickle
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from retinanet.categories import Categories
from retinanet.errors import ArgumentError, UserError
from retinanet.inference.detections import Detection, ImageDetections

CAT_DOG = Categories(ids=(3, 8), names=("cat", "dog"))
IMAGE = np.full((60, 80, 3), 200, np.uint8)


def found(path: Path | None = None) -> ImageDetections:
    """Two dogs and a cat in an image of 80 x 60 px."""
    return ImageDetections(
        boxes=np.array([[1, 2, 31, 42], [0, 0, 8, 9.5], [40, 10, 80, 60]], np.float32),
        scores=np.array([0.75, 0.5, 0.25], np.float32),
        labels=np.array([1, 0, 1]),
        categories=CAT_DOG,
        image_size=(60, 80),
        path=path,
    )


def test_reading() -> None:
    result = found()
    assert len(result) == 3 and bool(result)
    assert list(result) == [result[0], result[1], result[2]]
    assert result[0] == Detection("dog", 0.75, (1.0, 2.0, 31.0, 42.0), 1)
    assert result[-1].name == "dog" and result[1].box == (0.0, 0.0, 8.0, 9.5)
    assert result[np.int64(1)].score == 0.5
    assert result.names == ["dog", "cat", "dog"]
    name, score, box, label = result[1]
    assert (name, score, box, label) == ("cat", 0.5, (0.0, 0.0, 8.0, 9.5), 0)
    with pytest.raises(IndexError, match="detection 3 of 3"):
        result[3]
    with pytest.raises(TypeError):
        result["dog"]  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("index", "scores"),
    [
        (slice(1), [0.75]),
        (slice(None, None, -1), [0.25, 0.5, 0.75]),
        ([2, 0], [0.25, 0.75]),
        ([True, False, True], [0.75, 0.25]),
        (np.array([False, True, False]), [0.5]),
        ([], []),
        (np.array([]), []),
        (np.array([True, False, False]), [0.75]),
    ],
)
def test_selecting(index: Any, scores: list[float]) -> None:
    chosen = found()[index]
    assert isinstance(chosen, ImageDetections)
    assert chosen.scores.tolist() == scores
    assert (len(chosen.boxes), len(chosen.labels), chosen.image_size) == (
        *[len(scores)] * 2,
        (60, 80),
    )


@pytest.mark.parametrize("index", [np.array([[0, 1]]), found().boxes > 3, [0.5], ["dog"]])
def test_what_selects_nothing(index: Any) -> None:
    with pytest.raises(IndexError, match="a list of booleans or indices, not by an array of type"):
        found()[index]


def test_names_of_other_projects_are_refused_with_ours() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'pred_boxes'\. It has: above, boxes,"):
        found().pred_boxes  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'xyxy'\. It has: box, "):
        found()[0].xyxy  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(found(), "__array__")
    assert copy.deepcopy(found()[0]) == found()[0]
    assert len(pickle.loads(pickle.dumps(found()))) == len(found())


def test_above() -> None:
    assert [d.name for d in found().above(0.5)] == ["dog", "cat"]
    assert len(found().above(1)) == 0 and not found().above(1)
    assert found()[np.array(1)] == found()[1]  # type: ignore[comparison-overlap]
    numbers = (np.float32(0.5), np.array(0.5), torch.tensor(0.5), Decimal("0.5"), Fraction(1, 2))
    assert [len(found().above(number)) for number in numbers] == [2] * 5
    for wrong in (-0.1, 1.5, 50, math.nan, math.inf):
        with pytest.raises(ArgumentError, match=f"threshold must be from 0 to 1, not {wrong:g}"):
            found().above(wrong)
        with pytest.raises(ValueError, match="threshold"):
            found().above(wrong)
    for huge in (10**400, Decimal("sNaN"), Fraction(3, 2)):
        with pytest.raises(ArgumentError, match=r"from 0 to 1, not (inf|nan|1\.5)$"):
            found().above(huge)
    array = np.array([0.5, 0.5])
    for wrong_type in ("0.5", True, None, [0.5], np.True_, torch.tensor(True), 1j, array):
        with pytest.raises(TypeError, match="threshold must be a number from 0 to 1, not "):
            found().above(wrong_type)  # type: ignore[arg-type]


def test_its_text(tmp_path: Path) -> None:
    assert repr(found()) == "<3 detections in 80x60 px: dog 0.75, cat 0.50, dog 0.25>"
    one = found(Path("a.jpg"))[:1]
    assert repr(one) == "<1 detection in a.jpg, 80x60 px: dog 0.75>"
    assert repr(found()[[0] * 9]).endswith("dog 0.75, dog 0.75, ...>")
    assert repr(found()[[]]) == "<0 detections in 80x60 px>"


def test_handing_on() -> None:
    first = {"image_id": 1, "category_id": 8, "bbox": [1.0, 2.0, 30.0, 40.0], "score": 0.75}
    assert found().to_coco()[0] == first
    assert [(r["image_id"], r["category_id"]) for r in found().to_coco(image_id=7)] == [
        (7, 8),
        (7, 3),
        (7, 8),
    ]
    result = found(Path("a.jpg"))[1:2].to_dict()
    assert result == {
        "path": "a.jpg",
        "height": 60,
        "width": 80,
        "detections": [
            {"name": "cat", "category_id": 3, "score": 0.5, "box": [0.0, 0.0, 8.0, 9.5]}
        ],
    }
    assert json.loads(json.dumps(result)) == result
    assert json.dumps(found().to_coco(np.int64(7))) == json.dumps(found().to_coco(7))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="integer"):
        found().to_coco("7")  # type: ignore[arg-type]
    assert found().to_dict()["path"] is None


def test_drawing() -> None:
    drawn = found().draw(IMAGE)
    assert drawn.shape == IMAGE.shape and drawn.dtype == np.uint8
    assert (IMAGE == 200).all()  # the image itself stays
    assert (drawn[42, 5:28] != 200).any(axis=1).all()  # the lower side of the first box
    assert (drawn[50:, 2:36] == 200).all()  # no box there
    assert np.array_equal(found()[[]].draw(IMAGE), IMAGE)
    with pytest.raises(ArgumentError, match="80x60 px") as caught:
        found().draw(IMAGE[:50])
    assert "80x50 px" in str(caught.value)
    with pytest.raises(ArgumentError, match=r"without a path\. Pass the image"):
        found().draw()
    with pytest.raises(TypeError, match="float64"):
        found().draw(IMAGE / 255)  # type: ignore[arg-type]


def test_saving(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), IMAGE)
    result = found(path)
    assert np.array_equal(result.draw(), result.draw(IMAGE))
    for name in ("a.jpg", "deep/er/b.PNG"):
        result.save(tmp_path / name)
        written = cv2.imread(str(tmp_path / name))
        assert written.shape == (300, 400, 3)  # small images are enlarged 5 times
    result.save(str(tmp_path / "c.json"))
    assert json.loads((tmp_path / "c.json").read_text()) == result.to_dict()
    found().save(tmp_path / "d.png", image=IMAGE)
    deep = cv2.imread(str(tmp_path / "deep/er/b.PNG"))
    assert np.array_equal(cv2.imread(str(tmp_path / "d.png")), deep)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("a.txt", ArgumentError, r"a\.txt: the suffix must be one of \.jpg, \.jpeg, \.png, \.json"),
        ("a", ArgumentError, "a: the suffix must be one of"),
        ("image.png", ArgumentError, r"image\.png: is the image itself\. Choose another path"),
        ("link.png", ArgumentError, r"link\.png: is the image itself"),
        ("hard.png", ArgumentError, r"hard\.png: is the image itself"),
        ("a\0.jpg", ArgumentError, "cannot be written: embedded null"),
        ("x" * 400 + ".jpg", UserError, r"x\.jpg: cannot be written: File name too long"),
        ("folder.jpg", UserError, r"folder\.jpg: cannot be written: "),
        ("image.png/a.jpg", UserError, r"a\.jpg: cannot be written: "),
    ],
)
def test_where_nothing_is_saved(
    tmp_path: Path, name: str, kind: type[UserError], message: str
) -> None:
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), IMAGE)
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.png").symlink_to(path)
    (tmp_path / "hard.png").hardlink_to(path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(kind, match=message):
        found(path).save(tmp_path / name)
    with pytest.raises(kind, match=message):
        found().save(tmp_path / name, image=path)
    with pytest.raises(kind, match=message):
        found(path).save(tmp_path / name, image=IMAGE)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_nothing_is_saved_to_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("https://a.b/c.jpg", Path("s3://a/b.json")):
        with pytest.raises(ArgumentError, match="nothing is written to the network"):
            found().save(url, image=IMAGE)
    assert list(tmp_path.iterdir()) == []


def test_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        found().to_supervision()
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=dict))
    given = found().to_supervision()
    assert given["xyxy"].tolist()[1] == [0, 0, 8, 9.5]
    assert given["confidence"].tolist() == [0.75, 0.5, 0.25]
    assert given["class_id"].tolist() == [1, 0, 1]
    assert given["data"]["class_name"].tolist() == ["dog", "cat", "dog"]
