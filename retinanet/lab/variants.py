"""The losses compared by Lin et al., arXiv 1708.02002, as options of an experiment."""

from __future__ import annotations

from dataclasses import dataclass

from retinanet.errors import UserError, nearest


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One loss to train with."""

    name: str
    options: tuple[str, ...]
    """Options that replace those of the experiment."""
    paper: str
    """AP in the paper, on COCO minival, R50 at 600 px unless noted."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Some variants side by side."""

    title: str
    variants: tuple[str, ...]


_PRIOR = "model.prior=0.01"
_R101 = "(R101, where focal has 36.0)"


def _cross_entropy(prior: str = _PRIOR) -> tuple[str, ...]:
    return prior, "loss.class_loss=cross_entropy"


def _balanced(alpha: float) -> tuple[str, ...]:
    return _PRIOR, "loss.class_loss=balanced_cross_entropy", f"loss.alpha={alpha}"


def _focal(gamma: float, alpha: float) -> tuple[str, ...]:
    return _PRIOR, "loss.class_loss=focal", f"loss.gamma={gamma}", f"loss.alpha={alpha}"


def _ohem(examples: int, nms_iou: float = 0.5, negatives: str = "null") -> tuple[str, ...]:
    own = f"loss.ohem_nms={nms_iou}", f"loss.ohem_negatives={negatives}"
    return _PRIOR, "loss.class_loss=ohem", *own, f"loss.ohem_examples={examples}"


def _star(gamma: float, beta: float) -> tuple[str, ...]:
    own = f"loss.gamma={gamma}", f"loss.star_beta={beta}", "loss.alpha=0.25"
    return _PRIOR, "loss.class_loss=focal_star", *own


_ALL = (
    ("cross_entropy_without_prior", _cross_entropy("model.prior=0.5"), "diverges"),
    ("cross_entropy", _cross_entropy(), "30.2"),
    ("balanced_cross_entropy", _balanced(0.75), "31.1"),
    ("focal", _focal(2.0, 0.25), "34.0"),
    ("ohem", _ohem(128), f"32.8 {_R101}"),
    ("alpha_0.1", _balanced(0.1), "0"),
    ("alpha_0.25", _balanced(0.25), "10.8"),
    ("alpha_0.5", _balanced(0.5), "30.2"),
    ("alpha_0.9", _balanced(0.9), "30.8"),
    ("alpha_0.99", _balanced(0.99), "28.7"),
    ("alpha_0.999", _balanced(0.999), "25.1"),
    ("gamma_0.1", _focal(0.1, 0.75), "31.4"),
    ("gamma_0.2", _focal(0.2, 0.75), "31.9"),
    ("gamma_0.5", _focal(0.5, 0.5), "32.9"),
    ("gamma_1", _focal(1.0, 0.25), "33.7"),
    ("gamma_5", _focal(5.0, 0.25), "32.2"),
    ("ohem_256", _ohem(256), f"31.0 {_R101}"),
    ("ohem_512", _ohem(512), f"27.6 {_R101}"),
    ("ohem_nms_0.7", _ohem(128, nms_iou=0.7), f"31.1 {_R101}"),
    ("ohem_256_nms_0.7", _ohem(256, nms_iou=0.7), f"31.8 {_R101}"),
    ("ohem_512_nms_0.7", _ohem(512, nms_iou=0.7), f"30.6 {_R101}"),
    ("ohem_1_to_3", _ohem(128, negatives="3"), f"31.1 {_R101}"),
    ("ohem_256_1_to_3", _ohem(256, negatives="3"), f"28.3 {_R101}"),
    ("ohem_512_1_to_3", _ohem(512, negatives="3"), f"24.0 {_R101}"),
    ("focal_star_2_1", _star(2.0, 1.0), "33.8"),
    ("focal_star_4_0", _star(4.0, 0.0), "33.9"),
)

VARIANTS = {name: Variant(name=name, options=options, paper=paper) for name, options, paper in _ALL}


def _names(words: str) -> tuple[str, ...]:
    return tuple(words.split())


COMPARISONS = {
    "main": Comparison(
        title="Losses",
        variants=_names(
            "cross_entropy_without_prior cross_entropy balanced_cross_entropy focal ohem"
        ),
    ),
    "alpha": Comparison(
        title="α-balanced cross entropy by α (table 1a)",
        variants=_names(
            "alpha_0.1 alpha_0.25 alpha_0.5 balanced_cross_entropy alpha_0.9 alpha_0.99 alpha_0.999"
        ),
    ),
    "gamma": Comparison(
        title="Focal loss by γ, each with its α (table 1b)",
        variants=_names(
            "balanced_cross_entropy gamma_0.1 gamma_0.2 gamma_0.5 gamma_1 focal gamma_5"
        ),
    ),
    "mining": Comparison(
        title="Hard example mining (table 1d)",
        variants=_names(
            "ohem ohem_256 ohem_512 ohem_nms_0.7 ohem_256_nms_0.7 ohem_512_nms_0.7 ohem_1_to_3 "
            "ohem_256_1_to_3 ohem_512_1_to_3 focal"
        ),
    ),
    "focal_star": Comparison(
        title="Another form of focal loss (appendix A)",
        variants=_names("focal focal_star_2_1 focal_star_4_0"),
    ),
}


def choose_variants(only: list[str] | None) -> list[Variant]:
    """Return variants by their own names or by names of comparisons; None returns all of them.

    Raises:
        UserError: A name is unknown; the message lists the valid ones.
    """
    names: dict[str, None] = {}  # in order, without repeats
    for word in list(COMPARISONS) if only is None else only:
        if word in COMPARISONS:
            names |= dict.fromkeys(COMPARISONS[word].variants)
        elif word in VARIANTS:
            names[word] = None
        else:
            close = nearest(word, [*COMPARISONS, *VARIANTS])
            raise UserError(
                f"--only {word}: there is no such variant{close or '.'} Comparisons: "
                f"{', '.join(COMPARISONS)}; variants: {', '.join(VARIANTS)}"
            )
    return [VARIANTS[name] for name in names]
