"""The tables and figures of the lab, from made-up trials."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet.batch import Batch
from retinanet.errors import UserError
from retinanet.lab.distribution import _split_logits, cumulative
from retinanet.lab.figures import _group_by_comparison, _points_of_sweep, draw_figures
from retinanet.lab.results import _summarize_metrics, _summarize_seeds, markdown
from retinanet.lab.variants import COMPARISONS, VARIANTS, choose_variants
from retinanet.structures import BACKGROUND, IGNORED, Outputs


def variant(name: str, values: list[float | None], diverged: int = 0) -> dict[str, Any]:
    return {
        "options": list(VARIANTS[name].options),
        "paper_coco_ap": VARIANTS[name].paper,
        "AP": _summarize_seeds(values),
        "AP50": _summarize_seeds(values),
        "diverged": diverged,
        "runs": [
            {
                "curve": [] if value is None else [[2, value]],
                "easy_negatives": {
                    "loss": [[1, 0.5], [2, 0.25]],
                    "gradient": [[1, 0.5]],
                    "cross_entropy_loss": [[1, 0.75], [2, 0.25]],
                },
                "far_negatives": [[1, 0.0], [2, 0.125]],
            }
            for value in values
        ],
    }


def table(**variants: dict[str, Any]) -> str:
    return markdown({"steps": 9, "epochs": None, "batch_size": 4, "variants": variants})


def test_mean_and_spread_of_the_seeds() -> None:
    """0.1, 0.2, 0.3: the sample standard deviation is 0.1; one that diverged has no AP."""
    found = _summarize_seeds([0.1, 0.3, None, 0.2])
    assert (found["mean"], found["spread"]) == (pytest.approx(0.2), pytest.approx(0.1))
    assert (found["lowest"], found["highest"], found["seeds"]) == (0.1, 0.3, 3)
    assert _summarize_seeds([0.4])["spread"] is None
    assert _summarize_seeds([None])["mean"] is None


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([0.1, 0.2], "focal +0.350 compared with ohem, beyond the spread: the seeds do not"),
        ([0.1, 0.4], "focal +0.250 compared with ohem, within the spread: the seeds overlap"),
        ([0.8, 0.9], "focal -0.350 compared with ohem, beyond the spread: the seeds do not"),
        ([0.1], "focal +0.400 compared with ohem, one seed: the spread is not known"),
        ([None], "ohem: cannot be compared with focal: one of them has no AP"),
    ],
)
def test_whether_the_seeds_overlap(others: list[float | None], words: str) -> None:
    text = table(focal=variant("focal", [0.4, 0.6]), ohem=variant("ohem", others))
    assert words in text
    assert "| 2 | 0.500 ± 0.141 | 0.500 ± 0.141 | 50.0% → 37.5% | 50.0% | 6.2% | 34.0 |" in text


def test_diverged_is_not_the_same_as_no_ground_truth() -> None:
    lost = table(focal=variant("focal", [None], diverged=1), ohem=variant("ohem", [None]))
    rows = [line for line in lost.splitlines() if line.startswith(("| focal ", "| ohem "))]
    assert "| diverged | diverged |" in rows[0]
    assert "| n/a (no ground truth) | n/a (no ground truth) |" in rows[1]
    assert "0.400 (1 diverged)" in table(focal=variant("focal", [0.4, None], diverged=1))


def test_a_single_variant_also_has_a_table() -> None:
    text = table(focal=variant("focal", [0.4]))
    assert "### Other losses" in text and text.count("| focal |") == 1


def test_the_papers_variants() -> None:
    """Tables 1a, 1b and 1d, and appendix A, by their own numbers (references of the paper)."""
    alphas = [VARIANTS[name].paper for name in COMPARISONS["alpha"].variants]
    assert alphas == ["0", "10.8", "30.2", "31.1", "30.8", "28.7", "25.1"]
    gammas = [VARIANTS[name].paper for name in COMPARISONS["gamma"].variants]
    assert gammas == ["31.1", "31.4", "31.9", "32.9", "33.7", "34.0", "32.2"]
    mining = [VARIANTS[name].paper.split()[0] for name in COMPARISONS["mining"].variants]
    of_table_1d = ["32.8", "31.0", "27.6", "31.1", "31.8", "30.6", "31.1", "28.3", "24.0"]
    assert mining == [*of_table_1d, "34.0"]
    others = {name: VARIANTS[name].paper for name in ("cross_entropy", "focal_star_2_1")}
    assert others == {"cross_entropy": "30.2", "focal_star_2_1": "33.8"}
    assert VARIANTS["focal_star_4_0"].paper == "33.9"
    assert set(VARIANTS["ohem_256_nms_0.7"].options) == {
        "model.prior=0.01",
        "loss.class_loss=ohem",
        "loss.ohem_nms=0.7",
        "loss.ohem_negatives=null",
        "loss.ohem_examples=256",
    }
    assert VARIANTS["gamma_0.5"].options[-2:] == ("loss.gamma=0.5", "loss.alpha=0.5")
    assert {name for c in COMPARISONS.values() for name in c.variants} == set(VARIANTS)


def test_variants_are_chosen_by_name_or_comparison() -> None:
    chosen = choose_variants(["focal_star", "ohem", "focal"])
    assert [v.name for v in chosen] == ["focal", "focal_star_2_1", "focal_star_4_0", "ohem"]
    assert len(choose_variants(None)) == len(VARIANTS)
    with pytest.raises(UserError, match="--only alfa: there is no such variant; did you mean alp"):
        choose_variants(["alfa"])


def test_the_share_of_the_lowest_losses() -> None:
    shares = cumulative(torch.tensor([3.0, 1.0, 0.0, 0.0]))
    assert shares[::50] == [0.0, 0.0, 0.0, 0.25, 1.0]
    assert cumulative(torch.zeros(0)) == []


def test_which_logits_are_positives_and_negatives(
    scored: Callable[..., tuple[Outputs, Batch]],
) -> None:
    """Of three anchors one is a positive of the second class, one background, one neither."""
    logits = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    outputs_and_batch = scored([[0, BACKGROUND, IGNORED]], logits, levels=[3, 0, 0, 0, 0])
    positives, negatives = _split_logits(*outputs_and_batch)
    assert (positives.tolist(), negatives.tolist()) == ([2.0], [1.0, 3.0, 4.0])


def test_averaged_weights_count_where_a_run_has_them() -> None:
    lines = [
        {"step": 1, "val/AP": 0.1, "val/AP50": 0.2},
        {"step": 2, "val/AP": 0.3, "val/AP50": 0.4},
    ]
    run = {"seed": 0, "steps": 2, "diverged": None}
    assert _summarize_metrics(lines, run)["AP"] == 0.3
    averages = [{"step": 2, "val_average/AP": 0.5, "val_average/AP50": 0.6}]
    found = _summarize_metrics([*lines, *averages], run)
    assert (found["AP"], found["AP50"], found["curve"]) == (0.5, 0.6, [[2, 0.5]])


def test_a_step_that_is_not_finite_has_no_shares() -> None:
    shares = ("loss", "gradient", "cross_entropy_loss", "cross_entropy_gradient")
    counts = {"imbalance/positives": 3.0, "imbalance/negatives": 5.0, "imbalance/ignored": 1.0}
    bins = {"imbalance/p_t_of_negatives": [1.0, 0.0, 3.0]}
    lines = [
        {
            "step": step,
            **counts,
            **bins,
            **{f"imbalance/{name}/easy_negatives": share for name in shares},
        }
        for step, share in ((1, 0.5), (2, None))
    ]
    found = _summarize_metrics(lines, {"seed": 0, "steps": 2, "diverged": "at step 2"})
    assert found["easy_negatives"]["loss"] == [[1, 0.5]]
    assert found["far_negatives"] == [[1, 0.75]]
    assert found["examples"] == {"positives": 3.0, "negatives": 5.0, "ignored": 1.0}
    assert found["AP"] is None


def test_a_sweep_is_drawn_by_its_parameter(tmp_path: Path) -> None:
    """γ = 0 is balanced cross entropy; what has not been trained, or diverged, is left out."""
    pytest.importorskip("matplotlib")
    some = {
        "balanced_cross_entropy": variant("balanced_cross_entropy", [0.2]),
        "gamma_0.5": variant("gamma_0.5", [None], diverged=1),
        "gamma_1": variant("gamma_1", [0.3]),
        "focal": variant("focal", [0.4]),
        "alpha_0.9": variant("alpha_0.9", [0.5]),
    }
    by_gamma = [(value, ap["mean"]) for value, ap in _points_of_sweep(some, "gamma")]
    assert by_gamma == [(0.0, 0.2), (1.0, 0.3), (2.0, 0.4)]
    assert [(value, ap["mean"]) for value, ap in _points_of_sweep(some, "alpha")] == [
        (0.75, 0.2),
        (0.9, 0.5),
    ]
    drawn = {path.stem for path in draw_figures({"variants": some}, tmp_path)}
    assert drawn == {"ap_by_parameter", "easy_negatives", "learning_curves", "loss_by_p_t"}
    without = {name: some[name] for name in ("focal", "alpha_0.9")}
    drawn = {path.stem for path in draw_figures({"variants": without}, tmp_path)}
    assert "ap_by_parameter" not in drawn


def test_curves_are_drawn_by_comparison() -> None:
    """One panel per comparison with several variants, else one for all variants."""
    names = "focal", "ohem", "gamma_1"
    some = {name: variant(name, [0.1]) for name in names}
    groups = _group_by_comparison(some)
    assert {title.partition(" ")[0]: list(group) for title, group in groups.items()} == {
        "Losses": ["focal", "ohem"],
        "Focal": ["gamma_1", "focal"],
        "Hard": ["ohem", "focal"],
    }
    alone = {"focal": some["focal"]}
    assert _group_by_comparison(alone) == {"": alone}
