"""Names for what is given in place of a COCO file, each with what to do about it."""

from __future__ import annotations

import csv
import json
import re
import shlex
from difflib import get_close_matches
from pathlib import Path
from typing import Any

_HEAD = 4096
"""Bytes of a text that are looked at."""
_EXPORT = "export COCO JSON, Pascal VOC or YOLO from the tool that wrote it"
_LISTS = ("images", "annotations", "categories")
_CLASS_KEYS = ("category_name", "category", "class_name", "class", "label", "name")
_NAME_KEYS = ("filename", "fileName", "image_name", "image_path", "path", "name", "file", "image")
"""Keys that other tools have for the class of an annotation, and for the file of an image."""
_YOLO_LINE = re.compile(r"\d+( -?\d*\.?\d+(e-?\d+)?){4,}\s*")


def name_text(path: Path, content: bytes) -> str | None:
    """Say what a file is that is not JSON, and what to do; None if that cannot be told.

    Args:
        path: path of the file, for the commands to type.
        content: its bytes.
    """
    text = content[:_HEAD].decode(errors="replace").lstrip("\ufeff \t\r\n")
    lower = text.lower()
    if not content.strip():
        return "is empty; copy or download it again"
    if text.startswith("version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself: run `git lfs pull`"
    if lower.startswith(("<!doctype html", "<html")):
        return "is an HTML page, not JSON: download the file itself; the page may ask for a login"
    if text.startswith("<"):
        return _name_xml(path, lower)
    if path.suffix.lower() in (".yaml", ".yml") or re.search(r"^(names|nc|train):", text, re.M):
        return (
            "is YAML; if it describes a YOLO data set: "
            f"`retinanet convert yolo {_quoted(path)} data/`, and train on what that writes"
        )
    if "\0" in text[:512] and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return f"is a binary file, not JSON; {_EXPORT}"
    if text[:1] in "{[":
        return _name_almost_json(content)
    return _name_lines(path, text)


def _name_xml(path: Path, lower: str) -> str:
    if "<annotation>" in lower or "<annotation " in lower:
        folder = path.absolute().parent
        return (
            "is XML of Pascal VOC, one image's; convert the folder: "
            f"`retinanet convert voc {_quoted(folder)} train.json`"
        )
    if "<annotations>" in lower:
        return 'is the XML of CVAT; export "COCO 1.0" or "PASCAL VOC 1.1" from CVAT'
    return f"is XML, not JSON; {_EXPORT}"


def _name_almost_json(content: bytes) -> str | None:
    """Name what begins as JSON does: objects line by line, or Python's own spelling."""
    if re.match(rb"\s*[\[{]\s*\{?\s*'", content):
        return "is a Python value, not JSON: write it with json.dump, not with str or print"
    first, _, others = content.strip().partition(b"\n")
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return None
    if not others.lstrip().startswith(b"{"):
        return None
    named = name_values(value)
    lines = "is JSON lines, an object in each line"
    return f"{lines}: {named.removeprefix('is ')}" if named else f"{lines}, not COCO; {_EXPORT}"


def _name_lines(path: Path, text: str) -> str | None:
    """Name a table or label lines."""
    first = text.splitlines()[0]
    cells = [cell.strip().lower() for cell in next(csv.reader([first]), [])]
    if "imageid" in cells:
        return (
            "is a table of OpenImages, not JSON: `retinanet convert openimages "
            f"{_quoted(path)} train.json --images FOLDER --class-descriptions FILE.csv`"
        )
    if len(cells) > 3 or path.suffix.lower() in (".csv", ".tsv"):
        return f"is a table, not JSON: `retinanet convert csv {_quoted(path)} train.json`"
    if _YOLO_LINE.fullmatch(first):
        return (
            "is a label file of YOLO, not JSON; convert the data set: "
            "`retinanet convert yolo data.yaml data/`"
        )
    if path.suffix.lower() == ".txt":
        return (
            "is a text, not JSON; if it lists the images of a YOLO data set: "
            "`retinanet convert yolo data.yaml data/`"
        )
    return None


def name_values(values: Any, path: Path | None = None) -> str | None:
    """Say what JSON is that is not a COCO file with boxes, and what to do; None for such a file.

    Args:
        values: the content of the file.
        path: path of the file, for the commands to type.
    """
    if isinstance(values, list):
        return _name_list(values, path)
    if not isinstance(values, dict):
        return f"is JSON, but {json.dumps(values):.40} in place of an object; {_EXPORT}"
    records = _records(values.get("annotations"))
    if all(isinstance(values.get(key), list) for key in _LISTS) or (
        isinstance(values.get("images"), list) and records
    ):
        named = _name_other_coco(values, records)
        return named and named.replace(" FILE ", f" {_quoted(path)} ")
    for keys, name in _OBJECTS:
        if keys <= values.keys():
            return name.replace("FOLDER", _quoted(path and path.absolute().parent))
    if isinstance(regions := next(iter(values.values()), None), dict) and "regions" in regions:
        return _VIA
    return _name_unknown(values, path)


def _records(value: Any) -> list[dict[str, Any]]:
    """Return the first few objects of a list."""
    return [one for one in value[:20] if isinstance(one, dict)] if isinstance(value, list) else []


_VIA = (
    'is a project or export of the VGG Image Annotator (VIA); choose "Export Annotations (COCO '
    'format)" there'
)
_LABEL_STUDIO = 'is an export of Label Studio as JSON; choose "COCO" in its Export'
_LABELBOX = f"is an export of Labelbox; {_EXPORT}"
_OBJECTS: list[tuple[set[str], str]] = [
    (
        {"shapes", "imagePath"},
        "is JSON of labelme, one image's; convert the folder: `pip install labelme2coco`, then "
        "`labelme2coco FOLDER`",
    ),
    ({"_via_img_metadata"}, _VIA),
    ({"_via_settings"}, _VIA),
    ({"openlabel"}, f"is OpenLABEL; {_EXPORT}"),
    ({"vcd"}, f"is OpenLABEL (VCD); {_EXPORT}"),
    (
        {"items", "categories"},
        "is JSON of Datumaro; convert its folder: `pip install datumaro`, then "
        "`datum convert -if datumaro -i FOLDER -f coco_instances -o OUT`",
    ),
    (
        {"objects", "size"},
        'is JSON of Supervisely, one image\'s; export COCO there (the app "Export to COCO")',
    ),
    ({"instances", "metadata"}, 'is JSON of SuperAnnotate; export "COCO" there'),
    ({"item", "annotations"}, 'is JSON of Darwin (V7); choose "COCO" as its export format'),
    ({"asset", "regions"}, 'is JSON of VoTT; export "Pascal VOC" there'),
    ({"assets", "tags"}, 'is JSON of VoTT; export "Pascal VOC" there'),
    ({"imgHeight", "objects"}, f"is JSON of Cityscapes, one image's; {_EXPORT}"),
    ({"metainfo", "data_list"}, "is MMDetection's own format; take the COCO file it came from"),
    ({"features", "type"}, f"is GeoJSON, whose coordinates are those of a map; {_EXPORT}"),
    ({"frames", "config"}, f"is JSON of Scalabel; {_EXPORT}"),
    ({"gtboxes", "ID"}, f"is the format of CrowdHuman; {_EXPORT}"),
    ({"source-ref"}, f"is a manifest of SageMaker Ground Truth; {_EXPORT}"),
    ({"data_row", "projects"}, _LABELBOX),
    ({"Labeled Data", "Label"}, _LABELBOX),
    ({"data", "annotations"}, _LABEL_STUDIO),
    ({"subject", "summary", "kinds"}, "is a report of `retinanet check`; name the annotation file"),
    (
        {"image_id", "category_id", "score"},
        "is a detection: a prediction, nothing to learn from",
    ),
]
"""Keys by which the JSON of a tool is known, and what is said of it."""


def _name_other_coco(values: dict[str, Any], records: list[dict[str, Any]]) -> str | None:
    """Name a COCO file for another task than detection, or without its categories."""

    def have(*keys: str) -> bool:
        return bool(records) and all(any(key in record for key in keys) for record in records)

    def lack(*keys: str) -> bool:
        return not any(key in record for record in records for key in keys)

    if have("segments_info"):
        return (
            "is COCO for panoptic segmentation; detection needs its instances file "
            "(instances_train2017.json), or the output of panopticapi's "
            "converters/panoptic2detection_coco_format.py"
        )
    if have("caption") and lack("bbox"):
        return (
            "is COCO with captions, which has no boxes; take the instances file "
            "(instances_train2017.json)"
        )
    if have("question_id"):
        return "is a file of questions (VQA), which has no boxes"
    if have("keypoints") and lack("bbox", "segmentation"):
        return "has keypoints but no boxes; export boxes, too, or take the instances file"
    if not isinstance(values.get("categories"), list):
        return _name_missing_categories(records, "categories" in values)
    return _name_other_keys(values, records)


def _name_other_keys(values: dict[str, Any], records: list[dict[str, Any]]) -> str | None:
    """Name what stands under other keys than COCO's in all records that are looked at."""
    texts = [one for one in values["categories"] if isinstance(one, str)]
    if texts and len(texts) == len(values["categories"]):
        ids = [one["category_id"] for one in records if type(one.get("category_id")) is int]
        first = f'{{"id": {min(ids, default=1)}, "name": {json.dumps(texts[0]):.60}}}'
        return (
            f'has texts in "categories", not objects; write [{first}, ..], with the ids that the '
            "annotations have"
        )
    images = _records(values.get("images"))
    if images and not any("file_name" in one or "coco_url" in one for one in images):
        key = next((key for key in _NAME_KEYS if isinstance(images[0].get(key), str)), None)
        if key is not None:
            return (
                f"has images without file_name, but with {key} {images[0][key]!r:.60}; rename the "
                f'key: `sed \'s/"{key}" *:/"file_name":/g\' FILE > OUT.json`'
            )
    if records and not any("category_id" in one for one in records):
        key = next((key for key in _CLASS_KEYS if isinstance(records[0].get(key), str)), None)
        if key is not None:
            return (
                f"has annotations without category_id, but with {key} {records[0][key]!r:.60}; "
                "write the id of that category as category_id"
            )
    return None


def _name_missing_categories(records: list[dict[str, Any]], there: bool) -> str:
    """Say which categories a file needs, as far as its annotations tell."""
    state = '"categories" is not a list' if there else 'has no "categories" list'
    for key in _CLASS_KEYS:
        names = [one[key] for one in records if isinstance(one.get(key), str)]
        if names:
            return (
                f'{state}, but annotations with {key} {names[0]!r:.60}; write "categories": '
                f'[{{"id": 1, "name": {json.dumps(names[0])[:60]}}}, ..], and their ids as '
                "category_id"
            )
    ids = sorted({str(one["category_id"]) for one in records if "category_id" in one}, key=len)
    needed = ", ".join(f'{{"id": {one:.20}, "name": ".."}}' for one in ids[:3])
    return f'{state}; add "categories": [{needed}{", .." if len(ids) > 3 else ""}]'


def _name_list(values: list[Any], path: Path | None) -> str:
    """Name a list of objects by the keys of the first."""
    first = next(iter(_records(values)), {})
    keys = first.keys()
    labels = next(iter(_records(first.get("labels"))), {})
    rules: list[tuple[bool, str]] = [
        (not values, f"is an empty list; {_EXPORT}"),
        (
            {"image_id", "score"} <= keys,
            "is a list of detections (COCO's results format): predictions, nothing to learn from; "
            f"`retinanet evaluate {_quoted(path)} --annotations TRUTH.json` scores them",
        ),
        (
            {"image_id", "category_id"} <= keys,
            'is the list "annotations" of a COCO file alone; write an object with the lists '
            "images, annotations and categories",
        ),
        (
            {"name", "labels"} <= keys or "box2d" in labels,
            "is JSON of BDD100K (Scalabel); convert it with its toolkit (github.com/bdd100k): "
            f"`python -m bdd100k.label.to_coco -m det -i {_quoted(path)} -o train.json`",
        ),
        (_is_create_ml(first), f"is JSON of CreateML; {_EXPORT}"),
        ("data" in keys and bool({"annotations", "completions"} & keys), _LABEL_STUDIO),
        ("rectanglelabels" in json.dumps(first, default=str)[:_HEAD], _LABEL_STUDIO),
        (
            {"filename", "ann"} <= keys,
            "is MMDetection's own format; take the COCO file it came from",
        ),
        (
            {"file_name", "annotations"} <= keys,
            "is a list of Detectron2's data set dicts; write it as COCO JSON with its "
            "convert_to_coco_json",
        ),
        ({"filename", "regions"} <= keys, _VIA),
    ]
    for known, name in rules:
        if known:
            return name
    for known_keys, name in _OBJECTS:
        if known_keys <= keys:
            return name
    shown = ", ".join(map(str, list(keys)[:6]))
    what = f"objects with {shown:.100}" if keys else f"{type(values[0]).__name__}s"
    return f"is a list of {what}, not an object with images, annotations, categories; {_EXPORT}"


def _is_create_ml(first: dict[str, Any]) -> bool:
    inner = next(iter(_records(first.get("annotations"))), {})
    return "coordinates" in inner and "label" in inner


def _name_unknown(values: dict[str, Any], path: Path | None) -> str | None:
    """Say what is missing in an object that no tool is known by; None where nothing helps."""
    for key, value in values.items():
        if isinstance(value, dict) and value.keys() >= set(_LISTS):
            command = (
                f"import json; json.dump(json.load(open({str(path)!r}))[{key!r}], "
                "open('train.json', 'w'))"
            )
            return (
                f"has a COCO file under the key {key!r}; write it to a file of its own: "
                f"`python -c {shlex.quote(command)}`"
            )
    for key in _LISTS:
        if key in values and not isinstance(values[key], list):
            return None  # which is said better by what reads the list
        others = [str(other) for other in values if other not in _LISTS]
        close = get_close_matches(key, others, n=1) if key not in values else []
        if close:
            return f'has no "{key}" list, but "{close[0]}": rename that key to "{key}"'
    return None


def _quoted(path: Path | None) -> str:
    """Return a path as a shell takes it."""
    return "FILE" if path is None else shlex.quote(str(path))
