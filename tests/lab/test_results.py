"""The tables of the laboratory, from made-up trials."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from retinanet.errors import UserError
from retinanet.lab.distribution import cumulative
from retinanet.lab.figures import _compared
from retinanet.lab.results import _summary, markdown
from retinanet.lab.variants import COMPARISONS, VARIANTS, choose_variants


def variant(name: str, values: list[float | None], diverged: int = 0) -> dict[str, Any]:
    return {
        "options": list(VARIANTS[name].options),
        "paper_coco_ap": VARIANTS[name].paper,
        "AP": _summary(values),
        "AP50": _summary(values),
        "diverged": diverged,
        "runs": [{"easy_negatives": {"loss": [[1, 0.5], [2, 0.25]]}} for _ in values],
    }


def table(**variants: dict[str, Any]) -> str:
    return markdown({"steps": 9, "epochs": None, "batch_size": 4, "variants": variants})


def test_mean_and_spread_of_the_seeds() -> None:
    """0.1, 0.2, 0.3: the sample standard deviation is 0.1; one that diverged has no AP."""
    found = _summary([0.1, 0.3, None, 0.2])
    assert (found["mean"], found["spread"]) == (pytest.approx(0.2), pytest.approx(0.1))
    assert (found["lowest"], found["highest"], found["seeds"]) == (0.1, 0.3, 3)
    assert _summary([0.4])["spread"] is None
    assert _summary([None])["mean"] is None


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([0.1, 0.2], "focal +0.350 against ohem, beyond the spread: no seed of one reaches"),
        ([0.1, 0.4], "focal +0.250 against ohem, within the spread: the seeds overlap"),
        ([0.8, 0.9], "focal -0.350 against ohem, beyond the spread: no seed of one reaches"),
        ([0.1], "focal +0.400 against ohem, one seed: the spread is not known"),
        ([None], "ohem: there is no AP of both to compare"),
    ],
)
def test_what_the_seeds_tell_apart(others: list[float | None], words: str) -> None:
    text = table(focal=variant("focal", [0.4, 0.6]), ohem=variant("ohem", others))
    assert words in text
    assert "| 2 | 0.500 ± 0.141 | 0.500 ± 0.141 | 50.0% → 25.0% | 34.0 |" in text


def test_diverged_is_not_the_same_as_no_ground_truth() -> None:
    lost = table(focal=variant("focal", [None], diverged=1), ohem=variant("ohem", [None]))
    rows = [line for line in lost.splitlines() if line.startswith(("| focal ", "| ohem "))]
    assert "| diverged | diverged |" in rows[0]
    assert "| n/a (no ground truth) | n/a (no ground truth) |" in rows[1]
    assert "0.400 (1 diverged)" in table(focal=variant("focal", [0.4, None], diverged=1))


def test_a_variant_alone_has_a_table_too() -> None:
    text = table(focal=variant("focal", [0.4]))
    assert "### Alone" in text and text.count("| focal |") == 1


def test_the_papers_variants() -> None:
    """Tables 1a, 1b and 1d, and appendix A, by their own numbers (references of the paper)."""
    alphas = [VARIANTS[name].paper for name in COMPARISONS["alpha"].variants]
    assert alphas == ["0", "10.8", "30.2", "31.1", "30.8", "28.7", "25.1"]
    gammas = [VARIANTS[name].paper for name in COMPARISONS["gamma"].variants]
    assert gammas == ["31.1", "31.4", "31.9", "32.9", "33.7", "34.0", "32.2"]
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


def test_curves_are_drawn_by_comparison() -> None:
    """Of comparisons with several variants; without any, of all that there are."""
    names = "focal", "ohem", "gamma_1"
    some = {name: variant(name, [0.1]) for name in names}
    assert {title.partition(" ")[0]: list(group) for title, group in _compared(some).items()} == {
        "Losses": ["focal", "ohem"],
        "Focal": ["gamma_1", "focal"],
        "Hard": ["ohem", "focal"],
    }
    alone = {"focal": some["focal"]}
    assert _compared(alone) == {"": alone}
