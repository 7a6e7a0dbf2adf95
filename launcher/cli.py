"""``mtft-launch``: a table of verbs, each imported only when it is used."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from mtft import exit_codes
from mtft.errors import MtftError

# Verb -> (module with add_arguments(parser), run(args) -> exit code and EXAMPLE, what it does).
VERBS: dict[str, tuple[str, str]] = {
    "init": ("launcher.verbs.init", "write a commented mtft.yaml"),
    "models": ("launcher.verbs.models", "list the models that can be tuned"),
    "validate": ("launcher.verbs.validate", "check a configuration and show where every value comes from"),
    "run": ("launcher.verbs.run", "tune one model"),
    "data": ("launcher.verbs.data", "check and split sentence files"),
    "translate": ("launcher.verbs.translate", "translate lines or JSONL with a tuned model"),
}
DEFAULT_VERB = "run"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code; the only place where errors become messages."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except MtftError as error:
        _show_traceback()
        print(f"mtft-launch: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        _show_traceback()
        print("mtft-launch: interrupted", file=sys.stderr)
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; Python must not complain when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_codes.DONE


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
