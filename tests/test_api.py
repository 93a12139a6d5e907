"""`import retinanet`: instant, typed, and the same as the commands."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import retinanet
from retinanet.api import as_overrides
from retinanet.config import build_config, load_config
from retinanet.errors import ArgumentError, UserError
from retinanet.schema import Config

CocoWriter = Callable[..., Path]
TINY = {
    "model": {"backbone": "resnet18", "weights": "none", "norm": "gn", "freeze": "none"},
    "data": {"short_side": 64, "long_side": 128, "workers": 0},
    "train": {"batch_size": 2, "precision": "fp32", "device": "cpu", "milestones": []},
    "eval": {"every": 2, "batch_size": 2},
}


@pytest.fixture
def experiment(tiny_coco: CocoWriter, tmp_path: Path) -> dict[str, Any]:
    """A small experiment as a dictionary."""
    boxes = [[[4.0, 4.0, 30.0, 40.0], [50.0, 10.0, 30.0, 30.0], [20.0, 30.0, 40.0, 20.0]]] * 4
    train = tiny_coco([(64, 96)] * 4, boxes, name="train")
    val = tiny_coco([(64, 96)] * 4, boxes, name="val")
    data = {
        "train": {"annotations": str(train), "images": str(tmp_path / "train")},
        "val": {"annotations": str(val), "images": str(tmp_path / "val")},
    }
    output = {"dir": str(tmp_path / "runs"), "name": "first"}
    return {**TINY, "data": {**TINY["data"], **data}, "output": output}


def test_import_is_instant_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; start = time.process_time(); import retinanet; "
        "taken = time.process_time() - start; heavy = {'torch', 'numpy', 'cv2', 'pydantic'}; "
        "names = set(retinanet.__all__) - set(dir(retinanet)); "
        "print(taken, heavy & set(sys.modules), names, 'load' in vars(retinanet))"
    )
    times = []
    for _ in range(3):
        call = [sys.executable, "-c", code]
        ran = subprocess.run(call, capture_output=True, text=True, check=True)
        taken, rest = ran.stdout.split(maxsplit=1)
        assert rest == "set() set() False\n"
        times.append(float(taken))
    assert min(times) < 0.1  # processor seconds: 0.01 where it was measured


def test_every_public_name_is_there() -> None:
    for name in retinanet.__all__:
        assert getattr(retinanet, name).__name__ == name
    assert (Path(retinanet.__file__).parent / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = retinanet.nonsense


def test_options_as_the_command_line_writes_them(tmp_path: Path) -> None:
    words = as_overrides(
        {
            "train": {"epochs": 20, "lr": np.float32(0.5), "milestones": (2, 3)},
            "data": {"root": tmp_path, "train": {"limit": 5}, "classes": ["cat", "a, b"]},
            "model.init_from": None,
            "loss.alpha": None,
        }
    )
    assert words == [
        "train.epochs=20",
        "train.lr=0.5",
        "train.milestones=[2, 3]",
        f"data.root={json.dumps(str(tmp_path))}",
        "data.train.limit=5",
        'data.classes=["cat", "a, b"]',
        "model.init_from=null",
        "loss.alpha=null",
    ]
    path = tmp_path / "a.yaml"
    path.write_text("train: {steps: 7}\n")
    config = load_config(path, words)
    assert (config.train.epochs, config.train.steps, config.train.milestones) == (20, None, (2, 3))
    assert config.data.root == str(tmp_path) and config.data.classes == ("cat", "a, b")
    assert config.loss.alpha is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 3}, r"^epochs is not a section .*did you mean \*\*\{'train\.epochs': 3\}\?$"),
        ({"nonsense": 3}, r"^nonsense is not a section of options; `retinanet config` lists all"),
        ({"train": 3}, "^train is a section: pass a dictionary of its options$"),
        ({"train": {"lrr": 3}}, r"^train\.lrr is not an option; did you mean train\.lr\?$"),
        ({"train.lrr": 3}, r"^train\.lrr is not an option; did you mean train\.lr\?$"),
        ({"data.train": 3}, r"^data\.train is a section"),
        ({"data.root": None}, r"^data\.root must have a value, not None$"),
        (
            {"train": {"lr": 0.1}, "train.lr": 0.2},
            r"^train\.lr is given twice: 0\.1 and 0\.2$",
        ),
        ({"data.classes": [{(1, 2): 3}]}, r"^data\.classes: keys must be str"),
        ({"data.root": object}, r"^data\.root: <class 'object'> is not a number, a string, a path"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        as_overrides(options)
    with pytest.raises(UserError, match=message):
        retinanet.train("demo", **options)


def test_check_takes_what_train_takes(experiment: dict[str, Any], tmp_path: Path) -> None:
    for config in (experiment, build_config(experiment, source="test")):
        report = retinanet.check(config, data={"short_side": 96}, pictures=tmp_path / "pictures")
        assert report.count("error") == 0 and str(report).startswith("config\n")
        assert list((tmp_path / "pictures").rglob("*.jpg"))
    with pytest.raises(TypeError, match="images needs an annotation file"):
        retinanet.check(experiment, images=tmp_path)
    with pytest.raises(UserError, match=r"^config: train\.lrr is not an option"):
        retinanet.check({"train": {"lrr": 1}})


def test_a_script_without_a_main_guard_runs_once(tiny_coco: CocoWriter, tmp_path: Path) -> None:
    """The processes that decode images do not run the script that started them again."""
    path = tiny_coco([(20, 20)] * 40, [[[1.0, 1.0, 9.0, 9.0]]] * 40, name="val")
    script = tmp_path / "script.py"
    call = f"retinanet.check({str(path)!r}, images={str(tmp_path / 'val')!r}, decode=True)"
    script.write_text(f"import retinanet\nprint('begin')\nprint({call}.count('error'))\n")
    ran = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, timeout=100
    )
    assert ran.stdout == "begin\n0\n"


@pytest.mark.slow
def test_train_evaluate_and_check(
    experiment: dict[str, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A dictionary, a Config and a file are one experiment; nothing is printed; a run resumes."""
    run = retinanet.train(experiment, train={"steps": 2})
    assert run.folder == tmp_path / "runs" / "first"
    assert (run.step, run.best, run.best_ap) == (2, run.folder / "checkpoints/best.pt", run.best_ap)
    assert run.best_ap is not None and run.best.is_file() and run.last.is_file()
    lines: list[str] = []
    config = build_config(experiment, source="test")
    other = retinanet.train(
        config, say=lines.append, **{"train.steps": 1, "output.name": "second", "eval.every": 1}
    )
    assert other.folder.name == "second" and other.step == 1
    assert any("step 1/1" in line for line in lines)
    log = (other.folder / "train.log").read_text()
    assert all(line in log for line in lines)
    longer = retinanet.train(resume=run.folder, train={"steps": 3})
    assert (longer.folder, longer.step) == (run.folder, 3)
    with pytest.raises(UserError, match="the run has already finished: 3 of 3 steps"):
        retinanet.train(resume=run.last)
    again = retinanet.train(run.folder / "config.yaml", auto_resume=True, train={"steps": 3})
    assert again.step == 3

    evaluation = retinanet.evaluate(run.best, output=tmp_path / "evaluation")
    assert evaluation.metrics.ap == run.best_ap
    assert str(evaluation.metrics).startswith("AP ")
    results, val = tmp_path / "evaluation" / "results.json", tmp_path / "val.json"
    scored = retinanet.evaluate(results, annotations=val, say=lines.append, images=tmp_path)
    assert scored.metrics.figures == evaluation.metrics.figures
    assert lines[-1] == "note: --images has no effect on a results file: no image is read"
    with pytest.raises(UserError, match=r"device cuda(:9)? is not on this machine"):
        retinanet.evaluate(run.best, device="cuda:9")
    with pytest.raises(ArgumentError, match="device 'tpu' does not exist"):
        retinanet.evaluate(run.best, train={"device": "tpu"})
    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"val\.json"):
        patch.setattr("retinanet.api.evaluate_file", pytest.fail)  # not before output is checked
        retinanet.evaluate(run.best, output=val)
    with pytest.raises(UserError, match=r"results\.json: a results file needs --annotations"):
        retinanet.evaluate(results)

    report = retinanet.check(run.folder / "config.yaml")
    assert report.count("error") == 0 and str(report).startswith(f"{run.folder}/config.yaml\n")
    report = retinanet.check(val, images=tmp_path / "train")
    assert report.counts().get("missing-file", 0) == 0
    report = retinanet.check(val, images=tmp_path / "runs")
    assert report.counts()["missing-file"] == 4
    with pytest.raises(UserError, match="--pictures needs a config"):
        retinanet.check(val, pictures=tmp_path / "p")
    assert capfd.readouterr() == ("", "")


def test_what_train_cannot_start_from(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match='config, such as "finetune_small", or a run to resume'):
        retinanet.train()
    with pytest.raises(TypeError, match="say must be a function, such as print, not True"):
        retinanet.train("demo", say=True)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=rf"^{Path.home()}/none\.yaml: there is no such file"):
        retinanet.train("~/none.yaml")
    with pytest.raises(TypeError, match="not int"):
        retinanet.train(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="resume or auto_resume, not both"):
        retinanet.train("demo", resume=tmp_path, auto_resume=True)
    with pytest.raises(TypeError, match="allow_changes needs resume or auto_resume"):
        retinanet.train("demo", allow_changes=True)
    with pytest.raises(TypeError, match="config must be a file, or be left out"):
        retinanet.train(Config(), resume=tmp_path)
    with pytest.raises(UserError, match=r"^config: train\.lrr is not an option"):
        retinanet.train({"train": {"lrr": 1}})
    with pytest.raises(UserError, match=r"none\.yaml: there is no such file"):
        retinanet.train(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="there is no such checkpoint or run folder"):
        retinanet.train(resume=tmp_path / "none")
