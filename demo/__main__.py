"""``make demo``: from nothing to a better translation model on this machine, in under five minutes.

Generates two sub-domains of fisheries science, trains a small base model on one, then lets
``mtft-launch`` tune it on the other with LoRA and two processes, and shows what was gained.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from demo.corpus import Pair, generate, write_jsonl
from tests.standins.build import build_standin

MODEL = "opus_mt_en_fr"
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent / "build" / "demo"
BASE_PAIRS = 16_000
TUNE_PAIRS = 10_000


def main() -> int:
    """Run the demo; return the exit code of the first step that fails, else 0."""
    began = time.monotonic()
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir(parents=True)
    _say(f"1/4 generating {BASE_PAIRS:,} + {TUNE_PAIRS:,} sentence pairs of two sub-domains")
    assessment = generate("assessment", BASE_PAIRS, seed=1)
    aquaculture = generate("aquaculture", TUNE_PAIRS, seed=2)
    write_jsonl(ROOT / "assessment.jsonl.gz", assessment, directions=("en",))
    write_jsonl(ROOT / "aquaculture.jsonl.gz", aquaculture, directions=("en",))
    _say("2/4 a small random model with a vocabulary of both sub-domains")
    blank = build_standin(MODEL, ROOT / "blank", lines=_lines(assessment + aquaculture), size="small")
    _say("3/4 training the base model on stock assessments (method full)")
    if code := _launch("base", blank, ROOT / "assessment.jsonl.gz"):
        return code
    base = _only_run(ROOT / "base") / "model"
    _say("4/4 fine-tuning it on aquaculture (method lora, 2 processes)")
    if code := _launch("tune", base, ROOT / "aquaculture.jsonl.gz"):
        return code
    _show(_only_run(ROOT / "tune"), time.monotonic() - began)
    return 0


def _launch(step: str, base: Path, data: Path) -> int:
    command = ["--model", MODEL, "--backend", "local", "--config", f"demo/{step}.yaml"]
    command += ["--model-path", _short(base), "--data", _short(data), "--output", _short(ROOT / step)]
    _say("$ mtft-launch " + " ".join(command))
    return subprocess.run([sys.executable, "-m", "launcher", *command], cwd=HERE.parent, check=False).returncode


def _show(run: Path, seconds: float) -> None:
    finished: dict[str, Any] = json.loads((run / "finished.json").read_text(encoding="utf-8"))
    scores = finished["scores"]
    print()
    for name, tuned in scores["tuned"].items():
        base, comparison = scores["base"][name], scores["comparison"][name]
        print(f"{name}, {tuned['n']} sentences not seen in training:")
        for metric, label in (("bleu", "BLEU"), ("chrf", "chrF")):
            p_value = comparison[metric]["p_value"]
            print(
                f"  {label}  base {base[metric]:6.2f}   tuned {tuned[metric]:6.2f}   "
                f"{tuned[metric] - base[metric]:+6.2f}   p = {p_value:.4f} (paired bootstrap)"
            )
    row = json.loads((run / "eval" / "test.en-fr.jsonl").read_text(encoding="utf-8").splitlines()[0])
    for key in ("source", "base", "tuned", "reference"):
        print(f"  {key:9}  {row[key]}")
    print(f"verdict:  {finished['gate']['verdict']}")
    print(f"adapter:  {_short(run / finished['deliverable'])}")
    print(f"report:   {_short(run / 'report.html')}")
    print(f"translate: .venv/bin/mtft-launch translate --model {MODEL} --output {_short(ROOT / 'tune')}")
    print(f"took {seconds:.0f} s")


def _only_run(root: Path) -> Path:
    (run,) = (path.parent for path in (root / "outputs" / MODEL / "runs").glob("*/finished.json"))
    return run


def _lines(pairs: list[Pair]) -> list[str]:
    return [text for pair in pairs for text in (pair.source_en, pair.target_fr)]


def _short(path: Path) -> str:
    return str(path.relative_to(HERE.parent))


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
