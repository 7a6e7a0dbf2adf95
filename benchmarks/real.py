"""``make real``: every key's stand-in fine-tuned on the real sample through ``mtft-launch``, with a falling NLL.

Run: ``python -m benchmarks.real [--short] [--steps N]``. Without the sample generated sentences are used and
the output says so.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.setup import HERE, lines, read_split, real_folder
from demo.corpus import generate, write_jsonl
from mtft import exit_codes
from mtft.models import MODELS
from tests.standins.build import cached_standin

OUT = HERE.parent / "build" / "real"
# LoRA on random weights moves little at the cards' rates, which are meant for trained models.
SETTINGS = ("train.learning_rate=3e-3", "eval.every=1000", "eval.beams=2", "cluster.gpus_per_node=0")
LONG = ("eval.max_test_rows=200", "eval.max_dev_rows=50")
SHORT = ("data.max_samples=4000", "eval.max_nll_rows=300", "eval.max_test_rows=10", "eval.max_dev_rows=6")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="20 steps each on fewer rows")
    parser.add_argument("--steps", type=int, help="optimizer steps (default: 300, short: 20)")
    options = parser.parse_args()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    data = real_files()
    results = [train(key, data, options.steps or (20 if options.short else 300), options.short) for key in MODELS]
    print(
        f"\n{'model':16} {'directions':14} {'steps':>5} {'dev NLL before':>15} {'after':>7} {'test chrF before':>17}",
        end="",
    )
    print(f" {'after':>6} {'target tok/s':>13} {'real share':>11}")
    for result in results:
        print(
            f"{result['model']:16} {result['directions']:14} {result['steps']:>5} {result['before']:>15.4f} "
            f"{result['after']:>7.4f} {result['base_chrf']:>17} {result['tuned_chrf']:>6} "
            f"{result['tokens_per_second']:>13.0f} {result['share']:>11.3f}"
        )
    worse = [result["model"] for result in results if result["after"] >= result["before"]]
    if worse:
        print(f"dev NLL did not fall for {', '.join(worse)}", file=sys.stderr)
    return 1 if worse else 0


def real_files() -> dict[str, Path]:
    """Return the three files of the sample, or of generated text."""
    folder = real_folder()
    if folder is not None:
        return {name: folder / f"{name}.jsonl.gz" for name in ("train", "dev", "test")}
    print("no real sample found (MTFT_REAL_DATA): generated sentences are used instead")
    pairs = generate("assessment", 7000, seed=5)
    parts = {"train": pairs[:6000], "dev": pairs[6000:6500], "test": pairs[6500:]}
    for name, part in parts.items():
        write_jsonl(OUT / f"{name}.jsonl.gz", part)
    return {name: OUT / f"{name}.jsonl.gz" for name in parts}


def train(key: str, data: dict[str, Path], steps: int, short: bool) -> dict[str, Any]:
    """Fine-tune one key's stand-in and return its row of the table.

    Raises:
        SystemExit: the run failed.
    """
    checkpoint = cached_standin(key, lines=lines(read_split("train", 8000)))
    command = [sys.executable, "-m", "launcher", "--model", key, "--backend", "local", "--processes", "2"]
    command += ["--model-path", str(checkpoint), "--data", str(data["train"]), "--output", str(OUT)]
    command += ["--max-steps", str(steps)]
    sets = (*SETTINGS, *(SHORT if short else LONG), f"data.dev={data['dev']}", f"data.test={data['test']}")
    command += [part for setting in sets for part in ("--set", setting)]
    print(f"== {key}", flush=True)
    code = subprocess.run(command, check=False, cwd=HERE.parent).returncode
    if code not in (exit_codes.DONE, exit_codes.NOT_PROMOTED):
        raise SystemExit(code)
    (run,) = (path.parent for path in (OUT / "outputs" / key / "runs").glob("*/finished.json"))
    return summary(key, run)


def summary(key: str, run: Path) -> dict[str, Any]:
    """Read what the table shows from a finished run."""
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    dev = [line["nll"] for line in metrics if line.get("split") == "dev"]
    finished = json.loads((run / "finished.json").read_text(encoding="utf-8"))
    results = json.loads((run / "train_results.json").read_text(encoding="utf-8"))
    scores = finished["scores"]
    return {
        "model": key,
        "directions": " ".join(scores["tuned"]),
        "steps": finished["steps"],
        "before": dev[0],
        "after": dev[-1],
        "base_chrf": "/".join(f"{values['chrf']:.1f}" for values in scores["base"].values()),
        "tuned_chrf": "/".join(f"{values['chrf']:.1f}" for values in scores["tuned"].values()),
        "tokens_per_second": results["target_tokens_per_second"],
        "share": results["real_token_share"],
    }


if __name__ == "__main__":
    sys.exit(main())
