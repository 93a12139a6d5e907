"""How a foreign backbone's images are prepared, and where it strides.

The weights do not show this.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from retinanet.errors import UserError, plural
from retinanet.interop.mm_config import MmConfig
from retinanet.interop.networks import Network, State
from retinanet.interop.projects import Project

STYLES = {
    "caffe": [
        "model.stride_in_1x1=true",
        "model.channel_order=bgr",
        "model.pixel_mean=[103.53, 116.28, 123.675]",
        "model.pixel_std=[1.0, 1.0, 1.0]",
    ],
    "pytorch": [
        "model.stride_in_1x1=false",
        "model.channel_order=rgb",
        "model.pixel_mean=[123.675, 116.28, 103.53]",
        "model.pixel_std=[58.395, 57.12, 57.375]",
    ],
}
"""Options of backbones that started from MSRA's weights (Caffe), or from torchvision's."""


def describe_inputs(
    source: Project,
    network: Network,
    state: State,
    mm_config: MmConfig,
    path: Path,
    style: str | None,
) -> tuple[list[str], list[str]]:
    """Return our options for a detectron2 or mmdetection detector, and lines that explain them.

    Args:
        source: Project that the detector is from.
        network: Network recognised from its weights; MSRA has no ResNet-18 and 34.
        state: Weights, with the other tensors that detectron2 keeps among them.
        mm_config: Config of mmdetection in the file.
        path: Path of the file, for messages.
        style: Style that the user gave; None: as in the file, else the project's usual one.

    Raises:
        UserError: The mean or std in the file is invalid, or the file contradicts the given style.
    """
    pixels = _pixels_of_buffers(state, path) or mm_config.pixels
    style_in_file = mm_config.style
    if style_in_file is None and pixels:
        style_in_file = "caffe" if set(pixels["std"]) == {1.0} else "pytorch"
    if style and style_in_file and style != style_in_file:
        raise UserError(
            f"--style {style}: {path} is in {style_in_file} style; to change single parts of it, "
            "set model.stride_in_1x1, model.channel_order, model.pixel_mean, model.pixel_std"
        )
    msra = source.name == "detectron2" and network.backbone not in ("resnet18", "resnet34")
    chosen = style or style_in_file or ("caffe" if msra else "pytorch")
    if style or style_in_file:
        why = "as given" if style else "from the file"
    else:
        other = "pytorch" if chosen == "caffe" else "caffe"
        why = f"assumed, as usual in {source.name}; if that is wrong: --style {other}"
    options = [*STYLES[chosen], *(f"model.pixel_{key}={value}" for key, value in pixels.items())]
    order = mm_config.order
    if order is None and pixels and pixels["mean"][0] != pixels["mean"][2]:
        order = "bgr" if pixels["mean"][0] < pixels["mean"][2] else "rgb"  # blue is smallest
    if order is not None:
        options.append(f"model.channel_order={order}")
    return options, [f"  backbone in {chosen} style ({why})"]


def torchvision_eps(network: Network, state: State, content: object) -> tuple[list[str], list[str]]:
    """Recognise torchvision's own COCO_V1 file, whose frozen batch norms have an eps of 0.

    It is a bare state dict with frozen batch norms; torchvision's training scripts save more.
    Detectors that were trained from it keep the eps of 0, but no file shows that.

    Returns:
        Options for our config, and lines that explain them.
    """
    if network.normed or any(name.endswith("num_batches_tracked") for name in state):
        return [], []  # v2's, and trainable batch norms
    bare = isinstance(content, dict) and all(isinstance(v, Tensor) for v in content.values())
    if bare and network.logits_per_cell == 9 * 91:
        line = (
            "  frozen batch norm with an eps of 0, as in torchvision's own COCO_V1 file; if it was "
            "trained from an ImageNet backbone: model.norm_eps=1e-5"
        )
        return ["model.norm_eps=0"], [line]
    line = (
        "  frozen batch norm with an eps of 1e-5, as after training from an ImageNet backbone; if "
        "it was trained from torchvision's COCO_V1: model.norm_eps=0"
    )
    return [], [line]


def _pixels_of_buffers(state: State, path: Path) -> dict[str, list[float]]:
    """Return the mean and std that older files from detectron2 keep among the weights."""
    if not {"pixel_mean", "pixel_std"} <= set(state):
        return {}
    numbers = {key: state[f"pixel_{key}"].flatten().tolist() for key in ("mean", "std")}
    for key, values in numbers.items():
        if len(values) != 3:
            raise UserError(f"{path}: pixel_{key} has {plural(len(values), 'number')}, not 3")
    return numbers
