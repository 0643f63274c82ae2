"""Where steps are run: in this process, in processes of their own, or as jobs of a cluster."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from st_reasoning.errors import InputError, MissingExtraError, STReasoningError
from st_reasoning.files import write_json
from st_reasoning.study.plan import Step, done_before, failure_of, log_of, record_of

DOOR = "st_reasoning.study"


class Job(Protocol):
    """A step that was started."""

    def ended(self) -> bool:
        """Whether it runs no more."""

    def failure(self) -> str:
        """Return why it has no record, in a line, where it left no reason of its own."""


class Executor(Protocol):
    """Something that runs steps."""

    @property
    def slots(self) -> int:
        """How many run at once."""

    def start(self, step: Step, key: str) -> Job:
        """Start a step; when it has ended well, its record is there."""

    def close(self) -> None:
        """End what still runs here."""


def perform(step: Step, key: str, records: Path) -> str:
    """Run a step here and leave its record, or a traceback in its log and the reason of the failure.

    While another process is at the same step, as one whose parent was killed may be, this waits for it.

    Returns:
        Why it failed, in a line; empty if it did not.
    """
    log = log_of(records, step.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as lines:
        fcntl.flock(lines, fcntl.LOCK_EX)  # gone with the process, however that ends
        if done_before(step, key, records):
            return ""
        start = time.perf_counter()
        try:
            facts = step.run()
            seconds = round(time.perf_counter() - start, 1)
            # Within: facts that JSON does not have, a score of NaN for one, are a failure of this step, not of all.
            write_json(record_of(records, step.name), {"key": key, "seconds": seconds, "facts": facts})
        except Exception as error:
            lines.write("".join(traceback.format_exception(error)))
            write_json(failure_of(records, step.name), {"key": key, "reason": reason_of(error)})
            return reason_of(error)
    return "" if step.output.exists() else f"it ended without {step.output}"


def reason_of(error: BaseException) -> str:
    """Return an error in one line: ours by what it says, others by their kind as well."""
    said = " ".join(str(error).split())
    return said if isinstance(error, STReasoningError) else f"{type(error).__name__}: {said}".rstrip(": ")


class Here:
    """Runs steps in this process, one after the other."""

    slots = 1

    def __init__(self, records: Path) -> None:
        self.records = records

    def start(self, step: Step, key: str) -> Job:
        """Run the step."""
        return _Ended(perform(step, key, self.records))

    def close(self) -> None:
        """Nothing runs on."""


class _Ended:
    def __init__(self, failure: str) -> None:
        self._failure = failure

    def ended(self) -> bool:
        return True

    def failure(self) -> str:
        return self._failure


class Processes:
    """Runs each step in a process of its own, which ends when this one does.

    Args:
        recipe: The study's resolved recipe.
        output: Its folder.
        jobs: How many processes at once; they share the cores, and the GPUs one by one.
        environment: Of the processes; by default this one's.
    """

    def __init__(self, recipe: Path, output: Path, jobs: int, *, environment: Mapping[str, str] | None = None) -> None:
        if jobs < 1:
            raise InputError(f"jobs: expected at least 1, got {jobs}")
        self.recipe, self.output, self.slots = recipe, output, jobs
        self.environment = dict(os.environ if environment is None else environment)
        self._places: list[_Process | None] = [None] * jobs

    def start(self, step: Step, key: str) -> Job:
        """Start a process for the step."""
        place = next(n for n, job in enumerate(self._places) if job is None or job.ended())
        log = log_of(self.output / "steps", step.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as lines:
            process = subprocess.Popen(
                [sys.executable, "-m", DOOR, str(self.recipe), str(self.output), step.name, key],
                # The other end is open as long as this process lives: the child watches it.
                stdin=subprocess.PIPE,
                stdout=lines,
                stderr=lines,
                env={**self.environment, **share(self.environment, place, self.slots)},
            )
        job = _Process(process, log)
        self._places[place] = job
        return job

    def close(self) -> None:
        """End the processes that still run."""
        for job in self._places:
            if job is not None:
                job.stop()


class _Process:
    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log

    def ended(self) -> bool:
        if self.process.poll() is None:
            return False
        self._close_pipe()
        return True

    def failure(self) -> str:
        code = self.process.returncode
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"its process {how}, see {self.log}"

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._close_pipe()

    def _close_pipe(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()


def share(environment: Mapping[str, str], place: int, places: int) -> dict[str, str]:
    """Return the variables that give one of several processes its share of the cores, and a GPU of its own.

    Args:
        environment: Of all of them.
        place: Which one it is, from 0.
        places: How many they are.
    """
    threads = int(environment.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    found = {"OMP_NUM_THREADS": str(max(1, threads // places))}
    gpus = _gpus(environment) if places > 1 else []
    return {**found, "CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if gpus else found


def _gpus(environment: Mapping[str, str]) -> list[str]:
    """Return the GPUs that processes may see, as CUDA_VISIBLE_DEVICES names them."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [name for name in environment["CUDA_VISIBLE_DEVICES"].split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


class Cluster:
    """Runs each step as a job of Slurm, through submitit.

    Args:
        recipe: The study's resolved recipe.
        output: Its folder, which all machines of the cluster see.
        jobs: How many jobs at once, waiting ones included.
        kind: ``slurm``, or ``local`` for jobs of the same make on this machine.
        parameters: Of submitit's ``AutoExecutor``: ``slurm_partition``, ``gpus_per_node``, ``timeout_min`` ...
    """

    def __init__(
        self, recipe: Path, output: Path, jobs: int, *, kind: str = "slurm", parameters: Mapping[str, Any] | None = None
    ) -> None:
        if importlib.util.find_spec("submitit") is None:
            raise MissingExtraError("submitit", "slurm", "running steps as jobs")
        import submitit

        self.recipe, self.output, self.slots = recipe.resolve(), output.resolve(), jobs
        try:
            self._executor = submitit.AutoExecutor(folder=output.resolve() / "steps" / "jobs" / "%j", cluster=kind)
        except RuntimeError as error:
            raise InputError(f"jobs of {kind} cannot be started from this machine: {error}") from None
        self._executor.update_parameters(name="st-reasoning", **(parameters or {}))
        self._jobs: list[Any] = []

    def start(self, step: Step, key: str) -> Job:
        """Submit a job for the step."""
        command = [sys.executable, "-m", DOOR, str(self.recipe), str(self.output), step.name, key, "--detached"]
        job = self._executor.submit(run_command, command, os.getcwd(), str(log_of(self.output / "steps", step.name)))
        self._jobs.append(job)
        return _Submitted(job)

    def close(self) -> None:
        """Cancel the jobs that still wait or run."""
        for job in self._jobs:
            if not job.done():
                job.cancel()


def run_command(command: list[str], folder: str, log: str) -> int:
    """Run a command in a folder, with what it says added to a log; what a job does."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with Path(log).open("ab") as lines:
        return subprocess.run(command, cwd=folder, stdout=lines, stderr=lines, stdin=subprocess.DEVNULL).returncode


class _Submitted:
    def __init__(self, job: Any) -> None:
        self.job = job

    def ended(self) -> bool:
        return bool(self.job.done())

    def failure(self) -> str:
        return f"its job {self.job.job_id} ended in state {self.job.state}, see {self.job.paths.stderr}"
