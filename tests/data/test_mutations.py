"""Thousands of spoilt annotation files: each is read rightly, or refused by naming what is wrong.

A mutator changes one thing of a valid file. What must come of it is said by a second reader, below,
which is slow and plain. Other numbers of files than 4,000: `RETINANET_MUTATIONS=100000 pytest
tests/data/test_mutations.py`.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinanet.data.coco import json_pieces
from retinanet.data.coco.index import read_annotations
from retinanet.errors import UserError

COUNT = int(os.environ.get("RETINANET_MUTATIONS", "4000"))
File = dict[str, Any]
FIELDS = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd"),
    "categories": ("id", "name"),
}
WORDS = {"images": "image", "annotations": "annotation", "categories": "category"}


def valid_file(seed: int) -> File:
    """Return 24 images, 40 annotations and 5 categories, with ids and orders of no pattern."""
    rng = random.Random(seed)
    ids = rng.sample(range(1, 10 ** rng.choice([3, 9])), 24)
    numbers = rng.sample(range(-50, 10**6), 40)
    categories = rng.sample(range(-3, 90), 5)
    images = [
        {"id": i, "file_name": f"{rng.choice('ab')}/{i}.jpg", "width": 640, "height": 480 + row}
        for row, i in enumerate(ids)
    ]
    annotations = [
        {
            "segmentation": [[1.5, 2, 3, 2, 5, 2], ["}, {", '"}, {"', "\\"]],
            "id": number,
            "image_id": rng.choice(ids),
            "category_id": rng.choice(categories),
            "bbox": [rng.randrange(300), rng.random() * 300, 10 + rng.random(), rng.randrange(99)],
            "area": rng.random() * 1000,
            "iscrowd": int(rng.random() < 0.2),
        }
        for number in numbers
    ]
    names = [{"id": k, "name": f"class {k}"} for k in categories]
    return {"info": {"year": 2024}, "images": images, "annotations": annotations} | {
        "categories": names
    }


class RefusedError(Exception):
    """The plain reader finds a file wrong."""


def need(right: object) -> None:
    if not right:
        raise RefusedError


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # NaN is not


def is_id(value: Any) -> bool:
    return type(value) is int and -(2**53) < value < 2**53


def is_text(value: Any) -> bool:
    return (
        isinstance(value, str)
        and value.strip() != ""
        and not any(c == "\0" or 0xD800 <= ord(c) < 0xE000 for c in value)
    )


def stays_inside(name: str) -> bool:
    parts = re.split(r"[/\\]", name)
    return parts[0] != "" and ".." not in parts and not re.match(r"[^/\\]:", name)


def read_plainly(content: bytes) -> dict[str, list[Any]]:
    """Return the columns of an index, by nothing but lists and dictionaries.

    A byte that is not UTF-8 becomes half of a surrogate: it matters in a name, not in what is
    not read.
    """
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")
        file = json.loads(content if b"\0" in content else text)  # a NUL is a sign of UTF-16
    except (ValueError, RecursionError):
        raise RefusedError from None
    need(isinstance(file, dict))
    for key in FIELDS:
        need(isinstance(file.get(key), list))
        need(all(isinstance(record, dict) for record in file[key]))
        need(all(is_id(record.get("id")) for record in file[key]))
        need(len({record["id"] for record in file[key]}) == len(file[key]))
    images, categories = file["images"], file["categories"]
    for record in categories:
        if type(record.get("name")) is int:
            record["name"] = str(record["name"])
    need(categories and all(is_text(record.get("name")) for record in categories))
    need(len({record["name"] for record in categories}) == len(categories))
    for image in images:
        need(image["id"] >= 0)
        for side in (image.get("width"), image.get("height")):
            need(is_number(side) and 1 <= side < 2**31 and side == int(side))
        need(is_text(image.get("file_name")) and stays_inside(image["file_name"]))
    labels = sorted(record["id"] for record in categories)
    rows = {image["id"]: row for row, image in enumerate(images)}
    boxes: list[list[Any]] = [[] for _ in images]
    filled = 0
    for record in file["annotations"]:
        for key, known in (("image_id", rows), ("category_id", labels)):
            need(type(record.get(key)) is int and record[key] in known)
        box = record.get("bbox")
        need(isinstance(box, list) and len(box) == 4 and all(is_number(v) for v in box))
        need(all(abs(v) < 2**31 for v in box) and box[2] >= 0 and box[3] >= 0)
        crowd = record.get("iscrowd")
        need(crowd is None or (type(crowd) in (int, float, bool) and crowd in (0, 1)))
        area = record.get("area")
        if not is_number(area) or area < 0:
            area = float(box[2]) * float(box[3])
            filled += 1
        label = labels.index(record["category_id"])
        row = rows[record["image_id"]]
        boxes[row].append((record["id"], box, label, bool(crowd), float(area)))
    flat = [box for own in boxes for box in own]
    names = {record["id"]: record["name"] for record in categories}
    return {
        "categories": [(k, names[k]) for k in labels],
        "image_ids": [image["id"] for image in images],
        "file_names": [image["file_name"] for image in images],
        "sizes": [[int(image["height"]), int(image["width"])] for image in images],
        "counts": [len(own) for own in boxes],
        "annotation_ids": [box[0] for box in flat],
        "boxes": [[float(np.float32(v)) for v in box[1]] for box in flat],
        "labels": [box[2] for box in flat],
        "crowd": [box[3] for box in flat],
        "areas": [box[4] for box in flat],
        "filled": [filled],
    }


def read_ours(path: Path) -> dict[str, list[Any]]:
    found = read_annotations(path)
    told = [re.match(r"(\d+) annotations? without area", remark) for remark in found.remarks]
    filled = [int(match[1]) for match in told if match]
    names = ("image_ids", "sizes", "annotation_ids", "boxes", "labels", "crowd", "areas")
    return {
        **{name: getattr(found, name).tolist() for name in names},
        "categories": list(zip(found.categories.ids, found.categories.names, strict=True)),
        "file_names": list(found.file_names),
        "counts": np.diff(found.offsets).tolist(),
        "filled": filled or [0],
    }


# Mutators: (random numbers, a file to change) -> patterns, one of which a refusal must contain.
# Those of bytes get the text of a file and return another one.
Mutator = Callable[[random.Random, File], list[str]]
TextMutator = Callable[[random.Random, str], str | bytes]


def pick(rng: random.Random, file: File, part: str) -> tuple[dict[str, Any], list[str]]:
    """Choose a record, and say how messages may name it."""
    row = rng.randrange(len(file[part]))
    return file[part][row], named(file, part, row)


def named(file: File, part: str, row: int) -> list[str]:
    word, number = WORDS[part], file[part][row]["id"]
    patterns = [rf"\b{word} {number}\b", rf"\b{word} record {row}\b", rf'"{part}" record {row}:']
    patterns += [rf"\b{word} records (\d+ and )?{row}\b"]
    # Without its image or category, it is the annotation that is wrong.
    return [*patterns, rf"\b{word}_id {number}, which is not in"]


VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "a text": "7",
    "an empty text": "",
    "a blank text": " \t",
    "a list": [7],
    "an empty list": [],
    "an object": {"id": 7},
    "nan": math.nan,
    "infinity": math.inf,
    "-infinity": -math.inf,
    "a half": 0.5,
    "a float that is whole": 7.0,
    "zero": 0,
    "-0.0": -0.0,
    "minus one": -1,
    "minus seven million": -7_000_000,
    "2**31": 2**31,
    "2**53": 2**53,
    "2**63": 2**63,
    "2**64": 2**64,
    "10**400": 10**400,
    "1e300": 1e300,
    "5e-324": 5e-324,
    "half a surrogate": "a\ud800.jpg",
    "a NUL": "a\0b",
    "a control character": "a\x01b",
    "unicode": "größe/日本語 🦊.jpg",
    "a folder above": "../a.jpg",
    "a folder above, inside": "a/../../b.jpg",
    "a root": "/etc/passwd",
    "a drive": "c:\\a.jpg",
    "a folder above, for Windows": "a\\..\\..\\b.jpg",
    "dots that lead nowhere": "./a/./..b../c.jpg",
    "three numbers": [1, 2, 3],
    "five numbers": [1, 2, 3, 4, 5],
    "nested numbers": [[1, 2], [3, 4]],
    "a box in a list": [[1, 2, 3, 4]],
    "a box of texts": ["1", "2", "3", "4"],
    "a box of truths": [True, True, True, True],
    "a box with null": [1, 2, None, 4],
    "a box with nan": [1, math.nan, 3, 4],
    "a box with infinity": [1, 2, math.inf, 4],
    "a negative width": [1, 2, -3, 4],
    "a negative height": [1, 2, 3, -0.001],
    "an empty box": [1, 2, 0, 0.0],
    "a box outside": [-1000, -1e6, 5e6, 1.5e9],
    "a box too large": [0, 0, 2.0**31, 1],
    "a box of large integers": [1, 2, 3, 10**400],
    "a box as an object": {"x": 1, "y": 2, "w": 3, "h": 4},
}


def set_value(part: str, field: str, value: Any) -> Mutator:
    def mutate(rng: random.Random, file: File) -> list[str]:
        record, names = pick(rng, file, part)
        while json.dumps(record[field]) == json.dumps(value):  # it must change
            record, names = pick(rng, file, part)
        record[field] = value
        # Its new id names a record as well.
        return names + [rf"\b{WORDS[part]} {value}\b"] * (field == "id" and is_id(value))

    return mutate


def drop_key(part: str, field: str) -> Mutator:
    def mutate(rng: random.Random, file: File) -> list[str]:
        record, names = pick(rng, file, part)
        del record[field]
        return names

    return mutate


def replace_record(part: str, value: Any) -> Mutator:
    def mutate(rng: random.Random, file: File) -> list[str]:
        row = rng.randrange(len(file[part]))
        names = named(file, part, row)
        file[part][row] = value
        return names

    return mutate


def repeat_record(part: str) -> Mutator:
    def mutate(rng: random.Random, file: File) -> list[str]:
        record, names = pick(rng, file, part)
        file[part].insert(rng.randrange(len(file[part])), dict(record))
        again = [row for row, other in enumerate(file[part]) if other["id"] == record["id"]]
        return [*names, rf"records {again[0]} and {again[1]} both"]

    return mutate


def remove_record(part: str) -> Mutator:
    def mutate(rng: random.Random, file: File) -> list[str]:
        record, names = pick(rng, file, part)
        file[part].remove(record)
        return names

    return mutate


def set_list(part: str, value: Any) -> Mutator:
    def mutate(rng: random.Random, file: File) -> list[str]:
        file[part] = value
        return [f'"{part}"', "not in" if part != "annotations" else '"annotations"']

    return mutate


def unknown(field: str, value: int) -> Mutator:
    def mutate(rng: random.Random, file: File) -> list[str]:
        record, names = pick(rng, file, "annotations")
        record[field] = value
        return [f"{name}.* has {field} {value}, which is not in" for name in names]

    return mutate


def same_name(rng: random.Random, file: File) -> list[str]:
    a, b = rng.sample(file["categories"], 2)
    b["name"] = a["name"]
    return [rf"categories {x['id']} and {y['id']} are both named" for x, y in ((a, b), (b, a))]


def swap_corners(rng: random.Random, file: File) -> list[str]:
    record, names = pick(rng, file, "annotations")
    record["bbox"] = [300, 200, 100 - 300, 50 - 200]
    return [f"{name}.* negative; COCO boxes are" for name in names]


def drop_list(part: str) -> Mutator:
    def mutate(rng: random.Random, file: File) -> list[str]:
        del file[part]
        return [f'has no "{part}" list']

    return mutate


def shuffle(rng: random.Random, file: File) -> list[str]:
    for part in FIELDS:
        rng.shuffle(file[part])
    return []


def add_keys(rng: random.Random, file: File) -> list[str]:
    for part in FIELDS:
        record, _ = pick(rng, file, part)
        record["note"] = rng.choice(
            ["}, {", "]}", '"', {"id": 9, "bbox": None}, [[[{}]]], math.nan]
        )
    return []


def strange_area(rng: random.Random, file: File) -> list[str]:
    record, _ = pick(rng, file, "annotations")
    record["area"] = rng.choice(["12", None, math.nan, -1, [], {}, True, math.inf, 10**400])
    return []


def strange_crowd(rng: random.Random, file: File) -> list[str]:
    record, _ = pick(rng, file, "annotations")
    record["iscrowd"] = rng.choice([True, False, None, 1.0])
    return []


def whole_floats(rng: random.Random, file: File) -> list[str]:
    for record in file["images"]:
        record["width"] = float(record["width"])
    return []


def new_records(rng: random.Random, file: File) -> list[str]:
    """Add a category without boxes and an image without any."""
    file["categories"].insert(0, {"id": 1000, "name": 'süß, "and" 日本'})
    image = {"id": 0, "file_name": "x y (1) [é].jpg", "width": 1, "height": 2**31 - 1}
    file["images"].insert(3, image)
    return []


def renumber(rng: random.Random, file: File) -> list[str]:
    """Give the largest ids there are, to images as to their boxes."""
    old = file["images"][rng.randrange(24)]
    for record in file["annotations"]:
        if record["image_id"] == old["id"]:
            record["image_id"] = 2**53 - 1
    old["id"] = 2**53 - 1
    file["annotations"][0]["id"] = 1 - 2**53
    return []


HARMLESS: dict[str, Mutator] = {
    "shuffle": shuffle,
    "add keys": add_keys,
    "strange area": strange_area,
    "strange crowd": strange_crowd,
    "whole floats": whole_floats,
    "new records": new_records,
    "renumber": renumber,
    "remove annotation": remove_record("annotations"),
    "no annotations": set_list("annotations", []),
    "no segmentation": drop_key("annotations", "segmentation"),
    "no area": drop_key("annotations", "area"),
    "no iscrowd": drop_key("annotations", "iscrowd"),
}

MUTATORS: dict[str, Mutator] = {
    **{
        f"{part}.{field} = {name}": set_value(part, field, value)
        for part, fields in FIELDS.items()
        for field in fields
        for name, value in VALUES.items()
    },
    **{
        f"drop {part}.{field}": drop_key(part, field)
        for part, fields in FIELDS.items()
        for field in fields
    },
    **{
        f"{part} record = {value!r}": replace_record(part, value)
        for part in FIELDS
        for value in (None, 3, "x", [], [1, 2], {}, True)
    },
    **{f"repeat {part}": repeat_record(part) for part in FIELDS},
    **{f"remove {part}": remove_record(part) for part in FIELDS},
    **{f"{part} = {x!r}": set_list(part, x) for part in FIELDS for x in (None, {}, 3, "x", [])},
    **{f"drop {part}": drop_list(part) for part in FIELDS},
    **{
        f"unknown {field} {value}": unknown(field, value)
        for field in ("image_id", "category_id")
        for value in (-1, 0, 10**6 + 7, 2**53, 2**64)
    },
    "same name": same_name,
    "corners swapped": swap_corners,
    **HARMLESS,
}


def cut(rng: random.Random, text: str) -> bytes:
    content = text.encode()
    return content[: rng.randrange(len(content))]


def insert(what: str | bytes) -> TextMutator:
    """Insert something anywhere."""
    piece = what.encode() if isinstance(what, str) else what

    def mutate(rng: random.Random, text: str) -> bytes:
        content = text.encode()
        place = rng.randrange(len(content))
        return content[:place] + piece + content[place:]

    return mutate


def delete_byte(rng: random.Random, text: str) -> bytes:
    content = text.encode()
    place = rng.randrange(len(content))
    return content[:place] + content[place + 1 :]


def flip_byte(rng: random.Random, text: str) -> bytes:
    content = bytearray(text.encode())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def swap(old: str, new: str) -> TextMutator:
    """Replace one occurrence."""

    def mutate(rng: random.Random, text: str) -> str:
        places = [match.start() for match in re.finditer(re.escape(old), text)]
        place = rng.choice(places)
        return text[:place] + new + text[place + len(old) :]

    return mutate


TEXT_MUTATORS: dict[str, TextMutator] = {
    "cut": cut,
    **{f"insert {x!r}": insert(x) for x in ',:{}[]"\\0-.eE /\n\t\0'},
    **{f"insert {x!r}": insert(x) for x in ("NaN", "null", "//", "\ufeff", "é")},
    **{f"insert {x!r}": insert(x) for x in (b"\xff", b"\xed\xa0\x80")},
    "delete a byte": delete_byte,
    "flip a bit": flip_byte,
    "trailing comma": swap("}]", "},]"),
    "missing comma": swap("}, {", "} {"),
    "leading comma": swap("[{", "[, {"),
    "an id twice": swap('"id": ', '"id": 7, "id": '),
    "an id twice, the second wrong": swap(', "area"', ', "id": "x", "area"'),
    "a list twice": swap('"images": ', '"images": [3], "images": '),
    "a box twice": swap('"bbox": ', '"bbox": null, "bbox": '),
    "a leading zero": swap('"width": 6', '"width": 06'),
    "a plus": swap('"width": ', '"width": +'),
    "a dot": swap('"width": 640', '"width": 640.'),
    "an underscore": swap('"width": 640', '"width": 6_40'),
    "a number beyond a float": swap('"width": 640', '"width": 1e400'),
    "another capital": swap('"file_name"', '"File_name"'),
    "single quotes": lambda rng, text: text.replace('"', "'"),
    "nothing": lambda rng, text: "",
    "blanks": lambda rng, text: "  \n",
    "twice": lambda rng, text: text + text,
    "something after": lambda rng, text: text + " x",
    "in a list": lambda rng, text: f"[{text}]",
    "in a text": lambda rng, text: json.dumps(text),
    "a number": lambda rng, text: "3",
    "null": lambda rng, text: "null",
    "deep nesting": swap("[[1.5", "[" * 5000 + "]" * 5000 + ", [[1.5"),
    "deep nesting, unclosed": swap("[[1.5", "[" * 5000),
    "deep objects": swap('"area"', '"deep": ' + '{"a":' * 5000 + "1" + "}" * 5000 + ', "area"'),
    "UTF-16": lambda rng, text: text.encode("utf-16"),
    "Latin-1": lambda rng, text: text.replace("class", "Größe").encode("latin-1"),
}

REWRITES: dict[str, TextMutator] = {
    "one line": lambda rng, text: json.dumps(json.loads(text), separators=(",", ":")),
    "many lines": lambda rng, text: json.dumps(json.loads(text), indent=rng.choice([0, 1, "\t"])),
    "Windows": lambda rng, text: json.dumps(json.loads(text), indent=1).replace("\n", "\r\n"),
    "much space": lambda rng, text: re.sub(
        r'\}, \{"(id|seg)', "}" + " \n\t\r" * 100 + r',\n\n {"\1', text
    ),
    "space around": lambda rng, text: " " * 999 + text + "\n" * 999,
    "escaped": lambda rng, text: re.sub(
        r'"([a-z_]+)"', lambda m: '"' + "".join(f"\\u{ord(c):04x}" for c in m[1]) + '"', text
    ),
    "escaped slashes": lambda rng, text: text.replace("/", "\\/"),
    "sorted keys": lambda rng, text: json.dumps(json.loads(text), sort_keys=True),
    "lists in another order": lambda rng, text: json.dumps(dict([*json.loads(text).items()][::-1])),
    "exponents": lambda rng, text: text.replace(": 640,", ": 6.40E+2,").replace("[1.5,", "[15e-1,"),
    "a mark of byte order": lambda rng, text: b"\xef\xbb\xbf" + text.encode(),
}


def spoilt_files(count: int) -> Iterator[tuple[str, bytes, list[str] | None]]:
    """Yield mutators' names, their files, and patterns of the record that a refusal must name.

    Patterns are None where bytes change: what then is wrong may be anywhere.
    """
    texts = [json.dumps(valid_file(seed)) for seed in range(16)]
    names = [*MUTATORS, *TEXT_MUTATORS, *REWRITES]
    rng = random.Random(0)
    for turn in range(count):
        if turn % len(names) == 0:
            rng.shuffle(names)
        # Bytes have more places to go wrong than there are mutators of them.
        name = rng.choice([*TEXT_MUTATORS]) if turn % 4 == 0 else names[turn % len(names)]
        text = rng.choice(texts)
        if name in MUTATORS:
            file = json.loads(text)
            patterns = MUTATORS[name](rng, file)
            content = json.dumps(file, ensure_ascii=rng.random() < 0.5).encode(
                errors="surrogatepass"
            )
            assert json.dumps(file) != text, name
            yield name, content, patterns
            continue
        made = (TEXT_MUTATORS | REWRITES)[name](rng, text)
        content = made.encode() if isinstance(made, str) else made
        assert content != text.encode(), name
        yield name, content, None


@pytest.mark.slow
def test_every_spoilt_file_is_read_rightly_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback, no silent drop, no wrong value."""
    path = tmp_path / "train.json"
    refused = 0
    for turn, (name, content, patterns) in enumerate(spoilt_files(COUNT)):
        monkeypatch.setattr(json_pieces, "PIECE", (200, 1000, 2**18)[turn % 3])
        path.write_bytes(content)
        try:
            expected: dict[str, list[Any]] | None = read_plainly(content)
        except RefusedError:
            expected = None
        try:
            found: dict[str, list[Any]] | None = read_ours(path)
        except UserError as error:
            refused += 1
            message = str(error)
            assert message.startswith(f"{path}: ") and "\n" not in message, name
            # A box without height sends its record, and what else is in it, to the careful reader.
            assert expected is None or "not JSON: not valid utf-8 at byte" in message, name
            assert name not in HARMLESS and name not in REWRITES, name
            if patterns is not None:
                assert any(re.search(pattern, message) for pattern in patterns), (name, message)
        else:
            assert expected is not None, name
            assert found == expected, name
    assert 0.4 * COUNT < refused < 0.9 * COUNT


@pytest.mark.parametrize("name", REWRITES)
def test_another_spelling_is_the_same_file(tmp_path: Path, name: str) -> None:
    path, text = tmp_path / "train.json", json.dumps(valid_file(0))
    path.write_text(text)
    plain = read_annotations(path)
    made = REWRITES[name](random.Random(0), text)
    path.write_bytes(made.encode() if isinstance(made, str) else made)
    assert read_annotations(path).fingerprint == plain.fingerprint


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_only_unusual_is_read(tmp_path: Path, name: str) -> None:
    """On every one of several files."""
    for seed in range(8):
        file = valid_file(seed)
        assert HARMLESS[name](random.Random(seed), file) is not None
        content = json.dumps(file).encode()
        (tmp_path / "train.json").write_bytes(content)
        assert read_ours(tmp_path / "train.json") == read_plainly(content)
