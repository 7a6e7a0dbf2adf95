"""PID 1 of a pod, and the same program on a laptop: one attempt of a job, from its configuration to its exit code.

This process never imports torch. It resolves the configuration, claims the run, prepares the data, runs torchrun,
passes signals on and alone decides the exit code from what every rank left behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mtft import exit_codes, files, provenance, store
from mtft.errors import InputError, MtftError, Retry
from mtft.naming import config_differences, config_hash
from mtft.runs import (
    JOB_UID_FILE,
    RETRIED_FILE,
    Job,
    RunPaths,
    claim,
    job_file,
    job_lock,
    model_folder,
    read_job,
    write_job,
)
from mtft.settings import load_document, resolve, to_yaml
from trainer import attempts, publishing
from trainer.console import Console
from trainer.early_starts import EarlyStarts
from trainer.following import Following
from trainer.ingredients import Ingredients
from trainer.launching import Children, lost_node
from trainer.limits import Limits, why_ended
from trainer.node import GPU_VARIABLE, Node, child_environment
from trainer.outcome import Outcome, failed, finished_already, write_termination_message
from trainer.processes import Stop, adopt_orphans, end_with_parent
from trainer.reasons import signal_name
from trainer.unchanged import same_run

_BREAK_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line asks for.

    Attributes:
        config: the user's document, unresolved.
        model: key of the model.
        job: name of the job.
        root: goes over storage.root.
        attended: a person starts every attempt, so the restart budget is theirs and the deadline counts from now.
        preparation_module: module of the preparation step.
        worker_module: module of every rank.
    """

    config: Path
    model: str
    job: str
    root: Path | None
    attended: bool
    preparation_module: str
    worker_module: str


def supervise(request: Request) -> int:
    """Do one attempt of a job and return the exit code of the trainer."""
    adopt_orphans()
    if request.attended:
        end_with_parent(signal.SIGTERM)
    stop, console = Stop(), Console()
    with stop.listening():
        try:
            outcome = Supervisor(request, stop, console).attempt()
        except (MtftError, OSError) as error:
            outcome = failed(error)
        console.say(outcome.line())
        write_termination_message(outcome)
        if outcome.exit_code == exit_codes.RETRY and outcome.attempt is None and not request.attended:
            # It ends within moments: without a break, the next ones would spend the budget before its cause can pass.
            stop.wait(_BREAK_SECONDS)
    console.close()
    return outcome.exit_code


class Supervisor:
    """One attempt of a job on one node."""

    def __init__(self, request: Request, stop: Stop, console: Console) -> None:
        """Resolve the configuration.

        Raises:
            ConfigError: it has problems, or the node's place does not fit it.
        """
        self.request, self.stop, self.console = request, stop, console
        document = load_document(request.config)
        flags = {"storage.root": str(request.root.absolute())} if request.root else {}
        resolved = resolve(document, model=request.model, flags=flags)
        self.config, self.card = resolved.config, resolved.card
        self.config_hash = config_hash(document, request.model)
        self.root = Path(self.config.storage.root).absolute()
        self.retried = attempts.said_beside(request.config, RETRIED_FILE)
        self.limits = Limits(
            job=request.job,
            cluster=self.config.cluster,
            retried=self.retried,
            attended=request.attended,
            stop=stop,
        )
        self.node = Node.of(self.config.cluster, os.environ)
        self.following = Following(
            node=self.node.rank,
            root=self.root,
            model=request.model,
            job=request.job,
            limits=self.limits,
            stop=stop,
        )
        self.ingredients = Ingredients(
            self.config,
            self.card,
            provenance.request(document, request.model, attempts.said_beside(request.config, JOB_UID_FILE)),
            self.limits.reading,
        )
        self.children = Children(
            node=self.node,
            preparation_module=request.preparation_module,
            worker_module=request.worker_module,
            environment=self._environment,
            stop=stop,
            output=console.write,
        )
        for note in resolved.notes:
            console.say(f"note: {note}")

    def attempt(self) -> Outcome:
        """Lead as node 0, follow as any other."""
        if self.node.rank > 0:
            return self.follow()
        with job_lock(self.root, self.request.model, self.request.job) as held, contextlib.ExitStack() as kept:
            early = self._early(locked_out=not held)
            try:
                outcome = self.lead(kept, early) if held else self._locked_out(early)
            except (MtftError, OSError) as error:
                early.end(failed(error))
                raise
            early.end(outcome)
            if outcome.exit_code == exit_codes.DONE and outcome.paths:
                publishing.settle(outcome.paths, self.config.storage.keep_runs, self.console.say, self._pause)
            if outcome.exit_code != exit_codes.RETRY:
                publishing.write_overview(self.root, self.console.say)
            return outcome

    def lead(self, kept: contextlib.ExitStack, early: EarlyStarts) -> Outcome:
        """Run an attempt as node 0, which alone writes the job's record.

        Args:
            kept: keeps the run from being removed, once it is finished, until its promotion is settled.
            early: this start, and those before that began no attempt.
        """
        job = self._claimed(early)
        paths = self._paths(job)
        if outcome := self._nothing_to_train(job, paths, kept):
            return outcome
        job = attempts.fold(attempts.settle(job, attempts.last_sign_of_life(paths)), early.before)
        if refusal := self.limits.refusal(job.attempts):
            self._record(replace(job, refused=refusal))
            return Outcome(exit_codes.FAILED, refusal, paths, len(job.attempts))
        self.ingredients.take_inputs(job, paths)
        files.sweep(paths.folder)
        job = attempts.begin(job, self.retried, early.started)
        write_job(self.root, job)
        early.forget()
        self.console.keep_in(paths.console)
        self.console.say(f"job {job.name}, run {job.run_id}, attempt {len(job.attempts)}")
        if before := job.attempts[:-1]:
            self.console.say(why_ended(before))
        outcome = Outcome(exit_codes.FAILED, "the supervisor itself failed", paths)
        try:
            self._take_code(paths)
            self._take_placement(paths)
            outcome = self._work(paths, len(job.attempts))
        except (MtftError, OSError) as error:
            outcome = failed(error, paths)
        finally:
            kept.enter_context(store.using(paths))  # its attempt spares it no longer
            self._record(attempts.close(job, early.seconds(), outcome.exit_code, outcome.text))
        return replace(outcome, attempt=len(job.attempts))

    def _nothing_to_train(self, job: Job, paths: RunPaths, kept: contextlib.ExitStack) -> Outcome | None:
        """Return how a start ends whose run is finished, even if it was removed since; None: there is work to do.

        Raises:
            InputError: the run is of another configuration, or was damaged.
        """
        if job.finished and not paths.folder.exists():
            return Outcome(exit_codes.DONE, f"run {job.run_id} of this job was removed; --rerun trains another", paths)
        if not job.finished and not paths.config.exists():
            raise InputError(
                f"{paths.folder}: the run of this job was removed before it was finished; put it back, or start "
                "another one with --rerun"
            )
        if job.config_hash != self.config_hash:
            raise InputError(
                f"job {job.name} was started with another configuration ({'; '.join(self._differing(paths))}); "
                "give this one a --job name of its own"
            )
        if paths.finished.exists():
            kept.enter_context(store.using(paths))
            closed = replace(attempts.settle(job, attempts.last_sign_of_life(paths)), finished=True)
            if closed != job:  # killed before it was recorded
                self._record(closed)
            for name in self.ingredients.all_changed(paths):
                self.console.say(f"note: {name} changed since run {job.run_id}; --rerun starts another run")
            with self.limits.reading():
                _check_undamaged(job, paths)
            return finished_already(job, paths)
        return None

    def _record(self, job: Job) -> None:
        """Write down how a start ended; a full volume must not turn a preemption into a permanent failure."""
        try:
            write_job(self.root, job)
        except OSError as error:
            self.console.say(f"the end of this attempt could not be recorded: {error}")

    def _early(self, *, locked_out: bool) -> EarlyStarts:
        """Count this start from now on; where a person starts every attempt nothing is counted."""
        of, say = self.request, self.console.say
        early = EarlyStarts(
            self.root, of.model, of.job, self.config_hash, retried=self.retried, say=say, locked_out=locked_out
        )
        if not of.attended:
            early.note()
        return early

    def _locked_out(self, early: EarlyStarts) -> Outcome:
        """End this start, but never the job, which another process has: its record stays as that one writes it."""
        text = f"job {self.request.job} is running already in another process"
        if refusal := self.limits.refusal(early.before):
            return Outcome(exit_codes.FAILED, f"{text}, which goes on; {refusal}")
        raise Retry(f"{text}; wait for it to end")

    def follow(self) -> Outcome:
        """Run an attempt as another node: wait until node 0 has claimed the run and prepared its data."""
        self.console.say(f"node {self.node.rank}: waiting for node 0")
        joined = self.following.join()
        if isinstance(joined, Outcome):
            return joined
        paths, number = joined
        self.console.keep_in(paths.logs / f"console_output.node-{self.node.rank}.txt")
        return replace(self._run_ranks(paths, number), attempt=number)

    def _job(self) -> Job | None:
        return read_job(self.root, self.request.model, self.request.job)

    def _paths(self, job: Job) -> RunPaths:
        return RunPaths.at(self.root, job.model, job.run_id)

    def _differing(self, paths: RunPaths) -> list[str]:
        """Name the run of the job's configuration and what differs from it, as far as its provenance is readable."""
        try:
            before, now = files.read_json(paths.provenance)["request"], self.ingredients.request
            differing = config_differences(before["document"], now["document"], self.request.model)
            return [f"run {paths.run_id}", *differing]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return [f"run {paths.run_id}"]

    def _claimed(self, early: EarlyStarts) -> Job:
        """Return the record of the job, claimed now where there is none.

        Raises:
            MtftError: there is none, or it cannot be read, and starts that came to no attempt spent the budget.
        """
        job = None
        try:
            job = self._job()
        finally:  # in place of the error that such starts end with, again and again
            if job is None and (refusal := self.limits.refusal(early.before)):
                raise MtftError(refusal)
        return job or self._claim()

    def _claim(self) -> Job:
        """Give the job its run, with everything that goes into it written down first.

        A job whose name says no more than what it is made of gets a finished run of the same, where there is one.
        """
        job, record = self.ingredients.of_new_job(self.request.job, self.config_hash)
        if job.name.endswith(f"-{self.config_hash}"):
            with self.limits.reading():
                run_id = same_run(self.root, job.model, self.config, record)
            if run_id and (taken := self._take_over(replace(job, run_id=run_id, finished=True))):
                return taken
        paths = self._paths(job)
        files.write_text(paths.config, to_yaml(self.config))
        files.write_json(paths.provenance, record)
        return claim(self.root, job)

    def _take_over(self, job: Job) -> Job | None:
        """Claim a finished run for the job; None, with nothing claimed, where it was removed at that moment."""
        with store.using(self._paths(job)):
            claimed = claim(self.root, job)
            if claimed != job or store.is_complete(model_folder(self.root, job.model), job.run_id):
                return claimed
        job_file(self.root, job.model, job.name).unlink(missing_ok=True)
        return None

    def _take_code(self, paths: RunPaths) -> None:
        if self.ingredients.take_code(paths):
            self.console.say(
                f"note: the code of mtft changed since run {paths.run_id} began; it goes on with the code of now, and "
                f"{paths.provenance.name} names both; --rerun starts another run"
            )

    def _take_placement(self, paths: RunPaths) -> None:
        """Write down where the job runs now, as every rank reads it.

        All else stays as it was claimed: the job's hash holds what is given, not what another image has as default.
        """
        with contextlib.suppress(InputError):  # the preparation, which reads it too, says what is wrong
            claimed = resolve(load_document(paths.config)).config
            placed = claimed.model_copy(update={"cluster": self.config.cluster, "storage": self.config.storage})
            if placed != claimed:
                files.write_text(paths.config, to_yaml(placed))

    def _work(self, paths: RunPaths, number: int) -> Outcome:
        """Prepare the data, then run the ranks."""
        if failed := self.children.prepare(paths, number):
            return self._judge(*failed, paths)
        return self._run_ranks(paths, number)

    def _run_ranks(self, paths: RunPaths, number: int) -> Outcome:
        over = lost_node if self.node.rank == 0 else self.following.lost
        code, text = self.children.run_ranks(paths, number, partial(over, paths, number))
        if code == exit_codes.DONE and self.node.rank > 0:
            return self.following.await_end(paths, number) or self._judge(exit_codes.RETRY, "stopped", paths)
        if code == exit_codes.DONE and not paths.finished.exists():
            code, text = exit_codes.FAILED, f"every rank ended well, but {paths.finished.name} is missing"
        return self._judge(code, text, paths)

    def _environment(self, reasons: Path, processes: int) -> dict[str, str]:
        """Return the environment of a child; on a laptop, a GPU that the cluster would give is not demanded."""
        demanded = self.config.cluster.gpus_per_node and not self.request.attended
        environment = child_environment(os.environ, reasons, processes)
        return environment | ({GPU_VARIABLE: "1"} if demanded else {})

    def _pause(self, seconds: float) -> None:
        """Wait for another process that changes the store.

        Raises:
            Retry: a stop signal came; the next start settles what was decided.
        """
        self.stop.wait(seconds)
        if self.stop.signals:
            raise Retry(f"stopped by {signal_name(self.stop.signals[0])} while another process held the store")

    def _judge(self, code: int, text: str, paths: RunPaths) -> Outcome:
        """Weigh what the ranks say against what this process knows: a finished run, the deadline, a signal."""
        if paths.finished.exists():
            return Outcome(exit_codes.DONE, "finished", paths)
        if code in (exit_codes.BAD_INPUT, exit_codes.DIVERGED):
            return Outcome(code, text, paths)
        if self.stop.deadline_passed:
            return Outcome(exit_codes.FAILED, self.limits.deadline_text(), paths)
        if self.stop.signals:
            # Whatever broke while everything was being stopped, another attempt continues from the last checkpoint.
            return Outcome(exit_codes.RETRY, f"stopped by {signal_name(self.stop.signals[0])}", paths)
        return Outcome(code, text, paths)


def _check_undamaged(job: Job, paths: RunPaths) -> None:
    """Refuse to be content with a finished run whose files are not as they were written."""
    try:
        store.read_finished(paths, hashed=True)
    except InputError as error:
        raise InputError(f"job {job.name} is finished, but {error}; --rerun trains another run") from None
