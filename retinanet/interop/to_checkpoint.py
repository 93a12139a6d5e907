"""Detectors of torchvision, detectron2 and mmdetection -> checkpoints of ours."""

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
from retinanet.errors import UserError
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
"""Largest difference between coordinates of anchors that are the same."""
_FIRST_ANCHORS = "anchor_generator.cell_anchors.0"
"""Name of the anchors of P3 in older files of detectron2."""
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
    """Read a foreign detector; return it as a checkpoint of ours, and lines that say what it is.

    Args:
        path: Path of its file; nothing in it is executed.
        peer: `torchvision`, `detectron2` or `mmdetection`; None: told by its names.
        style: Style of its backbone, `caffe` or `pytorch`; None: told by the file, or the peer's
            usual one.
        categories: Its classes; None: told by the file, or COCO's.
        box_weights: Factors by which its dx, dy, dw, dh are larger than ours (detectron2's
            BBOX_REG_WEIGHTS); None: told by the file, or 1.
        overrides: Options `section.key=value` on top of what was recognised.

    Raises:
        UserError: not such a file, or one with weights that are missing, left over or misshapen.
    """
    if box_weights is not None and min(box_weights) <= 0:
        raise UserError(f"--box-weights: {min(box_weights):g} is not above 0")
    content = read_foreign(path)
    if is_ours(content):
        raise UserError(f"{path}: is a checkpoint of this project already")
    given = state_dict_of(content, path)
    kind = name_network(given)
    if kind is not None and not kind.converts:
        raise UserError(f"{path}: {describe(kind, path)}")
    if is_backbone(given):
        detectors_own = {"--from": peer, "--categories": categories, "--box-weights": box_weights}
        _refuse(detectors_own, f"{path} is an ImageNet network, which has none")
        return convert_backbone(given, path, style=style, overrides=overrides)
    state = {torchvision_today(name): value for name, value in given.items()}
    source = _recognise_source(state, peer, path)
    network = describe_detector(state, source, path)
    mm_config = MmConfig(content, path)
    if source.name == "torchvision":
        _refuse({"--style": style, "--box-weights": box_weights}, "torchvision has one kind alone")
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
    what = f"{source.name}: {network.backbone}, {len(classes)} classes"
    left = f", the others of {rows} logits an anchor left out" if rows > len(used) else ""
    if source.name != "torchvision" and not anchors and _FIRST_ANCHORS not in state:
        lines += _describe_assumptions(source, box_weights, overrides)
    if isinstance(content, Mapping) and "model_ema" in content:
        lines.append("  averaged weights are there, too (model_ema): they are left out")
    return checkpoint, [what + left, *lines]


def _refuse(options: Mapping[str, object], reason: str) -> None:
    """Refuse options that mean nothing for a file, if they were given.

    Raises:
        UserError: the first of them, and why.
    """
    for option, value in options.items():
        if value is not None:
            raise UserError(f"{option}: {reason}")


def _build_config(source: Project, network: Network, options: Sequence[str]) -> Config:
    """Return the experiment of a detector: the recipe of its project, and what is known of it."""
    recipe = source.recipe
    if source.name == "torchvision" and network.normed:
        recipe = "torchvision_v2_coco"
    recipe_config = load_config(shipped_configs() / f"{recipe}.yaml")
    return override_config(recipe_config, [*network.options, "model.norm=frozen_bn", *options])


def _describe_assumptions(
    source: Project, box_weights: Sequence[float] | None, overrides: Sequence[str]
) -> list[str]:
    """Say in one line, or none, what neither the file nor the user has told."""
    given = {
        "anchors": any(text.startswith("anchors.") for text in overrides),
        "weights of deltas": box_weights is not None,
    }
    assumed = " and ".join(name for name in given if not given[name])
    if not assumed:
        return []
    return [
        f"  {assumed} taken for granted, as usual in {source.name}; if they are not: "
        "anchors.sizes=.., --box-weights"
    ]


def _recognise_source(state: State, wanted: str | None, path: Path) -> Project:
    """Return whose detector it is, by names that no other project's has."""
    found = [
        peer for peer in PROJECTS.values() if any(name.startswith(peer.mark) for name in state)
    ]
    if not found:
        raise UserError(
            f"{path}: is no RetinaNet of {', '.join(PROJECTS)}: its names begin with "
            f"{next(iter(state))}"
        )
    if wanted not in (None, found[0].name):
        raise UserError(f"--from {wanted}: {path} has the names of {found[0].name}")
    return found[0]


def _logits_per_anchor(network: Network, config: Config, path: Path) -> int:
    cells = build_anchors(config.anchors).per_cell
    if network.deltas_per_cell != 4 * cells or network.logits_per_cell % cells:
        raise UserError(
            f"{path}: has {network.deltas_per_cell // 4} anchors a cell, but {cells} are usual: "
            "give them as they were: anchors.sizes=.. anchors.ratios=.."
        )
    return network.logits_per_cell // cells


def _check_anchors(state: State, config: Config, path: Path) -> None:
    """Compare the anchors that older files of detectron2 hold with those of the config.

    Raises:
        UserError: they are others; options say which.
    """
    for level, cell in enumerate(build_anchors(config.anchors).cells):
        stored = state.get(f"anchor_generator.cell_anchors.{level}")
        same = stored is None or (
            stored.shape == cell.shape and float((stored - cell).abs().max()) < _SAME_PX
        )
        if stored is not None and not same:
            raise UserError(
                f"{path}: its anchors of P{level + 3} are others than usual, the first "
                f"{stored.flatten()[:4].tolist()}: give them as they were: anchors.sizes=.. "
                "anchors.ratios=.."
            )


def _keep_class_rows(state: State, network: Network, rows: int, used: list[int]) -> State:
    """Return the weights with the logits of classes alone, of `rows` for each anchor of a cell."""
    chosen = {}
    for part in ("weight", "bias"):
        name = network.key(f"class_subnet.output.{part}")
        if name in state and len(state[name]) == network.logits_per_cell:
            cells = state[name].view(-1, rows, *state[name].shape[1:])
            chosen[name] = cells[:, used].flatten(0, 1)
    return {**state, **chosen}


def _without_box_weights(state: State, network: Network, weights: Sequence[float]) -> State:
    """Return the weights with deltas of the size of ours: dx, dy, dw and dh of each anchor."""
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
        # A bias of 0 does nothing: detectron2 has them before norms, too.
        return "_subnet." in name and name.endswith(".bias") and not state[name].any()

    return match_weights(
        state,
        {name: value for name, value in wanted.items() if not name.endswith("batches_tracked")},
        network.key,
        path,
        is_needless=is_needless,
    )


def follow_weights(config: Config) -> Config:
    """Return an experiment as its training will be: what it does not say comes from its weights.

    Raises:
        UserError: see `read_detector`.
    """
    if config.model.init_from is None:
        return config
    start, _ = read_detector(Path(config.model.init_from).expanduser())
    return follow_config(config, start.config, source="--init-from")[0]


def read_detector(path: Path) -> tuple[Checkpoint, list[str]]:
    """Read a checkpoint of ours, or convert a foreign one; return it and what to say of it.

    Raises:
        UserError: it is neither, or does not convert without being told more.
    """
    if is_foreign(path):
        return convert_checkpoint(path)
    return load_checkpoint(path), []
