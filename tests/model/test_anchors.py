"""Anchors: literal boxes on a tiny canvas, and the conventions of both peers."""

import math
import pickle

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator as PeerGenerator
from torchvision.models.detection.image_list import ImageList

from retinanet.model.anchors import AnchorGenerator, build_anchors, cell_anchors, grid_shapes
from retinanet.model.detector import build_detector
from retinanet.schema import AnchorConfig, Config

CPU = torch.device("cpu")
TORCHVISION_SIZES = (
    (32, 40, 50),
    (64, 80, 101),
    (128, 161, 203),
    (256, 322, 406),
    (512, 645, 812),
)


def squares(**changes: object) -> AnchorGenerator:
    """One square anchor of 4 strides at each cell."""
    options = {
        "sizes": [[4.0 * stride] for stride in (8, 16, 32, 64, 128)],
        "ratios": [1.0],
        "offset": 0.0,
        "rounding": "none",
        "cell_order": "size_major",
        "stride_from": "nominal",
    }
    return AnchorGenerator(**{**options, **changes})


def test_cell_has_area_of_size_and_ratio_height_by_width() -> None:
    """Size 32, ratio 4: 16 wide, 64 high. Size 32, ratio 1/4: 64 wide, 16 high."""
    cell = cell_anchors([32], [0.25, 1, 4], rounding="none", cell_order="size_major")
    assert cell.tolist() == [
        [-32.0, -8.0, 32.0, 8.0],
        [-16.0, -16.0, 16.0, 16.0],
        [-8.0, -32.0, 8.0, 32.0],
    ]


def test_order_inside_a_cell() -> None:
    size_major = cell_anchors([8, 16], [1, 4], rounding="none", cell_order="size_major")
    ratio_major = cell_anchors([8, 16], [1, 4], rounding="none", cell_order="ratio_major")
    half_widths_and_heights = [[4.0, 4.0], [2.0, 8.0], [8.0, 8.0], [4.0, 16.0]]
    assert size_major[:, 2:].tolist() == half_widths_and_heights
    assert ratio_major[:, 2:].tolist() == [half_widths_and_heights[i] for i in (0, 2, 1, 3)]


def test_rounding_of_corners() -> None:
    """√(1/2) · 32 / 2 = 11.31 rounds to 11, √2 · 32 / 2 = 22.63 to 23."""
    cell = cell_anchors([32], [0.5], rounding="corners", cell_order="size_major")
    assert cell.tolist() == [[-23.0, -11.0, 23.0, 11.0]]


def test_literal_anchors_of_a_tiny_canvas() -> None:
    """A 16x24 canvas: P3 has 2 rows of 3, P4 one of 2, P5..P7 one cell each."""
    anchors = squares()((16, 24), CPU)
    assert anchors.dtype == torch.float32
    assert anchors.tolist() == [
        [-16.0, -16.0, 16.0, 16.0],  # P3, size 32: first row, x = 0, 8, 16
        [-8.0, -16.0, 24.0, 16.0],
        [0.0, -16.0, 32.0, 16.0],
        [-16.0, -8.0, 16.0, 24.0],  # second row, y = 8
        [-8.0, -8.0, 24.0, 24.0],
        [0.0, -8.0, 32.0, 24.0],
        [-32.0, -32.0, 32.0, 32.0],  # P4, size 64: x = 0, 16
        [-16.0, -32.0, 48.0, 32.0],
        [-64.0, -64.0, 64.0, 64.0],  # P5
        [-128.0, -128.0, 128.0, 128.0],  # P6
        [-256.0, -256.0, 256.0, 256.0],  # P7
    ]
    assert squares().per_level((16, 24)) == [6, 2, 1, 1, 1]


def test_offset_moves_centres_by_a_share_of_the_stride() -> None:
    anchors = squares(offset=0.5)((16, 24), CPU)
    assert anchors[1].tolist() == [12.0 - 16, 4.0 - 16, 12.0 + 16, 4.0 + 16]
    assert anchors[-1].tolist() == [64.0 - 256, 64.0 - 256, 64.0 + 256, 64.0 + 256]


def test_stride_from_the_canvas() -> None:
    """224 px are 4 rows of P6: 224 // 4 = 56 px instead of 64; of P7 2: 112 instead of 128."""
    generator = squares(stride_from="canvas")
    anchors = generator((224, 256), CPU).split(generator.per_level((224, 256)))
    centres = [(level[:, :2] + level[:, 2:]) / 2 for level in anchors]
    assert centres[3].tolist() == [[x, y] for y in (0, 56, 112, 168) for x in (0, 64, 128, 192)]
    assert centres[4].tolist() == [[0.0, 0.0], [128.0, 0.0], [0.0, 112.0], [128.0, 112.0]]
    assert torch.equal(anchors[0], squares()((224, 256), CPU).split(28 * 32)[0])


def test_levels_describe_how_the_anchors_repeat() -> None:
    """224 x 72 px, offset 0.5: P6 has 4 rows of 56 px and 2 columns of 36 px."""
    generator = squares(stride_from="canvas", offset=0.5)
    levels = generator.levels((224, 72))
    assert [(level.rows, level.columns) for level in levels] == grid_shapes((224, 72))
    assert [(level.step_y, level.step_x) for level in levels[2:]] == [(32, 24), (56, 36), (112, 72)]
    sixth = generator((224, 72), CPU).split(generator.per_level((224, 72)))[3].reshape(4, 2, 4)
    centre = torch.tensor([18.0, 28.0, 18.0, 28.0])
    for row in range(4):
        for column in range(2):
            moved = torch.tensor([column * 36.0, row * 56.0] * 2)
            assert torch.equal(sixth[row, column], levels[3].cell[0] + centre + moved)


def test_defaults_are_detectron2s_sizes() -> None:
    """4 x stride x 2^(i/3), ratio 0.5 first, size-major, offset 0."""
    anchors = build_anchors(AnchorConfig())((32, 32), CPU)
    assert len(anchors) == 9 * (16 + 4 + 1 + 1 + 1)
    sizes = anchors[:, 2:] - anchors[:, :2]
    areas = (sizes[:, 0] * sizes[:, 1]).sqrt()
    wanted = [32.0] * 3 + [32 * 2 ** (1 / 3)] * 3 + [32 * 2 ** (2 / 3)] * 3
    assert areas[:9].tolist() == pytest.approx(wanted, rel=1e-6)
    assert (sizes[:3, 1] / sizes[:3, 0]).tolist() == pytest.approx([0.5, 1, 2])
    assert areas[-1].item() == pytest.approx(512 * 2 ** (2 / 3))
    # detectron2's first anchor of size 32, ratio 0.5: 45.2548 wide, 22.6274 high
    half = [math.sqrt(512), math.sqrt(128)]
    assert anchors[0].tolist() == pytest.approx([-half[0], -half[1], half[0], half[1]])


@pytest.mark.parametrize("canvas", [(224, 320), (256, 256), (800, 1344), (96, 544)])
def test_equal_to_torchvisions(canvas: tuple[int, int]) -> None:
    config = AnchorConfig(
        sizes=TORCHVISION_SIZES,
        rounding="corners",
        cell_order="ratio_major",
        stride_from="canvas",
    )
    peer = PeerGenerator(TORCHVISION_SIZES, ((0.5, 1.0, 2.0),) * 5)
    images = ImageList(torch.zeros(1, 3, *canvas), [canvas])
    maps = [torch.zeros(1, 1, *shape) for shape in grid_shapes(canvas)]
    assert torch.equal(build_anchors(config)(canvas, CPU), peer(images, maps)[0])


@pytest.mark.parametrize("canvas", [(33, 65), (64, 96), (97, 131), (1, 1), (127, 129)])
def test_grid_shapes_are_the_networks(canvas: tuple[int, int]) -> None:
    shapes = {
        (33, 65): [(5, 9), (3, 5), (2, 3), (1, 2), (1, 1)],
        (64, 96): [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)],
        (97, 131): [(13, 17), (7, 9), (4, 5), (2, 3), (1, 2)],
        (1, 1): [(1, 1)] * 5,
        (127, 129): [(16, 17), (8, 9), (4, 5), (2, 3), (1, 2)],
    }
    assert grid_shapes(canvas) == shapes[canvas]
    config = Config.model_validate(
        {"model": {"backbone": "resnet18", "fpn_channels": 8, "head_channels": 8, "head_convs": 0}}
    )
    model = build_detector(config, classes=1, pretrained=False).eval()
    with torch.no_grad():
        features = model.fpn(model.backbone(torch.zeros(1, 3, *canvas)))
    assert [tuple(feature.shape[-2:]) for feature in features] == shapes[canvas]


def test_a_canvas_is_kept() -> None:
    generator = squares()
    first = generator((64, 64), CPU)
    assert generator((64, 64), CPU) is first
    for side in range(32, 32 * 20, 32):  # more canvases than are kept
        generator((side, 32), CPU)
    again = generator((64, 64), CPU)
    assert again is not first
    assert torch.equal(again, first)


def test_pickling_for_spawned_workers() -> None:
    generator = build_anchors(AnchorConfig())
    wanted = generator((64, 96), CPU)
    copy = pickle.loads(pickle.dumps(generator))
    assert torch.equal(copy((64, 96), CPU), wanted)
    assert copy.per_cell == generator.per_cell == 9
