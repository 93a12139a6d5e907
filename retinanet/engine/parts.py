"""This rank's parts of the steps: loaded one by one, each with counts that all ranks sum up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from retinanet.data.loader import RankStep
from retinanet.distributed.signals import Signals, WaitInterruptedError
from retinanet.engine.run import Run, load_steps


@dataclass(frozen=True, kw_only=True)
class StepSums:
    """Counts of a step, summed over all ranks, so that all ranks act alike."""

    positives: float
    """Positive anchors of the global batch."""
    images: float
    """Images of the global batch."""
    bad: float
    """Images that could not be read."""
    signalled: float
    """Ranks that received a signal."""
    late: float
    """1 if the time is over, which rank 0 decides."""


class Parts:
    """The parts, and the sums of their counts.

    Several ranks ask one step ahead: the sums of the next step are exchanged while the host queues
    this one, so that no host waits for the slowest one with nothing queued on its device. A signal
    may then be heeded one step later. A single process has nothing to wait for.
    """

    def __init__(self, run: Run, signals: Signals, *, deadline: float) -> None:
        """Prepare to load the remaining steps of a run.

        Args:
            run: The run.
            signals: Signals that this process collects.
            deadline: Time at which the run shall stop, in seconds of the monotonic clock.
        """
        self._run, self._signals, self._deadline = run, signals, deadline
        self._loaded = load_parts(run, signals)
        self._ahead: tuple[RankStep, Callable[[], StepSums]] | None = None

    def __iter__(self) -> Iterator[tuple[RankStep, Callable[[], StepSums]]]:
        """Yield the part of each step, and a function that waits for the sums of its counts."""
        while True:
            one = self._ahead or self._ask()
            if one is None:
                return
            self._ahead = None
            yield one

    @contextmanager
    def asked_ahead(self) -> Iterator[None]:
        """Exchange the sums of the next step while the block queues this one.

        They are waited for at the end of the block. So nothing is under way while the ranks log,
        evaluate, save or stop.
        """
        if self._run.world.size > 1:
            self._ahead = self._ask()
        yield
        if self._ahead is not None:
            self._ahead[1]()

    def _ask(self) -> tuple[RankStep, Callable[[], StepSums]] | None:
        """Load the next part and start to sum its counts; None after the last step."""
        part = next(self._loaded, None)
        if part is None:
            return None
        world = self._run.world
        is_late = world.is_main and time.monotonic() > self._deadline
        is_signalled = self._signals.number > 0
        counts = [part.positives, part.images, len(part.bad), is_signalled, is_late]
        wait = world.sum_later(counts)

        def sums() -> StepSums:
            positives, images, bad, signalled, late = wait()
            return StepSums(
                positives=positives, images=images, bad=bad, signalled=signalled, late=late
            )

        return part, sums


def load_parts(run: Run, signals: Signals) -> Iterator[RankStep]:
    """Load this rank's parts of the steps; if a signal comes meanwhile, an empty part ends them.

    With the empty part this rank still joins the agreement on the step, at which all ranks stop.
    """
    steps = range(run.progress.step, run.schedule.steps)
    with closing(load_steps(run, stop=steps.stop, workers=run.config.data.workers)) as parts:
        for step in steps:
            try:
                with signals.waiting():
                    part = next(parts, None)
            except WaitInterruptedError:
                part = RankStep(step=step, micro_batches=[], positives=0, images=0, bad=[])
            if part is None:
                return
            yield part
