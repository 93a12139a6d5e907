"""Train, evaluate and use RetinaNet. The config is the experiment; hardware only changes the time.

Example:
    import retinanet

    detector = retinanet.load("runs/first/checkpoints/best.pt")
    for d in detector("photo.jpg", threshold=0.5):
        print(d.name, d.score, d.box)
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retinanet.api import TrainedRun, check, evaluate, train
    from retinanet.errors import ArgumentError, InterruptedRunError, TrainingError, UserError
    from retinanet.inference.detections import Detection, ImageDetections
    from retinanet.inference.predictor import Predictor, load

# albumentations asks a server for its newest version at import; nothing here goes online unasked.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "Detection",
    "ImageDetections",
    "InterruptedRunError",
    "Predictor",
    "TrainedRun",
    "TrainingError",
    "UserError",
    "check",
    "evaluate",
    "load",
    "train",
]

_MODULES = {
    "api": ("TrainedRun", "check", "evaluate", "train"),
    "errors": ("ArgumentError", "InterruptedRunError", "TrainingError", "UserError"),
    "inference.detections": ("Detection", "ImageDetections"),
    "inference.predictor": ("Predictor", "load"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562): torch takes seconds."""
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(import_module(f"retinanet.{module}"), name)
            globals()[name] = value
            return value
    has = "" if name.startswith("_") else f". It has: {', '.join(__all__)}"
    raise AttributeError(f"module 'retinanet' has no attribute {name!r}{has}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
