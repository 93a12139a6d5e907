"""The grids of the levels match the anchors, or there is one error message."""

import pytest
import torch
from torch import Tensor, nn

from retinanet.config import override_config
from retinanet.errors import UserError
from retinanet.model.anchors import grid_shapes
from retinanet.model.detector import Detector, build_detector
from retinanet.model.grids import check_levels
from retinanet.schema import Config


def levels(canvas: tuple[int, int]) -> list[Tensor]:
    return [torch.zeros(1, 4, *grid) for grid in grid_shapes(canvas)]


def small(backbone: str) -> Detector:
    options = [f"model.backbone={backbone}", "model.weights=none", "model.freeze=none"]
    norm = "bn" if backbone.startswith("timm:") else "gn"
    small = ["model.fpn_channels=8", "model.head_channels=8", "model.head_convs=0"]
    config = override_config(Config(), [*options, *small, f"model.norm={norm}"])
    return build_detector(config, classes=1).eval()


def test_the_anchors_own_grids_pass() -> None:
    check_levels(levels((288, 256)), (288, 256), "resnet50")


@pytest.mark.parametrize(
    ("level", "rows", "columns", "named"),
    [
        (0, 36, 33, "33x36 cells in C3 and P3"),
        (2, 10, 8, "8x10 cells in C5 and P5"),
        (4, 3, 3, "3x3 cells in P7"),
    ],
)
def test_another_grid_is_named(level: int, rows: int, columns: int, named: str) -> None:
    features = levels((288, 256))
    own = features[level].shape
    features[level] = torch.zeros(1, 4, rows, columns)
    message = (
        rf"model\.backbone: on a canvas of 256x288 px \(width x height\), timm:x has {named}, "
        rf"but the anchors need {own[3]}x{own[2]}\. Train with another backbone, such "
    )
    with pytest.raises(UserError, match=message):
        check_levels(features, (288, 256), "timm:x")


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnets_round_up(name: str) -> None:
    """So they need no check before a run. The other ResNets use the blocks of these two."""
    with torch.device("meta"), torch.no_grad():
        model = small(name)
        for canvas in ((32, 1344), (800, 96), (224, 1333)):
            features = model.fpn(model.backbone(torch.zeros(1, 3, *canvas)))
            check_levels(features, canvas, name)


def test_a_detector_does_not_score_anchors_of_another_grid() -> None:
    """It would train without an error: losses pair the first anchors with the first logits."""
    model = small("resnet18")
    model.backbone.layer2.append(nn.AvgPool2d(2, stride=1))  # a row and a column less
    with pytest.raises(UserError, match=r"resnet18 has 11x7 cells in C3 and P3, .* need 12x8"):
        model(torch.zeros(1, 3, 64, 96, dtype=torch.uint8), torch.tensor([[64, 96]]))


def test_mobilevit_only_fits_multiples_of_64() -> None:
    """Its C5 consists of patches of two cells, so it fails without an error."""
    pytest.importorskip("timm", reason="timm is not installed (extra timm)")
    with torch.device("meta"), torch.no_grad():
        model = small("timm:mobilevitv2_050")
        check_levels(model.fpn(model.backbone(torch.zeros(1, 3, 128, 64))), (128, 64), "m")
        message = "m has 4x4 cells in C5 and P5, but the anchors need 3x3"
        with pytest.raises(UserError, match=message):
            check_levels(model.fpn(model.backbone(torch.zeros(1, 3, 96, 96))), (96, 96), "m")
