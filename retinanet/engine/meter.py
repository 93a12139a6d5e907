"""Measure and report training: losses, speed, waiting for data, FLOP/s, memory.

A step is only recorded. The device is waited for when the log is written, every `train.log_every`
steps.
"""

from __future__ import annotations

import time

import torch

from retinanet.data.loader import RankStep
from retinanet.distributed.device import peak_memory
from retinanet.engine.logs.log import duration
from retinanet.engine.run import Run

_Moment = float | torch.cuda.Event
"""A point in time on the device: seconds, or an event that a GPU may not have reached yet."""


class Meter:
    """Measures training and logs the results."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._warned = False
        self._first_step = run.progress.step
        self._total_seconds = self._total_waited = 0.0
        self._bar_text = ""
        self._reported_saving = run.saver.pauses.seconds
        self.restart()

    def restart(self) -> None:
        """Begin a new window, without the time of an evaluation."""
        self._window_started = time.perf_counter()
        self._step_ended = self._now()
        self._gaps: list[tuple[_Moment, _Moment]] = []
        """From the end of each step until the next step's data arrived."""
        self._steps = self._images = self._pixels = 0
        self._paused = self._run.saver.pauses.seconds

    def loaded(self) -> None:
        """Note that the loader has delivered the data of a step."""
        self._gaps.append((self._step_ended, self._now()))

    def stepped(self, part: RankStep) -> None:
        """Note a step, which the device may not have finished yet; log every `log_every` steps.

        Args:
            part: This rank's images of the step.
        """
        self._steps += 1
        self._images += self._global_images(part.step)
        self._pixels += canvas_pixels(part)
        self._step_ended = self._now()
        run, step = self._run, self._run.progress.step
        assert run.result is not None
        run.watch.note_step(run.result.losses, run.result.positives, run.world)
        if step % run.config.train.log_every == 0 or step == run.schedule.steps:
            losses, norm = run.latest()  # waits for the device
            self._report(losses, norm)
            self.restart()
        run.log.advance(self._bar_text)

    def _now(self) -> _Moment:
        """Return the current time on the device, without waiting for the device.

        A GPU runs behind the host: while the host waits for data, the GPU may still be busy.
        """
        if self._run.world.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _global_images(self, step: int) -> int:
        """Return the images of a step on all ranks; the last batch of an epoch may be smaller."""
        size, plan = self._run.config.train.batch_size, self._run.plan
        return min(size, plan.entries - step % plan.steps_per_epoch * size)

    def _report(self, losses: dict[str, float], norm: float) -> None:
        """Log and record the window that ends now."""
        run, step = self._run, self._run.progress.step
        assert run.result is not None
        total, rate = sum(losses.values()), run.result.rate
        elapsed = time.perf_counter() - self._window_started
        paused = run.saver.pauses.seconds - self._paused
        waited = max(0.0, sum(_seconds_between(*gap) for gap in self._gaps) - paused)
        speed, waiting = self._images / elapsed, waited / elapsed
        memory, utilisation = peak_memory(run.world.device), self._utilisation(elapsed)
        saving = run.saver.pauses.seconds - self._reported_saving  # includes evaluations
        self._reported_saving += saving
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
                "train/data_seconds": waited / self._steps,
                "train/data_share": waiting,
                "train/checkpoint_seconds": saving,
                **utilisation,
                "train/memory_gb": memory,
            },
        )
        use = f"use {utilisation['train/utilisation']:.0%}  " if utilisation else ""
        eta = elapsed / self._steps * (run.schedule.steps - step)
        run.log.step_line(
            f"step {step}/{run.schedule.steps}  loss {total:.4f} (class {losses['class']:.4f} box "
            f"{losses['box']:.4f})  lr {rate:.3g}  norm {norm:.2f}  {speed:.1f} images/s  {use}"
            f"data {waiting:.0%}  {memory:.1f} GB  ETA {duration(eta)}"
        )
        self._bar_text = f"loss {total:.3f} lr {rate:.2g} {speed:.1f} images/s"
        self._total_seconds += elapsed
        self._total_waited += waited
        self._warn_of_waiting()
        warning = run.watch.judge_step((losses["class"], losses["box"]), rate, run.config.train)
        if warning:
            run.log.say(f"  {warning}")

    def _utilisation(self, elapsed: float) -> dict[str, float]:
        """Return this process's TFLOP/s, and their share of what the device can reach."""
        work = self._run.work
        if work is None:
            return {}
        rate = work.flops_per_pixel * self._pixels / elapsed
        return {"train/tflops": rate / 1e12, "train/utilisation": rate / work.attainable}

    def _warn_of_waiting(self) -> None:
        """Warn once if the loader is too slow, with remedies."""
        run = self._run
        share = self._total_waited / self._total_seconds
        if share > 0.2 and run.progress.step - self._first_step >= 10 and not self._warned:
            self._warned = True
            run.log.say(
                f"  training waits {share:.0%} of its time for data. Try more data.workers (now "
                f"{run.config.data.workers}), smaller images on disk, or a lighter data.augment"
            )


def _seconds_between(start: _Moment, end: _Moment) -> float:
    """Return the seconds between two points in time that the device has reached."""
    if isinstance(start, float) and isinstance(end, float):
        return end - start
    assert not isinstance(start, float) and not isinstance(end, float)
    return start.elapsed_time(end) / 1000


def canvas_pixels(part: RankStep) -> int:
    """Return the number of pixels in a rank's step, padding included."""
    return sum(batch.images[:, 0].numel() for batch in part.micro_batches)
