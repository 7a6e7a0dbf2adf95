"""``mtft-launch translate``: a finished adapter on lines or JSONL."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from launcher.arguments import accept_cluster_arguments, add_output_argument, user_path
from launcher.output import print_document
from mtft import exit_codes
from mtft.errors import InputError

EXAMPLE = """examples:
  echo "The cod stock has recovered." | mtft-launch translate --model opus_mt_en_fr
  mtft-launch translate --model m2m100_418m --source-lang fr notes.txt --to notes.en.txt
  mtft-launch translate --model mbart50_mmt_fr rows.jsonl --to translated.jsonl
"""

_MOST_BEAMS = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.epilog = EXAMPLE
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("input", nargs="?", default="-", help="text or JSONL file; - or nothing: standard input")
    parser.add_argument("--model", required=True, help="model key; `mtft-launch models` lists them")
    parser.add_argument("--run", help="run-id or run folder; default: the current run, else the newest finished one")
    parser.add_argument(
        "--model-path", type=user_path, metavar="DIR", help="where the base lies here, if not where the run had it"
    )
    parser.add_argument(
        "--output", type=user_path, metavar="DIR", default=".", help="storage root that holds outputs/ (default: .)"
    )
    parser.add_argument(
        "--to", default="-", help="file to write, compressed if it ends in .gz or .zst (default: standard output)"
    )
    parser.add_argument(
        "--format", choices=("lines", "jsonl"), help="default: jsonl for *.jsonl and *.jsonl.gz, else lines"
    )
    parser.add_argument("--source-lang", help="language of the lines, where the model translates both ways")
    parser.add_argument("--beams", type=_beams, metavar="N", help="beam width, 1 to 64 (default: the run's eval.beams)")
    parser.add_argument("--base", action="store_true", help="use the untuned base, to compare")
    add_output_argument(parser)
    accept_cluster_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Translate; the trainer does the work, because the launcher never loads torch."""
    from launcher.backends.local import exit_code, trainer_environment

    environment = trainer_environment("translate loads the model here")
    folder = find_run(args.output, args.model, args.run)
    if args.output_format != "table" and args.to == "-":
        raise InputError(
            f"translate -o {args.output_format} tells of a file: name it with --to; standard output holds the "
            "translations themselves (--format jsonl: one object a line)"
        )
    if args.run is None and not args.base:
        tell_unpromoted(args.output, args.model, folder)
    command = [sys.executable, "-m", "trainer.translate", args.input, "--run-dir", str(folder), "--output", args.to]
    for name in ("format", "source_lang", "beams", "model_path"):
        if (value := getattr(args, name)) is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    if args.base:
        command.append("--base")
    code = exit_code(subprocess.run(command, check=False, env=environment).returncode, interrupted=False)
    if args.output_format != "table" and code == exit_codes.DONE:
        told = {"model": args.model, "run": folder.name, "base": args.base, "to": args.to}
        print_document(told, args.output_format)
    return code


def find_run(root: Path, model: str, run: str | None) -> Path:
    """Return the folder of the run asked for.

    Raises:
        InputError: there is none, it is not finished, or it is one of another model.
    """
    from launcher.printed import here, placed
    from mtft import store
    from mtft.runs import RunPaths

    if run is None or ("/" not in run and not RunPaths.of(Path(run)).finished.is_file()):
        try:
            return store.find(root, model, run).folder
        except InputError as error:
            raise InputError(placed(str(error), here(root))) from None
    paths = RunPaths.of(Path(run))
    of = store.read_finished(paths).get("model", model)
    if of != model:
        raise InputError(f"{run}: is a run of {of}, not of {model}; add --model {of}, or name a run of {model}")
    return paths.folder


def tell_unpromoted(root: Path, model: str, folder: Path) -> None:
    """Say so where the run that was found is not what the model's users get, because nothing is promoted.

    Raises:
        InputError: the store's pointer leads out of it, or the run is gone.
    """
    from launcher.printed import here, placed
    from mtft import store
    from mtft.runs import RunPaths

    if store.current_id(store.outputs(Path(root), model)) is None:
        print(f"note: {placed(store.unpromoted(RunPaths.of(folder)), here(root))}", file=sys.stderr)


def _beams(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_BEAMS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a beam width; give a whole number from 1 to {_MOST_BEAMS}")
    return int(text)
