"""The report of a run: what it shows, what it survives, and that it is one safe page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mtft.runs import RunPaths
from trainer import report
from trainer.report_files import mean, read_metrics, read_rejections

ATTACK = "</script></style></pre><img src=x onerror=alert(1)> & \"'"
VOID = {"meta", "link", "br"}
# A browser closes these by itself, a parser of plain HTML does not know them.
SELF_CLOSED = {"line", "path"}


class Page(HTMLParser):
    """Reads a page: its text and tags; fails on a tag that is not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SELF_CLOSED
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.words += data + " "

    def text(self) -> str:
        """Return what a person reads, white space collapsed."""
        return re.sub(r"\s+", " ", self.words)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def scores(bleu: float, chrf: float, ter: float, off_target: float = 0.0) -> dict[str, Any]:
    signatures = {"bleu": "nrefs:1|tok:13a", "chrf": "nrefs:1|nc:6", "ter": "nrefs:1|tok:tercom"}
    rates = {"empty": 0.0, "copy": 0.0, "repetition": 0.0, "off_target": off_target}
    return {"bleu": bleu, "chrf": chrf, "ter": ter, "n": 101, "signatures": signatures, **rates}


def finished(*directions: str, verdict: str = "better") -> dict[str, Any]:
    return {
        "model": "opus_mt_en_fr",
        "run_id": "20300102T030405Z-0a1b2c3d",
        "finished_at": "2030-01-02T04:00:00Z",
        "method": "lora",
        "steps": 1200,
        "epochs": 1.0,
        "scores": {
            "base": {name: scores(20.0, 45.0, 70.0, off_target=0.25) for name in directions},
            "tuned": {name: scores(31.5, 58.25, 55.0) for name in directions},
            "comparison": {
                name: {"bleu": {"delta": 11.5, "p_value": 0.2}, "chrf": {"delta": 13.25, "p_value": 0.001}}
                for name in directions
            },
        },
        "gate": {
            "verdict": verdict,
            "policy": {"metric": "chrf", "min_delta": 0.5, "max_p": 0.05, "min_sentences": 30},
            "reasons": [f"{name}: chrf +13.25 against the base, p = 0.0010" for name in directions],
        },
    }


def step_line(step: int, **changes: Any) -> dict[str, Any]:
    line = {"type": "train", "step": step, "loss": 3.0, "nll": 2.0, "lr": 1.5e-4, "grad_norm": 1.0, "time": 100 + step}
    counted_by = {"target_tokens": 900, "padded_tokens": 2000, "seconds": 1.0}
    return line | {"tokens_per_second": 900.0, "real_token_share": 0.93, "peak_memory_gib": 1.5} | counted_by | changes


def dev_line(step: int, *directions: str) -> dict[str, Any]:
    by_direction = {name: {"chrf": 45.0 + step, "bleu": 20.0} for name in directions}
    return {"type": "eval", "split": "dev", "step": step, "nll": 2.5, "directions": by_direction, "time": 100 + step}


def sentence(number: int, before: float, after: float, **changes: Any) -> dict[str, Any]:
    row = {"source": f"source {number}", "reference": f"référence {number}", "base": "base", "tuned": "tuned"}
    return row | {"base_chrf": before, "tuned_chrf": after, "pub_number": None} | changes


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    """The paths of a run of which nothing is written yet."""
    found = RunPaths.at(tmp_path, "opus_mt_en_fr", "20300102T030405Z-0a1b2c3d")
    found.folder.mkdir(parents=True)
    return found


def written(paths: RunPaths, result: dict[str, Any]) -> Page:
    report.write(paths, result)
    return Page(paths.report.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("verdict", "shown"),
    [
        ("better", "Better than the base"),
        ("promoted", "Better: promoted"),
        ("not better", "Not better"),
        ("regressed", "Worse"),
    ],
)
def test_the_verdict_and_its_reasons_come_before_the_scores(paths: RunPaths, verdict: str, shown: str) -> None:
    text = written(paths, finished("en-fr", "fr-en", verdict=verdict)).text()
    at = [
        text.index(part)
        for part in (
            shown,
            "en-fr: chrf +13.25",
            "at least 0.5 points more chrF",
            "Fewer than 30 sentences",
            "English → French",
        )
    ]
    assert at == sorted(at)


def test_scores_stand_side_by_side_for_every_direction(paths: RunPaths) -> None:
    page = written(paths, finished("en-fr", "fr-en"))
    text = page.text()
    assert text.count("chrF 45.00 58.25 +13.25 0.0010") == 2
    assert text.count("BLEU 20.00 31.50 +11.50 0.2000") == 2
    assert text.count("TER lower is better 70.00 55.00 −15.00 –") == 2
    assert text.count("Other language 25.0% 0.0% −25.0") == 2
    assert "English → French 101 sentences" in text and "French → English 101 sentences" in text
    assert text.count("nrefs:1|tok:tercom") == 2
    falling = [attributes for tag, attributes in page.tags if tag == "td" and attributes.get("class") == "good"]
    assert len(falling) == 2 * 4, "a lower TER and fewer errors are good"


def over_published(result: dict[str, Any], chrf: float, p_value: float, off_target: float) -> dict[str, Any]:
    """Put a published run with this chrF and share beside the result of en-fr."""
    its = {name: value for name, value in scores(31.5, chrf, 0.0, off_target).items() if name != "ter"}
    compared = {"chrf": {"delta": 58.25 - chrf, "p_value": p_value}, "off_target": {"p_value": 0.5}}
    rival = {"run_id": "20300101T000000Z-0f0f0f0f", "scores": {"en-fr": its}, "comparison": {"en-fr": compared}}
    return result | {"published": rival, "guard_sets": {"news": result["scores"] | {"published": rival}}}


def test_a_loss_against_the_published_run_is_shown_beside_the_gain_over_the_base(paths: RunPaths) -> None:
    page = written(paths, over_published(finished("en-fr", verdict="regressed"), 60.0, 0.0002, 0.125))
    text = page.text()
    assert text.count("base published tuned against base p against published p") == 2 * 2
    assert "Published is run 20300101T000000Z-0f0f0f0f" in text
    assert text.count("chrF 45.00 60.00 58.25 +13.25 0.0010 −1.75 0.0002") == 2, "of test and of the guard set"
    assert text.count("BLEU 20.00 31.50 31.50 +11.50 0.2000 ±0 –") == 2
    assert text.count("TER lower is better 70.00 – 55.00 −15.00 – – –") == 2, "the published run has no TER"
    assert text.count("Other language 25.0% 12.5% 0.0% −25.0 – −12.5 0.5000") == 2
    tones = [attributes.get("class") for tag, attributes in page.tags if tag == "td" and "class" in attributes]
    assert tones.count("bad") == 2, "the fall of chrF alone"


def test_a_table_scrolls_in_its_card_and_never_widens_the_page(paths: RunPaths) -> None:
    met = dict.fromkeys(("rows", "source", "target", "swapped", "pair", "any"), 1)
    rows = [sentence(number, 10.0, 90.0, pub_number=f"A-{number}") for number in (1, 2)]
    write_lines(paths.eval / "test.en-fr.jsonl", rows)
    result = over_published(finished("en-fr"), 60.0, 0.1, 0.0) | {"leakage": {"test": {"exact": met, "loose": met}}}
    assert written(paths, result).count("table") == 2 * 2 + 2
    html = paths.report.read_text(encoding="utf-8")
    assert len(re.findall(r'class="(?:card )?wide">\s*<table>', html)) == html.count("<table")


def test_every_curve_has_a_legend_and_an_axis(paths: RunPaths) -> None:
    write_lines(paths.metrics, [dev_line(0, "en-fr"), *(step_line(n) for n in (10, 20)), dev_line(20, "en-fr")])
    page = written(paths, finished("en-fr"))
    text = page.text()
    for name in ("dev NLL", "train NLL", "train loss (label-smoothed)", "learning rate", "target tokens/s"):
        assert name in text
    assert page.count("path") == 8, "three losses, and one line in each of five charts"
    assert text.count("optimizer step") == 6
    assert "Peak memory 1.50 GiB" in text and "Wall time 20 s" in text and "Real-token share 93.0%" in text


def test_leakage_is_told_in_words_and_counts(paths: RunPaths) -> None:
    clean = dict.fromkeys(("source", "target", "swapped", "pair", "any"), 0) | {"rows": 70}
    met = clean | {"source": 5, "target": 3, "pair": 2, "any": 6}
    result = finished("en-fr") | {
        "leakage": {"dev": {"exact": clean, "loose": clean}, "test": {"exact": clean, "loose": met}}
    }
    text = written(paths, result).text()
    assert "test 70 rows" in text and "source and target, in one training row 0 2" in text
    assert "2 of 70 test rows are training rows too" in text and "4 of 70 test rows share a source or a target" in text
    assert "No sentence of dev is in the training rows" in text


def leaked(pairs: int) -> dict[str, Any]:
    """Return leakage where so many of 24 test rows are training rows too, and another one shares its source."""
    met = {"rows": 24, "source": pairs + 1, "target": pairs, "swapped": 0, "pair": pairs, "any": pairs + 1}
    clean = dict.fromkeys(met, 0) | {"rows": 24}
    return {"dev": {"exact": met, "loose": met | {"pair": 9}}, "test": {"exact": clean, "loose": met}}


def test_a_verdict_on_test_rows_that_training_shows_is_warned_of_in_its_box(paths: RunPaths) -> None:
    result = finished("en-fr", verdict="promoted")
    boxes = [written(paths, result | {"leakage": leaked(pairs)}).text().split("Scores on test")[0] for pairs in (23, 0)]
    assert "Better: promoted" in boxes[0] and "23 of 24 test rows are training rows too" in boxes[0]
    assert "⚠" not in boxes[1] and "training rows" not in boxes[1], "neither a shared source nor dev moves the verdict"


def test_an_attack_in_any_text_stays_text(paths: RunPaths) -> None:
    row = sentence(1, 10.0, 90.0, source=ATTACK, reference=ATTACK, base=ATTACK, tuned="x", pub_number=ATTACK)
    write_lines(paths.eval / "test.en-fr.jsonl", [row])
    bad = {"file": f"{ATTACK}.jsonl", "line": 3, "reason": f"{ATTACK}: {ATTACK}", "excerpt": ATTACK}
    write_lines(paths.rejected, [bad])
    write_lines(paths.metrics, [dev_line(0, ATTACK)])
    paths.config.write_text(ATTACK, encoding="utf-8")
    paths.provenance.write_text(ATTACK, encoding="utf-8")
    result = finished(ATTACK) | {"model": ATTACK, "run_id": ATTACK, "method": ATTACK, "finished_at": ATTACK}
    result["gate"]["reasons"] = [ATTACK]
    page = written(paths, result)
    assert page.text().count(ATTACK) > 15
    assert not {tag for tag, _ in page.tags} & {"script", "img", "iframe", "object"}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_the_page_asks_for_nothing_from_outside(paths: RunPaths) -> None:
    write_lines(paths.metrics, [step_line(10)])
    page = written(paths, finished("en-fr"))
    targets = [value for _, attributes in page.tags for name in ("src", "href") if (value := attributes.get(name))]
    assert targets and all(value.startswith(("#", "data:")) for value in targets)
    html = paths.report.read_text(encoding="utf-8")
    assert "url(" not in html and "@import" not in html and "://" not in html


def test_a_run_with_nothing_written_still_gets_its_page(paths: RunPaths) -> None:
    text = written(paths, {}).text()
    for part in (
        "No verdict",
        "No test sentence",
        "Leakage was not counted",
        "No step and no evaluation",
        "No row of the data",
        "no config.yaml",
    ):
        assert part in text


@pytest.mark.parametrize("lines", [[dev_line(0)], [dev_line(0, "en-fr", "fr-en")], [step_line(1, loss=float("nan"))]])
def test_a_single_point_is_drawn(paths: RunPaths, lines: list[dict[str, Any]]) -> None:
    write_lines(paths.metrics, lines)
    page = written(paths, finished("en-fr"))
    assert page.count("circle") == page.count("path") > 0


def test_cut_off_lines_and_foreign_line_ends_are_survived(paths: RunPaths) -> None:
    write_lines(paths.metrics, [step_line(10), step_line(20, grad_norm=None)])
    with paths.metrics.open("a") as out:
        out.write('[1]\n{"type": "train", "step": 3')
    metrics = read_metrics(paths.metrics)
    assert (len(metrics.train), metrics.values("grad_norm"), metrics.seconds) == (2, [1.0], 10.0)
    write_lines(paths.eval / "test.en-fr.jsonl", [sentence(1, 10.0, 20.0, source="one\u2028sentence")])
    assert "of 1 sentences 1 improved" in written(paths, finished("en-fr")).text()


def test_means_over_a_run_count_each_line_by_its_size() -> None:
    lines = [step_line(10, loss=4.0, target_tokens=300), step_line(11, loss=1.0, target_tokens=100)]
    assert mean(lines, "loss", "target_tokens") == pytest.approx(3.25)
    assert mean([*lines, {"type": "train", "step": 12, "loss": 9.0}], "loss", "target_tokens") == pytest.approx(3.25)
    assert mean([], "loss", "target_tokens") is None


def test_ten_thousand_steps_make_a_small_page(paths: RunPaths) -> None:
    write_lines(paths.metrics, [step_line(n, loss=3 + n % 7 / 10) for n in range(1, 10_001)])
    page = written(paths, finished("en-fr"))
    assert paths.report.stat().st_size < 200_000
    assert page.count("circle") == 0


def test_an_output_without_words_is_called_nothing_and_long_ones_are_cut(paths: RunPaths) -> None:
    rows = [sentence(1, 0.0, 1.0, base=" "), sentence(2, 5.0, 6.0, source="mot " * 100_000, tuned="mot " * 100_000)]
    write_lines(paths.eval / "test.fr-en.jsonl", rows)
    text = written(paths, finished("fr-en")).text()
    assert "base chrF 0.0 nothing" in text
    assert len(text) < 20_000


def test_the_worst_documents_come_first(paths: RunPaths) -> None:
    rows = [
        sentence(number, 40.0, after, pub_number=document)
        for number, (document, after) in enumerate([("A-1", 60.0), ("A-1", 40.0), ("A-2", 35.5), (ATTACK, 90.0)])
    ]
    write_lines(paths.eval / "test.fr-en.jsonl", [*rows, sentence(9, 1.0, 1.0)])
    text = written(paths, finished("fr-en")).text()
    told = ["A-2 French → English 1 40.0 35.5 −4.5", "A-1 French → English 2 40.0 50.0 +10.0", f"{ATTACK} French"]
    at = [text.index(part) for part in told]
    assert at == sorted(at) and "Worst documents" in text
    write_lines(paths.eval / "test.fr-en.jsonl", rows[:2])
    assert "Worst documents" not in written(paths, finished("fr-en")).text()


def test_rejected_rows_are_counted_by_reason(paths: RunPaths) -> None:
    empty = [{"file": "a.jsonl", "line": n, "reason": "empty_side: target", "excerpt": "{}"} for n in range(1, 6)]
    write_lines(paths.rejected, [{"file": "a.jsonl", "line": 9, "reason": "bad_json", "excerpt": "{"}, *empty])
    assert [(it.code, it.count, len(it.examples)) for it in read_rejections(paths.rejected)] == [
        ("empty_side", 5, 3),
        ("bad_json", 1, 1),
    ]
    text = written(paths, finished("en-fr")).text()
    assert "empty side 5 rows" in text and "and 2 more" in text and "a.jsonl:9" in text


def test_a_failure_leaves_the_former_page(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.report.write_text("former", encoding="utf-8")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        report.write(paths, finished("en-fr"))
    assert [path.name for path in paths.folder.iterdir()] == ["report.html"]
    assert paths.report.read_text(encoding="utf-8") == "former"
