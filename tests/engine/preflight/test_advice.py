"""The usual length and learning rate, printed at the start."""

import re

import pytest

from retinanet.categories import Categories
from retinanet.checkpoints.format import Checkpoint, Progress
from retinanet.config import find_config, load_config, override_config
from retinanet.engine.preflight.advice import advise, usual_epochs, usual_rate
from retinanet.schema import Config


@pytest.mark.parametrize(("images", "epochs"), [(3, 60), (300, 30), (117_266, 12), (10**7, 12)])
def test_more_images_fewer_epochs(images: int, epochs: float) -> None:
    assert usual_epochs(images, "a backbone") == pytest.approx(epochs, rel=0.01)
    assert usual_epochs(images, "a detector") == pytest.approx(epochs / 2, rel=0.01)


def test_the_rate_belongs_to_the_batch() -> None:
    assert usual_rate("sgd", 16, "a backbone") == 0.01  # the paper's
    assert usual_rate("sgd", 8, "a backbone") == 0.005
    assert usual_rate("adamw", 4, "a backbone") == usual_rate("adamw", 16, "a backbone") / 2


@pytest.mark.parametrize(
    ("names", "start", "epochs"),
    [
        (None, "random weights", "20 to 40"),
        ((), "a backbone", "20 to 40"),
        (("cell",), "a detector", "10 to 20"),
    ],
)
def test_it_says_what_from(names: tuple[str, ...] | None, start: str, epochs: str) -> None:
    config = override_config(Config(), ["model.weights=none", "model.norm=bn", "model.freeze=none"])
    ids = tuple(range(len(names or ())))
    weights = Checkpoint(
        config=config,
        categories=Categories(ids=ids, names=names or ()),
        model={},
        progress=Progress(),
        environment={},
    )
    said = advise(config, 300, None if names is None else weights)
    assert said.startswith(f"usual for 300 images, from {start}: {epochs} epochs = ")


def test_its_numbers() -> None:
    words = ["train.steps=null", "train.epochs=20", "train.batch_size=8", "train.lr=0.02"]
    assert advise(override_config(Config(), words), 300, None) == (
        "usual for 300 images, from a backbone: 20 to 40 epochs = 750 to 1,500 steps of 8 (here "
        "20 epochs); sgd lr 0.003 to 0.01 (here 0.02)"
    )


@pytest.mark.parametrize(
    ("recipe", "images", "weights"),
    [
        ("bccd_r18", 205, "none"),
        ("bccd_lite0", 205, "IMAGENET"),
        ("finetune_small", 100, "IMAGENET"),
    ],
)
def test_our_own_recipes_follow_it(recipe: str, images: int, weights: str) -> None:
    """Recipes as they were run are within the advice."""
    config = load_config(find_config(recipe))
    assert (config.model.weights == "none") == (weights == "none")
    low, high, slow, fast = advised(config, images)
    assert config.train.epochs and low <= config.train.epochs <= high
    assert slow <= config.train.lr <= fast


def test_a_rate_that_left_a_class_unlearnt_is_under_it() -> None:
    """A hundred blood cell images and 2e-4: Platelets had an AP of 0.001 (docs/finetuning.md)."""
    _, _, slow, _ = advised(load_config(find_config("finetune_small")), 100)
    assert slow > 2e-4


def advised(config: Config, images: int) -> list[float]:
    """Return least and most epochs and rate, from the weights that the config names."""
    said = advise(config, images, None)
    found = re.search(r": (\d+) to (\d+) epochs .* lr ([\d.]+) to ([\d.]+) ", said)
    assert found, said
    return [float(number) for number in found.groups()]
