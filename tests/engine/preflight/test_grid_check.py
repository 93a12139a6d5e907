"""Every canvas of a run is tried before step 0, and what is proposed instead works."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.config import override_config
from retinanet.data.sampler import TrainingPlan, evaluation_plans
from retinanet.engine.preflight import grid_check
from retinanet.engine.preflight.grid_check import check_evaluation_grids, check_training_grids
from retinanet.errors import UserError
from retinanet.schema import Config


def split(*sizes: tuple[int, int]) -> Any:
    """Return what the check reads of a split: its images' heights and widths."""
    distinct = np.array(sizes, dtype=np.int64)
    return SimpleNamespace(annotations=SimpleNamespace(distinct_sizes=lambda: distinct))


def experiment(*overrides: str) -> Config:
    backbone = ["model.backbone=timm:mobilevitv2_050", "model.weights=none", "model.norm=bn"]
    small = ["model.freeze=none", "model.fpn_channels=8", "model.head_channels=8"]
    return override_config(Config(), [*backbone, *small, *overrides])


SQUARE = ["data.short_side=[96]", "data.long_side=96"]


@pytest.fixture(autouse=True)
def _needs_timm() -> None:
    pytest.importorskip("timm", reason="timm is not installed (extra timm)")


def test_the_message_names_a_size_that_works() -> None:
    """Square images; the options that the message ends with pass the same check."""
    images = split((100, 100))
    with pytest.raises(UserError) as caught:
        check_training_grids(experiment(*SQUARE), images, images)
    message, _, remedy = str(caught.value).partition("; or resize otherwise: ")
    assert message.startswith(
        "model.backbone: on a canvas of 96x96 px (width x height), "
        "timm:mobilevitv2_050 has 4x4 cells in C5 and P5, but the anchors need 3x3. Train with "
        "another backbone, such as "
    )
    assert remedy == "data.short_side=[128] data.long_side=128"
    check_training_grids(experiment(*remedy.split()), images, images)


def test_no_size_is_named_where_none_works() -> None:
    images = split((100, 100), (100, 141), (157, 100))
    with pytest.raises(UserError, match=r"\(docs/backbones\.md has the list\)$"):
        check_training_grids(experiment(*SQUARE), images, images)


@pytest.mark.parametrize(
    ("overrides", "canvas"),
    [
        (["data.short_side=[96,128]", "data.long_side=128", "data.eval_short_side=128"], "128x96"),
        (["data.short_side=[128]", "data.long_side=128", "data.eval_short_side=96"], "96x96"),
        (
            [
                *("data.short_side=[128]", "data.long_side=128", "data.preset=mosaic"),
                "data.preset_canvas=[128,160]",
            ],
            "160x128",
        ),
    ],
)
def test_no_canvas_is_left_out(overrides: list[str], canvas: str) -> None:
    """One of several scales, that of the evaluation alone, and a preset's own."""
    images = split((100, 100))
    with pytest.raises(UserError, match=rf"on a canvas of {canvas} px"):
        check_training_grids(experiment(*overrides), images, images)


def test_the_images_of_the_evaluation_alone() -> None:
    config = experiment("data.short_side=[128]", "data.long_side=192")
    square, wide = split((100, 100)), split((100, 125))
    check_training_grids(config, square, square)
    check_evaluation_grids(config, square)
    for check in (
        lambda: check_training_grids(config, square, wide),
        lambda: check_training_grids(config, wide, square),
        lambda: check_evaluation_grids(config, wide),
    ):
        with pytest.raises(UserError, match=r"on a canvas of \d+x128 px"):
            check()


def test_resnets_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_check, "build_detector", lambda *_, **__: pytest.fail("built"))
    check_training_grids(Config(), split((100, 100)), split((100, 100)))


SIZES = st.lists(
    st.tuples(st.integers(20, 400), st.integers(20, 400)), min_size=1, max_size=12, unique=True
)


@settings(max_examples=40)
@given(
    sizes=SIZES,
    sides=st.lists(st.integers(32, 256), min_size=1, max_size=3, unique=True),
    canvas=st.sampled_from(["bucket", "batch_max"]),
    canvas_group=st.sampled_from([None, 1, 2]),
    resize=st.sampled_from(["per_batch", "per_image"]),
)
def test_every_side_of_every_batch_is_tried(
    sizes: list[tuple[int, int]],
    sides: list[int],
    canvas: Any,
    canvas_group: int | None,
    resize: Any,
) -> None:
    """Of all batches of an epoch and of the evaluation: their heights and widths."""
    config = experiment(f"data.short_side={sides}", "data.long_side=320", f"data.canvas={canvas}")
    images = split(*sizes)
    tried = grid_check._with_every_side(grid_check._run_canvases(config.data, images, images))
    heights, widths = {height for height, _ in tried}, {width for _, width in tried}
    array = np.array(sizes, dtype=np.int64)
    plan = TrainingPlan(
        array,
        rows=np.arange(len(sizes)),
        factors=None,
        seed=0,
        batch_size=3,
        short_sides=tuple(sides),
        long_side=320,
        resize=resize,
        canvas=canvas,
        canvas_group=canvas_group,
        fixed_canvas=None,
        partners=0,
    )
    evaluated = evaluation_plans(
        array, batch_size=3, short_side=max(sides), long_side=320, canvas=canvas
    )
    drawn = (part for step in range(2 * plan.steps_per_epoch) for part in plan.step(step))
    for one in (*drawn, *evaluated):
        assert one.canvas[0] in heights and one.canvas[1] in widths
