"""Results of the trials: results.json, and Markdown tables beside the numbers of the paper."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retinanet.distributed.device import find_device
from retinanet.errors import UserError, plural
from retinanet.files import replacing, write_failure
from retinanet.lab.distribution import Curves, loss_distribution
from retinanet.lab.variants import COMPARISONS, VARIANTS
from retinanet.schema import Config

Results = dict[str, Any]
"""Content of results.json: plain dicts, lists, numbers and strings."""

_EASY_SHARES = ("loss", "gradient", "cross_entropy_loss", "cross_entropy_gradient")
_LAST_LOOKS = 10
"""Last measurements of the imbalance to average: a single batch is too noisy."""


def collect(base: Config, output: Path) -> Results:
    """Read all finished trials in a lab folder."""
    variants: dict[str, Any] = {}
    for name, variant in VARIANTS.items():
        outcomes = sorted((output / "runs" / name).glob("seed_*/outcome.json"))
        if not outcomes:
            continue
        runs = sorted((_read_trial(path) for path in outcomes), key=lambda run: run["seed"])
        variants[name] = {
            "options": list(variant.options),
            "paper_coco_ap": variant.paper,
            **{key: _summarize_seeds([run[key] for run in runs]) for key in ("AP", "AP50")},
            "diverged": sum(run["diverged"] is not None for run in runs),
            "runs": runs,
        }
    return {
        "steps": base.train.steps,
        "epochs": base.train.epochs,
        "batch_size": base.train.batch_size,
        "variants": variants,
    }


def distribution(results: Results, base: Config, output: Path) -> Curves | None:
    """Return the distribution of the loss over the examples of a network trained with focal loss.

    None if there is no such network. Only the main process calls this, after all trainings.
    """
    variants = results["variants"]
    runs = variants["focal"]["runs"] if "focal" in variants else []
    seeds = [run["seed"] for run in runs if run["diverged"] is None]
    if not seeds:
        return None
    trained = output / "runs" / "focal" / f"seed_{seeds[0]}" / "checkpoints" / "final.pt"
    device = find_device(base.train.device, 0)
    return loss_distribution(trained, output / "distribution.json", device)


def _read_trial(outcome: Path) -> dict[str, Any]:
    """Return the results of one trial; AP is from its last evaluation, not its best one."""
    try:
        run = json.loads(outcome.read_text(encoding="utf-8"))
        run = {"seed": int(run["seed"]), "steps": int(run["steps"]), "diverged": run["diverged"]}
        text = (outcome.parent / "metrics.jsonl").read_text(encoding="utf-8")
        return {**run, **_summarize_metrics([json.loads(line) for line in text.splitlines()], run)}
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(
            f"{outcome}, or metrics.jsonl beside it, is damaged; remove the folder "
            f"{outcome.parent} to train it again"
        ) from None


def _summarize_metrics(lines: list[dict[str, Any]], run: dict[str, Any]) -> dict[str, Any]:
    """Summarise the metrics of a run; averaged weights count where the run has them."""
    averaged = any("val_average/AP" in line for line in lines)
    name = "val_average" if averaged else "val"
    evaluations = [line for line in lines if f"{name}/AP" in line]
    last = evaluations[-1] if evaluations and run["diverged"] is None else {}
    # A step that is not finite has no shares.
    looks = [line for line in lines if line.get("imbalance/loss/easy_negatives") is not None]
    p_t_counts = [line["imbalance/p_t_of_negatives"] for line in looks]
    return {
        "AP": last.get(f"{name}/AP"),
        "AP50": last.get(f"{name}/AP50"),
        "curve": [[line["step"], line[f"{name}/AP"]] for line in evaluations],
        "examples": {
            kind: statistics.fmean(line[f"imbalance/{kind}"] for line in looks)
            for kind in ("positives", "negatives", "ignored")
            if looks
        },
        "easy_negatives": {
            share: [[line["step"], line[f"imbalance/{share}/easy_negatives"]] for line in looks]
            for share in _EASY_SHARES
        },
        # The share of the negatives in the last bin: those with a p_t above 0.9999.
        "far_negatives": [
            [line["step"], float(counts[-1] / max(sum(counts), 1))]
            for line, counts in zip(looks, p_t_counts, strict=True)
        ],
    }


def _summarize_seeds(values: list[float | None]) -> dict[str, Any]:
    """Return mean and spread (sample standard deviation) over the seeds that did not diverge."""
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "spread": statistics.stdev(known) if len(known) > 1 else None,
        "lowest": min(known, default=None),
        "highest": max(known, default=None),
        "seeds": len(known),
    }


def write_results(results: Results, output: Path) -> list[Path]:
    """Write results.json and results.md; return their paths.

    Raises:
        TrainingError: A file cannot be written.
    """
    paths = [output / "results.json", output / "results.md"]
    for path, text in zip(paths, (json.dumps(results, indent=1), markdown(results)), strict=True):
        try:
            with replacing(path, unique=True) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise write_failure(path, error) from None
    return paths


def markdown(results: Results) -> str:
    """Return the tables of all comparisons with trained variants."""
    epochs, steps = results["epochs"], results["steps"]
    length = plural(epochs, "epoch", "epochs") if epochs else plural(steps, "step")
    parts = [
        f"Each training: {length}, {plural(results['batch_size'], 'image')} per step. AP is from "
        "the last evaluation: mean ± standard deviation over the seeds. The next three columns are "
        "from the first seed. Easy negatives: share of the class loss from negatives with "
        f"p_t > 0.9, at the first measurement → mean of the last {_LAST_LOOKS}. In CE: the same "
        "share if the loss of the same outputs were cross entropy. p_t > 0.9999: share of the "
        "negatives that are this certain. Paper: the AP in the paper, on COCO, in percent.",
    ]
    alone = list(results["variants"])
    for comparison in COMPARISONS.values():
        rows = [name for name in comparison.variants if name in results["variants"]]
        if len(rows) > 1:
            parts.append("\n".join(_table(results, comparison.title, rows)))
            alone = [name for name in alone if name not in rows]
    if alone:
        parts.append("\n".join(_table(results, "Other losses", alone)))
    return "\n\n".join(parts)


def _table(results: Results, title: str, rows: list[str]) -> Iterator[str]:
    yield f"### {title}"
    yield ""
    yield "| loss | options | seeds | AP | AP50 | easy negatives | in CE | p_t > 0.9999 | paper |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name in rows:
        variant = results["variants"][name]
        options = ", ".join(option.split(".", 1)[1] for option in variant["options"])
        cells = [name, options, str(len(variant["runs"]))]
        cells += [_format_ap(variant, key) for key in ("AP", "AP50")]
        cells += [*_format_easy_negatives(variant["runs"][0]), variant["paper_coco_ap"]]
        yield f"| {' | '.join(cells)} |"
    if "focal" in rows:
        yield ""
        yield from (_compare_with_focal(results, name) for name in rows if name != "focal")


def _format_ap(variant: dict[str, Any], key: str) -> str:
    summary, diverged = variant[key], variant["diverged"]
    if summary["mean"] is None:
        return "diverged" if diverged else "n/a (no ground truth)"
    spread = "" if summary["spread"] is None else f" ± {summary['spread']:.3f}"
    return f"{summary['mean']:.3f}{spread}" + (f" ({diverged} diverged)" if diverged else "")


def _format_easy_negatives(run: dict[str, Any]) -> list[str]:
    """Return the shares of easy negatives in the class loss, and of very certain negatives."""
    loss = run["easy_negatives"]["loss"]
    if not loss:
        return ["-", "-", "-"]
    others = run["easy_negatives"]["cross_entropy_loss"], run["far_negatives"]
    ends = [f"{_mean_at_end(series):.1%}" for series in (loss, *others)]
    return [f"{loss[0][1]:.1%} → {ends[0]}", *ends[1:]]


def _mean_at_end(series: list[list[float]]) -> float:
    return statistics.fmean(value for _, value in series[-_LAST_LOOKS:])


def _compare_with_focal(results: Results, name: str) -> str:
    """Compare a variant with focal loss, and report whether the seeds separate them."""
    focal, other = results["variants"]["focal"]["AP"], results["variants"][name]["AP"]
    if focal["mean"] is None or other["mean"] is None:
        return f"- {name}: cannot be compared with focal: one of them has no AP"
    gain = focal["mean"] - other["mean"]
    if min(focal["seeds"], other["seeds"]) < 2:
        judged = "one seed: the spread is not known"
    elif focal["lowest"] > other["highest"] or other["lowest"] > focal["highest"]:
        judged = "beyond the spread: the seeds do not overlap"
    else:
        judged = "within the spread: the seeds overlap"
    return f"- focal {gain:+.3f} compared with {name}, {judged}"
