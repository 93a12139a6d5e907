"""Figures of the lab, as PNG files: the paper's figures 1 and 4, and the results of the trials."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from retinanet.errors import UserError
from retinanet.files import replacing, write_failure
from retinanet.lab.distribution import Curves
from retinanet.lab.results import Results
from retinanet.lab.variants import COMPARISONS
from retinanet.losses.focal import focal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Panel = Callable[[Axes], None]

_WIDTH, _HEIGHT = 6.0, 4.0
"""Inches, size of one panel."""


def check_matplotlib() -> None:
    """Refuse to start if the figures could not be drawn.

    Raises:
        UserError: Matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise UserError(
            "retinanet lab draws its figures with matplotlib, which is not installed: pip install "
            "'retinanet[lab]'"
        ) from None


def draw_figures(results: Results, output: Path) -> list[Path]:
    """Draw every figure that has data; return their paths.

    Raises:
        TrainingError: A file cannot be written.
    """
    variants = results["variants"]
    compared = _group_by_comparison(variants)
    figures: dict[str, list[Panel]] = {"loss_by_p_t": [_draw_loss_by_p_t]}
    curves: Curves | None = results.get("distribution")
    if curves:
        figures["distribution"] = [
            partial(_draw_distribution, kind=kind, curves=curves)
            for kind in ("foreground", "background")
        ]
    sweeps = [name for name in ("gamma", "alpha") if len(_points_of_sweep(variants, name)) > 1]
    if sweeps:
        figures["ap_by_parameter"] = [
            partial(_draw_sweep, comparison=name, variants=variants) for name in sweeps
        ]
    if variants:
        figures["learning_curves"] = [
            partial(_draw_learning_curves, title=title, variants=group)
            for title, group in compared.items()
        ]
    first = next(iter(compared.values()))
    if any(variant["runs"][0]["easy_negatives"]["loss"] for variant in first.values()):
        figures["easy_negatives"] = [
            partial(_draw_easy_negatives, what=what, variants=first)
            for what in ("loss", "gradient")
        ]
    return [_save_figure(panels, output / f"{name}.png") for name, panels in figures.items()]


def _group_by_comparison(variants: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return title and variants of each comparison with several trained variants; else all."""
    groups = {
        comparison.title: {name: variants[name] for name in comparison.variants if name in variants}
        for comparison in COMPARISONS.values()
    }
    return {title: group for title, group in groups.items() if len(group) > 1} or {"": variants}


def _save_figure(panels: list[Panel], path: Path) -> Path:
    from matplotlib.figure import Figure

    columns, rows = min(len(panels), 2), (len(panels) + 1) // 2
    figure = Figure(figsize=(_WIDTH * columns, _HEIGHT * rows), layout="constrained")
    for place, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.grid(alpha=0.3)
        panel(axes)
    try:
        with replacing(path, unique=True) as temporary:
            figure.savefig(temporary, format="png", dpi=110)
    except OSError as error:
        raise write_failure(path, error) from None
    return path


def _draw_loss_by_p_t(axes: Axes) -> None:
    """The paper's figure 1."""
    p_t = torch.linspace(0.005, 0.999, 400, dtype=torch.float64)
    logits = torch.log(1 / p_t - 1)  # logit of a negative with this p_t
    for gamma in (0.0, 0.5, 1.0, 2.0, 5.0):
        name = "γ = 0 (cross entropy)" if gamma == 0 else f"γ = {gamma:g}"
        axes.plot(p_t.tolist(), focal(logits, gamma=gamma)[0].tolist(), label=name)
    axes.axvspan(0.6, 1, alpha=0.08, color="green")
    axes.text(0.8, 2.5, "well classified", ha="center")
    axes.set(xlabel="$p_t$, probability of the true class", ylabel="loss", ylim=(0, 5), xlim=(0, 1))
    axes.legend()


def _draw_distribution(axes: Axes, *, kind: str, curves: Curves) -> None:
    """The paper's figure 4."""
    for gamma, shares in curves[kind].items():
        axes.plot([i / (len(shares) - 1) for i in range(len(shares))], shares, label=f"γ = {gamma}")
    axes.set(
        title=f"{kind} of val, for a network trained with focal loss",
        xlabel="fraction of the examples, lowest losses first",
        ylabel="cumulative share of the loss",
    )
    axes.legend()


def _points_of_sweep(
    variants: dict[str, Any], comparison: str
) -> list[tuple[float, dict[str, Any]]]:
    """Return the parameter value and the AP of each variant of a sweep."""
    points = []
    for name in COMPARISONS[comparison].variants:
        if name in variants and variants[name]["AP"]["mean"] is not None:
            options = dict(option.split("=") for option in variants[name]["options"])
            value = float(options.get(f"loss.{comparison}", 0.0))
            points.append((value, variants[name]["AP"]))
    return points


def _draw_sweep(axes: Axes, *, comparison: str, variants: dict[str, Any]) -> None:
    points = _points_of_sweep(variants, comparison)
    places = range(len(points))
    means = [ap["mean"] for _, ap in points]
    axes.errorbar(
        places, means, yerr=[ap["spread"] or 0 for _, ap in points], marker="o", capsize=3
    )
    axes.set_xticks(list(places), [f"{value:g}" for value, _ in points])
    sign = {"gamma": "γ of focal loss (each with its α)", "alpha": "α of cross entropy"}
    axes.set(xlabel=sign[comparison], ylabel="AP on val", ylim=(0, None))


def _draw_learning_curves(axes: Axes, *, title: str, variants: dict[str, Any]) -> None:
    """The mean over the seeds, and a thin line for each seed."""
    for colour, (name, variant) in enumerate(variants.items()):
        curves = [dict(run["curve"]) for run in variant["runs"]]
        for curve in curves if len(curves) > 1 else []:
            axes.plot(list(curve), list(curve.values()), color=f"C{colour}", alpha=0.4, lw=0.7)
        steps = sorted(set.intersection(*map(set, curves)))
        means = [fmean(curve[step] for curve in curves) for step in steps]
        axes.plot(steps, means, color=f"C{colour}", label=name, marker=".")
    axes.set_title(title, fontsize="medium")
    axes.set(xlabel="step", ylabel="AP on val", ylim=(0, None))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")  # beside the curves


def _draw_easy_negatives(axes: Axes, *, what: str, variants: dict[str, Any]) -> None:
    for colour, (name, variant) in enumerate(variants.items()):
        series = variant["runs"][0]["easy_negatives"][what]
        steps, shares = [step for step, _ in series], [share for _, share in series]
        axes.plot(steps, shares, color=f"C{colour}", label=name)
    axes.set(xlabel="step", ylabel=f"easy negatives' share of the {what}", ylim=(0, 1))
    axes.legend()
