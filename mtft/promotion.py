"""Changing a store: promote, roll back, remove old runs; one process at a time, by a lease that survives NFS.

Every change of the pointer is three steps, each atomic: write down the intention, move the pointer, number the
intention. Killed at any point, readers have the old or the new run, and the next change goes on from there.
"""

from __future__ import annotations

import contextlib
import errno
import getpass
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtft import files, journal, lease, runs, store
from mtft.errors import InputError, Retry
from mtft.exit_codes import PROMOTABLE, PROMOTED
from mtft.journal import Promotion

_LEASE = ".store.lease"
# A change takes well under a second; a holder killed on another machine is waited for until its lease is over.
_PATIENCE_SECONDS = 2 * lease.LEASE_SECONDS
_POLL_SECONDS = 0.5
_NO_SYMLINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_GONE = ".{}.{}.gone"


@contextlib.contextmanager
def changing(
    root: Path,
    model: str,
    *,
    pause: Callable[[float], object] = time.sleep,
    say: Callable[[str], object] | None = None,
) -> Iterator[Store]:
    """Give the store of a model to this process alone, its journal settled; what it prunes is deleted afterwards.

    Args:
        root: the storage root.
        model: key of the model.
        pause: waits that many seconds for another process; what it raises ends the wait, with nothing changed.
        say: told whom a wait of more than a moment is for.

    Raises:
        InputError: there is no such model or no run of it, or its pointer or journal leads out of the store.
        Retry: another process kept the store for too long.
    """
    folder = store.outputs(root, model)
    if not (folder / store.RUNS).is_dir():
        raise InputError(f"{folder} holds no run of {model}; train one first, or name the storage root that does")
    journal.refuse_link(folder)
    waiting: dict[str, Any] = {"patience": _PATIENCE_SECONDS, "poll": _POLL_SECONDS, "pause": pause, "say": say}
    with lease.hold(folder / _LEASE, **waiting) as held:
        _sweep(folder)
        try:
            yield Store(root.absolute(), folder, held, journal.settle(folder, store.current_id(folder)))
        except FileNotFoundError as error:
            if not str(error.filename).endswith(".tmp"):
                raise
            # One of the two has a wrong clock, and swept what was being written here.
            raise Retry(f"{folder}: another process changed the store at the same time; run again") from error
    # Large runs take minutes to delete: others have the store meanwhile. What a killed process left goes too.
    with contextlib.suppress(OSError):  # the next change looks again
        for aside in folder.glob(f"{store.RUNS}/{_GONE.format('*', '*')}"):
            shutil.rmtree(aside, ignore_errors=True)


@dataclass
class Store:
    """A model's store in the hands of this process.

    Attributes:
        root: the storage root.
        folder: of the model's outputs.
        held: the lease.
        entries: the journal.
    """

    root: Path
    folder: Path
    held: lease.Held
    entries: list[Promotion]

    def __post_init__(self) -> None:
        """Write down a pointer that nobody promoted, so that rollback knows of it."""
        now_current, last = self.current, journal.last_run(self.entries)
        if now_current is not None and now_current != last:
            found = Promotion(at=runs.now(), action="found", previous=last, run=now_current, who=me())
            self.entries.append(journal.add(self.folder, found, self.entries))

    @property
    def current(self) -> str | None:
        """Run-id of the current run; None: nothing is promoted."""
        return store.current_id(self.folder)

    @property
    def standing(self) -> str | None:
        """The current run, or the one that was promoted last where the pointer was lost since."""
        return self.current or journal.last_run(self.entries)

    def was_current(self, run_id: str) -> bool:
        """Tell whether a run was ever promoted, whatever became of it since."""
        return journal.was_current(self.entries, run_id)

    def promote(self, run_id: str, *, who: str, reason: str = "", force: bool = False) -> Promotion | None:
        """Make a run current; None: it is already.

        Raises:
            InputError: it is gone or incomplete, or nothing is forced and the gate's verdict speaks against it or was
                given against another run than the current one.
            Retry: the lease was lost.
        """
        gate = store.gate_of(store.run_at(self.folder, run_id, hashed=True))
        if self.current == run_id:
            return None
        objection = self._objection(run_id, gate)
        if objection and not force:
            raise InputError(f"run {run_id} {objection}. {overruling(self.folder.name, run_id)}")
        return self._move("promote", run_id, gate.get("verdict"), who, reason, forced=bool(objection))

    def _objection(self, run_id: str, gate: dict[str, Any]) -> str | None:
        """Say what a judgement has against making its run current now."""
        verdict = gate.get("verdict")
        if verdict not in PROMOTABLE:
            why = "; ".join(map(str, gate.get("reasons", []))) or "it has no reasons"
            return f"is {verdict or 'not judged'}: {why}"
        rival, standing = gate.get("published"), self.standing
        if "published" not in gate or standing in (None, rival, run_id):
            return None
        stands = "is current now" if self.current else "was promoted last"
        return f"was compared with {rival or 'the base alone'}, not with {standing}, which {stands}"

    def rollback(self, *, who: str, reason: str = "", away_from: str | None = None) -> Promotion:
        """Make the run current that was so before; again, the one before that. Runs that are gone are passed over.

        Args:
            who: person or job.
            reason: in their words.
            away_from: run-id that has to be :attr:`standing`: the same request twice is done once.

        Raises:
            InputError: there is no earlier run that is complete, or another run is current.
            Retry: the lease was lost.
        """
        self._refuse_lost()
        last = self.entries[-1] if self.entries else None
        if away_from is not None and away_from != self.standing:
            if last and (last.action, last.previous) == ("rollback", away_from):
                return last
            raise InputError(
                f"{self.current or 'nothing'} is current by now, not {away_from}; look at the history first"
            )
        target = self.rollback_target()
        if last is None or target is None:
            raise InputError(
                f"{self.folder.name} has no earlier run to go back to that is still there and undamaged; "
                f"`mtft-launch history {self.folder.name}` shows all. {overruling(self.folder.name, 'RUN-ID')}"
            )
        verdict = store.gate_of(store.run_at(self.folder, target)).get("verdict")
        return self._move("rollback", target, verdict, who, reason)

    def _refuse_lost(self) -> None:
        """Refuse to go back from a run whose pointer was lost: it is still there, and only has to be pointed at."""
        lost = None if self.current else self.standing
        if lost and store.is_complete(self.folder, lost, hashed=True):
            raise InputError(store.lost_words(self.folder, lost))

    def rollback_target(self) -> str | None:
        """Return the run that a rollback would make current, or None; never the current one itself."""
        earlier, now_current = journal.line_of_runs(self.entries)[:-1], self.current
        earlier = [run for run in earlier if run != now_current]  # A, B, A with B gone would go from A to A
        return next((run for run in reversed(earlier) if store.is_complete(self.folder, run, hashed=True)), None)

    def prune(self, keep: int, spare: Collection[str] = ()) -> dict[str, Path]:
        """Take the finished runs but for the ``keep`` that finished last out of the store.

        The current run (:attr:`standing`), the one rollback would go to, and runs that somebody works on or reads
        always stay. So does one whose promotion is still to be settled, and one that is not finished: it may go on.

        Args:
            keep: how many stay.
            spare: run-ids that stay as well.

        Returns:
            run-id -> where it waits to be deleted, which :func:`changing` does once others have the store.

        Raises:
            InputError: the record of a job cannot be understood.
            OSError: the volume refuses.
            Retry: the lease was lost.
        """
        old, removed = store.finished_ids(self.folder)[:-keep], {}
        if not old:
            return {}  # before a target's weights are read
        spared = {self.standing, self.rollback_target(), *spare} | runs.runs_at_work(self.root, self.folder.name)
        for run_id in old:
            if run_id in spared or store.in_use(self.folder, run_id) or self._is_unsettled(run_id):
                continue
            self.held.check()
            # Readers see it whole or not at all.
            path = self.folder / store.RUNS / run_id
            aside = path.with_name(_GONE.format(run_id, secrets.token_hex(4)))
            path.rename(aside)
            removed[run_id] = aside
        return removed

    def _is_unsettled(self, run_id: str) -> bool:
        """Tell whether a run is decided to be promoted and never was: the next start of its job does that."""
        if self.was_current(run_id):
            return False
        try:
            gate = store.gate_of(store.run_at(self.folder, run_id))
        except InputError:  # it cannot be promoted
            return False
        return bool(gate.get("verdict") == PROMOTED)

    def _move(
        self, action: str, run_id: str, verdict: str | None, who: str, reason: str, *, forced: bool = False
    ) -> Promotion:
        facts: dict[str, Any] = {"verdict": verdict, "forced": forced, "who": who, "reason": reason}
        # A rollback leaves a lost run too, and is known again by it.
        previous = self.standing if action == "rollback" else self.current
        entry = Promotion(at=runs.now(), action=action, previous=previous, run=run_id, **facts)
        journal.intend(self.folder, entry, self.entries)
        self.held.check()
        point(self.folder, run_id)
        try:
            entry = journal.add(self.folder, entry, self.entries)
        except FileNotFoundError:  # swept by another holder, who may write over what is pending: it counts as not done
            raise
        except OSError:
            pass  # it is done, and the next change gives what is pending its number
        self.entries.append(entry)
        return entry


def point(folder: Path, run_id: str) -> None:
    """Make a run current in one step: a link renamed over the old one, or ``current.json`` where links cannot be.

    Raises:
        InputError: a folder stands where the link belongs.
    """
    link, pointer = folder / store.CURRENT, folder / store.CURRENT_FILE
    target = f"{store.RUNS}/{run_id}"
    if link.is_dir() and not link.is_symlink():
        raise InputError(f"{link}: is a folder and no link of mtft's; move it away, then promote the run again")
    beside = link.with_name(f".{link.name}.{secrets.token_hex(8)}.tmp")
    hides_link = _is_there(pointer)
    try:
        beside.symlink_to(target)
    except OSError as error:
        if error.errno not in _NO_SYMLINKS:
            raise
        files.write_json(pointer, {"run": target})
        with contextlib.suppress(OSError):  # nobody looks at it any more
            link.unlink(missing_ok=True)
        return
    try:
        _rename(beside, link, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if hides_link:
        pointer.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it is done for everyone who looks
        files.sync_folder(folder)


def _is_there(path: Path) -> bool:
    """Tell whether a name exists.

    Raises:
        OSError: the volume does not answer.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def overruling(model: str, run_id: str) -> str:
    """Say how a person makes a run current whatever its verdict."""
    return f"`mtft-launch promote {model} --run {run_id} --force` promotes that run all the same"


def me() -> str:
    """Return who runs this process, as a journal names them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a pod's user has a number only
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _rename(beside: Path, link: Path, target: str) -> None:
    """Rename a link over another; NFS may answer that it is gone to its own repeated request."""
    try:
        files.steadily(lambda: os.replace(beside, link))
    except FileNotFoundError:
        if str(files.steadily(link.readlink)) != target:
            raise


def _sweep(folder: Path) -> None:
    """Remove the unfinished files that killed holders left."""
    unfinished = [*folder.glob(f".{store.CURRENT}.*.tmp"), *folder.glob(f"{journal.FOLDER}/.*.tmp")]
    # Others may be writing theirs at this moment.
    begun = [*folder.glob(f".{_LEASE}.*.tmp"), *folder.glob(store.BEGUN_USES)]
    waiting = [path for path in begun if _age(path) > _PATIENCE_SECONDS]
    for left in unfinished + waiting + store.left_uses(folder):
        left.unlink(missing_ok=True)


def _age(path: Path) -> float:
    """Return the seconds since a file was written, 0 where it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
