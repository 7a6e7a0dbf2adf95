"""Guard sets: checked and kept with the run when its data is prepared, known by their content."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mtft import files
from mtft.config import Config
from mtft.errors import InputError
from mtft.models import card
from mtft.runs import RunPaths
from trainer.guards import count_leaked, guard_file, prepare_guards
from trainer.ingredients import Ingredients
from trainer.prepared_run import PreparedRun

KEY = "opus_mt_en_fr"


def row(number: int, source_lang: str = "en", **fields: Any) -> str:
    return json.dumps({"source": f"s{number}", "target": f"t{number}", "source_lang": source_lang, **fields}) + "\n"


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    (tmp_path / "train.jsonl").write_text(row(1))
    return RunPaths.at(tmp_path, KEY, "20300102T030405Z-00000001")


def config(tmp_path: Path, key: str = KEY, **sets: Any) -> Config:
    return Config.model_validate(
        {"model": key, "data": {"train": str(tmp_path / "train.jsonl")}, "gate": {"guard_sets": sets}}
    )


def test_their_good_rows_of_the_models_directions_are_kept_and_the_others_told(paths: RunPaths, tmp_path: Path) -> None:
    folder = tmp_path / "legal"
    folder.mkdir()
    (folder / "a.jsonl").write_text(row(1, pub_number="D") + row(2, "fr") + row(3, source=" "))
    (folder / "b.jsonl").write_text(row(4))
    (tmp_path / "general.jsonl").write_text(row(5))
    settings = config(tmp_path, legal=str(folder), general=[str(tmp_path / "general.jsonl")])
    dropped = prepare_guards(paths, settings, card(KEY), used=[])
    assert [(each.line, each.code) for each in dropped] == [(3, "empty_side")]
    assert [json.loads(line)["source"] for line in guard_file(paths, "legal").read_text().splitlines()] == ["s1", "s4"]

    run = PreparedRun(config=settings, card=card(KEY), paths=paths, prepared=_WithTest(tmp_path))  # type: ignore[arg-type]
    test, general, legal = run.test_sets()
    assert (test.guard, general.guard, legal.guard) == (None, "general", "legal")
    assert [(pair.source, pair.direction, pair.document) for pair in legal.pairs] == [
        ("s1", ("en", "fr"), "D"),
        ("s4", ("en", "fr"), None),
    ]


class _WithTest:
    """As much of prepared data as the test set needs."""

    stats: ClassVar[dict[str, Any]] = {"leakage": {"test": {}, "examples": []}}

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "test.jsonl").write_text(row(1))


def test_their_rows_that_are_training_rows_are_counted_once_a_run(
    paths: RunPaths, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    general, train = tmp_path / "general.jsonl", tmp_path / "train.jsonl"
    general.write_text(row(1) + row(2) + row(7) + row(8))
    train.write_text(row(1, source="S 1!") + row(2, target="another") + row(3, "fr", source="t7", target="s7"))
    settings = config(tmp_path, general=str(general))
    prepare_guards(paths, settings, card(KEY), used=[])
    with caplog.at_level("WARNING", "mtft.data"):
        count_leaked(paths, settings, [str(train)])
    assert "2 of 4 guard set general rows are training rows too" in caplog.text
    run = PreparedRun(config=settings, card=card(KEY), paths=paths, prepared=_WithTest(tmp_path))  # type: ignore[arg-type]
    found = run.stats["leakage"]["guard.general"]
    assert {match: (its["pair"], its["any"]) for match, its in found.items()} == {"exact": (1, 3), "loose": (2, 3)}

    files.write_json(paths.prepared, {})
    train.write_text("")
    count_leaked(paths, settings, [str(train)])  # the run's inputs are those it began with
    assert run.stats["leakage"]["guard.general"] == found
    (paths.folder / "guard_sets" / "leakage.json").write_text('{"guard.gene')
    count_leaked(paths, settings, [str(train)])  # a damaged count is none
    assert run.stats["leakage"]["guard.general"]["loose"]["pair"] == 0
    assert PreparedRun(
        config=config(tmp_path),
        card=card(KEY),
        paths=paths,
        prepared=_WithTest(tmp_path),  # type: ignore[arg-type]
    ).stats["leakage"].keys() == {"test", "examples"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (row(1, "fr"), r"gate.guard_sets.general: no rows: of 1 rows 1 have another source_lang than en \(what opus"),
        ("{\n" + row(1), "1 of 2 rows are bad"),
        (None, r"general.jsonl: no such file or folder; check gate\.guard_sets\.general$"),
    ],
)
def test_one_that_cannot_be_used_is_refused(paths: RunPaths, tmp_path: Path, text: str | None, said: str) -> None:
    general = tmp_path / "general.jsonl"
    if text is not None:
        general.write_text(text)
    with pytest.raises(InputError, match=said):
        prepare_guards(paths, config(tmp_path, general=str(general)), card(KEY), used=[])
    assert not guard_file(paths, "general").exists()


def test_it_needs_sentences_of_its_own(paths: RunPaths, tmp_path: Path) -> None:
    general = str(tmp_path / "general.jsonl")
    Path(general).write_text(row(1))
    with pytest.raises(InputError, match=r"general.jsonl is used for data.train, data.dev or data.test too"):
        prepare_guards(paths, config(tmp_path, general=general), card(KEY), used=[general])
    with pytest.raises(InputError, match=r"gate.guard_sets.b: .* is used for gate.guard_sets.a too"):
        prepare_guards(paths, config(tmp_path, a=general, b=general), card(KEY), used=[])


def test_another_content_is_another_run(paths: RunPaths, tmp_path: Path) -> None:
    general = tmp_path / "general.jsonl"
    general.write_text(row(1))
    ingredients = Ingredients(config(tmp_path, general=str(general)), card(KEY), {})
    files.write_json(paths.provenance, ingredients.inputs)
    assert ingredients.changed(paths) == []
    general.write_text(row(2))
    assert replace(ingredients).changed(paths) == ["gate.guard_sets.general"]


@pytest.mark.parametrize(("name", "good"), [("general", True), ("a-1", True), ("../x", False), ("A b", False)])
def test_names_are_plain(tmp_path: Path, name: str, good: bool) -> None:
    if good:
        assert config(tmp_path, **{name: "x.jsonl"}).data_paths()[f"gate.guard_sets.{name}"] == "x.jsonl"
    else:
        with pytest.raises(ValueError, match=r"guard_sets"):
            config(tmp_path, **{name: "x.jsonl"})


@pytest.mark.usefixtures("paths")
def test_one_that_is_missing_is_named_before_there_is_a_run(tmp_path: Path) -> None:
    ingredients = Ingredients(config(tmp_path, general=str(tmp_path / "general.jsonl")), card(KEY), {})
    with pytest.raises(InputError, match=r"no such file or folder; check gate\.guard_sets\.general$"):
        _ = ingredients.inputs
