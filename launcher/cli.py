"""``mtft-launch``: a table of verbs, each imported only when it is used."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

# What takes longer to load is imported where it is used: Ctrl-C is heeded as soon as ``main`` is reached.
from mtft import exit_codes

# Verb -> (module with add_arguments(parser), run(args) -> exit code and EXAMPLE, what it does).
VERBS: dict[str, tuple[str, str]] = {
    "init": ("launcher.verbs.init", "write a commented mtft.yaml"),
    "models": ("launcher.verbs.models", "list the models that can be tuned, and pin their bases"),
    "validate": ("launcher.verbs.validate", "check a configuration and show where every value comes from"),
    "run": ("launcher.verbs.run", "tune one model"),
    "render": ("launcher.verbs.render", "print what a cluster would be sent"),
    "list": ("launcher.verbs.list", "list the jobs of a namespace"),
    "status": ("launcher.verbs.status", "show how far jobs are, and their scores or why they failed"),
    "describe": ("launcher.verbs.describe", "tell everything about one job"),
    "logs": ("launcher.verbs.logs", "print or follow what a job's pods write"),
    "wait": ("launcher.verbs.wait", "wait until jobs have ended; the exit code tells how"),
    "batch": ("launcher.verbs.batch", "tune several models side by side"),
    "diff": ("launcher.verbs.diff", "compare a live job with what would be sent now"),
    "suspend": ("launcher.verbs.suspend", "hold jobs back; their checkpoints stay"),
    "resume": ("launcher.verbs.resume", "let suspended or cancelled jobs go on"),
    "retry": ("launcher.verbs.retry", "start failed jobs again where they stopped"),
    "cancel": ("launcher.verbs.cancel", "stop jobs for good; their runs stay"),
    "delete": ("launcher.verbs.delete", "remove jobs from the cluster; their runs stay"),
    "data": ("launcher.verbs.data", "check, split and push sentence files"),
    "doctor": ("launcher.verbs.doctor", "find what stands between a configuration and a running job"),
    "fetch": ("launcher.verbs.fetch", "copy an adapter, report or run from the shared volume to this machine"),
    "translate": ("launcher.verbs.translate", "translate lines or JSONL with a tuned model"),
    "promote": ("launcher.verbs.promote", "make a finished run what a model's users get"),
    "rollback": ("launcher.verbs.rollback", "go back to the run that was current before"),
    "history": ("launcher.verbs.history", "show what was promoted and rolled back, by whom and why"),
    "reproduce": ("launcher.verbs.reproduce", "print the job that made a run, or a rerun of it, once more"),
}
DEFAULT_VERB = "run"
# What becomes of print where its file or disk takes no more.
_NOT_WRITTEN = ("ENOSPC", "EDQUOT", "EFBIG", "EIO")
_ONE_PRESS_SECONDS = 1.0  # signals within so long are one: a key that bounces, a sender that sends to a whole group


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code; without arguments those of this process, which then ends."""
    interrupts = _Interrupts()
    try:
        interrupts.heed()
        return _main(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        _show_traceback()
        print("mtft-launch: interrupted", file=sys.stderr)
        from launcher.output import finish

        finish()
        return exit_codes.INTERRUPTED
    finally:
        interrupts.leave(ending=arguments is None)


class _Interrupts:
    """Lets SIGTERM, which ends a CI job, clean up as Ctrl-C does; a later signal ends that clean-up."""

    def __init__(self) -> None:
        self._before: dict[int, object] = {}
        self._last: float | None = None

    def heed(self) -> None:
        """Take the signals over; outside of the main thread nobody can."""
        try:
            # A shell without job control ignores SIGINT for what it starts in the background.
            if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._interrupt)
        except ValueError:
            return

    def leave(self, *, ending: bool) -> None:
        """Give the signals back; in a process that ends they come too late to change its exit code."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if ending else handler)  # type: ignore[arg-type]

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._last is None or now - self._last >= _ONE_PRESS_SECONDS:
            self._last = now
            raise KeyboardInterrupt


def _main(arguments: list[str]) -> int:
    """Run one verb; the only place where errors become messages."""
    from launcher.output import discard, finish
    from mtft.errors import MtftError
    from mtft.text import printable_lines

    code = exit_codes.INTERRUPTED
    try:
        _prepare_streams()
        try:
            code = _dispatch(arguments)
        except SystemExit as ending:  # argparse has printed its help
            code = ending.code if isinstance(ending.code, int) else exit_codes.DONE
            sys.stdout.flush()
            raise
        sys.stdout.flush()
        return code
    except MtftError as error:
        _show_traceback()
        print(f"mtft-launch: {printable_lines(str(error))}", file=sys.stderr)
        finish()
        return exit_codes.worst([error.exit_code])  # the trainer's own codes are a failure here
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; what a verb that came to its end has found stays true.
        discard()
        return code
    except OSError as error:
        if not _is_unwritten(error):
            raise
        _show_traceback()
        discard()
        print(f"mtft-launch: the output cannot be written: {error.strerror}", file=sys.stderr)
        return exit_codes.BAD_INPUT


def _is_unwritten(error: OSError) -> bool:
    import errno

    return error.filename is None and error.errno in [getattr(errno, name) for name in _NOT_WRITTEN]


def _prepare_streams() -> None:
    """Let a letter the terminal lacks be shown as an escape, never end a verb.

    Raises:
        InputError: standard output is closed, so the first file a verb opens would take its place.
    """
    import io
    import os

    from launcher.output import patient
    from mtft.errors import InputError

    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = patient(sys.stderr)
    if sys.stdout is None:
        raise InputError("standard output is closed; send it to /dev/null if nobody reads it")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _dispatch(arguments: list[str]) -> int:
    from launcher.output import say

    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help"):
        say(_overview())
        return exit_codes.DONE
    if first == "--version":
        from importlib.metadata import version

        say(f"mtft {version('mtft')}")
        return exit_codes.DONE
    if first.startswith("-"):
        return _run_verb(DEFAULT_VERB, arguments)
    if first not in VERBS:
        import difflib

        near = difflib.get_close_matches(first, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"verbs: {', '.join(VERBS)}"
        print(f"mtft-launch: there is no verb {first!r}; {hint}", file=sys.stderr)
        return exit_codes.BAD_INPUT
    return _run_verb(first, arguments[1:])


def _run_verb(name: str, arguments: list[str]) -> int:
    import argparse
    import importlib

    from launcher import printed

    path, summary = VERBS[name]
    verb = importlib.import_module(path)
    example = getattr(verb, "EXAMPLE", None)
    parser = argparse.ArgumentParser(
        prog=f"mtft-launch {name}",
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example:\n  {example}" if example else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.add_arguments(parser)
    args = parser.parse_args(arguments)
    with printed.repeating(getattr(args, "context", None)):
        return int(verb.run(args))


def _overview() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {summary}" for name, (_, summary) in VERBS.items())
    return (
        "usage: mtft-launch VERB [OPTIONS]\n"
        f"       mtft-launch --model KEY [OPTIONS]    the same as mtft-launch {DEFAULT_VERB} --model KEY ...\n\n"
        "Retrain EN-FR translation models and keep only what is better.\n\n"
        f"verbs:\n{verbs}\n\n"
        "example:\n"
        "  mtft-launch --model opus_mt_en_fr --data train.jsonl.gz --backend local\n\n"
        "mtft-launch VERB --help tells the options of a verb. MTFT_DEBUG=1 shows tracebacks."
    )


def _show_traceback() -> None:
    import os

    if os.environ.get("MTFT_DEBUG") == "1":
        import traceback

        traceback.print_exc()


if __name__ == "__main__":
    sys.exit(main())
