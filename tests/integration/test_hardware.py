"""The config is the experiment: micro-batches, loader workers and processes change nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retinanet.config import load_config
from retinanet.data.coco.index import read_annotations
from retinanet.data.sampler import TrainingPlan, share
from retinanet.engine.splits import open_split, training_plan

pytestmark = pytest.mark.slow

Cli = Callable[..., Any]
Losses = Callable[[Path], list[float]]
ROOT = Path(__file__).parents[2]
PROCESSES = 2


@pytest.fixture(scope="module")
def sparse_data(synthetic: Path, learned_run: Path) -> list[str]:
    """Return overrides for 9 images, 5 of them without boxes, and val on images learned by heart.

    9 images in batches of 4 leave one for the epoch's last batch: one of two ranks has none.
    """
    content = json.loads((synthetic / "annotations" / "train.json").read_text())
    with_boxes = {record["image_id"] for record in content["annotations"]}
    content["images"] = sorted(content["images"], key=lambda i: i["id"] not in with_boxes)[:9]
    full = {image["id"] for image in content["images"][:4]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in full]
    (synthetic / "annotations" / "sparse.json").write_text(json.dumps(content))
    return [
        "data.train.annotations=annotations/sparse.json",
        f"data.val.annotations={synthetic}/annotations/few.json",
        "data.val.images=images/train",
        "data.canvas=batch_max",  # the order then follows from the seed, not from the images
        "train.steps=3",
        # Neither Adam nor clipping, which would hide gradients of another scale.
        "train.optimizer=sgd",
        "train.clip_norm=0",
        "train.lr=0.001",
        "train.warmup_steps=0",
        "eval.every=0",
        "postprocess.score_threshold=0.05",
    ]


@pytest.fixture(scope="module")
def plan(shared_experiment: Path, sparse_data: list[str]) -> TrainingPlan:
    config = load_config(shared_experiment, sparse_data)
    return training_plan(config, open_split(config, "train"))


@pytest.fixture(scope="module")
def one_process(
    shared_experiment: Path, sparse_data: list[str], learned_run: Path, run_quietly: Any
) -> Path:
    """Return the run that the others are compared with: one process, whole batches, no workers."""
    start = ["--init-from", learned_run / "checkpoints" / "last.pt"]
    words = [shared_experiment, *sparse_data, *start, "--name", "one_process"]
    assert run_quietly("train", *words) == 0
    return shared_experiment.parent / "runs" / "one_process"


@pytest.fixture(scope="module")
def two_processes(shared_experiment: Path, sparse_data: list[str], learned_run: Path) -> Path:
    """Return the same run by two processes under torchrun, with gloo."""
    start = ["--init-from", learned_run / "checkpoints" / "last.pt"]
    words = [shared_experiment, *sparse_data, *start, "--name", "two_processes"]
    assert "2 processes on cpu" in run_two("train", *words)
    return shared_experiment.parent / "runs" / "two_processes"


def run_two(tool: str, *words: object) -> str:
    """Run an entry of tools/ in two processes; return what they printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    command += [str(PROCESSES), str(ROOT / "tools" / f"{tool}.py"), *map(str, words)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def gradient_norms(folder: Path) -> list[float]:
    recorded = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["train/gradient_norm"] for line in recorded if "train/lr" in line]


def last_figures(folder: Path) -> dict[str, float]:
    return json.loads((folder / "evaluation" / "metrics.json").read_text())


def test_the_steps_cover_the_cases(plan: TrainingPlan, synthetic: Path) -> None:
    """The three steps hold a rank without boxes and a rank without images."""
    sparse = read_annotations(synthetic / "annotations" / "sparse.json")
    counts = sparse.offsets[1:] - sparse.offsets[:-1]
    rows = [
        [
            [
                sample.row
                for part in share(plan.step(step), rank=rank, ranks=PROCESSES)
                for sample in part.samples
            ]
            for rank in range(PROCESSES)
        ]
        for step in range(3)
    ]
    boxes = [[int(counts[own].sum()) if own else 0 for own in step] for step in rows]
    assert [[len(own) for own in step] for step in rows] == [[2, 2], [2, 2], [0, 1]]
    assert sorted(row for step in rows for own in step for row in own) == list(range(9))
    assert any(min(step) == 0 < max(step) for step in boxes[:2])


def test_auto_is_resolved_once_and_kept(
    shared_experiment: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `auto` became is saved, and a resume elsewhere keeps it."""
    monkeypatch.setattr("retinanet.engine.preflight.micro_batch._HOST_PIXELS", 2 * 64 * 96)
    where = f"output.dir={tmp_path}"
    assert cli("train", shared_experiment, where, "train.steps=1", "eval.every=0").code == 0
    folder = tmp_path / "small"
    first = load_config(folder / "config.yaml").train
    assert 1 <= first.micro_batch < 4 and first.precision == "fp32"
    monkeypatch.undo()
    words = [shared_experiment, where, "train.steps=2", "eval.every=0", "train.precision=auto"]
    assert cli("train", *words, "--resume").code == 0
    then = load_config(folder / "config.yaml").train
    assert (then.micro_batch, then.precision) == (first.micro_batch, "fp32")


def test_loader_workers_change_nothing_at_all(
    shared_experiment: Path,
    sparse_data: list[str],
    learned_run: Path,
    one_process: Path,
    metrics_of: Callable[[Path], list[dict[str, Any]]],
    cli: Cli,
    tmp_path: Path,
) -> None:
    """Order and augmentation are functions of the seed and the step, so runs agree bit for bit."""
    ran = cli(
        "train",
        shared_experiment,
        *sparse_data,
        "data.workers=2",
        f"output.dir={tmp_path}",
        "--init-from",
        learned_run / "checkpoints" / "last.pt",
    )
    assert ran.code == 0
    assert metrics_of(tmp_path / "small") == metrics_of(one_process)


def test_another_seed_is_another_run(
    shared_experiment: Path, sparse_data: list[str], plan: TrainingPlan
) -> None:
    """The comparisons above would be empty if the order followed from the files alone."""
    config = load_config(shared_experiment, [*sparse_data, "train.seed=1"])
    other = training_plan(config, open_split(config, "train"))
    ours, theirs = (
        [[sample.row for sample in one.step(step)[0].samples] for step in range(3)]
        for one in (plan, other)
    )
    for order in (ours, theirs):
        assert sorted(row for step in order for row in step) == list(range(9))
    assert ours != theirs


def test_two_processes_give_the_losses_of_one(
    two_processes: Path, one_process: Path, losses_of: Losses
) -> None:
    """Also where a rank has no boxes, or no images."""
    assert len(losses_of(one_process)) == 3
    assert losses_of(two_processes) == pytest.approx(losses_of(one_process), rel=1e-4)
    assert gradient_norms(two_processes) == pytest.approx(gradient_norms(one_process), rel=1e-3)
    assert json.loads((two_processes / "env.json").read_text())["processes"] == 2


def test_two_processes_give_the_figures_of_one(two_processes: Path, one_process: Path) -> None:
    """No image is evaluated twice."""
    one, two = last_figures(one_process), last_figures(two_processes)
    assert one["AP"] > 0.1
    assert two["AP"] == pytest.approx(one["AP"], abs=1e-3)
    assert two["AP50"] == pytest.approx(one["AP50"], abs=1e-3)


def test_batch_norm_is_evaluated_alike_by_all_processes(
    shared_experiment: Path, cli: Cli, tmp_path: Path
) -> None:
    """Each process has running statistics of its own; the main one's are saved, and must count."""
    words = ["model.norm=bn", "train.steps=3", "train.lr=0.03", "eval.every=0", "--name", "bn"]
    assert "depend on the number of devices" in run_two("train", shared_experiment, *words)
    folder = shared_experiment.parent / "runs" / "bn"
    ran = cli("evaluate", folder / "checkpoints" / "last.pt", "--output", tmp_path)
    assert ran.code == 0
    saved = [
        json.loads((place / "results.json").read_text())
        for place in (tmp_path, folder / "evaluation")
    ]
    assert saved[0] == saved[1] != []


def test_two_processes_write_one_run(two_processes: Path) -> None:
    recorded = [json.loads(x) for x in (two_processes / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in recorded] == [1, 2, 3, 3]
    assert len(list((two_processes / "tensorboard").iterdir())) == 1
    assert (two_processes / "train.log").read_text().count("\ndata.train ") == 1


def test_a_checkpoint_of_two_processes_evaluates_in_one(
    two_processes: Path, cli: Cli, tmp_path: Path
) -> None:
    """Checkpoints do not depend on the number of processes."""
    ran = cli("evaluate", two_processes / "checkpoints" / "last.pt", "--output", tmp_path)
    assert ran.code == 0
    assert json.loads((tmp_path / "metrics.json").read_text()) == last_figures(two_processes)


def test_a_run_of_two_processes_goes_on_in_one(
    two_processes: Path, cli: Cli, losses_of: Losses, tmp_path: Path
) -> None:
    """The resume of a longer run takes the next step."""
    folder = Path(shutil.copytree(two_processes, tmp_path / "copy"))
    assert cli("train", "--resume", folder, "train.steps=4").code == 0
    assert losses_of(folder)[:3] == losses_of(two_processes)
    assert len(losses_of(folder)) == 4


def test_two_processes_evaluate_and_predict_as_one(
    cli: Cli, learned_run: Path, synthetic: Path, tmp_path: Path
) -> None:
    """Each image is computed once; one process writes."""
    checkpoint = learned_run / "checkpoints" / "last.pt"
    images = synthetic / "images" / "val"
    calls = {"evaluate": [checkpoint], "predict": [checkpoint, images, "--threshold", "0.05"]}
    for tool, words in calls.items():
        one, two = tmp_path / f"{tool}_one", tmp_path / f"{tool}_two"
        assert cli(tool, *words, "--output", one).code == 0
        printed = run_two(tool, *words, "--output", two)
        assert printed.count("wrote") == (1 if tool == "predict" else 4)
        names = sorted(path.relative_to(one) for path in one.rglob("*.j*"))
        assert sorted(path.relative_to(two) for path in two.rglob("*.j*")) == names
        assert (one / "results.json").read_text() == (two / "results.json").read_text() != "[]"
