"""Evaluating a checkpoint: one figure whatever the batches, workers and commands."""

import gzip
import json
import multiprocessing
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from retinanet.categories import Categories
from retinanet.checkpoints.format import load_checkpoint, save_checkpoint
from retinanet.cli import main
from retinanet.config import override_config
from retinanet.data import checks
from retinanet.data.images.reading import read_image
from retinanet.engine.evaluate import Evaluation
from retinanet.engine.splits import open_split
from retinanet.errors import UserError
from retinanet.evaluation.results import Result
from retinanet.inference.predictor import load
from retinanet.reports.evaluate_checkpoint import evaluate_checkpoint, evaluate_results_file
from retinanet.schema import Config, TrainConfig

SIZES = [(90, 120), (120, 90), (64, 64), (90, 120), (60, 110), (80, 110), (90, 120)]
SIZE_NAMES = ("medium", "large")


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def detected(tmp_path_factory: pytest.TempPathFactory, small_checkpoint: Path) -> Path:
    """Write val.json: all that the network detects in seven images, 100 boxes each."""
    folder = tmp_path_factory.mktemp("detected")
    (folder / "val").mkdir()
    predictor = load(small_checkpoint)
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for i, (height, width) in enumerate(SIZES):
        name = f"{i:03}.jpg"
        noise = np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8)
        cv2.imwrite(str(folder / "val" / name), cv2.blur(noise, (5, 5)))
        images.append({"id": 11 + i, "file_name": name, "width": width, "height": height})
        found = predictor.detect_pixels([read_image(folder / "val" / name)])[0]
        assert len(found.boxes) == 100
        for (x1, y1, x2, y2), label in zip(
            found.boxes.tolist(), found.labels.tolist(), strict=True
        ):
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "category_id": label + 1}
            boxes.append({"id": len(boxes), "image_id": 11 + i, **box})
    categories = [{"id": k, "name": f"class {k}"} for k in (1, 2, 3)]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "val.json").write_text(json.dumps(content))
    return folder / "val.json"


@pytest.fixture
def val(detected: Path, tmp_path: Path) -> Path:
    """A copy in which a third of the network's detections are right. One id is 0, areas miss."""
    path = tmp_path / "data" / "val.json"
    shutil.copytree(detected.parent, path.parent)

    def thin(content: dict[str, Any]) -> None:
        boxes = content["annotations"]
        content["annotations"] = [box for box in boxes if box["id"] % 100 % 3 == 0]

    edit(path, thin)
    return path


def run(checkpoint: Path, val: Path, *overrides: str) -> Evaluation:
    evaluation = evaluate_checkpoint(
        checkpoint, annotations=val, images=val.parent / "val", overrides=list(overrides)
    )
    assert evaluation is not None
    return evaluation


def assert_close(a: list[Result], b: list[Result]) -> None:
    """Scores to 1e-5, boxes to 1e-3 px."""
    assert [(r["image_id"], r["category_id"]) for r in a] == [
        (r["image_id"], r["category_id"]) for r in b
    ]
    assert [r["score"] for r in a] == pytest.approx([r["score"] for r in b], abs=1e-5)
    corners = [[value for r in results for value in r["bbox"]] for results in (a, b)]
    assert corners[0] == pytest.approx(corners[1], abs=1e-3)


def test_what_it_detects_is_all_there_is(small_checkpoint: Path, detected: Path) -> None:
    """Ground truth made of the detections themselves: everything is found, nothing is wrong.

    Not of COCO's small ones: some detections were cut to the border and have no area to overlap.
    """
    evaluation = run(small_checkpoint, detected)
    figures = [evaluation.metrics.figures[f"{a}_{b}"] for a in ("AP", "AR") for b in SIZE_NAMES]
    assert figures == pytest.approx([1, 1, 1, 1], abs=1e-9)
    assert len(evaluation.results) == evaluation.metrics.detections == 700
    assert evaluation.metrics.remarks == []
    assert evaluation.losses == {} and len(evaluation.pictures) == 7


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batch_size_changes_nothing(small_checkpoint: Path, val: Path, batch_size: int) -> None:
    """An image's canvas follows from the image alone."""
    one = run(small_checkpoint, val)  # of 4
    other = run(small_checkpoint, val, f"eval.batch_size={batch_size}")
    assert_close(one.results, other.results)
    figures = one.metrics.figures
    assert figures["AP"] is not None and 0.1 < figures["AP"] < 0.9
    assert list(other.metrics.figures.values()) == pytest.approx(list(figures.values()), abs=1e-12)


def test_canvas_batch_max_does_not_depend_on_batches_either(
    small_checkpoint: Path, val: Path
) -> None:
    one, other = (
        run(small_checkpoint, val, "data.canvas=batch_max", f"eval.batch_size={size}")
        for size in (1, 8)
    )
    assert_close(one.results, other.results)


def test_workers_change_nothing(small_checkpoint: Path, val: Path) -> None:
    one, other = run(small_checkpoint, val), run(small_checkpoint, val, "data.workers=2")
    assert one.results == other.results
    assert one.metrics == other.metrics


def test_predict_detects_what_evaluate_does(
    small_checkpoint: Path, val: Path, tmp_path: Path
) -> None:
    """One preparation and one network behind both commands."""
    words = ["--annotations", str(val), "--images", str(val.parent / "val"), "--no-pictures"]
    output = tmp_path / "out"
    assert main(["predict", str(small_checkpoint), *words, "--output", str(output)]) == 0
    predicted = json.loads((output / "results.json").read_text())
    predicted.sort(key=lambda r: (r["image_id"], -r["score"]))
    assert_close(predicted, run(small_checkpoint, val).results)


def run_folder(checkpoint: Path, val: Path, *overrides: str) -> Path:
    """Put a checkpoint into a run folder whose config names the data."""
    path = val.parent / "my_run" / "checkpoints" / "best.pt"
    path.parent.mkdir(parents=True)
    loaded = load_checkpoint(checkpoint)
    places = [f"data.root={val.parent}", "data.val.annotations=val.json", "data.val.images=val"]
    config = override_config(loaded.config, [*places, *overrides])
    save_checkpoint(replace(loaded, config=config), path)
    return path


def test_files_and_round_trip(
    small_checkpoint: Path,
    val: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The checkpoint alone is enough; its results.json scores as it does itself."""
    path = run_folder(small_checkpoint, val, "eval.pictures=3")
    assert main(["evaluate", str(path)]) == 0
    printed = capsys.readouterr().out
    folder = val.parent / "my_run" / "evaluation" / "best"
    names = ["results.json", "metrics.json", "metrics.txt", "pictures.jpg"]
    assert sorted(file.name for file in folder.iterdir()) == sorted(names)
    figures = (folder / "metrics.txt").read_text()
    assert printed == figures + "".join(f"wrote {folder / name}\n" for name in names)
    # Images of 64 x 85 and 64 x 64 px, enlarged to at most 400 px: 4 and 6 times. One column of
    # three rows of two, each with a title of 18 px and 2 px around it, as large as the largest.
    sheet = cv2.imread(str(folder / "pictures.jpg"))
    assert sheet.shape == (3 * (6 * 64 + 18 + 4), 2 * 6 * 64 + 4, 3)

    results = str(folder / "results.json")
    words = ["--annotations", str(val), "--output", str(tmp_path / "again")]
    assert main(["evaluate", results, *words]) == 0
    again = tmp_path / "again"
    assert sorted(file.name for file in again.iterdir()) == sorted(names[:3])
    for name in names[:3]:
        assert (again / name).read_text() == (folder / name).read_text()
    metrics = json.loads((again / "metrics.json").read_text())
    assert 0.1 < metrics["AP"] < 0.9 and metrics["detections"] == 700

    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", results, "--annotations", str(val)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(figures)
    assert "wrote evaluation/results-val/metrics.json" in out


def test_the_display_threshold_of_predict_does_not_touch_ap(
    small_checkpoint: Path, val: Path
) -> None:
    """Evaluation uses postprocess.score_threshold, 0.05, not predict's 0.3."""
    scores = [r["score"] for r in run(small_checkpoint, val).results]
    assert 0.05 < min(scores) < 0.3


def test_score_threshold(small_checkpoint: Path, val: Path) -> None:
    """A higher threshold leaves what was above it."""
    everything = run(small_checkpoint, val).results
    strict = run(small_checkpoint, val, "postprocess.score_threshold=0.5").results
    assert 0 < len(strict) < len(everything)
    assert strict == [r for r in everything if r["score"] > 0.5]


def test_max_detections(small_checkpoint: Path, val: Path) -> None:
    """One setting for the detector and for the figures; 33 or 34 boxes an image."""
    metrics = run(small_checkpoint, val, "postprocess.max_detections=5").metrics
    assert (metrics.detections, metrics.max_detections) == (35, 5)
    assert metrics.max_detections == 5
    assert re.match(r"Images with more than 5 boxes: 7 \(up to 34 boxes\)", metrics.remarks[1])


def test_no_detections(small_checkpoint: Path, val: Path) -> None:
    """AP 0, the highest score, and how many lie under the threshold."""
    metrics = run(small_checkpoint, val, "postprocess.score_threshold=1").metrics
    assert (metrics.detections, metrics.figures["AP"], metrics.figures["AR_100"]) == (0, 0.0, 0.0)
    assert metrics.remarks[0] == "There are no detections, so every AP is 0."
    found = re.match(
        r"All ([\d,]+) scores are below postprocess\.score_threshold \(1\); the highest is "
        r"(0\.\d{4})\. The network has not learned enough yet, or it was trained for other images",
        metrics.remarks[1],
    )
    assert found and 0.5 < float(found[2]) < 1
    assert int(found[1].replace(",", "")) > 7 * 9 * 3  # anchors of a cell, classes


def test_images_without_boxes(small_checkpoint: Path, val: Path) -> None:
    """No ground truth, no figures."""
    edit(val, lambda content: content.update(annotations=[]))
    metrics = run(small_checkpoint, val).metrics
    assert set(metrics.figures.values()) == {None} and metrics.detections == 700


def test_a_wrong_override(small_checkpoint: Path, val: Path) -> None:
    message = (
        "postprocess.score_treshold is not an option; did you mean postprocess.score_threshold"
    )
    with pytest.raises(UserError, match=message):
        run(small_checkpoint, val, "postprocess.score_treshold=0.5")


def test_gapped_ids_in_any_order(small_checkpoint: Path, val: Path, tmp_path: Path) -> None:
    """Labels are the sorted ids of the file; areas and iscrowd may miss."""
    plain = run(small_checkpoint, val)
    new = {1: 2, 2: 5, 3: 90}

    def gap(content: dict[str, Any]) -> None:
        for category in content["categories"]:
            category["id"] = new[category["id"]]
        for annotation in content["annotations"]:
            annotation["category_id"] = new[annotation["category_id"]]
        content["categories"] = [content["categories"][i] for i in (2, 0, 1)]
        content["annotations"].reverse()
        content["images"].reverse()

    edit(val, gap)
    checkpoint = load_checkpoint(small_checkpoint)
    names = checkpoint.categories.names
    gapped = replace(checkpoint, categories=Categories(ids=(2, 5, 90), names=names))
    save_checkpoint(gapped, tmp_path / "gapped.pt")
    evaluation = run(tmp_path / "gapped.pt", val)
    assert evaluation.metrics.figures == pytest.approx(plain.metrics.figures, abs=1e-12)
    assert [row.name for row in evaluation.metrics.classes] == ["class 1", "class 2", "class 3"]
    assert [row.boxes for row in evaluation.metrics.classes] == [
        row.boxes for row in plain.metrics.classes
    ]
    assert [r["category_id"] for r in evaluation.results] == [
        new[r["category_id"]] for r in plain.results
    ]


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([(1, "class 1"), (2, "class 2")], "category 3 is missing, but 'class 3' in"),
        (
            [(1, "class 1"), (2, "dog"), (3, "class 3")],
            "category 2 is 'dog', but 'class 2' in",
        ),
        (
            [(1, "class 1"), (2, "class 2"), (3, "class 3"), (4, "cow")],
            "category 4 is 'cow', but missing in",
        ),
        (
            [(0, "class 1"), (1, "class 2"), (2, "class 3")],
            "category 0 is 'class 1', but missing in",
        ),
    ],
)
def test_other_classes(
    small_checkpoint: Path, val: Path, categories: list[tuple[int, str]], message: str
) -> None:
    """Both files are named."""
    edit(
        val,
        lambda content: content.update(
            annotations=[], categories=[{"id": i, "name": name} for i, name in categories]
        ),
    )
    whole = rf"val\.json: {message} .*small\.pt; both files need the same categories"
    with pytest.raises(UserError, match=whole):
        run(small_checkpoint, val)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def enlarge(path: Path) -> None:
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (50, 40)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"003\.jpg: .*truncated.* \(evaluation does not skip images\)"),
        (enlarge, r"003\.jpg: is 50x40 px, but the annotation file gives 120x90"),
        (lambda path: path.write_text("text"), r"003\.jpg: not an image that can be decoded"),
        (Path.unlink, r"val\.json: 1 of 7 image files is missing in .*'003.jpg' \(image 14\)"),
        (
            lambda path: path.write_text(""),
            r"val\.json: 1 of 7 image files is empty in .*'003.jpg'",
        ),
    ],
)
def test_an_unreadable_image(
    small_checkpoint: Path,
    val: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    message: str,
) -> None:
    """Figures of a part of the set would be other figures, so there are none."""
    damage(val.parent / "val" / "003.jpg")
    with pytest.raises(UserError, match=message):
        run(small_checkpoint, val)
    words = [str(small_checkpoint), "--annotations", str(val), "--images", str(val.parent / "val")]
    assert main(["evaluate", *words]) == 2
    assert re.match(f"error: .*{message}", capsys.readouterr().err)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            Path.unlink,
            r"003\.jpg: cannot be read: .* \(evaluation does not",
        ),
        (cut, r"003\.jpg: .*truncated.* \(evaluation does not skip images\)"),
        (enlarge, r"003\.jpg: is 50x40 px, but the annotation file gives 120x90"),
    ],
)
def test_an_image_that_changes_after_the_check(
    small_checkpoint: Path,
    val: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    message: str,
    workers: int,
) -> None:
    """It stops as well, whoever reads the image, and the loader's processes end."""
    check = checks.check_whole

    def check_and_damage(*arguments: Any) -> None:
        check(*arguments)
        damage(val.parent / "val" / "003.jpg")

    monkeypatch.setattr(checks, "check_whole", check_and_damage)
    with pytest.raises(UserError, match=message):
        run(small_checkpoint, val, f"data.workers={workers}")
    assert multiprocessing.active_children() == []


def test_the_data_of_the_training_machine_need_not_be_there(
    small_checkpoint: Path, val: Path
) -> None:
    """With --annotations and --images, a data.root that is gone does not matter."""
    path = run_folder(small_checkpoint, val)
    gone = "data.root=/data/that/is/gone"
    assert run(path, val, gone).metrics.detections == 700
    with pytest.raises(
        UserError, match=r"data\.root: there is no such folder, or .*: /data/that/is/gone"
    ):
        evaluate_checkpoint(path, annotations=None, images=None, overrides=[gone])


def test_other_annotations_of_the_same_images(small_checkpoint: Path, val: Path) -> None:
    """Without --images, the folder of the checkpoint's own val split."""
    path = run_folder(small_checkpoint, val)
    other = val.parent / "other" / "part.json"
    other.parent.mkdir()
    other.write_text(val.read_text())
    edit(other, lambda content: content.update(images=content["images"][:2], annotations=[]))
    evaluation = evaluate_checkpoint(path, annotations=other, images=None, overrides=[])
    assert evaluation is not None
    assert {r["image_id"] for r in evaluation.results} == {11, 12}


def test_it_computes_with_the_numerics_of_training(
    small_checkpoint: Path, val: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the metrics are then those of the training; without bf16 a note says so."""
    checkpoint = load_checkpoint(run_folder(small_checkpoint, val))
    config = override_config(checkpoint.config, ["train.precision=bf16", "train.tf32=false"])
    save_checkpoint(replace(checkpoint, config=config), val.parent / "bf16.pt")
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: False, raising=False)
    switches: list[bool] = []
    evaluated: list[Any] = []

    @contextmanager
    def numerics(config: TrainConfig, device: torch.device) -> Iterator[None]:
        switches.append(config.tf32)
        yield
        switches.clear()

    def evaluate(*arguments: Any, precision: str, **options: Any) -> None:
        evaluated.append((precision, *switches))

    monkeypatch.setattr("retinanet.reports.evaluate_checkpoint.numerics", numerics)
    monkeypatch.setattr("retinanet.reports.evaluate_checkpoint.evaluate", evaluate)
    said: list[str] = []
    evaluate_checkpoint(
        val.parent / "bf16.pt", annotations=None, images=None, overrides=[], say=said.append
    )
    assert evaluated == [("fp32", False)] and switches == []
    assert said == [
        "the precision of training, bf16, is not supported by this device; computing in fp32"
    ]


def test_no_annotations_anywhere(small_checkpoint: Path, small_config: Config) -> None:
    with pytest.raises(UserError, match=r"data\.val\.annotations is not set; it is relative to"):
        evaluate_checkpoint(small_checkpoint, annotations=None, images=None, overrides=[])
    with pytest.raises(UserError, match=r"data\.val\.images is not set; it is relative to"):
        open_split(override_config(small_config, ["data.val.annotations=val.json"]), "val")


def test_val_of_another_machine_is_not_here(small_checkpoint: Path, val: Path) -> None:
    """A converted checkpoint, and one from elsewhere: what to say in place of its own paths."""
    path = run_folder(small_checkpoint, val)
    remedy = r"; or evaluate on other data: --annotations FILE --images FOLDER$"
    for lost, message in (
        (["data.root=/data/that/is/gone"], "data.root: there is no such folder"),
        (["data.val.annotations=no.json"], "no.json: there is no such annotation file"),
    ):
        with pytest.raises(UserError, match=message + ".*" + remedy):
            evaluate_checkpoint(path, annotations=None, images=None, overrides=lost)


def test_results_of_another_set(
    val: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 with file and record."""
    path = tmp_path / "results.json"
    path.write_text(
        json.dumps([{"image_id": 99, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}])
    )
    assert main(["evaluate", str(path), "--annotations", str(val)]) == 2
    message = f"error: {path}: detection 0 has image_id 99, which is not in the annotation file"
    assert capsys.readouterr().err.startswith(message)


def right_results(val: Path) -> list[dict[str, Any]]:
    """A right detection of each box that has an area, with different scores."""
    boxes = [b for b in json.loads(val.read_text())["annotations"] if min(b["bbox"][2:]) > 1]
    keys = ("image_id", "category_id", "bbox")
    return [
        {key: box[key] for key in keys} | {"score": 1 - i / 1000} for i, box in enumerate(boxes)
    ]


def test_what_a_results_file_as_a_whole_shows(val: Path, tmp_path: Path) -> None:
    """Refused: corners, shares of the image. Said: percent, other classes, part of the set."""
    results, path = right_results(val), tmp_path / "results.json.gz"
    assert len(results) > 20

    def remarks(changed: list[dict[str, Any]]) -> list[str]:
        path.write_bytes(gzip.compress(json.dumps({"predictions": changed}).encode()))
        return evaluate_results_file(path, val, []).metrics.remarks

    def with_box(change: Callable[[list[float]], list[float]]) -> list[dict[str, Any]]:
        return [{**result, "bbox": change(result["bbox"])} for result in results]

    assert remarks(results) == []
    with pytest.raises(
        UserError, match=r"boxes extend beyond their image, but all would fit as corners"
    ):
        remarks(with_box(lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]]))
    with pytest.raises(UserError, match=r"at most 1\.5, so they look like fractions of the i"):
        remarks(with_box(lambda box: [value / 1000 for value in box]))
    percent = remarks([{**result, "score": 100 * result["score"]} for result in results])
    assert percent[0].endswith(
        "to 100, not from 0 to 1 (in percent?). AP depends only on their order, but thresholds are "
        "in the same unit."
    )
    first = [result for result in results if result["image_id"] == results[0]["image_id"]]
    assert re.match(r"\d+ of \d+ images with boxes have no detection", remarks(first)[0])


def test_results_of_right_boxes_and_wrong_classes(val: Path, tmp_path: Path) -> None:
    """Ids from 0 where the file's are from 1, and the first class is nowhere."""
    boxes = [
        {"id": i, "image_id": 11, "category_id": i % 2 + 1, "bbox": [25 * i, 10, 20, 20]}
        for i in range(4)
    ]
    edit(val, lambda content: content.update(annotations=boxes))
    path = tmp_path / "results.json"
    results = [{**box, "category_id": box["category_id"] + 1, "score": 0.5} for box in boxes]
    path.write_text(json.dumps(results))
    assert evaluate_results_file(path, val, []).metrics.remarks[0] == (
        "AP50 is 0.000, but 1.000 if the class is ignored: the boxes are right, but their "
        "category_id is wrong (ids from 0 instead of 1, or from another list of classes?). The "
        "annotation file has 1 class 1, 2 class 2, 3 class 3."
    )


def test_options_without_effect_on_a_results_file(
    val: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    path.write_text("[]")
    words = ["evaluate", str(path), "--annotations", str(val)]
    words += ["--output", str(tmp_path / "out"), "data.classes=[cat]", "--images", "x"]
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "data.classes=[cat]: has no effect on a results file; " in said
    assert "note: --images has no effect on a results file: no image is read" in said


def test_max_detections_of_a_results_file(val: Path, tmp_path: Path) -> None:
    """Overrides act on results, too. Two right boxes, of which one may count."""
    edit(
        val,
        lambda content: content.update(
            annotations=[
                {"id": i, "image_id": 11, "category_id": 1, "bbox": [50 * i, 0, 40, 40]}
                for i in range(2)
            ]
        ),
    )
    path = tmp_path / "results.json"
    path.write_text(
        json.dumps(
            [
                {
                    "image_id": 11,
                    "category_id": 1,
                    "bbox": [50 * i, 0, 40, 40],
                    "score": 0.5 + i / 4,
                }
                for i in range(2)
            ]
        )
    )
    figures = evaluate_results_file(path, val, []).metrics.figures
    assert (figures["AP"], figures["AR_100"]) == pytest.approx((1, 1), abs=1e-12)
    one = evaluate_results_file(path, val, ["postprocess.max_detections=1"]).metrics.figures
    assert (one["AP"], one["AR_1"]) == pytest.approx((51 / 101, 0.5), abs=1e-12)


def test_what_was_trained_is_not_overridden(small_checkpoint: Path, val: Path) -> None:
    """An option without effect is refused."""
    for word in ("model.backbone=resnet50", "anchors.ratios=[1.0]", "train.lr=3", "loss.gamma=0"):
        with pytest.raises(UserError, match=r"is an option of training; it has no effect here"):
            run(small_checkpoint, val, word)


def test_a_checkpoint_of_a_gpu_is_evaluated_anywhere(
    small_checkpoint: Path, val: Path, tmp_path: Path
) -> None:
    """One path, whatever the machine."""
    checkpoint = load_checkpoint(small_checkpoint)
    config = override_config(checkpoint.config, ["train.device=cuda"])
    save_checkpoint(replace(checkpoint, config=config), tmp_path / "gpu.pt")
    assert run(tmp_path / "gpu.pt", val).metrics == run(small_checkpoint, val).metrics
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="cuda is not on this machine; available: cpu"):
            run(tmp_path / "gpu.pt", val, "train.device=cuda")


def test_a_results_file_needs_annotations(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "results.json"]) == 2
    assert "results.json: a results file needs --annotations" in capsys.readouterr().err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "--help"])
    assert stopped.value.code == 0
    assert (
        "example:\n  retinanet evaluate runs/first/checkpoints/best.pt" in capsys.readouterr().out
    )
