"""Weights of backbones: downloading, reading and loading them.

They are downloaded only if the config names them, from torchvision's or timm's own site. No code in
a file is executed.
"""

from __future__ import annotations

import json
import socket
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from retinanet.errors import UserError, first_line

State = dict[str, Tensor]
_CLASSIFIER = ("fc.", "classifier.", "head.")
"""Names of the classifier in pretrained files from torchvision and timm."""
STATE_KEYS = ("state_dict", "model", "model_state_dict", "net")
"""Keys of the weights in a file that also contains other things."""
_WRAPPERS = ("module.", "_orig_mod.", "model.")
"""Prefixes added by DistributedDataParallel, torch.compile, and modules around a model."""
_TIMEOUT = 20.0
"""Seconds without an answer after which a download fails."""
_IN_DETECTORS = ("backbone.body.", "backbone.0.body.")
"""Prefix of a torchvision ResNet's weights in torchvision's own detectors, and in DETR."""
_YHENON = ("fpn.", "regressionModel.", "classificationModel.")
"""Parts of yhenon/pytorch-retinanet that do not belong to its ResNet."""


def download_torchvision(name: str, weights: str) -> State:
    """Return torchvision's ImageNet weights, from its cache or its site.

    Raises:
        UserError: There are no weights of that name, or they cannot be downloaded.
    """
    choices = torchvision.models.get_model_weights(name)
    if weights not in choices.__members__:
        raise UserError(
            f"model.weights: {name} has no weights {weights}; choose from: "
            f"{', '.join(choices.__members__)}"
        )
    try:
        with _bounded_waits():
            return choices[weights].get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # a wrong hash is a RuntimeError
        raise _not_downloaded(
            f"{weights} of {name}", choices[weights].url, error, norm="gn"
        ) from None


def download_timm(name: str) -> State:
    """Return timm's own weights of a network, from the Hugging Face cache or its site.

    One request first checks that the site answers: the hub's client would retry for most of a
    minute.

    Args:
        name: Name in timm, with or without a tag: `resnet50.a1_in1k`.

    Raises:
        UserError: There are no weights, or they cannot be downloaded.
    """
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is not None and config.hf_hub_id:
        return _download_from_hub(name, config.hf_hub_id, config.hf_hub_filename)
    if config is None or not config.url:
        tagged = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        others = f"; it has: {', '.join(f'timm:{one}' for one in tagged)}" if tagged else ""
        raise UserError(
            f"model.weights: timm has no weights for {name}{others}. Choose another "
            f"model.backbone, or train from random weights: {_random('bn')}"
        )
    url = config.url if isinstance(config.url, str) else config.url[0]
    try:
        with _bounded_waits():
            return torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:
        raise _not_downloaded(f"the weights of timm:{name}", url, error, norm="bn") from None


def _download_from_hub(name: str, hub_id: str, file: str | None) -> State:
    from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.file_download import get_hf_file_metadata
    from huggingface_hub.utils import EntryNotFoundError

    repository, _, revision = hub_id.partition("@")
    names = [file] if file else ["model.safetensors", "pytorch_model.bin"]
    place: dict[str, Any] = {"repo_id": repository, "revision": revision or None}
    for one in names:
        found = try_to_load_from_cache(filename=one, **place)
        if isinstance(found, str):
            return read_tensors(Path(found))
    url = hf_hub_url(filename=names[0], **place)
    try:
        for one in names:
            url = hf_hub_url(filename=one, **place)
            try:
                get_hf_file_metadata(url, timeout=_TIMEOUT / 2)
            except EntryNotFoundError:
                continue
            return read_tensors(Path(hf_hub_download(filename=one, **place)))
        raise FileNotFoundError(f"the repository has no {' or '.join(names)}")
    except UserError:
        raise
    except Exception as error:  # the hub's client and its transport have a dozen types of errors
        raise _not_downloaded(f"the weights of timm:{name}", url, error, norm="bn") from None


def _not_downloaded(what: str, url: str, error: Exception, *, norm: str) -> UserError:
    return UserError(
        f"model.weights: {what} could not be downloaded from {url} ({first_line(error)}). Download "
        "that file on another machine and set model.weights=<its path>, or train from random "
        f"weights: {_random(norm)}"
    )


def _random(norm: str) -> str:
    return f"model.weights=none model.norm={norm} model.freeze=none"


@contextmanager
def _bounded_waits() -> Iterator[None]:
    """Let a connection that goes silent fail: urllib would wait forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def read_tensors(path: Path) -> Any:
    """Return the content of a torch or safetensors file; nothing in it is executed.

    Raises:
        UserError: It is damaged, or contains more than tensors and plain values.
    """
    try:
        if is_safetensors(path):
            return read_safetensors(path)
        with torch.serialization.safe_globals([Namespace]):  # many files contain one
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception:  # torch.load raises half a dozen types for files that are not its own
        raise UserError(
            f"model.weights: {path} is not a file with only tensors. It is damaged, has another "
            "format, or contains code, which is never run here. For files of other projects: "
            "--init-from FILE, or retinanet convert checkpoint FILE OUT.pt"
        ) from None


def is_safetensors(path: Path) -> bool:
    """Return whether a file has the suffix or the first bytes of a safetensors file."""
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def read_safetensors(path: Path) -> State:
    """Return the tensors in a safetensors file.

    Raises:
        UserError: The package is not installed.
    """
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise UserError(
            f"{path}: safetensors files need the package safetensors: pip install 'retinanet[timm]'"
        ) from None
    return load_file(path)


def read_state(path: Path, wanted: Mapping[str, object]) -> State:
    """Read the state dict of a backbone.

    Args:
        path: Path of the state dict, or of our checkpoint.
        wanted: Model options that our checkpoint must have been trained with.

    Raises:
        UserError: The file does not exist or is not a state dict, or its network was trained with
            other options.
    """
    if not path.is_file():
        raise UserError(
            f"model.weights: there is no such file: {path} (expected IMAGENET1K_V1, "
            "IMAGENET1K_V2, none, or the path of a file)"
        )
    state = read_tensors(path)
    state = _backbone_state(state, wanted, path) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise UserError(f"model.weights: {path} contains {type(state).__name__}, not a state dict")
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"model.weights: {path} contains {type(value).__name__} under {key!r}, not a tensor"
            )
    return state


def _backbone_state(content: dict[str, Any], wanted: Mapping[str, object], path: Path) -> Any:
    """Return the state dict in a file; for a detector, that of its backbone."""
    if "categories" not in content or not isinstance(content.get("model"), dict):
        inside = (content[key] for key in STATE_KEYS if isinstance(content.get(key), dict))
        return _without_detector(without_wrappers(next(inside, content)))
    model = content.get("config", {}).get("model", {})
    trained = {key: tuple(v) if isinstance(v, list) else v for key, v in model.items()}
    others = [key for key in wanted if key in trained and trained[key] != wanted[key]]
    if others:
        words = " ".join(f"'model.{key}={json.dumps(model[key])}'" for key in others)
        raise UserError(
            f"model.weights: {path} was trained with other options; set them for it: {words} (or "
            f"use --init-from {path}, which sets them)"
        )
    weights = content.get("averaged") or content["model"]
    parts = ("backbone.net.", "backbone.")
    return {
        key.removeprefix(next(part for part in parts if key.startswith(part))): value
        for key, value in weights.items()
        if key.startswith("backbone.")
    }


def without_wrappers(state: Mapping[Any, Any]) -> dict[str, Any]:
    """Return weights without the prefixes of wrapper modules."""
    named = {str(key): value for key, value in state.items()}
    while named and (
        prefix := next((p for p in _WRAPPERS if all(key.startswith(p) for key in named)), None)
    ):
        named = {key.removeprefix(prefix): value for key, value in named.items()}
    return named


def _without_detector(state: dict[str, Any]) -> dict[str, Any]:
    """Return the ResNet in another project's detector with torchvision's names, else everything."""
    for prefix in _IN_DETECTORS:
        inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if inside:
            return inside
    if any(key.startswith("classificationModel.") for key in state):
        return {key: value for key, value in state.items() if not key.startswith(_YHENON)}
    return state


def load_state(net: nn.Module, state: State, source: str) -> None:
    """Load the weights of a classification network; its classifier is ignored.

    Raises:
        UserError: Weights are missing, unexpected or of another shape.
    """
    counters = {key for key in state if key.endswith("num_batches_tracked")}
    wanted = net.state_dict()
    given = {key: value for key, value in state.items() if key in wanted or key not in counters}
    given = {key: value for key, value in given.items() if not key.startswith(_CLASSIFIER)}
    missing = [k for k in wanted if k not in given and not _is_needless(k)]
    unknown = [k for k in given if k not in wanted]
    shapes = [k for k in given if k in wanted and given[k].shape != wanted[k].shape]
    problems = [
        ("it is missing", missing),
        ("it has unexpected weights", unknown),
        ("it has a different shape for", shapes),
    ]
    for verb, keys in problems:
        if keys:
            more = f" and {len(keys) - 1:,} more" if len(keys) > 1 else ""
            raise not_fitting(source, f"{verb} {keys[0]}{more}")
    net.load_state_dict(given, strict=False)


def _is_needless(name: str) -> bool:
    return name.endswith("num_batches_tracked") or name.startswith(_CLASSIFIER)


def not_fitting(source: str, reason: str) -> UserError:
    """Return the error of weights that do not fit the backbone."""
    return UserError(
        f"model.weights: {source} does not fit the backbone: {reason}. For files of other "
        "projects: --init-from FILE, or retinanet convert checkpoint FILE OUT.pt"
    )
