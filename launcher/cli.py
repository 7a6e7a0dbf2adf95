"""``mtft-launch``: a table of verbs, each imported only when it is used."""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence

from mtft import exit_codes
from mtft.errors import InputError, MtftError
from mtft.text import printable_lines

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
_NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code; the only place where errors become messages."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _prepare_streams()
        _heed_sigterm()
        try:
            code = _dispatch(arguments)
        except SystemExit:  # argparse has printed its help
            sys.stdout.flush()
            raise
        sys.stdout.flush()
        return code
    except MtftError as error:
        _show_traceback()
        print(f"mtft-launch: {printable_lines(str(error))}", file=sys.stderr)
        return exit_codes.worst([error.exit_code])  # the trainer's own codes are a failure here
    except KeyboardInterrupt:
        _show_traceback()
        print("mtft-launch: interrupted", file=sys.stderr)
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough.
        _discard_output()
        return exit_codes.DONE
    except OSError as error:
        if error.filename is not None or error.errno not in _NOT_WRITTEN:
            raise
        _show_traceback()
        _discard_output()
        print(f"mtft-launch: the output cannot be written: {error.strerror}", file=sys.stderr)
        return exit_codes.BAD_INPUT


def _prepare_streams() -> None:
    """Let a letter the terminal lacks be shown as an escape, never end a verb.

    Raises:
        InputError: standard output is closed, so the first file a verb opens would take its place.
    """
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stdout is None:
        raise InputError("standard output is closed; send it to /dev/null if nobody reads it")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _heed_sigterm() -> None:
    """Let SIGTERM, which ends a CI job, clean up as Ctrl-C does."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _discard_output() -> None:
    # What is still in the buffer goes there too, so Python does not complain when it closes stdout.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(arguments: list[str]) -> int:
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help"):
        print(_overview())
        return exit_codes.DONE
    if first == "--version":
        from importlib.metadata import version

        print(f"mtft {version('mtft')}")
        return exit_codes.DONE
    if first.startswith("-"):
        return _run_verb(DEFAULT_VERB, arguments)
    if first not in VERBS:
        near = difflib.get_close_matches(first, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"verbs: {', '.join(VERBS)}"
        print(f"mtft-launch: there is no verb {first!r}; {hint}", file=sys.stderr)
        return exit_codes.BAD_INPUT
    return _run_verb(first, arguments[1:])


def _run_verb(name: str, arguments: list[str]) -> int:
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
    return int(verb.run(parser.parse_args(arguments)))


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
    if os.environ.get("MTFT_DEBUG") == "1":
        traceback.print_exc()


if __name__ == "__main__":
    sys.exit(main())
