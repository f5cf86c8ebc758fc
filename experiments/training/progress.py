"""What a run says while it trains: a Rich progress bar on a terminal, one line per epoch elsewhere."""

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from experiments.training.batches import BatchLayout
from roadmap.pipes import without_reader


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Train on without a reader (`... | head -1`); Rich would exit with 1."""
        without_reader()


class Reporter:
    """Console output of one run; silent on every rank but the first."""

    def __init__(self, layout: BatchLayout, epochs: int, *, enabled: bool, console: Console | None = None) -> None:
        """Use as a context manager around the training loop."""
        self.layout, self.epochs, self.enabled = layout, epochs, enabled
        self.console = console or _Console(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._since, self._images = time.monotonic(), 0

    def __enter__(self) -> "Reporter":
        if self.enabled and self.console.is_terminal:
            columns = ("epoch {task.fields[epoch]}", "loss {task.fields[loss]}", "{task.fields[speed]} images/s")
            texts = [TextColumn(text) for text in columns]
            self._bar = Progress(
                texts[0], BarColumn(), *texts[1:], TimeRemainingColumn(), console=self.console, refresh_per_second=4
            )
            self._bar.start()
            total = self.epochs * self.layout.steps
            self._task = self._bar.add_task("", total=total, epoch="-", loss="-", speed="-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self.enabled:
            self.console.print(text, markup=False)

    @staticmethod
    def line(text: str) -> None:
        """Print a line where there is no run to report on."""
        _Console(highlight=False, soft_wrap=True).print(text, markup=False)

    def start_epoch(self, epoch: int, step: int) -> None:
        """Begin (or continue, at `step`) the epoch after `epoch` finished ones."""
        self._since, self._images = time.monotonic(), 0
        self._update(completed=epoch * self.layout.steps + step, epoch=f"{epoch + 1}/{self.epochs}")

    def step(self) -> None:
        """Count one optimizer step; costs the device nothing."""
        self._images += self.layout.size
        if self._bar is not None:
            self._bar.advance(self._task)

    def loss(self, value: float) -> None:
        """Show the running training loss, just read from the device, and the speed up to here."""
        speed = self._images / max(1e-9, time.monotonic() - self._since)
        self._update(loss=f"{value:.4f}", speed=f"{speed:.0f}")

    def end_epoch(self, line: dict[str, Any], seconds: float, speed: float) -> None:
        """Print the epoch's line of metrics; `seconds` it took, `speed` in training images per second."""
        left = seconds * (self.epochs - line["epoch"])
        ema = "" if line["top1_ema"] is None else f"  top1_ema {line['top1_ema']:.2f}"
        self.say(
            f"epoch {line['epoch']}/{self.epochs}  lr {line['lr']:.3g}  train_loss {line['train_loss']:.4f}"
            f"  loss {line['loss']:.4f}  top1 {line['top1']:.2f}{ema}  {speed:.0f} images/s  {left:.0f} s left"
        )

    def _update(self, **fields: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._task, **fields)
