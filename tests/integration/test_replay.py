"""`retinanet replay`: a step of a run again, through the command line."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import EVALUATED_AT, STEPS, Ran

pytestmark = pytest.mark.slow


def fingerprints(folder: Path) -> dict[str, str]:
    """Return the hash of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def step_of(run: Path) -> int:
    """Return how far the newest state of a run is."""
    content = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    return int(content["progress"]["step"])


@pytest.fixture
def copy(finished_run: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run: states after steps 5 (best.pt) and 6 (last.pt)."""
    return Path(shutil.copytree(finished_run, tmp_path / "copy"))


@pytest.fixture(scope="module")
def diverged_run(shared_experiment: Path, run_quietly: Callable[..., int]) -> Path:
    """Return the folder of a run that diverged in step 2: only its initial state is saved."""
    overrides = ["train.lr=1e30", "train.warmup_steps=0"]
    assert run_quietly("train", shared_experiment, *overrides, "--name", "diverged") == 1
    return shared_experiment.parent / "runs" / "diverged"


def test_the_step_is_the_run_s_own(
    cli: Callable[..., Ran],
    finished_run: Path,
    interrupted_run: Path,
    metrics_of: Callable[[Path], list[dict[str, Any]]],
) -> None:
    """From the interrupted run's state, or from that after step 5: the losses of the log."""
    assert [STEPS, EVALUATED_AT] == [6, 5]
    line = next(x for x in metrics_of(finished_run) if x["step"] == 6 and "loss_box/train" in x)
    wanted = f"loss class {line['loss_class/train']:.9g} + box {line['loss_box/train']:.9g}\n"
    norm = next(value for name, value in line.items() if "norm" in name)
    before = fingerprints(interrupted_run)
    ran = cli("replay", interrupted_run, "--step", 6)
    assert (ran.code, ran.err) == (0, "")
    last, reached = interrupted_run / "checkpoints" / "last.pt", step_of(interrupted_run)
    assert reached in (3, 4)
    assert f"from {last}, the state after step {reached}; {5 - reached} step" in ran.out
    newest = f"(the newest is from after step {reached})"
    assert f"no checkpoint has come this far yet {newest}\n" in ran.out
    near = cli("replay", finished_run, "--step", 6)
    assert f"from {finished_run / 'checkpoints' / 'best.pt'}, the state after step 5\n" in near.out
    for out in (ran.out, near.out):
        assert wanted in out
        assert f"gradient norm {norm:.9g}" in out
        assert out.endswith("all outputs, losses and gradients are finite\n")
    assert ran.out.splitlines()[3:] == near.out.splitlines()[2:]
    assert fingerprints(interrupted_run) == before


def test_a_step_after_a_resume_with_other_options(
    cli: Callable[..., Ran], copy: Path, metrics_of: Callable[[Path], list[dict[str, Any]]]
) -> None:
    """From the state after step 5, over step 6, after which they counted: no file holds that."""
    best = copy / "checkpoints" / "best.pt"
    after_5 = best.read_bytes()
    words = ["train.steps=8", "train.lr=0.0005", "eval.every=0", "--allow-changes"]
    assert cli("train", "--resume", copy, *words).code == 0
    best.write_bytes(after_5)
    line = next(x for x in metrics_of(copy) if x["step"] == 8 and "loss_box/train" in x)
    ran = cli("replay", copy, "--step", 8)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(
        f"step 8 of 8 of {copy}\nfrom {best}, the state after step 5; 2 steps"
    )
    assert "the run was resumed after step 6 with train.lr=0.0005 train.steps=8\n" in ran.out
    losses = f"loss class {line['loss_class/train']:.9g} + box {line['loss_box/train']:.9g}\n"
    assert losses in ran.out


def test_images_and_parts_add_up(cli: Callable[..., Ran], finished_run: Path) -> None:
    """Each image's losses sum to the step's; the parts' gradients to its norm."""
    out = cli("replay", finished_run, "--step", 6).out
    loss = re.search(r"^loss class (\S+) \+ box (\S+)$", out, re.M)
    images = re.findall(
        r"^  image (\d+) \((\S+)\): (\d+) box(?:es)?, (\d+) positives?, class (\S+), box (\S+)$",
        out,
        re.M,
    )
    assert loss and len(images) == 4
    assert len({image for image, *_ in images}) == 4
    for column, wanted in ((4, loss[1]), (5, loss[2])):
        assert sum(float(i[column]) for i in images) == pytest.approx(float(wanted), rel=1e-4)
    assert all(Path(path).is_file() for _, path, *_ in images)
    total = re.search(r"(\d+) positives; losses are divided by (\d+) \(loss.norm", out)
    assert total and int(total[1]) == int(total[2]) == sum(int(i[3]) for i in images)
    listed = re.findall(r"^    \w+ [\d.]+, [\d.]+, [\d.]+, [\d.]+$", out, re.M)
    assert len(listed) == sum(int(i[2]) for i in images)
    table = re.findall(r"^  (backbone\.\w+|fpn|class_subnet|box_subnet) +(\S+) +(\S+)$", out, re.M)
    parts = [f"backbone.{p}" for p in ("stem", "layer1", "layer2", "layer3", "layer4")]
    assert [name for name, *_ in table] == [*parts, "fpn", "class_subnet", "box_subnet"]
    norm = re.search(r"^gradient norm (\S+)$", out, re.M)
    assert norm
    assert sum(float(g) ** 2 for *_, g in table) ** 0.5 == pytest.approx(float(norm[1]), rel=1e-4)


def test_a_step_that_diverged(cli: Callable[..., Ran], diverged_run: Path) -> None:
    """The weights are at 1e30 after step 1; their first product overflows in the first norm."""
    ran = cli("replay", diverged_run, "--step", 2)
    assert (ran.code, ran.err) == (0, "")
    assert "learning rate 1e+30, " in ran.out
    assert "loss class nan + box nan\n" in ran.out
    assert re.search(r"^  backbone.stem +1.000\d*e\+30 +nan$", ran.out, re.M)
    assert "layers, the first is backbone.bn1\n" in ran.out
    assert "not finite: losses of 4 of 4 images\n" in ran.out
    bad = r"^not finite: gradients of 84 of 84 parameters, the first is (class|box)_subnet.output"
    assert re.search(bad, ran.out, re.M)
    fine = cli("replay", diverged_run, "--step", 1)
    assert fine.out.endswith("all outputs, losses and gradients are finite\n")


def test_what_follows_a_bad_step_is_not_shown(cli: Callable[..., Ran], diverged_run: Path) -> None:
    ran = cli("replay", diverged_run, "--step", 4)
    assert ran.code == 2
    assert ran.err == (
        "error: --step 4: a loss or gradient is not finite at step 2, and no update follows it; "
        "replay that one: --step 2\n"
    )


def test_the_message_of_a_diverged_run_names_the_command(diverged_run: Path) -> None:
    log = (diverged_run / "train.log").read_text()
    assert f"replay {diverged_run} --step 2" in log


def test_pictures(cli: Callable[..., Ran], finished_run: Path, tmp_path: Path) -> None:
    ran = cli("replay", finished_run, "--step", 6, "--pictures", tmp_path / "pictures")
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    ids = sorted(re.findall(r"^  image (\d+) ", ran.out, re.M))
    assert names == sorted(["samples.jpg", *(f"step_000006_image_{i}.jpg" for i in ids)])
    assert ran.out.count("wrote ") == 5


def test_a_damaged_checkpoint_is_passed_over(
    cli: Callable[..., Ran], copy: Path, interrupted_run: Path
) -> None:
    best = copy / "checkpoints" / "best.pt"
    best.write_bytes(best.read_bytes()[:-2000])
    shutil.copy(interrupted_run / "checkpoints" / "last.pt", copy / "checkpoints" / "step_x.pt")
    ran = cli("replay", copy, "--step", 6)
    assert (ran.code, ran.err) == (0, "")
    assert "best.pt: damaged; skipped\n" in ran.out
    assert f"step_x.pt, the state after step {step_of(interrupted_run)}; " in ran.out


def test_other_hardware_is_said(cli: Callable[..., Ran], copy: Path) -> None:
    best = copy / "checkpoints" / "best.pt"
    content = torch.load(best, weights_only=True)
    content["environment"] |= {"processes": 8, "device": "Some GPU"}
    torch.save(content, best)
    out = cli("replay", copy, "--step", 6, "data.workers=1", "train.micro_batch=2").out
    assert (
        "the run used different hardware or settings (device Some GPU, here cpu; processes 8, here "
        "1): results may differ slightly\n"
    ) in out
    assert "4 images (2 at a time), " in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--step", 0], "--step 0: steps count from 1, as in the log"),
        (["--step", 7], "--step 7: the run has only 6 steps"),
        (
            ["--step", 3],
            "--step 3: the oldest saved state is the one after step 5 (best.pt); only later steps "
            "can be replayed. Train with train.snapshot_every and train.keep_snapshots=0 to keep "
            "earlier states",
        ),
        (
            ["--step", 6, "train.lr=1"],
            "train.lr=1: a replay uses the run's own options; only these can be changed: "
            "data.root, data.train.annotations, data.train.images, data.find_images, data.workers, "
            "train.device, train.micro_batch",
        ),
        (
            ["--step", 6, "data.root=/nowhere"],
            "data.root: there is no such folder, or no permission to see it: /nowhere. If the "
            "data have moved, give data.root=FOLDER",
        ),
    ],
)
def test_mistakes(
    cli: Callable[..., Ran], finished_run: Path, words: list[object], message: str
) -> None:
    assert cli("replay", finished_run, *words) == Ran(2, "", f"error: {message}\n")


def test_no_run_and_no_checkpoint(cli: Callable[..., Ran], copy: Path, tmp_path: Path) -> None:
    ran = cli("replay", tmp_path, "--step", 1)
    assert ran == Ran(
        2, "", f"error: {tmp_path}: is not a run folder; give one, such as runs/first\n"
    )
    for path in (copy / "checkpoints").iterdir():
        path.write_bytes(b"rubbish")
    ran = cli("replay", copy, "--step", 6)
    assert ran == Ran(
        2,
        "",
        f"error: {copy / 'checkpoints'}: there is no checkpoint to start from (last.pt, best.pt: "
        "damaged)\n",
    )


def test_other_data_is_refused(
    cli: Callable[..., Ran], finished_run: Path, synthetic: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(synthetic, tmp_path / "data"))
    path = data / "annotations" / "train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][2] -= 1
    path.write_text(json.dumps(content))
    ran = cli("replay", finished_run, "--step", 6, f"data.root={data}")
    assert ran == Ran(
        2,
        "",
        f"error: {path}: its classes, images or boxes differ from those that the run was trained "
        "on; the step cannot be replayed\n",
    )
