"""How training goes: losses, speed, waiting for data, memory."""

from __future__ import annotations

import sys
import time

import torch

from retinanet.engine.logging import duration
from retinanet.engine.run import Run


class Meter:
    """Measures and says how training goes."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._warned = False
        self._first = run.progress.step
        self._total = self._total_waited = 0.0
        self.restart()

    def restart(self) -> None:
        """Begin a new window, without the time of an evaluation."""
        self._window = self._mark = time.perf_counter()
        self._waited = 0.0
        self._steps = 0

    def loaded(self) -> None:
        """Note that the loader has delivered."""
        self._waited += time.perf_counter() - self._mark

    def stepped(self, losses: dict[str, float], norm: float, rate: float) -> None:
        """Note a step; every log_every steps say and record it."""
        self._steps += 1
        now = time.perf_counter()
        step, config = self._run.progress.step, self._run.config.train
        speed = config.batch_size / (now - self._mark)
        if step % config.log_every == 0 or step == self._run.steps:
            self._report(losses, norm, rate, now)
            self.restart()
        self._run.log.advance(f"loss {sum(losses.values()):.3f} lr {rate:.2g} {speed:.1f} images/s")
        self._mark = time.perf_counter()

    def _report(self, losses: dict[str, float], norm: float, rate: float, now: float) -> None:
        run, step = self._run, self._run.progress.step
        elapsed = now - self._window
        speed = self._steps * run.config.train.batch_size / elapsed
        waiting = self._waited / elapsed
        eta = elapsed / self._steps * (run.steps - step)
        memory = _memory(run.world.device)
        run.log.record(
            step,
            {
                "epoch": step / run.plan.steps_per_epoch,
                "loss_class/train": losses["class"],
                "loss_box/train": losses["box"],
                "train/lr": rate,
                "train/gradient_norm": norm,
                "train/images_per_second": speed,
                "train/step_seconds": elapsed / self._steps,
                "train/data_seconds": self._waited / self._steps,
                "train/data_share": waiting,
                "train/memory_gb": memory,
            },
        )
        run.log.step_line(
            f"step {step}/{run.steps}  loss {sum(losses.values()):.4f} (class "
            f"{losses['class']:.4f} box {losses['box']:.4f})  lr {rate:.3g}  norm {norm:.2f}  "
            f"{speed:.1f} images/s  data {waiting:.0%}  {memory:.1f} GB  ETA {duration(eta)}"
        )
        self._total += elapsed
        self._total_waited += self._waited
        share = self._total_waited / self._total
        if share > 0.2 and step - self._first >= 10 and not self._warned:
            self._warned = True
            run.log.say(
                f"  training waits {share:.0%} of its time for data: more data.workers (now "
                f"{run.config.data.workers}), smaller images on disk, or a lighter data.augment"
            )


def _memory(device: torch.device) -> float:
    """Return the peak memory in GB: of the device, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
    except ImportError:  # not on Windows
        return 0.0
    unit = 1e9 if sys.platform == "darwin" else 1e6  # bytes there, kB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
