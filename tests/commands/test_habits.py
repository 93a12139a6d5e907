"""What users of other projects type is answered with what does it here."""

from pathlib import Path

import pytest

from retinanet.commands import train as train_command
from retinanet.commands.arguments import check_checkpoint, check_overrides, device_name
from retinanet.commands.habits import answer, has_effect, unused_in_predict
from retinanet.errors import UserError
from retinanet.schema.options import all_options


@pytest.mark.parametrize(
    ("name", "value", "train", "evaluate", "predict"),
    [
        ("batch-size", "4", "train.batch_size=4", "eval.batch_size=4", "eval.batch_size=4"),
        (
            *("imgsz", "640", "data.short_side=640"),
            *("data.eval_short_side=640", "data.eval_short_side=640"),
        ),
        (
            *("conf-thres", "0.3", "postprocess.score_threshold=0.3"),
            *("postprocess.score_threshold=0.3", "--threshold 0.3"),
        ),
        (
            *("half", "True", "--fast, or only train.precision=auto (bf16 or fp16, by the device)"),
            *("train.precision=auto",) * 2,
        ),
        ("fp16", "True", *("train.precision=fp16",) * 3),
        (
            *("weights", "a b.pt", "--init-from 'a b.pt'"),
            "the checkpoint comes first, without a flag: retinanet evaluate 'a b.pt'",
            "the checkpoint comes first, without a flag: retinanet predict 'a b.pt' IMAGES",
        ),
        (
            *("epochs", "3", "train.epochs=3"),
            "train.epochs is an option of training; it has no effect in evaluate",
            "train.epochs is an option of training; it has no effect in predict",
        ),
        (
            *("device", "0,1", "CUDA_VISIBLE_DEVICES=0,1 in front of the command, and "),
            "CUDA_VISIBLE_DEVICES=0,1 in front of the command, and train.device=cuda",
            "CUDA_VISIBLE_DEVICES=0,1 in front of the command, and --device cuda",
        ),
        ("device", "cpu", "train.device=cpu", "train.device=cpu", "--device cpu"),
        ("device", "cuda:1", "CUDA_VISIBLE_DEVICES=1 in", "CUDA_VISIBLE_DEVICES=1 in", "CUDA_VIS"),
        ("work-dir", "out", "output.dir=out", "--output out", "--output out"),
        (
            *("config-file", "x.yaml"),
            "the config comes first, without a flag: retinanet train x.yaml",
            *("no config is needed: the checkpoint contains it",) * 2,
        ),
        ("ann-file", "v.json", "data.train.annotations=v.json", "--annotations v.json", "--annot"),
    ],
)
def test_by_command(name: str, value: str, train: str, evaluate: str, predict: str) -> None:
    for command, expected in (("train", train), ("evaluate", evaluate), ("predict", predict)):
        meant = answer(name, value, command)
        assert meant is not None
        assert meant.startswith(expected)


@pytest.mark.parametrize("name", ["amp", "half", "use-amp", "mixed_precision"])
def test_half_precision_by_any_name(name: str) -> None:
    assert answer(name, "", "train") == answer("half", "", "train")


def test_fast_is_an_option_of_the_config() -> None:
    """Without quotes: it stands in commands that messages print."""
    options = train_command._parser().parse_args(["finetune_small", "--fast"])
    assert train_command._flags_as_overrides(options) == ["train.speed=fast"]
    assert (
        train_command._flags_as_overrides(train_command._parser().parse_args(["finetune_small"]))
        == []
    )


def test_values_that_change_the_answer() -> None:
    yolo = answer("data", "my.yaml", "train")
    assert yolo is not None
    assert yolo.startswith("convert the data set first: retinanet convert yolo my.yaml OUT")
    assert answer("pretrained", "False", "train") == "model.weights=none"
    assert answer("resume", "True", "train") == "--resume runs/NAME"


def test_all_words_are_answered_at_once() -> None:
    with pytest.raises(UserError) as wrong:
        check_overrides(["epochs=10", "train.lr=1", "imgsz=640"], "train")
    assert str(wrong.value).splitlines() == [
        "'epochs=10' is not of the form section.key=value; here: train.epochs=10",
        "'imgsz=640' is not of the form section.key=value; here: data.short_side=640",
    ]


def test_a_word_in_place_of_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError) as wrong:
        check_checkpoint("model=best.pt", "predict")
    assert str(wrong.value) == (
        "'model=best.pt' is not a checkpoint; here: the checkpoint comes first, without a flag: "
        "retinanet predict best.pt IMAGES"
    )
    (tmp_path / "a=b.pt").touch()
    check_checkpoint(str(tmp_path / "a=b.pt"), "predict")


def test_what_is_not_known() -> None:
    assert answer("qqqq", "1", "train") is None


def test_options_that_are_named_have_an_effect() -> None:
    named = {
        meant.partition("=")[0]
        for name in ("batch", "imgsz", "conf", "iou", "max_det", "workers", "cpu", "half", "fp16")
        for command in ("evaluate",)
        if (meant := answer(name, "1", command))
    }
    assert named <= set(all_options())
    assert all(has_effect(option, "evaluate") for option in named)


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("train", ["lr=1"], r"^'lr=1' is not of the form section\.key=value; here: train\.lr=1$"),
        ("evaluate", ["batch=4"], r"here: eval\.batch_size=4$"),
        ("evaluate", ["device=1"], r"here: CUDA_VISIBLE_DEVICES=1 in front of the command, and "),
    ],
)
def test_overrides_of_a_command(command: str, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_overrides(words, command)


def test_sound_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    check_overrides(["train.lr=1", "train.lr=1", "train.steps=null", "train.epochs=2"], "train")
    assert capsys.readouterr().err == ""


def test_an_override_that_is_given_twice(capsys: pytest.CaptureFixture[str]) -> None:
    check_overrides(["train.lr=1", "train.lr=2"], "train")
    assert capsys.readouterr().err == (
        "note: train.lr is given twice; the last value is used: 2, not 1\n"
    )
    check_overrides(["train.steps=1", "train.epochs=2"], "train")
    assert capsys.readouterr().err == (
        "note: train.epochs replaces train.steps, which is given before it\n"
    )


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("optimizer", "AdamW", "train.optimizer=adamw"),
        ("schedule", "linear", "train.schedule=multistep|cosine"),
        ("cos-lr", "", "train.schedule=cosine"),
        ("gpus", "2", "torchrun --nproc_per_node 2 tools/train.py CONFIG"),
    ],
)
def test_a_value_is_one_that_the_option_takes(name: str, value: str, meant: str) -> None:
    assert answer(name, value, "train") == meant


def test_options_without_effect_in_a_prediction() -> None:
    words = ["data.root=/x", "postprocess.nms_threshold=0.4", "data.workers=3", "train.device=cpu"]
    assert unused_in_predict(words) == [
        "without effect in predict: data.root",
        "without effect in predict: data.workers",
        "without effect in predict: train.device; use --device",
    ]


def test_names_of_devices() -> None:
    assert [device_name(word) for word in ("auto", "cpu", "cuda", "mps")] == [
        *("auto", "cpu", "cuda", "mps")
    ]
