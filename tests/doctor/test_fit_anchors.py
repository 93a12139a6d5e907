"""`--fit-anchors`: what it prints loads, and covers what it says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinanet.cli import main
from retinanet.config import load_config, override_config
from retinanet.data.coco.index import read_annotations
from retinanet.doctor import fit_anchors as module
from retinanet.doctor.fit_anchors import describe_fit, search_anchors, yaml_lines
from retinanet.engine.preflight.anchor_coverage import best_iou, describe_briefly, measure_coverage
from retinanet.engine.preflight.training_boxes import (
    TrainingBoxes,
    find_training_boxes,
    place_boxes,
)
from retinanet.engine.splits import Split, check_split
from retinanet.errors import UserError
from retinanet.model.anchors import build_anchors
from retinanet.schema import AnchorConfig, Config

SMALL = Config(
    **{"data": {"short_side": [96], "long_side": 160}}  # type: ignore[arg-type]
)


def corpus(tiny_coco: Any, *, width: tuple[float, float], height: tuple[float, float]) -> Path:
    """40 images of 96 x 128 px with 10 boxes each, of uniform widths and heights."""
    random = np.random.default_rng(0)
    boxes = []
    for _ in range(40):
        sizes = np.stack([random.uniform(*width, 10), random.uniform(*height, 10)], axis=1)
        corners = random.uniform(0, 1, (10, 2)) * ([128, 96] - sizes)
        boxes.append(np.concatenate([corners, sizes], axis=1).round(2).tolist())
    path: Path = tiny_coco([(96, 128)] * 40, boxes)
    return path


def opened(path: Path, config: Config) -> tuple[Split, TrainingBoxes]:
    split = check_split(read_annotations(path), path.with_suffix(""), config.data, name="train")
    return split, find_training_boxes(split, limit=10**6)


def test_small_wide_boxes(tiny_coco: Any, tmp_path: Path) -> None:
    """24-36 x 10-14 px under anchors of 32 px: none before, most after."""
    split, boxes = opened(corpus(tiny_coco, width=(24, 36), height=(10, 14)), SMALL)
    fit = search_anchors(SMALL, split, boxes)
    assert (fit.held_out, fit.searched, fit.before.total.boxes) == (True, 200, 200)
    assert fit.before.total.positive == 0
    assert fit.after.total.covered > 0.9
    assert fit.better
    assert max(fit.anchors.ratios) < 1  # wide, all of them

    lines = describe_fit(fit)
    paste = yaml_lines(fit.anchors)
    file = tmp_path / "fitted.yaml"
    file.write_text("\n".join(["data:", "  short_side: [96]", "  long_side: 160", *paste]))
    loaded = load_config(file)
    assert loaded.anchors == fit.anchors
    assert len(loaded.anchors.sizes[0]) * len(loaded.anchors.ratios) == 9

    # The claim once more, from the loaded file and the boxes of the held-out images.
    again = search_anchors(loaded, split, boxes)
    assert again.before == fit.after
    row = next(line for line in lines if line.startswith("  fitted anchors "))
    assert row.split()[2:4] == [f"{100 * fit.after.total.covered:.1f}", "%"]


def test_halves_come_from_different_images(tiny_coco: Any) -> None:
    _, boxes = opened(corpus(tiny_coco, width=(20, 40), height=(20, 40)), SMALL)
    seen, unseen = module._halves(boxes, seed=0)
    assert len(seen) == len(unseen) == 200
    assert not set(seen.rows.tolist()) & set(unseen.rows.tolist())
    few = boxes.take(np.arange(400) < 199)
    assert module._halves(few, seed=0) == (few, few)


def test_the_same_arguments_give_the_same_result(tiny_coco: Any) -> None:
    split, boxes = opened(corpus(tiny_coco, width=(6, 30), height=(6, 30)), SMALL)
    first, again = (search_anchors(SMALL, split, boxes, seed=3) for _ in range(2))
    assert first.as_dict() == again.as_dict()


def test_anchors_that_cover_nothing_are_not_recommended(tiny_coco: Any) -> None:
    """Boxes of 2 px are smaller than any anchor of the search."""
    split, boxes = opened(corpus(tiny_coco, width=(2, 2.2), height=(2, 2.2)), SMALL)
    fit = search_anchors(SMALL, split, boxes)
    assert fit.before.total.covered == 0.0 and not fit.better
    assert describe_fit(fit)[-1].startswith("no anchors cover more than 0.0%: at this input size")


def test_good_anchors_are_kept(tiny_coco: Any) -> None:
    """Boxes around 40 px suit the defaults: nothing is printed to paste."""
    split, boxes = opened(corpus(tiny_coco, width=(36, 46), height=(36, 46)), SMALL)
    fit = search_anchors(SMALL, split, boxes)
    assert fit.before.total.covered == 1.0 and not fit.better
    lines = describe_fit(fit)
    assert lines[-1] == (
        f"the current anchors are as good as any that were found ({fit.after.total.covered:.1%}): "
        "keep them"
    )
    assert not any("anchors:" in line or "sizes" in line for line in lines)


def test_atss_has_no_threshold_to_fit_for(tiny_coco: Any) -> None:
    """The shares are the same, and a note explains what they show."""
    split, boxes = opened(corpus(tiny_coco, width=(36, 46), height=(36, 46)), SMALL)
    said = "  (assign.kind=atss needs no such IoU; the shares only show how well anchors fit)"
    by_iou = describe_fit(search_anchors(SMALL, split, boxes))
    config = override_config(SMALL, ["assign.kind=atss"])
    by_atss = describe_fit(search_anchors(config, split, boxes))
    assert said not in by_iou
    assert by_atss[-2] == said
    assert [line for line in by_atss if line != said] == by_iou


@pytest.mark.parametrize("per_cell", [1, 2, 4, 6, 7, 12])
def test_the_number_of_anchors_is_kept_or_given(tiny_coco: Any, per_cell: int) -> None:
    split, boxes = opened(corpus(tiny_coco, width=(6, 30), height=(6, 30)), SMALL)
    found = search_anchors(SMALL, split, boxes, per_cell=per_cell)
    assert len(found.anchors.sizes[0]) * len(found.anchors.ratios) == per_cell == found.per_cell
    ratios = found.anchors.ratios
    assert len(set(ratios)) == len(ratios) and ratios == tuple(sorted(ratios))
    assert all(len(set(level)) == len(level) for level in found.anchors.sizes)


@pytest.mark.parametrize(
    "options",
    [{}, {"offset": 0.5}, {"rounding": "corners", "stride_from": "canvas"}],
)
def test_the_search_sees_what_training_sees(tiny_coco: Any, options: dict[str, Any]) -> None:
    """The table's rows are the best IoUs of anchors with those scales and ratios."""
    anchors = AnchorConfig(**options)
    config = SMALL.model_copy(update={"anchors": anchors})
    _, boxes = opened(corpus(tiny_coco, width=(6, 60), height=(6, 60)), config)
    placed = place_boxes(boxes, config.data, 96)
    table = module._iou_table(config, placed)
    for i, j in ((0, 3), (18, 12), (24, 20)):
        sizes = tuple((module._SCALES[i] * stride,) for stride in (8, 16, 32, 64, 128))
        one = {**anchors.model_dump(), "sizes": sizes, "ratios": (module._RATIOS[j],)}
        wanted = best_iou(build_anchors(AnchorConfig.model_validate(one)), placed)
        assert table[i, j] == pytest.approx(wanted, abs=1e-6)


def test_the_search_finds_the_best_of_its_grid() -> None:
    """Three boxes, three shapes that fit one each: the pair of scales that covers two wins."""
    table = np.zeros((len(module._SCALES), len(module._RATIOS), 3), np.float32)
    table[5, 12] = [0.9, 0.0, 0.4]
    table[20, 12] = [0.0, 0.8, 0.4]
    table[11, 12] = [0.45, 0.45, 0.49]
    scales, ratios = module._search(table, 2, 0.5)
    assert (scales, ratios) == ([module._SCALES[5], module._SCALES[20]], [1.0])


def test_a_larger_input_instead(tiny_coco: Any) -> None:
    """16 px boxes: a quarter of the default's smallest anchor, most of it at twice the size."""
    split, boxes = opened(corpus(tiny_coco, width=(15, 17), height=(15, 17)), SMALL)
    fit = search_anchors(SMALL, split, boxes)
    names = [
        "data.short_side=[120] data.long_side=200",
        "data.short_side=[144] data.long_side=240",
        "data.short_side=[192] data.long_side=320",
    ]
    assert list(fit.larger) == names
    shares = [fit.larger[name].total.covered for name in names]
    assert shares[0] == 0 and shares[2] > 0.95
    # The printed overrides give the printed share.
    larger = override_config(SMALL, names[2].split())
    unseen = module._halves(boxes, seed=0)[1]
    assert measure_coverage(larger, split, unseen) == fit.larger[names[2]]
    row = next(line for line in describe_fit(fit) if names[2] in line)
    assert row.split()[-4:-2] == [f"{100 * shares[2]:.1f}", "%"]

    assert json.loads(json.dumps(fit.as_dict()))["larger"][names[0]]["short_side"] == 120


def test_few_boxes(tiny_coco: Any) -> None:
    """No half is held out, and the report says so. A gain by chance does not count."""
    path = tiny_coco([(96, 128)] * 2, [[[40, 40, 16, 8]] * 2, [[10, 40, 14, 7]]])
    split, boxes = opened(path, SMALL)
    fit = search_anchors(SMALL, split, boxes)
    assert (fit.held_out, fit.searched) == (False, 3)
    assert (
        "on 3 boxes (too few to hold some out of the search, so the results are optimistic):"
        in (describe_fit(fit)[0])
    )


def test_no_boxes(tiny_coco: Any) -> None:
    split, boxes = opened(tiny_coco([(96, 128)], [[[40, 40, 16, 8]]]), SMALL)
    with pytest.raises(UserError, match=r"train\.json: there are no boxes to fit anchors to"):
        search_anchors(SMALL, split, boxes.take(np.array([False])))
    assert describe_briefly(measure_coverage(SMALL, split, boxes.take(np.array([False])))) == []


def test_what_is_printed_can_be_pasted(
    tiny_coco: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the terminal to the end of a config: no indent, no wrapped line."""
    path = corpus(tiny_coco, width=(24, 36), height=(10, 14))
    images, file = path.with_suffix(""), tmp_path / "my.yaml"
    own = ["data:", "  short_side: [96]", "  long_side: 160"]
    for split in ("train", "val"):
        own += [f"  {split}:", f"    annotations: {path}", f"    images: {images}"]
    file.write_text("\n".join(own) + "\n")
    main(["check", str(file), "--fit-anchors"])
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("anchors:")
    paste = lines[start : lines.index("", start)]
    assert len(paste) == 3
    file.write_text("\n".join([*own, *paste]) + "\n")
    split, boxes = opened(path, SMALL)
    assert load_config(file).anchors == search_anchors(SMALL, split, boxes).anchors
