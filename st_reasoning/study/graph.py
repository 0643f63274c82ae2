"""Run the steps of a graph: each after those it needs, several at once where asked, none lost for another's failure."""

from __future__ import annotations

import collections
import heapq
import time
from collections.abc import Callable
from pathlib import Path

from st_reasoning.files import read_json
from st_reasoning.study.executors import Executor, Here, Job
from st_reasoning.study.plan import Outcome, Step, done_before, failure_of, keys

POLL = 0.1  # seconds between two looks at what runs


def run_steps(
    steps: list[Step],
    records: Path,
    *,
    say: Callable[[str], None] = lambda line: None,
    executor: Executor | None = None,
) -> dict[str, Outcome]:
    """Run what is not done yet.

    Args:
        steps: In an order in which each comes after those it needs; so they are started.
        records: Folder that remembers what is done; a step's record is written after its output is complete.
        say: Receives a line for each step.
        executor: Where steps are run; by default here, one after the other.

    Returns:
        An outcome for every step, in the order of ``steps``. One that fails does not stop the others: those that need
        it are skipped.
    """
    run = _Run(steps, records, say, executor or Here(records))
    try:
        run.everything()
    finally:
        run.executor.close()
    return {step.name: run.outcomes[step.name] for step in steps}


class _Run:
    """The state of one run: what has ended, what runs, what may start, and what each of the others waits for."""

    def __init__(self, steps: list[Step], records: Path, say: Callable[[str], None], executor: Executor) -> None:
        self.steps, self.records, self.say, self.executor = steps, records, say, executor
        self.keys = keys(steps)
        self.outcomes: dict[str, Outcome] = {}
        self.place = {step.name: number for number, step in enumerate(steps)}
        self.ready: list[int] = []
        self.running: list[tuple[Step, Job, float]] = []
        self.followers: dict[str, list[Step]] = {name: [] for name in self.place}
        self.waiting: dict[str, int] = {}
        for step in steps:
            before = self._before(step)
            self.waiting[step.name] = len(before)
            for name in before:
                self.followers[name].append(step)
        self.free = collections.deque(step for step in steps if not self.waiting[step.name])

    def everything(self) -> None:
        self._consider_all()
        while self.ready or self.running:
            while self.ready and len(self.running) < self.executor.slots:
                step = self.steps[heapq.heappop(self.ready)]
                self.say(f"{self._title(step)} ...")
                failure_of(self.records, step.name).unlink(missing_ok=True)  # of another time
                self.running.append((step, self.executor.start(step, self.keys[step.name]), time.perf_counter()))
            ended = [entry for entry in self.running if entry[1].ended()]
            for entry in ended:
                self.running.remove(entry)
                self._end(self._outcome(*entry))
            self._consider_all()
            if not ended:
                time.sleep(POLL)

    def _before(self, step: Step) -> set[str]:
        """Return what must have ended first; a step may be run without those that it only comes after."""
        return {*step.needs, *(name for name in step.after if name in self.place)}

    def _consider_all(self) -> None:
        """Decide on the steps before which all has ended; what is done or skipped frees others in turn."""
        while self.free:
            self._consider(self.free.popleft())

    def _consider(self, step: Step) -> None:
        outcomes = [self.outcomes[need] for need in step.needs]
        gates = [self.outcomes[name] for name in step.after if name in self.place]
        broken = [outcome for outcome in outcomes if not outcome.ok]
        if not broken and gates and not any(gate.ok for gate in gates):
            broken = gates
        if broken:
            first = broken[0]
            reason = first.reason if first.state == "skipped" else f"{first.name} failed: {first.reason}"
            self.say(f"{self._title(step)}: skipped ({reason})")
            self._end(Outcome(step.name, "skipped", reason=reason))
        elif (known := done_before(step, self.keys[step.name], self.records)) is not None:
            self.say(f"{self._title(step)}: done before")
            self._end(known)
        else:
            heapq.heappush(self.ready, self.place[step.name])

    def _end(self, outcome: Outcome) -> None:
        """Note what became of a step, and free those that waited for it alone."""
        self.outcomes[outcome.name] = outcome
        for step in self.followers[outcome.name]:
            self.waiting[step.name] -= 1
            if not self.waiting[step.name]:
                self.free.append(step)

    def _outcome(self, step: Step, job: Job, started: float) -> Outcome:
        known = done_before(step, self.keys[step.name], self.records)
        if known is not None:
            self.say(f"{self._title(step)}: {known.seconds:.0f} s")
            return Outcome(step.name, "ran", known.seconds, known.facts)
        failed = failure_of(self.records, step.name)
        reason = read_json(failed)["reason"] if failed.is_file() else job.failure()
        self.say(f"{self._title(step)}: failed ({reason})")
        return Outcome(step.name, "failed", round(time.perf_counter() - started, 1), reason=reason)

    def _title(self, step: Step) -> str:
        return f"[{self.place[step.name] + 1}/{len(self.steps)}] {step.name}"
