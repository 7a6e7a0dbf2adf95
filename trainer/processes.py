"""Child processes of the supervisor: watched, signalled once, and never left behind."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import psutil

from mtft import exit_codes
from mtft.errors import MtftError
from mtft.stopping import KILL_AFTER_SECONDS

# What asks this program to save and leave; the child always gets SIGTERM.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# Names the process that started this one, so that one that starts late sees that it is gone already.
PARENT_VARIABLE = "MTFT_PARENT"
_DRAIN_SECONDS = 5.0
_LOOK_SECONDS = 5.0  # each is a look at a shared volume
_AT_ONCE = 0.001  # seconds; 0 would set no timer

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


@contextlib.contextmanager
def answering(handlers: Mapping[int, Any]) -> Iterator[Mapping[int, Any]]:
    """Set signal handlers for a while; give those of before."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield before
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Stopped(MtftError):
    """A stop signal ended the work; unlike :class:`Retry`, which also says that something cannot be read for now."""

    exit_code = exit_codes.RETRY


class Stop:
    """What asked the supervisor to end its work before it was done.

    Attributes:
        signals: the stop signals received so far; the second one kills.
        deadline: ``time.monotonic()`` at which the work must end; None: never.
        deadline_passed: whether the child was told to stop because of it.
        woken: descriptor that is readable after each signal, SIGCHLD included.
    """

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.deadline: float | None = None
        self.deadline_passed = False
        self.woken = -1

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Record stop signals instead of dying of them."""
        self.woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        handlers: dict[int, Any] = dict.fromkeys(STOP_SIGNALS, self._record)
        handlers[signal.SIGCHLD] = lambda *_: None
        try:
            with answering(handlers):
                previous = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
                try:
                    yield
                finally:
                    signal.set_wakeup_fd(previous)
        finally:
            os.close(wake)
            os.close(self.woken)

    def wait(self, seconds: float) -> None:
        """Do nothing for so long, or until there is a stop signal."""
        end = time.monotonic() + seconds
        while not self.signals and (left := end - time.monotonic()) > 0:
            if select.select([self.woken], [], [], left)[0]:
                _read(self.woken)

    @contextlib.contextmanager
    def ending(self, error: Callable[[], Exception]) -> Iterator[None]:
        """Let the first stop signal, or the deadline, end what is done within: even a read that hangs.

        Args:
            error: gives what is raised then.
        """

        def end(number: int, frame: object) -> None:
            first = not self.signals and not self.deadline_passed
            if number == signal.SIGALRM:
                self.deadline_passed = True
            else:
                self._record(number, frame)
            if first:
                raise error()

        if self.signals:
            raise error()
        with answering(dict.fromkeys((*STOP_SIGNALS, signal.SIGALRM), end)):
            try:
                if self.deadline is not None:
                    signal.setitimer(signal.ITIMER_REAL, max(_AT_ONCE, self.deadline - time.monotonic()))
                yield
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _record(self, number: int, _frame: object) -> None:
        self.signals.append(number)


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    stop: Stop,
    output: Callable[[bytes], None],
    in_vain: Callable[[], object] | None = None,
) -> int:
    """Run a child in a session of its own until it ends; return its status, minus the signal if one killed it.

    A first stop signal or the deadline sends it SIGTERM once, and so does ``in_vain``, asked every five seconds, once
    it says yes; a second signal, or a child that does not leave in time, is answered with SIGKILL for everything below
    this process. Afterwards no descendant is left.
    """
    if stop.signals:
        return -signal.SIGTERM
    reader, writer = _open_output()
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            env={**environment, PARENT_VARIABLE: str(os.getpid())},
            start_new_session=True,
        )
        os.close(writer)
        try:
            _watch(child, reader, stop, output, in_vain)
        finally:
            _kill_everything(child)
            _drain(reader, output)
    finally:
        os.close(reader)
    return int(child.returncode)


def heed_interrupts() -> None:
    """Let an interrupt raise KeyboardInterrupt from here on; while a program is imported it only ends it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own (Linux; as PID 1 that is so anyway)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Ask for a signal when the parent of this process dies (Linux).

    Below the supervisor that is SIGKILL: its lock on the job is gone with it, so another may start at once.
    """
    _prctl(_PR_SET_PDEATHSIG, number)
    # A process takes a second to come here, and of a death before that nobody tells it.
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is not None and int(parent) != os.getppid():
        os.kill(os.getpid(), number)


def _watch(
    child: subprocess.Popen[bytes],
    reader: int,
    stop: Stop,
    output: Callable[[bytes], None],
    in_vain: Callable[[], object] | None,
) -> None:
    told = killed = False
    kill_at: float | None = None
    watched = [reader, stop.woken]
    while True:
        _reap(child)
        if child.returncode is not None:
            return
        now = time.monotonic()
        if stop.deadline is not None and now >= stop.deadline and not stop.signals:
            stop.deadline_passed = True
        if not told and (stop.signals or stop.deadline_passed or (in_vain and in_vain())):
            told, kill_at = True, now + KILL_AFTER_SECONDS
            child.terminate()
        if not killed and (len(stop.signals) > 1 or (kill_at is not None and now >= kill_at)):
            killed = True
            _kill_everything(child)
            continue
        times = [kill_at if told else stop.deadline, now + _LOOK_SECONDS if in_vain and not told else None]
        next_time = min((each for each in times if each is not None), default=None)
        ready, _, _ = select.select(watched, [], [], None if next_time is None else max(0.0, next_time - now))
        if stop.woken in ready:
            _read(stop.woken)
        if reader in ready:
            data = _read(reader)
            output(data)
            if not data:
                watched.remove(reader)


def _kill_everything(child: subprocess.Popen[bytes]) -> None:
    """Send SIGKILL to everything below this process until nothing is left, and reap it."""
    me = psutil.Process()
    end = time.monotonic() + _DRAIN_SECONDS  # a process in the kernel's uninterruptible sleep cannot be ended
    while time.monotonic() < end:
        _reap(child)
        left = me.children(recursive=True)
        if not left:
            return
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.01)


def _reap(child: subprocess.Popen[bytes]) -> None:
    """Collect every process that ended; orphans come to this process and would stay zombies."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        if ended.si_pid == child.pid:
            child.poll()
        else:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(ended.si_pid, 0)


def _open_output() -> tuple[int, int]:
    """Give (reader, writer) for a child's output: a terminal where this process has one, so that bars are drawn."""
    if not sys.stdout.isatty():
        return os.pipe2(os.O_CLOEXEC)
    reader, writer = pty.openpty()
    attributes = termios.tcgetattr(writer)
    attributes[1] &= ~termios.OPOST  # the person's terminal turns \n into \r\n itself
    termios.tcsetattr(writer, termios.TCSANOW, attributes)
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(writer, termios.TIOCSWINSZ, size)
    return reader, writer


def _drain(reader: int, output: Callable[[bytes], None]) -> None:
    end = time.monotonic() + _DRAIN_SECONDS
    while select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
        data = _read(reader)
        if not data:
            return
        output(data)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return b""
    except OSError:
        return b""  # a terminal whose other side is closed answers EIO


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
