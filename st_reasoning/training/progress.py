"""One line that moves: step, loss, examples a second, time left; and a line for each evaluation."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

# Of an evaluator's many scores, those that a reader follows.
SHOWN = ("ndcg@10", "accuracy@1")


class TrainingProgress(TrainerCallback):
    """Shows progress on standard error, on one device only.

    Attributes:
        batch_size: Examples per step over all devices.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin where a resumed training begins."""
        self.started, self.first = time.perf_counter(), state.global_step
        if state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc="training", unit="step", file=sys.stderr,
                dynamic_ncols=True,
            )  # fmt: skip

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move on."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Show the last loss and the speed since the beginning."""
        if self.bar is not None and logs and "loss" in logs:
            done = (state.global_step - self.first) * self.batch_size
            speed = done / max(time.perf_counter() - self.started, 1e-9)
            self.bar.set_postfix_str(f"loss {float(logs['loss']):.4f}, {speed:.1f} examples/s")

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, Any] | None = None, **_: Any) -> None:
        """Write a line with the scores that matter."""
        if self.bar is not None and metrics:
            shown = {k.removeprefix("eval_"): v for k, v in metrics.items() if k.endswith(SHOWN)}
            self.bar.write(
                f"step {state.global_step}: " + ", ".join(f"{name} {value:.4f}" for name, value in shown.items()),
                file=sys.stderr,
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave the finished bar where it is."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
