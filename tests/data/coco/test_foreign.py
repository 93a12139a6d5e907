"""What is given in place of a COCO file is named, with what to do."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.commands.check import main as check
from retinanet.data.coco.foreign import name_text, name_values
from retinanet.data.coco.index import read_annotations
from retinanet.doctor.reader import read_file
from retinanet.errors import UserError

IMAGES = [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}]
CATEGORIES = [{"id": 1, "name": "car"}]
RESULT = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
COCO = {
    "images": IMAGES,
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
    "categories": CATEGORIES,
}
EXPORT = "export COCO JSON, Pascal VOC or YOLO from the tool that wrote it"


def annotated(*annotations: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"images": IMAGES, "annotations": list(annotations)} | others


CASES: list[tuple[str, Any, str]] = [
    ("x.json", annotated({"image_id": 1, "file_name": "1.png", "segments_info": []},
                         categories=CATEGORIES),
     r"is COCO for panoptic segmentation; detection needs its instances file"),
    ("x.json", annotated({"id": 1, "image_id": 1, "caption": "a cat"}), "is COCO with captions"),
    ("x.json", annotated({"id": 1, "image_id": 1, "category_id": 1, "keypoints": [1, 2, 2]},
                         categories=CATEGORIES), "has keypoints but no boxes; export boxes"),
    ("x.json", annotated({"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]}),
     r'has no "categories" list; add "categories": \[\{"id": 7, "name": "..."\}\]'),
    ("x.json", annotated({"id": 1, "image_id": 1, "category": "car", "bbox": [1, 2, 3, 4]}),
     r"""but annotations with category 'car'; write "categories": \[\{"id": 1, "name": "car"\}"""),
    ("x.json", {"version": "5", "shapes": [], "imagePath": "a.jpg"},
     r"is the labelme JSON of one image; .* `labelme2coco /\S+`"),
    ("x.json", {"a.jpg12": {"filename": "a.jpg", "regions": []}}, r"VGG Image Annotator \(VIA\)"),
    ("x.json", {"_via_settings": {}, "_via_img_metadata": {}}, r"VGG Image Annotator \(VIA\)"),
    ("x.json", [{"name": "a.jpg", "labels": [{"box2d": {}}]}],
     r"is BDD100K \(Scalabel\) JSON; .* `python -m bdd100k.label.to_coco -m det -i \S+x.json -o "
     r"train.json`"),
    ("x.json", [{"id": 1, "annotations": [{"result": []}], "data": {}}], "is a Label Studio expor"),
    ("x.json", [{"image": "a", "label": [{"rectanglelabels": ["a"]}]}], "is a Label Studio export"),
    ("x.json", {"size": {}, "objects": [], "tags": []}, "is the Supervisely JSON of one image"),
    ("x.json", [{"image": "a.jpg", "annotations": [{"label": "a", "coordinates": {}}]}],
     f"is CreateML JSON; {EXPORT}"),
    ("x.json", [RESULT], r"predictions, .* `retinanet evaluate \S+x.json --annotations TRUTH"),
    ("x.json", COCO["annotations"], 'is only the "annotations" list of a COCO file'),
    ("x.json", {"openlabel": {}}, "is OpenLABEL"),
    ("x.json", {"info": {}, "categories": {}, "items": []},
     r"is Datumaro JSON; .* `datum convert -if datumaro -i /\S+ -f coco_instances -o OUT`"),
    ("x.json", {"type": "FeatureCollection", "features": []}, "is GeoJSON"),
    ("x.json", {"metainfo": {}, "data_list": []}, "is in MMDetection's own format"),
    ("x.json", [{"file_name": "a", "annotations": []}], "Detectron2 dataset dicts"),
    ("x.json", [{"a": 1, "b": 2}], f"is a list of objects with a, b, not an object .*{EXPORT}"),
    ("x.json", [1, 2], "is a list of ints"),
    ("x.json", "text", 'is JSON, but contains "text" instead of an object'),
    ("x.json", {"val": COCO, "train": COCO},
     r"has a COCO file under the key 'val'; write it to a file of its own: `python -c "),
    ("x.json", {"images": [], "annotation": [], "categories": []},
     'has no "annotations" list, but "annotation": rename that key to "annotations"'),
    ("x.json", COCO | {"categories": ["car", "bus"]},
     r'has strings in "categories", not objects; write \[\{"id": 1, "name": "car"\}, ...\], with'),
    ("x.json", COCO | {"images": [{"id": 1, "filename": "a.jpg", "width": 64, "height": 48}]},
     r"""but with filename 'a.jpg'; rename the key: `sed 's/"filename" \*:/"file_name":/g' /"""),
    ("x.json", annotated({"id": 1, "image_id": 1, "label": "car", "bbox": [1, 2, 3, 4]},
                         categories=CATEGORIES),
     "has annotations without category_id, but with label 'car'; write the id of that category"),
    ("x.json", b"<!DOCTYPE html><html></html>", "is an HTML page, not JSON: download the file"),
    ("x.json", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "run `git lfs pull`"),
    ("x.json", str(COCO).encode(), "is a Python value, not JSON: write it with json.dump"),
    ("x.json", b"\x80\x04\x95\0\0\0", f"is a binary file, not JSON; {EXPORT}"),
    ("x.jsonl", b'{"a": 1}\n{"a": 2}\n', rf"is JSON Lines \(one object per line\), .*{EXPORT}"),
    ("x.jsonl", b"\n".join([json.dumps(RESULT).encode()] * 2), r"is JSON Lines .*\): a detection"),
    ("x.xml", b"<annotation><filename>a.jpg</filename></annotation>",
     r"is the Pascal VOC XML of one image; .* `retinanet convert voc /\S+ train.json`"),
    ("x.xml", b"<?xml version='1.0'?>\n<annotations></annotations>", "is CVAT XML; export"),
    ("x.xml", b"<svg></svg>", f"is XML, not JSON; {EXPORT}"),
    ("data.yaml", b"train: a\nnames: [a]\n", r"is YAML; .* `retinanet convert yolo \S+data.yaml d"),
    ("x.csv", b"filename,xmin,ymin,xmax,ymax,class\n", r"`retinanet convert csv \S+x.csv train.js"),
    ("x.csv", b"ImageID,Source,LabelName\n", r"`retinanet convert openimages \S+x.csv train.json "),
    ("x.txt", b"0 0.5 0.5 0.1 0.1\n", "is a YOLO label file, not JSON; .* convert yolo data"),
    ("x.txt", b"images/a.jpg\nb.jpg\n", "is a text file, not JSON; .* convert yolo data.yaml"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), CASES)
def test_it_is_named_by_training_and_by_check(
    tmp_path: Path, name: str, content: Any, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(UserError, match=f"^{path}: .*{message}") as refused:
        read_annotations(path)
    (one,) = read_file(path).findings
    assert (one.kind, f"{path}: {one.finding(0)}") == ("no-coco-file", str(refused.value))


def test_check_tells_a_yolo_data_set_from_a_config(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text("train: images/train\nval: images/val\nnc: 1\nnames: [car]\n")
    with pytest.raises(UserError, match=r"is YAML; .* `retinanet convert yolo \S+data.yaml data/`"):
        check([str(path)])
    path.write_text("names: x\ndata: {}\n")
    with pytest.raises(UserError, match="names is not an option"):
        check([str(path)])


def test_a_coco_file_with_a_wrong_record_is_one() -> None:
    for change in (
        {"id": "x"},
        {"bbox": None},
        {"keypoints": [], "caption": "x"},
        {"category_id": 9},
        {"score": 0.5},
    ):
        assert name_values(COCO | {"annotations": [COCO["annotations"][0] | change]}) is None
    assert name_values(COCO | {"images": []}) is None
    assert name_values(COCO | {"categories": []}) is None


def test_what_is_only_cut_off_is_left_to_the_parser() -> None:
    assert name_text(Path("x.json"), json.dumps(COCO).encode()[:-9]) is None
    assert name_text(Path("x.json"), json.dumps(COCO, indent=1).encode()[:-9]) is None


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["images", "annotations", "categories", "labels", "regions", "a"]),
            inner,
            max_size=4,
        )
    ),
)


@given(value=VALUES, text=st.binary(max_size=40))
@settings(max_examples=60)
def test_whatever_it_is_there_is_no_traceback(value: Any, text: bytes) -> None:
    for named in (name_values(value), name_text(Path("x.json"), text)):
        assert named is None or named.startswith(("is ", "has ", '"categories" is'))
