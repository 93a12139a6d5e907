"""Detectors from torchvision, detectron2 and mmdetection -> our checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from retinanet.categories import Categories
from retinanet.checkpoints.format import (
    Checkpoint,
    Progress,
    is_foreign,
    is_ours,
    load_checkpoint,
)
from retinanet.checkpoints.other_files import describe, name_network
from retinanet.config import follow_config, load_config, override_config, shipped_configs
from retinanet.errors import UserError, plural
from retinanet.interop.backbones import convert_backbone, is_backbone
from retinanet.interop.classes import classes_by_id, classes_in_order, names_in
from retinanet.interop.foreign_file import read_foreign, state_dict_of
from retinanet.interop.inputs import describe_inputs, torchvision_eps
from retinanet.interop.matching import match_weights
from retinanet.interop.mm_config import MmConfig
from retinanet.interop.networks import Network, State, describe_detector
from retinanet.interop.projects import PROJECTS, Project, torchvision_today
from retinanet.model.anchors import build_anchors
from retinanet.model.detector import build_detector
from retinanet.schema import Config

_SAME_PX = 0.01
"""Largest difference between the coordinates of anchors that count as equal."""
_FIRST_ANCHORS = "anchor_generator.cell_anchors.0"
"""Name of the anchors of P3 in older files from detectron2."""
_NOT_WEIGHTS = re.compile(r"num_batches_tracked$|^pixel_(mean|std)$|^anchor_generator\.")


def convert_checkpoint(
    path: Path,
    *,
    peer: str | None = None,
    style: str | None = None,
    categories: Categories | None = None,
    box_weights: Sequence[float] | None = None,
    overrides: Sequence[str] = (),
) -> tuple[Checkpoint, list[str]]:
    """Read a foreign detector; return it as our checkpoint, and lines that describe it.

    Args:
        path: Path of its file; nothing in it is executed.
        peer: `torchvision`, `detectron2` or `mmdetection`; None: detected from its names.
        style: Style of its backbone, `caffe` or `pytorch`; None: as in the file, else the peer's
            usual one.
        categories: Classes; None: as in the file, else COCO's.
        box_weights: Factors by which its dx, dy, dw, dh are larger than ours (detectron2's
            BBOX_REG_WEIGHTS); None: as in the file, else 1.
        overrides: Options `section.key=value`, applied on top of those that were recognised.

    Raises:
        UserError: It is not such a file, or weights are missing, unexpected or of another shape.
    """
    if box_weights is not None and min(box_weights) <= 0:
        raise UserError(f"--box-weights: {min(box_weights):g} is not above 0")
    content = read_foreign(path)
    if is_ours(content):
        raise UserError(f"{path}: is already a checkpoint of this project")
    given = state_dict_of(content, path)
    kind = name_network(given)
    if kind is not None and not kind.converts:
        raise UserError(f"{path}: {describe(kind, path)}")
    if is_backbone(given):
        detectors_own = {"--from": peer, "--categories": categories, "--box-weights": box_weights}
        _refuse(detectors_own, f"{path} is an ImageNet network without a detector; leave it out")
        return convert_backbone(given, path, style=style, overrides=overrides)
    state = {torchvision_today(name): value for name, value in given.items()}
    source = _recognise_source(state, peer, path)
    network = describe_detector(state, source, path)
    mm_config = MmConfig(content, path)
    if source.name == "torchvision":
        reason = "torchvision has only one kind; leave it out"
        _refuse({"--style": style, "--box-weights": box_weights}, reason)
        options, lines = torchvision_eps(network, state, content)
    else:
        options, lines = describe_inputs(source, network, state, mm_config, path, style)
    anchors = mm_config.anchors()
    config = _build_config(source, network, [*options, *anchors, *overrides])
    rows = _logits_per_anchor(network, config, path)
    _check_anchors(state, config, path)
    if source.name == "torchvision":
        classes, used = classes_by_id(rows, categories, path)
    else:
        classes, used = classes_in_order(rows, categories, names_in(content), path)
    chosen = _keep_class_rows(state, network, rows, used)
    chosen = _without_box_weights(chosen, network, box_weights or mm_config.box_weights())
    checkpoint = Checkpoint(
        config=config,
        categories=classes,
        model=_match_detector(chosen, network, config, len(classes), path),
        progress=Progress(),
        environment={"converted_from": source.name},
    )
    what = f"{source.name}: {network.backbone}, {plural(len(classes), 'class')}"
    unused = rows - len(used)
    left = f" ({unused} of {rows} logits per anchor are unused and left out)" if unused else ""
    if source.name != "torchvision" and not anchors and _FIRST_ANCHORS not in state:
        lines += _describe_assumptions(source, box_weights, overrides)
    if isinstance(content, Mapping) and "model_ema" in content:
        lines.append("  the averaged weights in the file (model_ema) are left out")
    return checkpoint, [what + left, *lines]


def _refuse(options: Mapping[str, object], reason: str) -> None:
    """Refuse options that do not apply to a file, if they were given.

    Raises:
        UserError: One was given; the message gives the reason.
    """
    for option, value in options.items():
        if value is not None:
            raise UserError(f"{option}: {reason}")


def _build_config(source: Project, network: Network, options: Sequence[str]) -> Config:
    """Return the experiment of a detector: its project's recipe with the recognised options."""
    recipe = source.recipe
    if source.name == "torchvision" and network.normed:
        recipe = "torchvision_v2_coco"
    recipe_config = load_config(shipped_configs() / f"{recipe}.yaml")
    return override_config(recipe_config, [*network.options, "model.norm=frozen_bn", *options])


def _describe_assumptions(
    source: Project, box_weights: Sequence[float] | None, overrides: Sequence[str]
) -> list[str]:
    """Return a line on the assumptions that neither file nor user has settled, if any."""
    given = {
        "anchors": any(text.startswith("anchors.") for text in overrides),
        "weights of deltas": box_weights is not None,
    }
    assumed = " and ".join(name for name in given if not given[name])
    if not assumed:
        return []
    return [
        f"  {assumed} assumed, as usual in {source.name}; if that is wrong: "
        "anchors.sizes=..., --box-weights"
    ]


def _recognise_source(state: State, wanted: str | None, path: Path) -> Project:
    """Return the project of a detector, recognised by names that no other project has."""
    found = [
        peer for peer in PROJECTS.values() if any(name.startswith(peer.mark) for name in state)
    ]
    if not found:
        raise UserError(
            f"{path}: is not a RetinaNet from {', '.join(PROJECTS)}: the name of its first weight "
            f"is {next(iter(state))}"
        )
    if wanted not in (None, found[0].name):
        raise UserError(
            f"--from {wanted}: the names in {path} are those of {found[0].name}; use --from "
            f"{found[0].name} or leave it out"
        )
    return found[0]


def _logits_per_anchor(network: Network, config: Config, path: Path) -> int:
    cells = build_anchors(config.anchors).per_cell
    if network.deltas_per_cell != 4 * cells or network.logits_per_cell % cells:
        raise UserError(
            f"{path}: has {network.deltas_per_cell // 4} anchors per cell, but {cells} are usual; "
            "give the ones it was trained with: anchors.sizes=... anchors.ratios=..."
        )
    return network.logits_per_cell // cells


def _check_anchors(state: State, config: Config, path: Path) -> None:
    """Compare the anchors in older files from detectron2 with those of the config.

    Raises:
        UserError: They differ; the message names the options to set.
    """
    for level, cell in enumerate(build_anchors(config.anchors).cells):
        stored = state.get(f"anchor_generator.cell_anchors.{level}")
        same = stored is None or (
            stored.shape == cell.shape and float((stored - cell).abs().max()) < _SAME_PX
        )
        if stored is not None and not same:
            raise UserError(
                f"{path}: its anchors of P{level + 3} are not the usual ones (the first is "
                f"{stored.flatten()[:4].tolist()}); give the ones it was trained with: "
                "anchors.sizes=... anchors.ratios=..."
            )


def _keep_class_rows(state: State, network: Network, rows: int, used: list[int]) -> State:
    """Return the weights with only the logits of classes, out of `rows` for each anchor."""
    chosen = {}
    for part in ("weight", "bias"):
        name = network.key(f"class_subnet.output.{part}")
        if name in state and len(state[name]) == network.logits_per_cell:
            cells = state[name].view(-1, rows, *state[name].shape[1:])
            chosen[name] = cells[:, used].flatten(0, 1)
    return {**state, **chosen}


def _without_box_weights(state: State, network: Network, weights: Sequence[float]) -> State:
    """Return the weights with dx, dy, dw and dh of each anchor scaled to ours."""
    if set(weights) == {1.0}:
        return state
    changed = {}
    for part in ("weight", "bias"):
        name = network.key(f"box_subnet.output.{part}")
        if name in state and len(state[name]) == network.deltas_per_cell:
            scale = torch.tensor(weights).repeat(network.deltas_per_cell // 4)
            changed[name] = state[name] / scale.view(-1, *(1,) * (state[name].dim() - 1))
    return {**state, **changed}


def _match_detector(
    state: State, network: Network, config: Config, classes: int, path: Path
) -> dict[str, Tensor]:
    wanted = build_detector(config, classes=classes, pretrained=False).state_dict()

    def is_needless(name: str) -> bool:
        if _NOT_WEIGHTS.search(name):
            return True
        # A bias of 0 does nothing; detectron2 also has biases before norms.
        return "_subnet." in name and name.endswith(".bias") and not state[name].any()

    return match_weights(
        state,
        {name: value for name, value in wanted.items() if not name.endswith("batches_tracked")},
        network.key,
        path,
        is_needless=is_needless,
    )


def follow_weights(config: Config) -> Config:
    """Return an experiment as it will train: options it does not set come from its weights.

    Raises:
        UserError: See `read_detector`.
    """
    if config.model.init_from is None:
        return config
    start, _ = read_detector(Path(config.model.init_from).expanduser())
    return follow_config(config, start.config, source="--init-from")[0]


def read_detector(path: Path) -> tuple[Checkpoint, list[str]]:
    """Read our checkpoint, or convert a foreign one; return it, and lines that describe it.

    Raises:
        UserError: It is neither, or cannot be converted without further options.
    """
    if is_foreign(path):
        return convert_checkpoint(path)
    return load_checkpoint(path), []
