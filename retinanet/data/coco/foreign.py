"""Recognise files that are given instead of a COCO file, and say what to do with each."""

from __future__ import annotations

import csv
import json
import re
import shlex
from difflib import get_close_matches
from pathlib import Path
from typing import Any

_HEAD = 4096
"""Bytes of a text file that are read."""
_EXPORT = "export COCO JSON, Pascal VOC or YOLO from the tool that wrote it"
_LISTS = ("images", "annotations", "categories")
_CLASS_KEYS = ("category_name", "category", "class_name", "class", "label", "name")
_NAME_KEYS = ("filename", "fileName", "image_name", "image_path", "path", "name", "file", "image")
"""Keys that other tools use for the class of an annotation and for the file of an image."""
_YOLO_LINE = re.compile(r"\d+( -?\d*\.?\d+(e-?\d+)?){4,}\s*")


def name_text(path: Path, content: bytes) -> str | None:
    """Say what a file that is not JSON is, and what to do; None if it is not recognised.

    Args:
        path: Path of the file, for the suggested commands.
        content: Bytes of the file.
    """
    text = content[:_HEAD].decode(errors="replace").lstrip("\ufeff \t\r\n")
    lower = text.lower()
    if not content.strip():
        return "is empty; copy or download it again"
    if text.startswith("version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself: run `git lfs pull`"
    if lower.startswith(("<!doctype html", "<html")):
        return "is an HTML page, not JSON: download the file itself; the page may ask for a login"
    if text.startswith("<"):
        return _name_xml(path, lower)
    if path.suffix.lower() in (".yaml", ".yml") or re.search(r"^(names|nc|train):", text, re.M):
        return (
            "is YAML; if it describes a YOLO data set, convert it: "
            f"`retinanet convert yolo {_quoted(path)} data/`, and train on the result"
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
            "is the Pascal VOC XML of one image; convert the folder: "
            f"`retinanet convert voc {_quoted(folder)} train.json`"
        )
    if "<annotations>" in lower:
        return 'is CVAT XML; export "COCO 1.0" or "PASCAL VOC 1.1" from CVAT'
    return f"is XML, not JSON; {_EXPORT}"


def _name_almost_json(content: bytes) -> str | None:
    """Name what only begins like JSON: one object per line, or a printed Python value."""
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
    lines = "is JSON Lines (one object per line)"
    return f"{lines}: {named.removeprefix('is ')}" if named else f"{lines}, not COCO; {_EXPORT}"


def _name_lines(path: Path, text: str) -> str | None:
    """Name a table or a label file."""
    first = text.splitlines()[0]
    cells = [cell.strip().lower() for cell in next(csv.reader([first]), [])]
    if "imageid" in cells:
        return (
            "is an OpenImages table, not JSON; convert it: `retinanet convert openimages "
            f"{_quoted(path)} train.json --images FOLDER --class-descriptions FILE.csv`"
        )
    if len(cells) > 3 or path.suffix.lower() in (".csv", ".tsv"):
        return (
            f"is a table, not JSON; convert it: `retinanet convert csv {_quoted(path)} train.json`"
        )
    if _YOLO_LINE.fullmatch(first):
        return (
            "is a YOLO label file, not JSON; convert the data set: "
            "`retinanet convert yolo data.yaml data/`"
        )
    if path.suffix.lower() == ".txt":
        return (
            "is a text file, not JSON; if it lists the images of a YOLO data set, convert that: "
            "`retinanet convert yolo data.yaml data/`"
        )
    return None


def name_values(values: Any, path: Path | None = None) -> str | None:
    """Say what JSON that is not COCO with boxes is, and what to do; None if it is COCO with boxes.

    Args:
        values: Content of the file.
        path: Path of the file, for the suggested commands.
    """
    if isinstance(values, list):
        return _name_list(values, path)
    if not isinstance(values, dict):
        return f"is JSON, but contains {json.dumps(values):.40} instead of an object; {_EXPORT}"
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
    """Return the first objects of a list."""
    return [one for one in value[:20] if isinstance(one, dict)] if isinstance(value, list) else []


_VIA = (
    'is a project or export of the VGG Image Annotator (VIA); choose "Export Annotations (COCO '
    'format)" there'
)
_LABEL_STUDIO = 'is a Label Studio export in JSON format; export as "COCO" there'
_LABELBOX = f"is a Labelbox export; {_EXPORT}"
_OBJECTS: list[tuple[set[str], str]] = [
    (
        {"shapes", "imagePath"},
        "is the labelme JSON of one image; convert the folder: `pip install labelme2coco`, then "
        "`labelme2coco FOLDER`",
    ),
    ({"_via_img_metadata"}, _VIA),
    ({"_via_settings"}, _VIA),
    ({"openlabel"}, f"is OpenLABEL; {_EXPORT}"),
    ({"vcd"}, f"is OpenLABEL (VCD); {_EXPORT}"),
    (
        {"items", "categories"},
        "is Datumaro JSON; convert its folder: `pip install datumaro`, then "
        "`datum convert -if datumaro -i FOLDER -f coco_instances -o OUT`",
    ),
    (
        {"objects", "size"},
        'is the Supervisely JSON of one image; export COCO there (the app "Export to COCO")',
    ),
    ({"instances", "metadata"}, 'is SuperAnnotate JSON; export "COCO" there'),
    ({"item", "annotations"}, 'is Darwin (V7) JSON; choose "COCO" as the export format there'),
    ({"asset", "regions"}, 'is VoTT JSON; export "Pascal VOC" there'),
    ({"assets", "tags"}, 'is VoTT JSON; export "Pascal VOC" there'),
    ({"imgHeight", "objects"}, f"is the Cityscapes JSON of one image; {_EXPORT}"),
    ({"metainfo", "data_list"}, "is in MMDetection's own format; use the COCO file it came from"),
    ({"features", "type"}, f"is GeoJSON, which has map coordinates; {_EXPORT}"),
    ({"frames", "config"}, f"is Scalabel JSON; {_EXPORT}"),
    ({"gtboxes", "ID"}, f"is in CrowdHuman's own format; {_EXPORT}"),
    ({"source-ref"}, f"is a SageMaker Ground Truth manifest; {_EXPORT}"),
    ({"data_row", "projects"}, _LABELBOX),
    ({"Labeled Data", "Label"}, _LABELBOX),
    ({"data", "annotations"}, _LABEL_STUDIO),
    ({"subject", "summary", "kinds"}, "is a report of `retinanet check`; use the annotation file"),
    (
        {"image_id", "category_id", "score"},
        "is a detection: a prediction, nothing to learn from",
    ),
]
"""Keys by which the JSON of a tool is recognised, and the text about it."""


def _name_other_coco(values: dict[str, Any], records: list[dict[str, Any]]) -> str | None:
    """Name a COCO file for a task other than detection, or without categories."""

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
            "is COCO with captions, which has no boxes; use the instances file "
            "(instances_train2017.json)"
        )
    if have("question_id"):
        return "is a file of questions (VQA), which has no boxes"
    if have("keypoints") and lack("bbox", "segmentation"):
        return "has keypoints but no boxes; export boxes as well, or use the instances file"
    if not isinstance(values.get("categories"), list):
        return _name_missing_categories(records, "categories" in values)
    return _name_other_keys(values, records)


def _name_other_keys(values: dict[str, Any], records: list[dict[str, Any]]) -> str | None:
    """Name the keys that the first records use instead of COCO's."""
    texts = [one for one in values["categories"] if isinstance(one, str)]
    if texts and len(texts) == len(values["categories"]):
        ids = [one["category_id"] for one in records if type(one.get("category_id")) is int]
        first = f'{{"id": {min(ids, default=1)}, "name": {json.dumps(texts[0]):.60}}}'
        return (
            f'has strings in "categories", not objects; write [{first}, ...], with the ids that '
            "the annotations use"
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
    """Say which categories a file needs, as far as its annotations show."""
    state = '"categories" is not a list' if there else 'has no "categories" list'
    for key in _CLASS_KEYS:
        names = [one[key] for one in records if isinstance(one.get(key), str)]
        if names:
            return (
                f'{state}, but annotations with {key} {names[0]!r:.60}; write "categories": '
                f'[{{"id": 1, "name": {json.dumps(names[0])[:60]}}}, ...], and their ids as '
                "category_id"
            )
    ids = sorted({str(one["category_id"]) for one in records if "category_id" in one}, key=len)
    needed = ", ".join(f'{{"id": {one:.20}, "name": "..."}}' for one in ids[:3])
    return f'{state}; add "categories": [{needed}{", ..." if len(ids) > 3 else ""}]'


def _name_list(values: list[Any], path: Path | None) -> str:
    """Name a list of objects by the keys of the first one."""
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
            'is only the "annotations" list of a COCO file; write an object with the lists '
            "images, annotations and categories",
        ),
        (
            {"name", "labels"} <= keys or "box2d" in labels,
            "is BDD100K (Scalabel) JSON; convert it with its toolkit (github.com/bdd100k): "
            f"`python -m bdd100k.label.to_coco -m det -i {_quoted(path)} -o train.json`",
        ),
        (_is_create_ml(first), f"is CreateML JSON; {_EXPORT}"),
        ("data" in keys and bool({"annotations", "completions"} & keys), _LABEL_STUDIO),
        ("rectanglelabels" in json.dumps(first, default=str)[:_HEAD], _LABEL_STUDIO),
        (
            {"filename", "ann"} <= keys,
            "is in MMDetection's own format; use the COCO file it came from",
        ),
        (
            {"file_name", "annotations"} <= keys,
            "is a list of Detectron2 dataset dicts; write it as COCO JSON with Detectron2's "
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
    """Say what is missing in an object of an unknown tool; None if there is no advice."""
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
            return None  # the code that reads the list has the better message
        others = [str(other) for other in values if other not in _LISTS]
        close = get_close_matches(key, others, n=1) if key not in values else []
        if close:
            return f'has no "{key}" list, but "{close[0]}": rename that key to "{key}"'
    return None


def _quoted(path: Path | None) -> str:
    """Return a path quoted for a shell."""
    return "FILE" if path is None else shlex.quote(str(path))
