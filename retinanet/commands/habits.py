"""What users of other projects type, and how it is written here."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from retinanet.schema.options import find_option, type_of, words_of

_SAME = {
    **dict.fromkeys(("batch", "batch_size", "bs", "samples_per_gpu", "imgs_per_batch"), "batch"),
    **dict.fromkeys(("imgsz", "img_size", "image_size", "img", "size", "min_size"), "imgsz"),
    **dict.fromkeys(("conf", "conf_thres", "conf_threshold", "confidence", "threshold"), "conf"),
    **dict.fromkeys(("score_thr", "score_thresh", "score_threshold", "thresh"), "conf"),
    **dict.fromkeys(("confidence_threshold", "box_score_thresh"), "conf"),
    **dict.fromkeys(("iou", "iou_thres", "iou_threshold", "nms", "nms_thr", "nms_thresh"), "iou"),
    **dict.fromkeys(("weights", "model", "checkpoint", "ckpt", "pretrained"), "weights"),
    **dict.fromkeys(("load", "load_from", "init", "load_weights", "model_weights"), "weights"),
    **dict.fromkeys(("config", "cfg", "config_file", "config_path", "yaml"), "config"),
    **dict.fromkeys(("data", "dataset", "data_path", "data_dir", "dataset_dir"), "data"),
    **dict.fromkeys(("source", "input", "inputs", "image", "imgs", "img_path"), "source"),
    **dict.fromkeys(("ann", "ann_file", "annotation", "gt", "json"), "annotations"),
    **dict.fromkeys(("img_dir", "image_dir", "images_dir", "img_folder", "img_prefix"), "images"),
    **dict.fromkeys(
        ("output", "output_dir", "out", "out_dir", "work_dir", "project", "save_dir", "log_dir"),
        "output",
    ),
    **dict.fromkeys(("device", "gpu", "gpu_id", "gpu_ids", "cuda"), "device"),
    **dict.fromkeys(("cpu", "no_cuda"), "cpu"),
    **dict.fromkeys(
        ("num_gpus", "gpus", "nproc", "nproc_per_node", "launcher", "num_machines", "nnodes"),
        "processes",
    ),
    **dict.fromkeys(("eval", "eval_only", "evaluate", "test_only", "val", "test"), "evaluate"),
    **dict.fromkeys(("cfg_options", "opts", "opt", "options", "set"), "options"),
    **dict.fromkeys(("amp", "half", "use_amp", "mixed_precision"), "half"),
    **dict.fromkeys(("workers", "num_workers"), "workers"),
    **dict.fromkeys(("exp", "exp_name", "run_name", "experiment"), "name"),
    **dict.fromkeys(("max_det", "max_dets", "max_detections"), "max_det"),
}
"""Spellings of the same option."""

_ANSWERS: dict[str, dict[str, str]] = {
    "batch": {"evaluate": "eval.batch_size={}", "predict": "eval.batch_size={}"},
    "imgsz": {"evaluate": "data.eval_short_side={}", "predict": "data.eval_short_side={}"},
    "conf": {
        "": "postprocess.score_threshold={}",
        "predict": "--threshold {}",
    },
    "iou": {"": "postprocess.nms_threshold={}"},
    "max_det": {"": "postprocess.max_detections={}"},
    "weights": {
        "train": "--init-from {}",
        "evaluate": "the checkpoint comes first, without a flag: retinanet evaluate {}",
        "predict": "the checkpoint comes first, without a flag: retinanet predict {} IMAGES",
    },
    "config": {
        "train": "the config comes first, without a flag: retinanet train {}",
        "": "no config is needed: the checkpoint contains it",
    },
    "data": {
        "train": "data.root={} data.train.annotations=FILE data.train.images=FOLDER "
        "data.val.annotations=FILE data.val.images=FOLDER",
        "evaluate": "--annotations FILE --images FOLDER",
        "predict": "images and folders are given without a flag: retinanet predict CHECKPOINT {}",
        "yolo": "convert the data set first: retinanet convert yolo {} OUT (it prints the command "
        "that trains on it)",
    },
    "source": {
        "predict": "images and folders are given without a flag: retinanet predict CHECKPOINT {}"
    },
    "annotations": {"train": "data.train.annotations={}", "": "--annotations {}"},
    "images": {"train": "data.train.images={}", "": "--images {}"},
    "output": {"train": "output.dir={}", "": "--output {}"},
    "name": {"train": "--name {}", "": "--output FOLDER"},
    "cpu": {"": "train.device=cpu", "predict": "--device cpu"},
    "processes": {
        "train": "torchrun --nproc_per_node {} tools/train.py CONFIG",
        "": "torchrun --nproc_per_node {} -m retinanet COMMAND",
    },
    "evaluate": {"train": "retinanet evaluate CHECKPOINT"},
    "options": {"": "options are given without a flag, such as train.lr=0.005"},
    "half": {
        "train": "--fast, or only train.precision=auto (bf16 or fp16, by the device)",
        "": "train.precision=auto",
    },
    "fp16": {"": "train.precision=fp16"},
    "bf16": {"": "train.precision=bf16"},
    "cudnn_benchmark": {"": "train.deterministic=false"},
    "resume": {"train": "--resume runs/NAME"},
    "no weights": {"train": "model.weights=none"},
    "cos_lr": {"train": "train.schedule=cosine"},
    "workers": {
        "": "data.workers={}",
        "predict": "there is no such option, because predict reads images in its own process",
    },
}
"""How it is written, by command; an empty name stands for every other command."""


def answer(name: str, value: str, command: str) -> str | None:
    """Return how an option of another project is written here; None if it is not known.

    Args:
        name: Name of the option, without dashes: `batch-size`.
        value: Value that was given with it; may be empty.
        command: Command of this project, such as `evaluate`.
    """
    plain = name.lower().replace("-", "_")
    what = _SAME.get(plain, plain)
    if what == "device":
        return _choose_device(value, command)
    if what == "weights" and value.lower() in ("false", "none", "no", "0"):
        what = "no weights"
    if what == "data" and value.endswith((".yaml", ".yml")) and command == "train":
        command = "yolo"
    answers = _ANSWERS.get(what, {})
    text = answers.get(command, answers.get(""))
    if what == "processes" and not value.isdigit():
        value = "8"
    if text is not None:
        return text.format(shlex.quote(value) if value else "...")
    option = find_option(name)
    if option is None:
        return None
    if command in ("evaluate", "predict") and not has_effect(option, command):
        return f"{option} is an option of training; it has no effect in {command}"
    return f"{option}={_our_word(option, value)}"


def _our_word(option: str, value: str) -> str:
    """Return a value as the option accepts it: one of its words, or all of them."""
    words = words_of(type_of(option.split(".")))
    if not words or value in words:
        return shlex.quote(value) if value else "..."
    return value.lower() if value.lower() in words else "|".join(words)


def _choose_device(value: str, command: str) -> str:
    """Return how to choose a device; one of several GPUs is chosen by the environment."""
    numbers = value.lower().removeprefix("cuda").removeprefix("gpu").strip(":")
    option = "--device" if command == "predict" else "train.device"
    joint = " " if command == "predict" else "="
    if numbers and all(part.strip().isdigit() for part in numbers.split(",")):
        return f"CUDA_VISIBLE_DEVICES={numbers} in front of the command, and {option}{joint}cuda"
    device = value.lower() if value.lower() in ("cpu", "mps", "auto") else "cuda"
    return f"{option}{joint}{device}"


def unused_in_predict(overrides: Sequence[str]) -> list[str]:
    """Return lines about options that were given but that prediction does not use."""
    keys = [text.partition("=")[0].strip() for text in overrides]
    unused = [key for key in keys if not has_effect(key, "predict")]
    instead = {"train.device": "; use --device"}
    return [f"without effect in predict: {key}{instead.get(key, '')}" for key in unused]


def has_effect(option: str, command: str) -> bool:
    """Whether an option has an effect in `evaluate` or `predict`."""
    both = (
        *("postprocess.", "eval.batch_size", "data.eval_short_side", "data.short_side"),
        *("data.long_side", "data.canvas", "train.precision", "train.tf32", "train.deterministic"),
    )
    if command == "predict":
        return option.startswith(both)
    own = ("data.root", "data.val.", "data.find_images", "data.workers", "data.classes")
    return option.startswith((*both, *own, "eval.pictures", "train.device"))
