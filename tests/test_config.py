"""The schema: its defaults, its messages, and which source of a value wins."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from retinanet.config import (
    apply_override,
    build_config,
    describe,
    dump_config,
    find_config,
    follow_config,
    load_config,
    override_config,
    save_config,
)
from retinanet.errors import UserError
from retinanet.option_aliases import OTHER_NAMES, REMARKS
from retinanet.schema import Config
from retinanet.schema.options import find_option

CONFIGS = Path(__file__).parents[1] / "configs"


def write(folder: Path, text: str, name: str = "exp.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def all_options(values: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted name of every leaf."""
    names = []
    for key, value in values.items():
        if isinstance(value, dict):
            names += all_options(value, f"{prefix}{key}.")
        else:
            names.append(prefix + key)
    return names


@pytest.mark.parametrize(("backbone", "norm"), [("resnet18", "gn"), ("timm:resnet18", "bn")])
def test_random_weights_name_the_norm_that_goes_with_them(backbone: str, norm: str) -> None:
    words = [f"model.backbone={backbone}", "model.weights=none"]
    with pytest.raises(UserError, match=rf"diverges.* Set model\.norm={norm} model\.freeze=none"):
        override_config(Config(), words)
    override_config(Config(), [*words, f"model.norm={norm}", "model.freeze=none"])


@pytest.mark.parametrize(
    ("count", "named"),
    [(0, "none"), (1, "stem"), (2, "stages:1"), (4, "stages:3"), (5, "backbone")],
)
def test_a_count_of_frozen_stages_is_read(count: int, named: str) -> None:
    """What runs of before freeze had names were saved with."""
    config = build_config({"model": {"frozen_stages": count}}, source="x")
    assert (config.model.freeze, config.model.frozen_stages) == (named, count)


def test_a_count_of_frozen_stages_beside_freeze_is_refused() -> None:
    """An option that would be ignored is none."""
    config = load_config(CONFIGS / "torchvision_v2_coco.yaml", ["model.frozen_stages=2"])
    assert config.model.freeze == "stages:1"
    with pytest.raises(
        UserError, match="frozen_stages: 4 is an earlier form of freeze: stages:3, but f"
    ):
        load_config(CONFIGS / "torchvision_v2_coco.yaml", ["model.frozen_stages=4"])


def test_a_random_pyramid_is_not_frozen() -> None:
    with pytest.raises(UserError, match=r"all_but_head would freeze a random pyramid\. Name a d"):
        override_config(Config(), ["model.freeze=all_but_head"])
    override_config(Config(), ["model.freeze=all_but_head", "model.init_from=x.pt"])


@pytest.mark.parametrize(
    ("backbone", "frozen"), [("resnet18", "stages:1"), ("timm:resnet18", "none")]
)
def test_freezing_does_not_follow_the_weights(backbone: str, frozen: str) -> None:
    """Of heads trained first, all but them frozen, the next training is of all."""
    words = [f"model.backbone={backbone}", "model.freeze=backbone", "model.norm_eps=0.01"]
    start = override_config(Config(), words)
    config, taken = follow_config(
        override_config(Config(), ["model.init_from=x"]), start, source="x"
    )
    assert (config.model.backbone, config.model.freeze) == (backbone, frozen)
    assert "model.norm_eps=0.01" in taken and config.model.norm_eps == 0.01


def test_the_defaults() -> None:
    """They are a promise: a run without a config means the same in the next release."""
    config = Config()
    model, train, data, loss = config.model, config.train, config.data, config.loss
    assert (model.backbone, model.weights, model.norm) == (
        "resnet50",
        "IMAGENET1K_V1",
        "frozen_bn",
    )
    assert (model.p6_from, model.prior, model.frozen_stages) == ("c5", 0.01, 2)
    assert (train.steps, train.epochs, train.batch_size) == (90000, None, 16)
    assert (train.lr, train.lr_drop, train.milestones) == (0.01, 0.1, None)
    assert (train.optimizer, train.momentum, train.weight_decay) == ("sgd", 0.9, 1e-4)
    assert train.clip_norm > 0 and train.warmup_steps > 0
    assert (data.short_side, data.long_side, data.hflip) == ((800,), 1333, 0.5)
    assert (data.drop_empty, data.canvas) == (False, "bucket")
    assert (loss.alpha, loss.gamma, loss.box_loss, loss.beta) == (0.25, 2.0, "smooth_l1", 0.1)
    assert (loss.class_loss, loss.normalizer) == ("focal", "positives")
    assert (loss.star_beta, loss.ohem_examples, loss.ohem_nms) == (1.0, 128, 0.5)
    assert loss.ohem_negatives is None
    assert (config.assign.kind, config.assign.atss_candidates) == ("max_iou", 9)
    assert (config.assign.positive_iou, config.assign.negative_iou) == (0.5, 0.4)
    assert (config.assign.low_quality, config.assign.crowd_overlap) == (True, 0.5)
    assert config.anchors.ratios == (0.5, 1.0, 2.0)
    assert config.anchors.sizes[0] == pytest.approx((32, 40.3175, 50.7968), abs=1e-4)
    assert config.anchors.sizes[4] == pytest.approx((512, 645.0796, 812.7493), abs=1e-4)
    assert (config.postprocess.score_threshold, config.postprocess.nms_threshold) == (0.05, 0.5)
    assert (config.postprocess.topk_per_level, config.postprocess.max_detections) == (1000, 100)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lrr=1", r"train\.lrr is not an option; did you mean train\.lr\?"),
        ("trian.lr=1", r"trian is not an option; did you mean train\?"),
        (
            "data.train.imags=x",
            r"data\.train\.imags is not an option; did you mean data\.train\.images\?",
        ),
        ("train.my-key=3", r"train\.my-key is not an option"),
        ("optimizer.lr=3", r"optimizer is not an option; did you mean train\.lr\?"),
        ("qqqqq.x=3", "qqqqq is not an option; the options are: model, anchors, assign, "),
        (
            "eval.qqqqq=3",
            "eval.qqqqq is not an option; the options are: every, batch_size, pictures",
        ),
        # Wrong types.
        ("train.lr=fast", "train.lr is 'fast'; it should be a number"),
        ("train.lr=", "train.lr is ''; it should be a number"),
        ("train.steps=1.5", "train.steps is 1.5; it should be an integer"),
        ("train.steps=true", "train.steps is True; it should be an integer"),
        ("train.micro_batch=all", "train.micro_batch is 'all'; it should be 'auto'\n"),
        ("train.micro_batch=all", "train.micro_batch is 'all'; it should be an integer$"),
        ("train.device=gpu", "train.device is 'gpu'; it should be 'auto', 'cpu', 'cuda' or 'mps'"),
        ("model.norm=gnn", "model.norm is 'gnn'; it should be 'frozen_bn', 'bn', 'sync_bn' or"),
        ("model.norm=null", "model.norm is None; it should be"),
        ("assign.kind=iou", "assign.kind is 'iou'; it should be 'max_iou' or 'atss'"),
        (
            "loss.class_loss=bce",
            "loss.class_loss is 'bce'; it should be 'focal', 'cross_entropy', ",
        ),
        ("loss.box_loss=iou", "loss.box_loss is 'iou'; it should be 'smooth_l1', 'l1', 'giou', 'd"),
        ("data.drop_empty=on", "data.drop_empty is 'on'; it should be a boolean, true or false$"),
        ("data.short_side=x", r"data.short_side is 'x'; it should be a list, in \[brackets\]"),
        ("data.short_side=[]", r"data.short_side is \[\]; it should be a longer list"),
        ("data.augment=[3]", "data.augment.0 is 3; it should be a dictionary"),
        ("model.pixel_mean=[1]", r"model.pixel_mean.1 is \[1\]; it should be a longer list"),
        # Out of range.
        ("train.lr=-1", "train.lr is -1; it should be greater than 0"),
        ("train.lr=.inf", "train.lr is inf; it should be a finite number"),
        ("train.lr=.nan", "train.lr is nan; it should be"),
        ("train.momentum=1", "train.momentum is 1; it should be less than 1"),
        ("train.batch_size=0", "train.batch_size is 0; it should be greater than or equal to 1"),
        ("data.hflip=1.5", "data.hflip is 1.5; it should be less than or equal to 1"),
        (
            "assign.atss_candidates=0",
            "assign.atss_candidates is 0; it should be greater than or equal to 1",
        ),
        ("loss.alpha=1.5", "loss.alpha is 1.5; it should be less than or equal to 1"),
        ("loss.gamma=-1", "loss.gamma is -1; it should be greater than or equal to 0"),
        (
            "loss.ohem_examples=0",
            "loss.ohem_examples is 0; it should be greater than or equal to 1",
        ),
        ("loss.ohem_nms=2", "loss.ohem_nms is 2; it should be less than or equal to 1"),
        ("loss.ohem_negatives=0", "loss.ohem_negatives is 0; it should be greater than or equal"),
        ("data.workers=-1", "data.workers is -1; it should be greater than or equal to 0"),
        ("model.prior=0", "model.prior is 0; it should be greater than 0"),
        (
            "model.pixel_std=[0, 1, 1]",
            "model.pixel_std.0 is 0; it should be greater than or equal to 1e-06",
        ),
        (
            "model.freeze=stages:5",
            "command line: model.freeze: stages:5 should be none, stem, stages:1 to",
        ),
        (
            "anchors.ratios=[1, 0]",
            "anchors.ratios.1 is 0; it should be greater than or equal to 0.001",
        ),
        ("train.seed=-1", "train.seed is -1; it should be greater than or equal to 0"),
        (
            "train.seed=18446744073709551616",
            "train.seed is 18446744073709551616; it should be less than or equal to "
            "9223372036854775807$",
        ),
        ("train.seed=1e400", "train.seed is inf; it should be an integer"),
        ("train.lr=1e400", "train.lr is inf; it should be a finite number"),
        ("train.steps=2147483648", "it should be less than or equal to 2147483647"),
        ("train.batch_size=1000000000", "it should be less than or equal to 65536"),
        ("data.workers=10000", "data.workers is 10000; it should be less than or equal to 512"),
        (
            "data.short_side=1000000",
            "^command line: data.short_side.0 is 1000000; it should be .* or equal to 16384$",
        ),
        (
            "train.device=cuda:1",
            "'cpu', 'cuda' or 'mps'. To choose one of several GPUs, put CUDA_VISIBLE_DEVICES=1 in "
            "front of the command, with train.device=cuda$",
        ),
        # Options that do not go together.
        ("model.weights=none", "norm: frozen_bn diverges.*Set model.norm=gn model.freeze=none"),
        ("model.norm=gn", "IMAGENET1K_V1 were trained with batch norm and do not fit norm: gn"),
        ("assign.negative_iou=0.6", "assign: negative_iou: 0.6 is above positive_iou: 0.5"),
        ("train.milestones=[3, 2]", r"train: milestones: \[3, 2\] should be in ascending order"),
        ("train.milestones=[3, 3]", r"train: milestones: \[3, 3\] should be in ascending order"),
        ("train.steps=null", "train: give either steps or epochs"),
        ("data.long_side=700", "data: long_side: 700 is less than a short side of 800"),
        ("data.short_side=[640, 1400]", "long_side: 1333 is less than a short side of 1400"),
        ("data.eval_short_side=1400", "long_side: 1333 is less than a short side of 1400"),
        (
            "anchors.sizes=[[32]]",
            "anchors: sizes: should be 5 lists, one for each of P3-P7, not 1$",
        ),
        ("anchors.sizes=[[1], [2], [3], [4], [5, 6]]", "every level needs the same number"),
        ("anchors.sizes=[[], [], [], [], []]", "every level needs the same number"),
        # Not an override at all.
        ("lr=2", "'lr=2' is not of the form section.key=value, such as train.lr=0.02"),
        ("train.lr", "is not of the form section.key=value"),
        ("train..lr=2", "is not of the form section.key=value"),
        ("train=3", "is not of the form section.key=value"),
        ("train.lr.x=3", "'train.lr.x=3': lr is not a section"),
        ("train.lr=[1", r"train.lr=\[1, line 1: "),
    ],
)
def test_wrong_options_are_named(override: str, message: str) -> None:
    """An unknown key is refused, with the nearest known one."""
    with pytest.raises(UserError, match=message):
        override_config(Config(), [override])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.weights=none", "model.norm=gn"],
            "freeze: stages:1 would freeze random weights. Set model.freeze=none",
        ),
        (
            ["model.head_norm=gn", "model.head_channels=40"],
            "head_channels: 40 should be 64, 96, 128, ... for head_norm: gn",
        ),
        (
            ["loss.class_loss=focal_star", "loss.gamma=0"],
            r"loss: class_loss: focal_star divides by gamma: 0; the paper uses 2 \(star_beta 1\) "
            r"and 4 \(star_beta 0\)$",
        ),
        (
            ["loss.class_loss=balanced_cross_entropy", "loss.alpha=null"],
            "loss: class_loss: balanced_cross_entropy with alpha: null is cross_entropy. Set an "
            r"alpha, such as 0\.75, or loss\.class_loss=cross_entropy$",
        ),
        (
            ["loss.ohem_examples=3", "loss.ohem_negatives=3"],
            "loss: ohem_examples: 3 has no room for a positive and its ohem_negatives: 3; set "
            "ohem_examples to at least 4$",
        ),
    ],
)
def test_wrong_pairs_of_options_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        override_config(Config(), overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss.gamma=0"],  # of focal: balanced cross entropy
        ["loss.alpha=null"],
        ["loss.gamma=0", "loss.alpha=null"],
        ["loss.class_loss=focal_star", "loss.gamma=0.5", "loss.alpha=null"],
        ["loss.class_loss=cross_entropy", "loss.alpha=null", "loss.gamma=0"],
        ["loss.class_loss=ohem", "loss.ohem_nms=1", "loss.ohem_negatives=3"],
        ["loss.class_loss=balanced_cross_entropy", "loss.gamma=0"],
    ],
)
def test_other_pairs_of_loss_options_go_together(overrides: list[str]) -> None:
    loss = dump_config(override_config(Config(), overrides))["loss"]
    for override in overrides:
        key, value = override.removeprefix("loss.").split("=")
        assert str(loss[key]).replace("None", "null").removesuffix(".0") == value


def test_random_weights_go_with_gn_and_nothing_frozen() -> None:
    config = override_config(Config(), ["model.weights=none", "model.norm=gn", "model.freeze=none"])
    assert config.model.norm == "gn"


def test_each_wrong_key_has_its_line() -> None:
    with pytest.raises(UserError) as caught:
        build_config({"train": {"lr": -1, "stepz": 3}, "data": {"hflip": 2}}, source="a.yaml")
    assert str(caught.value).splitlines() == [
        "a.yaml: data.hflip is 2; it should be less than or equal to 1",
        "a.yaml: train.lr is -1; it should be greater than 0",
        "a.yaml: train.stepz is not an option; did you mean train.steps?",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: 3", r"exp\.yaml: train is 3; it should be a section with options in it"),
        ("output: 3", r"exp\.yaml: output is 3; it should be a section with options in it"),
        ("data: {train: [1]}", r"data\.train is \[1\]; it should be a section"),
        ("model: {backbone: 3}", r"exp\.yaml: model\.backbone is 3; it should be a string$"),
        ("data: {preset_canvas: [32, 32, 32]}", r"is \[32, 32, 32\]; it should be a shorter list$"),
        ("train: {steps: 5, epochs: 2}", "train: give either steps or epochs"),
        ("train: {steps: null}", "train: give either steps or epochs"),
        ("data: {augment: &a [*a]}", r"data\.augment\.0 is"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(write(tmp_path, text))


def test_a_section_of_comments_alone_keeps_its_defaults(tmp_path: Path) -> None:
    text = "train:\n  # lr: 0.1\ndata:\n  train:\noutput:\n"
    assert load_config(write(tmp_path, text)).train == Config().train


def test_command_line_wins_over_yaml_wins_over_default(tmp_path: Path) -> None:
    path = write(tmp_path, "train: {lr: 0.02, momentum: 0.8}\n")
    config = load_config(path, ["train.lr=0.03"])
    assert config.train.lr == 0.03
    assert config.train.momentum == 0.8
    assert config.train.weight_decay == 1e-4


def test_the_last_of_two_overrides_wins() -> None:
    config = override_config(Config(), ["train.lr=0.5", "train.lr=1e-3"])
    assert config.train.lr == 0.001


@pytest.mark.parametrize(
    ("yaml", "overrides", "steps", "epochs"),
    [
        ("{}", [], 90000, None),
        ("train: {epochs: 12}", [], None, 12),
        ("train: {epochs: 12}", ["train.steps=100"], 100, None),
        ("train: {steps: 100}", ["train.epochs=3"], None, 3),
        ("train: {epochs: 12}", ["train.steps=100", "train.epochs=4"], None, 4),
        ("{}", ["train.epochs=3"], None, 3),
        ("train: {epochs: 12}", ["train.steps=null"], None, 12),
    ],
)
def test_one_length_takes_the_place_of_the_other(
    tmp_path: Path, yaml: str, overrides: list[str], steps: int | None, epochs: int | None
) -> None:
    train = load_config(write(tmp_path, yaml), overrides).train
    assert (train.steps, train.epochs) == (steps, epochs)


def test_a_run_is_named_after_its_file_unless_it_has_a_name(tmp_path: Path) -> None:
    path = write(tmp_path, "output: {dir: elsewhere}", name="my_run.yaml")
    assert load_config(path).output.name == "my_run"
    assert load_config(path).output.dir == "elsewhere"
    assert load_config(path, ["output.name=other"]).output.name == "other"


def test_an_override_reaches_into_nested_sections() -> None:
    values: dict[str, Any] = {"data": None}
    apply_override(values, "data.train.images=a b=c")
    assert values == {"data": {"train": {"images": "a b=c"}}}


def test_saved_config_loads_as_the_same_experiment(tmp_path: Path) -> None:
    """The resolved config is saved."""
    config = override_config(
        Config(),
        [
            "train.epochs=3",
            "train.lr=1e-5",
            "data.root='1e-4'",  # a string that looks like a number
            "output.name='007'",
            "data.augment=[{RandomGamma: {p: 0.3, gamma_limit: [80, 120]}}]",
            "data.short_side=[640, 672]",
        ],
    )
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config
    assert build_config(dump_config(config), source="dump") == config


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_files_load(path: Path) -> None:
    assert load_config(path).output.name == path.stem


def test_there_are_shipped_files() -> None:
    assert (CONFIGS / "demo.yaml").is_file()


def test_every_option_is_described() -> None:
    lines = describe().splitlines()
    names = [line.split(":")[0].strip() for line in lines if re.match(r"  [a-z_0-9.]+: ", line)]
    assert names == all_options(dump_config(Config()))
    assert len(names) > 70


def meanings(kind: type[BaseModel], prefix: str = "") -> dict[str, str | None]:
    """Return the description of every option of a section."""
    found: dict[str, str | None] = {}
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= meanings(inner, f"{prefix}{name}.")
        else:
            found[prefix + name] = field.description
    return found


def test_every_option_has_a_meaning() -> None:
    described = meanings(Config)
    assert list(described) == all_options(dump_config(Config()))
    assert [name for name, text in described.items() if not text or len(text) < 6] == []
    phrase = re.compile(r"([A-Z]|null\b|max_iou|corners).*\.", re.DOTALL)
    assert [text for text in described.values() if text and not phrase.fullmatch(text)] == []


def test_a_section_is_described_with_types_ranges_and_defaults() -> None:
    text = describe("train")
    assert "  train.lr: number > 0 (default 0.01)\n      Peak learning rate" in text
    assert "  train.steps: integer ≥ 1 or null (default 90000)\n" in text
    assert "  train.schedule: multistep | cosine (default multistep)\n" in text
    assert "  train.milestones: list of integers ≥ 1 or null (default null)\n" in text
    assert "  train.momentum: number ≥ 0 and < 1 (default 0.9)\n      Momentum of SGD.\n" in text
    assert "  loss.gamma: number from 0 to 100 (default 2.0)\n" in describe("loss")
    assert "  anchors.ratios: list of numbers from 0.001 to 1000 (" in describe("anchors")
    assert "  data.augment: list of dictionaries (default [])\n" in describe("data")
    assert "data." not in text.split("train.batch_size")[0]


def test_an_unknown_section_is_named() -> None:
    with pytest.raises(UserError, match=r"^trian is neither a section, .* did you mean train\?"):
        describe("trian")
    with pytest.raises(UserError, match=r"Sections: model, anchors, assign, loss, data, train"):
        describe("zzzz")


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Config().train.lr = 3  # type: ignore[misc]


def test_another_unit_of_length_needs_the_options_that_count_in_it(tmp_path: Path) -> None:
    """26 epochs with a drop after epoch 16 are not 20,000 steps with a drop after step 16."""
    path = write(tmp_path, "train: {epochs: 26, milestones: [16, 22]}\neval: {every: 1}\n")
    for words, key, value in (
        ([], "train.milestones", r"\[16, 22\]"),
        (["train.milestones=[9, 15]"], "eval.every", "1"),
    ):
        said = rf"changes the unit of {key}: {value}. Set {key} in steps too, or {key}=null"
        with pytest.raises(UserError, match=f"train.steps in place of train.epochs {said}"):
            load_config(path, ["train.steps=20", *words])
    config = load_config(path, ["train.steps=20", "train.milestones=null", "eval.every=10"])
    assert (config.train.steps, config.train.epochs) == (20, None)
    assert (config.train.milestones, config.eval.every) == (None, 10)
    longer = load_config(path, ["train.epochs=52"])
    assert longer.train.milestones == (16, 22)
    assert load_config(write(tmp_path, "{}"), ["train.epochs=12"]).train.epochs == 12


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("data.root=/tmp/a #b", "/tmp/a #b"),
        ("data.root=2017", "2017"),
        ("data.root='quoted: yes'", "quoted: yes"),
        ("data.root=", ""),
        ("data.root=[x]", "[x]"),
        ("model.weights=none", "none"),
        ("output.name=1e3", "1e3"),
        ("output.name=true", "true"),
        ("output.name=null", None),
        ('output.name="null"', "null"),
    ],
)
def test_names_and_paths_are_taken_as_they_stand(text: str, value: Any) -> None:
    values: dict[str, Any] = {}
    apply_override(values, text)
    for part in text.split("=")[0].split("."):
        values = values[part]
    assert values == value


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "..", ".", " "])
def test_the_name_of_a_run_is_one_folder(name: str) -> None:
    with pytest.raises(UserError, match=r"output: name: .* is not the name of a folder in"):
        build_config({"output": {"name": name}}, source="x")


def test_one_short_side_needs_no_brackets() -> None:
    assert override_config(Config(), ["data.short_side=640"]).data.short_side == (640,)


def test_an_option_is_described_by_its_name() -> None:
    text = describe("train.lr")
    assert "  train.lr: number > 0 (default 0.01)\n      Peak learning rate" in text
    assert "train.momentum" not in text
    with pytest.raises(UserError, match=r"^lr is neither .* did you mean train\.lr\?"):
        describe("lr")


@pytest.mark.parametrize(("text", "meant"), [("lr=1", "train.lr"), ("batch_size=4", "train.batch")])
def test_an_option_without_its_section(text: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"is not of the form .*; did you mean {meant}"):
        apply_override({}, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imgsz=640", r"^'imgsz=640' is not of the form .*; did you mean data\.short_side\?$"),
        ("SOLVER.GAMMA=0.1", r"SOLVER\.GAMMA is not an option; did you mean train\.lr_drop\?$"),
        ("SOLVER.BASE_LR", r"^'SOLVER.BASE_LR' is not of the form .*; did you mean train\.lr\?$"),
        ("train_cfg.max_epochs=12", r"max_epochs is not an option; did you mean train\.epochs\?$"),
        ("model.backbone.depth=50", r": backbone is not a section; did you mean model.backbone\?$"),
        ("train.learning_rate=1", r"^command line: train.learning_rate .* mean train\.lr\?$"),
        (
            "model.num_classes=3",
            r"mean data\.classes\? \(their number follows from the annotations\)$",
        ),
        ("samples_per_gpu=2", r"mean train\.batch_size\? \(over all devices\)$"),
    ],
)
def test_names_of_other_projects(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        override_config(Config(), [text])


def test_names_of_other_projects_in_a_file(tmp_path: Path) -> None:
    """Each by itself, and blamed on where it stands."""
    path = write(
        tmp_path, "SOLVER: {BASE_LR: 1, FOO: 2}\nMODEL: {WEIGHTS: x, RESNETS: {DEPTH: 18}}\n"
    )
    with pytest.raises(UserError) as wrong:
        load_config(path, ["SOLVER.GAMMA=0.1"])
    assert str(wrong.value).splitlines() == [
        f"{path}: SOLVER.BASE_LR is not an option; did you mean train.lr?",
        f"{path}: SOLVER.FOO is not an option",
        "command line: SOLVER.GAMMA is not an option; did you mean train.lr_drop?",
        f"{path}: MODEL.WEIGHTS is not an option; did you mean model.init_from? (weights of a "
        "detector; those of a backbone are model.weights)",
        f"{path}: MODEL.RESNETS.DEPTH is not an option; did you mean model.backbone?",
    ]


@pytest.mark.parametrize("name", ["eval.batch_size", "data.val.images", "train.lr"])
def test_an_option_is_what_it_is_though_another_section_has_one(name: str) -> None:
    assert find_option(name) == name


def test_the_table_of_other_names_is_that_of_the_docs() -> None:
    """Each name stands in the row of an option that there is, in the column of its project."""
    text = (Path(__file__).parents[1] / "docs/config.md").read_text(encoding="utf-8")
    row = re.compile(r"^\| `(\S*)` \|" + r"([^|]*)\|" * 4 + "$", re.MULTILINE)
    rows = {key: cells for key, *cells in row.findall(text)}
    said = [
        {
            name.lower().removeprefix("--").replace("-", "_"): key
            for key, cells in rows.items()
            for name in re.findall("`(.*?)`", cells[column])
        }
        for column in range(4)
    ]
    projects = ("ultralytics", "detectron2", "mmdetection", "torchvision")
    assert said == [OTHER_NAMES[project] for project in projects]
    meant = {key for table in OTHER_NAMES.values() for key in table.values()} | set(REMARKS)
    options = describe()
    assert [key for key in meant if f"  {key}: " not in options] == []


def test_what_the_command_line_set_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "train: {lr: -1}\n")
    with pytest.raises(UserError) as wrong:
        load_config(path, ["train.btach_size=4"])
    lines = str(wrong.value).splitlines()
    assert sorted(line.split(": ")[0] for line in lines) == sorted([str(path), "command line"])


def test_options_that_do_not_go_together_are_blamed_on_who_brought_them(tmp_path: Path) -> None:
    path = write(tmp_path, "model: {backbone: resnet18}\ntrain: {epochs: 2}\neval: {every: 1}\n")
    for words in (["model.norm=gn"], ["data.long_side=9"], ["train.steps=abc"]):
        with pytest.raises(UserError, match=r"^command line: "):
            load_config(path, words)
    wrong = write(tmp_path, "model: {norm: gn}\n", name="wrong.yaml")
    with pytest.raises(UserError, match=r"wrong\.yaml: model: weights: "):
        load_config(wrong, ["train.lr=0.1"])


def test_a_wrong_length_is_named_before_what_counts_in_it(tmp_path: Path) -> None:
    path = write(tmp_path, "train: {epochs: 2}\neval: {every: 1}\n")
    with pytest.raises(UserError, match=r"^command line: train\.steps is 'abc'; it should be an i"):
        load_config(path, ["train.steps=abc"])


def test_every_number_has_its_bounds() -> None:
    """What is beyond them would be a traceback, or without end, where it is used."""
    found = list(numbers(Config.model_json_schema()))
    assert len(found) > 40
    lowest, highest = {"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}
    assert [kind for kind in found if not (kind.keys() & lowest and kind.keys() & highest)] == []


def numbers(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield the parts of a JSON schema that describe a number."""
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number"):
            yield schema
        for part in schema.values():
            yield from numbers(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from numbers(part)


def test_every_number_has_its_limits() -> None:
    """Otherwise an absurd value would end in a traceback, or never, where it is used."""

    def numbers_of(schema: Any) -> list[dict[str, Any]]:
        if isinstance(schema, list):
            return [number for part in schema for number in numbers_of(part)]
        if not isinstance(schema, dict):
            return []
        own = [schema] if schema.get("type") in ("integer", "number") else []
        return own + numbers_of([part for key, part in schema.items() if key != "default"])

    numbers = numbers_of(Config.model_json_schema())
    assert len(numbers) > 40
    for number in numbers:
        assert {"minimum", "exclusiveMinimum"} & set(number), number
        assert {"maximum", "exclusiveMaximum"} & set(number), number


def test_limits_against_absurd_values_are_not_in_the_table() -> None:
    """The message about such a value names its limit."""
    text = describe()
    assert re.findall(r"1e\+|\d{7,}", text) == []
    with pytest.raises(UserError, match=r"should be less than or equal to 1e\+30$"):
        override_config(Config(), ["train.lr=1e31"])


def test_recipes_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("bccd_r18", "bccd_r18.yaml"):
        assert load_config(find_config(name)).output.name == "bccd_r18"
    (tmp_path / "bccd_r18").write_text("train: {lr: 0.5}")
    assert find_config("bccd_r18") == Path("bccd_r18")  # one's own first
    assert find_config("none") == Path("none")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("finetune_smal", "; did you mean finetune_small?"),
        ("finetune_smal.yaml", "; did you mean finetune_small?"),
        ("finetune", "; did you mean finetune_small?"),
        ("configs/finetune_small.yaml", "; did you mean finetune_small?"),  # not in a checkout
        ("my_recipe", ", and no recipe of this name. Recipes: bccd_lite0, bccd_r18, demo, "),
        ("my/own.yaml", ""),
        ("", None),  # the folder itself
    ],
)
def test_a_recipe_that_is_mistyped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, hint: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as wrong:
        load_config(find_config(name))
    expected = ".: is a folder" if hint is None else f"{name}: there is no such file{hint}"
    assert str(wrong.value).startswith(expected)
    with pytest.raises(UserError, match=r"_smal is neither .*; did you mean finetune_small"):
        describe("finetune_smal")


def test_bytes_that_are_not_utf_8_are_refused() -> None:
    """As a shell passes them on: `model.freeze=$'\\xff'`."""
    with pytest.raises(UserError, match=r"model\.freeze=.*: contains bytes that are not UTF-8"):
        override_config(Config(), ["model.freeze=\udcff"])
