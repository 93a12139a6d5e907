"""Start from the weights of another detector: everything that fits, with classes by name.

K classes; the subnets' outputs have rows (anchor of a cell, class) and (anchor of a cell, delta).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

from retinanet.categories import Categories, shown_names
from retinanet.checkpoints.format import Checkpoint
from retinanet.errors import UserError, plural, some_of
from retinanet.model.anchors import STRIDES, build_anchors
from retinanet.model.detector import Detector
from retinanet.schema import AnchorConfig, Config

_SAME_ANCHOR = 0.75
"""IoU on every level from which an anchor can replace another one."""


def check_same_network(config: Config, checkpoint: Checkpoint) -> None:
    """Refuse weights of another backbone or with other inputs: they would be noise.

    Raises:
        UserError: They differ; the message names all the options that have to be the same.
    """
    ours, theirs = config.model, checkpoint.config.model
    keys = ["backbone", "stride_in_1x1", "channel_order", "pixel_mean", "pixel_std"]
    if checkpoint.categories:  # a file with only a backbone has no P7
        keys.append("p7_relu")
    if (ours.norm == "gn") != (
        theirs.norm == "gn"
    ):  # all kinds of batch norm have the same weights
        keys.append("norm")
    elif ours.norm != "gn" and not ours.backbone.startswith("timm:"):
        keys.append("norm_eps")
    keys = [key for key in keys if getattr(ours, key) != getattr(theirs, key)]
    lines = [
        f"model.{key} is {getattr(theirs, key)} in the checkpoint but {getattr(ours, key)} here"
        for key in keys
    ]
    if lines:
        dumped = theirs.model_dump(mode="json")
        words = [f"'model.{key}={json.dumps(dumped[key])}'" for key in keys]
        raise UserError(
            f"model.init_from: {'; '.join(lines)}; to use its weights, set {' '.join(words)}"
        )


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Return a fingerprint of weights that does not depend on the path of their file."""
    found = hashlib.sha256()
    for name, value in sorted(weights.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def load_matching(
    model: Detector, checkpoint: Checkpoint, categories: Categories, anchors: AnchorConfig
) -> list[str]:
    """Load the weights of a checkpoint into a model with other classes; return lines for the log.

    If the checkpoint has averaged weights, the average is used. Backbone and pyramid are loaded
    tensor by tensor, a subnet as a whole or not at all. In the outputs of the subnets, an anchor
    gets the rows of the checkpoint's anchor that is nearly the same (in any order), and a class
    those of the same name. Other rows stay freshly initialised (class biases at the prior).

    Args:
        model: Freshly initialised model.
        checkpoint: Checkpoint to take weights from; it may contain only a backbone.
        categories: Categories of the model.
        anchors: Anchors of the model.

    Raises:
        UserError: A frozen part of the model would stay random.
    """
    state = _without_counters(model.state_dict())
    weights = _without_counters(checkpoint.weights)
    taken, skipped = _take_backbone_and_pyramid(state, weights)
    sources = _match_anchors(anchors, checkpoint.config.anchors)
    old_names = checkpoint.categories.names
    classes = [old_names.index(n) if n in old_names else None for n in categories.names]
    subnets = (("class_subnet", classes, len(old_names)), ("box_subnet", [0, 1, 2, 3], 4))
    for subnet, columns, old_columns in subnets:
        if not old_columns or f"{subnet}.output.weight" not in weights:
            continue  # not in the checkpoint
        if not _is_same_subnet(state, weights, subnet):
            skipped.append(f"{subnet}: its convolutions differ from those in the checkpoint")
            continue
        taken |= {name: w for name, w in weights.items() if name.startswith(f"{subnet}.tower.")}
        if _is_all_fresh(sources) or _is_all_fresh(columns):
            continue
        for name in (f"{subnet}.output.weight", f"{subnet}.output.bias"):
            old = weights[name].to(state[name].dtype).unflatten(0, (-1, old_columns))
            taken[name] = _merge_rows(state[name], old, sources, columns)
    model.load_state_dict(taken, strict=False)
    _check_frozen(model, taken)
    lines = [f"initialised {len(taken)} of {len(state)} tensors from the checkpoint"]
    has_classes = "class_subnet.output.weight" in taken
    lines += _describe_classes(categories, classes if has_classes else [], old_names)
    if "box_subnet.output.weight" in weights and _is_same_subnet(state, weights, "box_subnet"):
        lines += _describe_anchors(sources, build_anchors(checkpoint.config.anchors).per_cell)
    lines += [f"  skipped {text}" for text in skipped]
    return lines + [f"  fresh {text}" for text in _describe_fresh(state, taken, weights)]


def _without_counters(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the counters of batches in batch norms."""
    return {n: value for n, value in weights.items() if not n.endswith("num_batches_tracked")}


def _take_backbone_and_pyramid(
    state: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights of backbone and pyramid that fit, and descriptions of the others."""
    taken, skipped = {}, []
    for name, value in weights.items():
        if "_subnet." in name:
            continue
        if name in state and state[name].shape == value.shape:
            taken[name] = value
        else:
            there = tuple(state[name].shape) if name in state else "absent"
            skipped.append(f"{name}: {tuple(value.shape)} in the checkpoint, {there} here")
    return taken, skipped


def _is_same_subnet(
    state: Mapping[str, Tensor], weights: Mapping[str, Tensor], subnet: str
) -> bool:
    """Whether a subnet has the same convolutions; its output may have other rows."""

    def shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
        own = {n: value for n, value in tensors.items() if n.startswith(f"{subnet}.")}
        return {n: v.shape[1:] if ".output." in n else v.shape for n, v in own.items()}

    return shapes(state) == shapes(weights)


def _check_frozen(model: Detector, taken: Container[str]) -> None:
    """Refuse a frozen part of the model that has no weights from the checkpoint.

    Raises:
        UserError: There is such a part.
    """
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    random = [name for name in frozen if name not in taken]
    if random:
        raise UserError(
            f"model.freeze: {random[0]} (and {len(random) - 1} more) would stay random forever, "
            "because the checkpoint has no weights that fit; freeze less"
        )


def _describe_classes(
    categories: Categories, sources: Sequence[int | None], old_names: Sequence[str]
) -> list[str]:
    """Return lines on which classes keep their logits, from their sources in the checkpoint."""
    kept = [n for n, place in zip(categories.names, sources, strict=False) if place is not None]
    fresh = [name for name in categories.names if name not in kept]
    lines = [
        f"  class logits kept for {plural(len(kept), 'class')} of the same name"
        f"{_in_brackets(kept)}, fresh for {len(fresh)}{_in_brackets(fresh)}"
    ]
    left = [name for name in old_names if name not in categories.names]
    spelled = {_letters_of(name): name for name in left}
    alike = [
        f"{n}, in the checkpoint {spelled[_letters_of(n)]}"
        for n in fresh
        if _letters_of(n) in spelled
    ]
    if alike:
        lines.append(
            "  only classes of exactly the same name keep logits; these are spelled differently"
            f"{_in_brackets(alike)}"
        )
    if left:
        lines.append(
            f"  {plural(len(left), 'class')} of the checkpoint left out{_in_brackets(left)}"
        )
    return lines


def _letters_of(name: str) -> str:
    """Return the letters and digits of a name: `traffic_light` and `Traffic Light` are equal."""
    return "".join(filter(str.isalnum, name.casefold()))


def _describe_anchors(sources: Sequence[int | None], old: int) -> list[str]:
    """Return a line on which anchors of a cell keep their rows, unless all of them do."""
    kept = len(sources) - sources.count(None)
    if list(sources) == list(range(old)):
        return []
    rest = "; the other rows are fresh" if kept < len(sources) else ""
    return [
        f"  {kept} of {len(sources)} anchors of a cell nearly match one of the {old} in the "
        f"checkpoint and keep its rows{rest}"
    ]


def _is_all_fresh(sources: Sequence[int | None]) -> bool:
    return all(source is None for source in sources)


def _in_brackets(names: list[str]) -> str:
    return f" ({some_of(shown_names(names))})" if names else ""


def _describe_fresh(
    state: Mapping[str, Tensor], taken: Container[str], weights: Container[str]
) -> Iterator[str]:
    """Name the fresh tensors without a counterpart; a part that is all fresh by its name."""
    for part in dict.fromkeys(name.partition(".")[0] for name in state):
        names = [name for name in state if name.partition(".")[0] == part]
        if not any(name in taken for name in names):
            yield f"{part}, all of it"
        else:
            yield from (name for name in names if name not in taken and name not in weights)


def _match_anchors(new: AnchorConfig, old: AnchorConfig) -> list[int | None]:
    """Return for each anchor of a cell the index of the matching old one, or None."""
    levels = zip(_first_cells(new), _first_cells(old), strict=True)
    ious = torch.stack([box_iou(ours, theirs) for ours, theirs in levels])
    iou = ious.amin(dim=0)  # (levels, anchors, old anchors) -> (anchors, old anchors)
    best = iou.max(dim=1)
    return [
        int(place) if value >= _SAME_ANCHOR else None
        for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def _first_cells(anchors: AnchorConfig) -> list[Tensor]:
    """Return the anchors of the first cell of each level, relative to the canvas corner."""
    generator = build_anchors(anchors)
    return [
        cell + generator.offset * stride
        for cell, stride in zip(generator.cells, STRIDES, strict=True)
    ]


def _merge_rows(
    fresh: Tensor,
    old: Tensor,
    anchors: Sequence[int | None],
    columns: Sequence[int | None],
) -> Tensor:
    """Return `fresh` rows of an output, replaced by those of `old` if both indices have a source.

    Args:
        fresh: (anchors of a cell * columns, ...), from the new model.
        old: (anchors of a cell, columns, ...), from the checkpoint.
        anchors: Index of each anchor in the checkpoint, or None.
        columns: Index of each class, or delta, in the checkpoint, or None.
    """
    merged = fresh.clone().unflatten(0, (len(anchors), len(columns)))
    for anchor, old_anchor in enumerate(anchors):
        for column, old_column in enumerate(columns):
            if old_anchor is not None and old_column is not None:
                merged[anchor, column] = old[old_anchor, old_column]
    return merged.flatten(0, 1)
