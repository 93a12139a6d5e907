"""The laboratory through the command line: three losses, interrupted, resumed, extended."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from same_run import recorded_metrics
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from retinanet.checkpoints.format import load_checkpoint
from retinanet.data.synthetic import write_synthetic
from retinanet.engine import schedule
from retinanet.errors import TrainingError
from retinanet.lab import trials
from retinanet.yaml_reader import read_yaml, write_yaml

pytestmark = pytest.mark.slow

pytest.importorskip("matplotlib")

NAMES = ["cross_entropy", "focal", "ohem"]
QUICK = ["train.imbalance_every=2", "train.milestones=null", "eval.every=2", "eval.pictures=0"]
FIGURES = ["distribution", "easy_negatives", "learning_curves", "loss_by_p_t"]
Cli = Callable[..., Any]


def words(experiment: Path, output: Path, *more: object) -> list[object]:
    own = ["--output", output, "--only", *NAMES]
    return ["losses", experiment, "--steps", 4, *own, *QUICK, *more]


@pytest.fixture(scope="module")
def laboratory(
    shared_experiment: Path, run_quietly: Cli, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Three losses of four steps, interrupted in the second one, and resumed."""
    output = tmp_path_factory.mktemp("lab") / "out"
    original, seen = schedule.learning_rate, [0]

    def asked_to_stop(at: int, **options: Any) -> float:
        seen[0] += 1
        if seen[0] == 6:  # the second step of the second variant
            signal.raise_signal(signal.SIGTERM)
        return original(at, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "learning_rate", asked_to_stop)
        assert run_quietly("lab", *words(shared_experiment, output)) == 128 + signal.SIGTERM
    done = [name for name in NAMES if (output / "runs" / name / "seed_0" / "outcome.json").exists()]
    assert done == ["cross_entropy"]
    # What has finished is in the table already.
    assert list(results(output)["variants"]) == ["cross_entropy"]
    assert run_quietly("lab", *words(shared_experiment, output)) == 0
    return output


def results(output: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((output / "results.json").read_text())
    return values


def test_each_variant_has_its_figures(laboratory: Path) -> None:
    found = results(laboratory)
    assert found["steps"] == 4 and list(found["variants"]) == NAMES
    for name, variant in found["variants"].items():
        (run,) = variant["runs"]
        assert (run["steps"], run["seed"], run["diverged"]) == (4, 0, None)
        assert [step for step, _ in run["curve"]] == [2, 4]
        metrics = recorded_metrics(laboratory / "runs" / name / "seed_0")
        assert run["AP"] == variant["AP"]["mean"] == metrics[-1]["val/AP"]
        assert variant["AP"]["spread"] is None and variant["AP"]["seeds"] == 1
        assert [step for step, _ in run["easy_negatives"]["loss"]] == [2, 4]
        assert run["examples"]["positives"] > 0
    assert found["variants"]["focal"]["paper_coco_ap"] == "34.0"
    assert sorted(path.stem for path in laboratory.glob("*.png")) == FIGURES


def test_what_was_interrupted_is_what_was_not(
    laboratory: Path, shared_experiment: Path, cli: Cli, tmp_path: Path
) -> None:
    """The resumed variant, again in one go: the same records and weights."""
    ran = cli("lab", *words(shared_experiment, tmp_path / "out", "--only", "focal"))
    assert ran.code == 0, ran.err
    one, other = (folder / "runs" / "focal" / "seed_0" for folder in (laboratory, tmp_path / "out"))
    assert recorded_metrics(one) == recorded_metrics(other)
    a, b = (load_checkpoint(f / "checkpoints" / "final.pt").model for f in (one, other))
    assert all(bool((a[name] == b[name]).all()) for name in a)


def test_variants_differ_in_their_loss_alone(laboratory: Path) -> None:
    """The same images in the same order: the same positives; another loss."""
    lines = {
        name: [
            line
            for line in recorded_metrics(laboratory / "runs" / name / "seed_0")
            if "imbalance/positives" in line
        ]
        for name in NAMES
    }
    for key in ("imbalance/positives", "imbalance/negatives", "imbalance/ignored"):
        assert len({tuple(line[key] for line in lines[name]) for name in NAMES}) == 1
    first = [lines[name][0]["imbalance/loss/easy_negatives"] for name in NAMES]
    assert first[0] > 0.3 > first[1]
    # Cross entropy of the same outputs is what the other loss was.
    ce = lines["cross_entropy"][0]
    assert ce["imbalance/loss/positives"] == ce["imbalance/cross_entropy_loss/positives"]


def test_tensorboard_has_the_histograms(laboratory: Path) -> None:
    run = laboratory / "runs" / "focal" / "seed_0"
    board = EventAccumulator(str(run / "tensorboard"), size_guidance={"histograms": 0})
    board.Reload()
    lines = [line for line in recorded_metrics(run) if "imbalance/positives" in line]
    for name in ("imbalance/p_t_of_negatives", "imbalance/p_t_of_positives"):
        events = board.Histograms(name)
        assert [event.step for event in events] == [line["step"] for line in lines] == [2, 4]
        assert [event.histogram_value.bucket for event in events] == [line[name] for line in lines]


def test_a_failure_at_the_end_of_a_trial(
    laboratory: Path,
    shared_experiment: Path,
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trained, but the final weights were not written: the same command writes them."""
    output, more = tmp_path / "out", ["--only", "focal"]

    def fails(*_: object) -> None:
        raise TrainingError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(trials, "write_weights", fails)
        ran = cli("lab", *words(shared_experiment, output, *more))
    assert ran.code == 1 and "error: the disk is full" in ran.err
    run = output / "runs" / "focal" / "seed_0"
    assert not (run / "outcome.json").exists()
    ran = cli("lab", *words(shared_experiment, output, *more))
    assert ran.code == 0, ran.err
    assert recorded_metrics(run) == recorded_metrics(laboratory / "runs" / "focal" / "seed_0")
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["final.pt"]
    assert results(output)["variants"]["focal"]["runs"][0]["steps"] == 4


def test_the_precision_is_chosen_once(laboratory: Path) -> None:
    """Another machine that continues the trials would choose its own."""
    chosen = read_yaml(laboratory / "config.yaml")["train"]["precision"]
    own = read_yaml(laboratory / "runs" / "focal" / "seed_0" / "config.yaml")["train"]["precision"]
    assert chosen == own != "auto"


def test_the_table_stands_beside_the_papers(laboratory: Path) -> None:
    text = (laboratory / "results.md").read_text()
    assert (
        "| loss | options | seeds | AP | AP50 | easy negatives | in CE | p_t > 0.9999 | paper |"
        in text
    )
    assert "| focal | prior=0.01, class_loss=focal, gamma=2.0, alpha=0.25 | 1 |" in text
    assert "Paper: the AP in the paper, on COCO, in percent." in text
    assert "compared with ohem, one seed: the spread is not known" in text


def test_what_is_finished_is_kept(
    laboratory: Path, shared_experiment: Path, cli: Cli, tmp_path: Path
) -> None:
    """A second call trains nothing, and drops what a kill left; a second seed adds to the first."""
    laboratory = Path(shutil.copytree(laboratory, tmp_path / "out"))
    weights = laboratory / "runs" / "focal" / "seed_0" / "checkpoints" / "final.pt"
    before = weights.stat().st_mtime_ns
    assert [path.name for path in weights.parent.iterdir()] == ["final.pt"]
    shutil.copy(weights, weights.with_name("last.pt"))
    ran = cli("lab", *words(shared_experiment, laboratory))
    assert ran.code == 0 and "== trial" not in ran.out
    assert [path.name for path in weights.parent.iterdir()] == ["final.pt"]
    ran = cli("lab", *words(shared_experiment, laboratory, "--only", "focal", "--seeds", 2))
    assert ran.code == 0 and ran.out.count("== trial") == 1
    assert "== trial 2 of 2: focal, seed 1 ==" in ran.out
    assert weights.stat().st_mtime_ns == before
    summary = results(laboratory)["variants"]["focal"]["AP"]
    assert summary["seeds"] == 2 and summary["spread"] is not None


def test_another_experiment_is_refused(laboratory: Path, shared_experiment: Path, cli: Cli) -> None:
    ran = cli("lab", *words(shared_experiment, laboratory, "train.lr=0.5"))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"error: {laboratory}: has trials of another experiment; choose another --output:\n"
        "  train.lr: 0.5 here, 0.001 there\n"
    )


def test_a_trial_of_another_process_is_left_to_it(
    shared_experiment: Path, cli: Cli, tmp_path: Path
) -> None:
    """Two terminals share the work: whoever comes second takes the next trial."""
    output = tmp_path / "out"
    folder = output / "runs" / "focal" / ".seed_0"
    program = (
        "import sys; from pathlib import Path\n"
        "from retinanet.checkpoints.run_lock import run_lock\n"
        "with run_lock(Path(sys.argv[1]), active=True): print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", program, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    # The first trial of all has been made by another terminal.
    one = words(shared_experiment, output, "--only", "cross_entropy")
    assert cli("lab", *one).code == 0
    with subprocess.Popen(command, **pipes) as other:  # type: ignore[call-overload]
        assert other.stdout.readline() == "held\n"
        ran = cli("lab", *words(shared_experiment, output, "--only", "focal", "ohem"))
        other.communicate("done\n")
    assert ran.code == 0, ran.err
    assert f"left to another process: {folder}: process {other.pid} is training there" in ran.out
    assert "1 training left to other processes; run the same command again" in ran.out
    assert list(results(output)["variants"]) == ["cross_entropy", "ohem"]


def test_several_processes_train_the_same(
    laboratory: Path, shared_experiment: Path, start: Cli, tmp_path: Path
) -> None:
    """One process or two: the same losses, up to the order of sums."""
    output = tmp_path / "out"
    lab = Path(__file__).parents[2] / "tools" / "lab.py"
    names = ["--only", "cross_entropy", "focal"]
    ran = start(lab, *words(shared_experiment, output, *names), processes=2).wait()
    assert [one.code for one in ran] == [0, 0], ran[0].err + ran[1].err
    for name in names[1:]:
        one, other = (
            recorded_metrics(folder / "runs" / name / "seed_0") for folder in (laboratory, output)
        )
        for a, b in zip(one, other, strict=True):
            if "loss_class/train" in a:
                assert b["loss_class/train"] == pytest.approx(a["loss_class/train"], rel=1e-4)
            if "imbalance/ignored" in a:
                keys = ["imbalance/positives", "imbalance/negatives", "imbalance/ignored"]
                assert [a[key] for key in keys] == [b[key] for key in keys]
    assert ran[1].out == ""
    assert sorted(path.stem for path in output.glob("*.png")) == FIGURES


def test_a_loss_that_diverges_is_an_outcome(
    shared_experiment: Path, cli: Cli, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    more = ["train.lr=1e30", "train.optimizer=sgd", "train.clip_norm=0", "train.warmup_steps=0"]
    ran = cli("lab", *words(shared_experiment, output, "--only", "focal", *more))
    assert ran.code == 0, ran.err
    assert "| focal | prior=0.01, class_loss=focal, gamma=2.0, alpha=0.25 | 1 | diverged" in ran.out
    focal = results(output)["variants"]["focal"]
    assert focal["diverged"] == 1 and focal["AP"]["mean"] is None
    assert "is not finite" in focal["runs"][0]["diverged"]
    again = cli("lab", *words(shared_experiment, output, "--only", "focal", *more))
    assert again.code == 0 and "== trial" not in again.out


def test_a_damaged_outcome_is_named(
    laboratory: Path, shared_experiment: Path, cli: Cli, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(laboratory, tmp_path / "out"))
    path = output / "runs" / "ohem" / "seed_0" / "outcome.json"
    path.write_text("{")
    ran = cli("lab", *words(shared_experiment, output))
    assert ran.code == 2
    assert ran.err == (
        f"error: {path}, or metrics.jsonl beside it, is damaged; remove the folder "
        f"{path.parent} to train it again\n"
    )


def test_a_damaged_note_of_the_data_is_named(
    laboratory: Path, shared_experiment: Path, cli: Cli, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(laboratory, tmp_path / "out"))
    (output / "data.json").write_text("{")
    ran = cli("lab", *words(shared_experiment, output))
    assert ran.code == 2 and "== trial" not in ran.out
    assert ran.err == (
        f"error: {output / 'data.json'}: is damaged; remove it if the data are the same as for the "
        "trials beside it\n"
    )


def test_the_folder_of_a_run_is_left_alone(
    finished_run: Path, shared_experiment: Path, cli: Cli
) -> None:
    before = (finished_run / "config.yaml").read_bytes()
    ran = cli("lab", *words(shared_experiment, finished_run))
    assert ran.code == 2
    assert ran.err == (
        f"error: {finished_run}: the folder contains other files; choose another --output\n"
    )
    assert (finished_run / "config.yaml").read_bytes() == before


def test_other_data_are_another_experiment(
    laboratory: Path, shared_experiment: Path, cli: Cli, tmp_path: Path
) -> None:
    """The options are the same, but the images are others, in another folder."""
    write_synthetic(tmp_path / "set", train_images=12, val_images=6, seed=4)
    root = f"data.root={tmp_path / 'set'}"
    ran = cli("lab", *words(shared_experiment, laboratory, "--seeds", 2, root))
    assert ran.code == 2 and "== trial" not in ran.out
    assert ran.err.endswith(
        "choose another --output:\n  different images, boxes or weights to start from\n"
    )


@pytest.mark.parametrize(
    ("length", "every", "wanted"),
    [
        ({"epochs": 3, "steps": None, "milestones": [2]}, 1, 2),
        ({"steps": 20, "milestones": None}, 3, 3),
    ],
)
def test_steps_in_place_of_epochs(
    experiment: Path, cli: Cli, tmp_path: Path, length: dict[str, Any], every: int, wanted: int
) -> None:
    """What counted epochs is replaced: four evaluations. What counts steps stays."""
    values = read_yaml(experiment)
    values["train"] |= length
    values["eval"]["every"] = every
    write_yaml(values, experiment)
    output = tmp_path / "out"
    ran = cli("lab", "losses", experiment, "--steps", 8, "--only", "focal", "--output", output)
    assert ran.code == 0, ran.err
    saved = read_yaml(output / "config.yaml")
    assert (saved["train"]["steps"], saved["train"]["epochs"]) == (8, None)
    assert (saved["eval"]["every"], saved["train"]["milestones"]) == (wanted, None)


@pytest.mark.parametrize("option", ["train.patience=1", "train.max_minutes=5"])
def test_all_trainings_are_as_long(experiment: Path, cli: Cli, tmp_path: Path, option: str) -> None:
    ran = cli("lab", *words(experiment, tmp_path / "out", option))
    assert ran.code == 2 and "they are compared at the same one; leave it out" in ran.err
    assert not (tmp_path / "out").exists()


def test_divergence_is_an_outcome_on_all_ranks(
    shared_experiment: Path, start: Cli, tmp_path: Path
) -> None:
    """Looks at every step, but the log, which finds it out, at the end: shares are missing."""
    output = tmp_path / "out"
    lab = Path(__file__).parents[2] / "tools" / "lab.py"
    more = ["train.lr=1e30", "train.optimizer=sgd", "train.clip_norm=0", "train.warmup_steps=0"]
    more += ["train.log_every=4", "train.imbalance_every=1", "--only", "cross_entropy", "focal"]
    ran = start(lab, *words(shared_experiment, output, *more), processes=2).wait()
    assert [one.code for one in ran] == [0, 0], ran[0].err + ran[1].err
    found = results(output)["variants"]
    assert [variant["diverged"] for variant in found.values()] == [1, 1]
    assert results(output)["distribution"] is None
    assert "| diverged | diverged |" in (output / "results.md").read_text()


def test_a_mistake_may_be_mended(experiment: Path, cli: Cli, tmp_path: Path) -> None:
    """Before the first training has begun, the folder is of no experiment."""
    output = tmp_path / "out"
    ran = cli("lab", *words(experiment, output, "train.lr=0.5", "data.root=/nowhere"))
    assert ran.code == 2 and "/nowhere" in ran.err
    assert not output.exists()
    more = ["--only", "focal", "train.imbalance_every=0"]
    assert cli("lab", *words(experiment, output), *more).code == 0
    assert results(output)["variants"]["focal"]["runs"][0]["easy_negatives"]["loss"] == []
    assert not (output / "easy_negatives.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "focl"], "--only focl: there is no such variant; did you mean focal?"),
        (["--seeds", "0"], "--seeds and --steps must be at least 1"),
        (["loss.gama=1"], "loss.gama"),
        (["loss.gamma=3"], "loss.gamma: the compared losses set this option; leave it out"),
        (["--only", "focal,focl"], "--only focl: there is no such variant"),
        (["data.root=no/where"], "there is no folder no/where; to draw a data set: retinanet lab"),
    ],
)
def test_mistakes(
    experiment: Path, cli: Cli, tmp_path: Path, arguments: list[str], message: str
) -> None:
    ran = cli("lab", "losses", experiment, "--output", tmp_path / "out", *arguments)
    assert ran.code == 2 and message in ran.err
    assert not (tmp_path / "out").exists()


def test_without_matplotlib_nothing_begins(
    experiment: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    ran = cli("lab", "losses", experiment, "--output", tmp_path / "out")
    assert ran.code == 2 and "pip install 'retinanet[lab]'" in ran.err
    assert not (tmp_path / "out").exists()


def test_drawing_a_set(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    sizes = ["--train-images", "3", "--val-images", "2"]
    ran = cli("lab", "draw", "hard", folder, *sizes)
    assert ran.code == 0 and ran.out == f"drew 3 + 2 images into {folder}\n"
    info = json.loads((folder / "annotations" / "train.json").read_text())["info"]
    assert (info["scene"], info["image_count"]) == ("hard", 3)
    drawn = (folder / "images" / "val" / "000002.jpg").read_bytes()
    again = cli("lab", "draw", "hard", folder, "--train-images", "4", "--val-images", "2")
    assert again.code == 2
    assert "train.json: is a different drawing (hard, 3 images, seed 0); choose" in again.err
    shutil.rmtree(folder)
    assert cli("lab", "draw", "hard", folder, *sizes).code == 0
    assert (folder / "images" / "val" / "000002.jpg").read_bytes() == drawn


def test_data_of_others_are_not_drawn_over(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "annotations" / "train.json"
    path.parent.mkdir()
    path.write_text('{"info": 5}')
    assert cli("lab", "draw", "hard", tmp_path).code == 2
    path.write_text('{"images": []}')
    ran = cli("lab", "draw", "hard", tmp_path)
    assert (ran.code, path.read_text()) == (2, '{"images": []}')
    assert f"{path}: was not drawn by this command; choose another folder" in ran.err
    path.unlink()
    (tmp_path / "images").touch()
    ran = cli("lab", "draw", "hard", tmp_path)
    assert ran.code == 2 and f"{tmp_path}: cannot be written: " in ran.err


@pytest.mark.parametrize("arguments", [[], ["los"], ["--", "losses"], ["draw", "harder", "x"]])
def test_the_actions_are_named(cli: Cli, arguments: list[str]) -> None:
    ran = cli("lab", *arguments)
    assert ran.code == 2 and "retinanet lab" in ran.err


def test_an_experiment_is_needed(cli: Cli) -> None:
    ran = cli("lab", "losses", "--only", "focal")
    assert ran.code == 2 and "error: give CONFIG, the experiment, before --only" in ran.err
