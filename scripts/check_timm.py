"""Check which timm networks work as backbones: build each one and compare its grids to the anchors.

    python scripts/check_timm.py                     # the first network of every family
    python scripts/check_timm.py --all               # all of them: about 20 minutes on one core
    python scripts/check_timm.py 'convnext*' swin_tiny_patch4_window7_224

Nothing is downloaded or computed: networks are built without allocating their weights (device
`meta`). With --compute, those with up to 30 million parameters also run, on the two smallest
canvases. The table has a line for each outcome in a family (a module of timm): `works` on all
canvases, `some` (it lists which), or `refused`, with one reason. The exit code is 1 if any network
ends in an error other than one of our messages.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
import traceback
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass

import timm
import torch

from retinanet.config import override_config
from retinanet.errors import UserError
from retinanet.model.detector import Detector, build_detector
from retinanet.model.grids import Canvas, check_levels
from retinanet.schema import Config

CANVASES: tuple[Canvas, ...] = (
    *((64, 64), (96, 64), (224, 224), (256, 256), (256, 320), (288, 416), (352, 288), (800, 1344)),
)
"""Height and width: even and odd multiples of 32, those of pretraining, and COCO's."""
COMPUTED, MOST_PARAMETERS = 2, 30_000_000


@dataclass(frozen=True)
class Outcome:
    """Result for one network."""

    name: str
    result: str
    """`works`, `some`, `refused` or `bug`."""
    why: str = ""


def build(name: str, device: str) -> Detector:
    """Build a small detector with a timm backbone."""
    options = [f"model.backbone=timm:{name}", "model.weights=none", "model.norm=bn"]
    small = ["model.freeze=none", "model.fpn_channels=8", "model.head_channels=8"]
    with torch.device(device):
        return build_detector(override_config(Config(), options + small), classes=1).eval()


def try_canvas(model: Detector, canvas: Canvas, device: str) -> str:
    """Return the reason why a canvas is refused; empty if it works."""
    try:
        with torch.device(device), torch.no_grad():
            features = model.fpn(model.backbone(torch.zeros(1, 3, *canvas)))
            check_levels(features, canvas, model.backbone.name)
    except UserError as error:
        return str(error)
    return ""


def check(name: str, *, compute: bool) -> Outcome:
    """Build a network and try all canvases."""
    try:
        model = build(name, "meta")
        refused = {canvas: try_canvas(model, canvas, "meta") for canvas in CANVASES}
        if compute and sum(p.numel() for p in model.parameters()) <= MOST_PARAMETERS:
            model = build(name, "cpu")
            for canvas in CANVASES[:COMPUTED]:
                if bool(try_canvas(model, canvas, "cpu")) != bool(refused[canvas]):
                    return Outcome(name, "bug", f"{canvas} differs between meta and cpu")
    except UserError as error:
        return Outcome(name, "refused", shorten(str(error), name))
    except Exception:
        return Outcome(name, "bug", traceback.format_exc().splitlines()[-1])
    taken = [f"{width}x{height}" for (height, width), why in refused.items() if not why]
    if len(taken) == len(CANVASES):
        return Outcome(name, "works")
    why = shorten(next(why for why in refused.values() if why), name)
    if not taken:
        return Outcome(name, "refused", why)
    return Outcome(name, "some", f"supports {', '.join(taken)}; {why}")


def shorten(message: str, name: str) -> str:
    """Return a message without its remedy, with `it` in place of the network."""
    told = message.partition(". Choose another")[0].partition(". Train with another")[0]
    return told.replace(f"timm:{name}", "it").partition(": ")[2]


def chosen_names(patterns: list[str], families: dict[str, list[str]], *, all_: bool) -> list[str]:
    """Return the names to try, in the order of their families."""
    names = [name for family in families.values() for name in family]
    if patterns:
        return [n for n in names if any(fnmatch.fnmatchcase(n, one) for one in patterns)]
    return names if all_ else [family[0] for family in families.values()]


def main() -> int:
    """Print the table; return 1 if there was a bug."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="network names; `*` matches any text"
    )
    parser.add_argument("--all", action="store_true", help="check every network of every family")
    parser.add_argument("--compute", action="store_true", help="also run small networks on the CPU")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    families = {module: timm.list_models(module=module) for module in sorted(timm.list_modules())}
    families = {module: names for module, names in families.items() if names}
    family_of = {name: module for module, names in families.items() for name in names}
    outcomes: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    started = time.monotonic()
    for name in chosen_names(options.names, families, all_=options.all):
        outcome = check(name, compute=options.compute)
        outcomes[family_of[name], outcome.result].append(outcome)
        print(f"{name}: {outcome.result} {outcome.why}", file=sys.stderr, flush=True)
    print("| family | outcome | networks | which | why |\n|---|---|---|---|---|")
    for (family, result), found in outcomes.items():
        names = ", ".join(one.name for one in found[:3]) + (", ..." if len(found) > 3 else "")
        print(f"| {family} | {result} | {len(found)} | {names} | {found[0].why} |")
    totals = Counter(one.result for found in outcomes.values() for one in found)
    print(f"\n{dict(totals)}, {time.monotonic() - started:.0f} s")
    return 1 if totals["bug"] else 0


if __name__ == "__main__":
    sys.exit(main())
