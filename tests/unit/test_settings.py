"""From what a user gave to one configuration: reading, precedence, origins."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import Mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from launcher.output import print_document
from mtft import models
from mtft.documents import yaml_text
from mtft.errors import ConfigError, InputError, Retry
from mtft.models import card
from mtft.settings import load_document, models_of, resolve, to_yaml
from tests.unit.documents import GIVEN, written


class TestReading:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1e-5", 1e-5),
            ("1.5e-4", 1.5e-4),
            ("2E3", 2000.0),
            (".5", 0.5),
            ("0o17", 15),
            ("12", 12),
            ("true", True),
            ("~", None),
            ("'no'", "no"),
            ("2024-01-01", "2024-01-01"),
            ("yard", "yard"),
            ("a_1", "a_1"),
            ("[1, a]", [1, "a"]),
            ("{a: 1e-5}", {"a": 1e-5}),
        ],
    )
    def test_yaml_values(self, tmp_path: Path, text: str, value: object) -> None:
        read = load_document(written(tmp_path, f"key: {text}\n"))["key"]
        assert read == value
        assert type(read) is type(value)

    @pytest.mark.parametrize(("number", "kind"), [(errno.EIO, Retry), (errno.EACCES, InputError)])
    def test_a_file_that_cannot_be_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
    ) -> None:
        path = written(tmp_path, "a: 1\n")
        monkeypatch.setattr(Path, "read_text", Mock(side_effect=OSError(number, "it fails")))
        with pytest.raises(kind, match=r"mtft\.yaml: cannot be read: it fails") as refused:
            load_document(path)
        assert type(refused.value) is kind

    @pytest.mark.parametrize(
        "text", ["no", "Yes", "ON", "off", "y", "N", "010", "0b1", "1_000", "1__0", "1_0.5", "12:30"]
    )
    def test_plain_texts_yaml_readers_disagree_about(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(ConfigError, match=r"mtft.yaml:2: b: means different things") as refused:
            load_document(written(tmp_path, f"a: 1\nb: {text}\n"))
        assert refused.value.problems[0].value == text

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("a.yaml", "a: 1\nb: 2\na: 3\n", "a.yaml:3: a: is given twice; first in line 1"),
            ("a.yaml", "a:\n\tb: 1\n", "a.yaml:2: document: is not YAML: a tab stands where"),
            ("a.yaml", "- 1\n", "holds a list"),
            ("a.yaml", "just text\n", "holds a single value"),
            ("a.yaml", "a: 1\n---\nb: 2\n", "expected a single document in the stream, but found another"),
            ("a.yaml", "a: !!python/object:os.system x\n", "a.yaml:1: a: cannot be read as"),
            ("a.yaml", "a: [1, 2\n", "a.yaml:2: document: is not YAML"),
            ("a.yaml", "5: a\n", "key that is not a plain text"),
            ("a.yaml", "a: &a [*a]\n", "aliases that multiply"),
            ("a.yaml", "a: \x00\n", "a.yaml: document: is not YAML"),
            ("a.json", '{"a": 1, "a": 2}', "a: is given twice"),
            ("a.json", '{"a": 1,\n}', "a.json:2: document: is not JSON"),
            ("a.json", '{"a": NaN}', "NaN is not a JSON number"),
            ("a.json", "[]", "holds a list"),
            ("a.toml", "a = 1\na = 2\n", "is not TOML"),
            ("a.json", '{"a": ' + "9" * 5000 + "}", "a.json: document: holds a number of more than 4,300 digits"),
            ("a.toml", "a = " + "9" * 5000, "a.toml: document: holds a number of more than 4,300 digits"),
            ("a.yaml", "b: 1\na: " + "9" * 5000, "a.yaml:2: a: holds a number of more than 4,300 digits; got 99999"),
            ("a.toml", "a = " + "[" * 5000, "a.toml: document: is nested too deeply"),
        ],
    )
    def test_refused_with_the_place(self, tmp_path: Path, name: str, text: str, message: str) -> None:
        with pytest.raises(ConfigError) as refused:
            load_document(written(tmp_path, text, name))
        assert message in str(refused.value)

    def test_aliases_that_multiply_are_stopped(self, tmp_path: Path) -> None:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
        with pytest.raises(ConfigError, match="aliases that multiply"):
            load_document(written(tmp_path, "\n".join(lines)))

    def test_three_formats_say_the_same(self, tmp_path: Path) -> None:
        yaml = load_document(written(tmp_path, "train: {epochs: 2, learning_rate: 1e-5}\n"))
        json = load_document(written(tmp_path, '{"train": {"epochs": 2, "learning_rate": 1e-5}}', "a.json"))
        toml = load_document(written(tmp_path, "[train]\nepochs = 2\nlearning_rate = 1e-5\n", "a.toml"))
        assert yaml == json == toml

    @pytest.mark.parametrize("name", ["absent.yaml", "folder.yaml", "config.txt", "latin1.yaml"])
    def test_unreadable_files(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "folder.yaml").mkdir()
        written(tmp_path, "a: 1", "config.txt")
        (tmp_path / "latin1.yaml").write_bytes("a: é".encode("latin-1"))
        with pytest.raises(InputError, match=name):
            load_document(tmp_path / name)


class TestPrecedence:
    def test_every_layer_goes_over_the_one_below(self, tmp_path: Path) -> None:
        path = written(
            tmp_path,
            "model: opus_mt_en_fr\npreset: quick_test\ndata: {train: rows.jsonl}\n"
            "train:\n  epochs: 2\n  seed: 7\n  warmup_ratio: 0.1\n",
        )
        resolved = resolve(
            load_document(path), sets=["train.seed=8", "train.warmup_ratio=0.2"], flags={"train.epochs": 3.0}
        )
        train, origins = resolved.config.train, resolved.origins
        assert (train.batch_size, origins["train.batch_size"]) == (16, "model card opus_mt_en_fr")
        assert (train.max_steps, origins["train.max_steps"]) == (None, "--epochs")  # epochs that were asked for count
        assert (train.epochs, origins["train.epochs"]) == (3, "--epochs")
        assert (train.seed, origins["train.seed"]) == (8, "--set")
        assert (train.weight_decay, origins["train.weight_decay"]) == (0.01, "built-in")
        assert origins["data.train"] == f"{path}:3"
        assert origins["model.key"] == f"{path}:1"

    def test_the_file_goes_over_the_preset_and_the_card(self) -> None:
        document = GIVEN | {"preset": "quick_test", "train": {"max_steps": 5, "batch_size": 3}}
        train = resolve(document).config.train
        assert (train.max_steps, train.batch_size) == (5, 3)

    def test_a_preset_from_a_flag_stays_below_the_file(self) -> None:
        resolved = resolve(GIVEN | {"train": {"max_steps": 5}}, flags={"preset": "quick_test"})
        assert resolved.config.train.max_steps == 5
        assert resolved.config.data.max_samples == 1000
        assert resolved.origins["preset"] == "--preset"

    def test_null_undoes_a_preset(self) -> None:
        document = GIVEN | {"preset": "quick_test", "train": {"max_steps": None}}
        assert resolve(document).config.train.max_steps is None

    def test_a_part_left_empty_changes_nothing(self) -> None:
        assert resolve(GIVEN | {"train": None, "eval": {"early_stopping": None}}).config == resolve(GIVEN).config

    def test_a_token_budget_replaces_the_cards_batch_size(self) -> None:
        train = resolve(GIVEN, sets=["train.tokens_per_batch=4096"]).config.train
        assert (train.batch_size, train.tokens_per_batch) == (None, 4096)

    def test_a_token_budget_beside_a_written_batch_size_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="exclude each other"):
            resolve(GIVEN | {"train": {"batch_size": 8, "tokens_per_batch": 4096}})

    def test_another_model_brings_its_own_card(self) -> None:
        resolved = resolve(GIVEN, model="mbart50_mmt_en")
        assert resolved.config.train.batch_size == card("mbart50_mmt_en").batch_size
        assert resolved.origins["model.key"] == "--model"

    def test_no_commit_asks_for_the_one_of_the_card(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pinned = replace(card("opus_mt_en_fr"), revision="c0ffee")
        monkeypatch.setitem(models.MODELS, "opus_mt_en_fr", pinned)
        for revision, wanted in ((None, "c0ffee"), ("main", "main")):
            document = {**GIVEN, "model": {"key": "opus_mt_en_fr", "revision": revision}}
            assert resolve(document).config.model.revision == wanted
        assert resolve(GIVEN, model="opus_mt_en_fr").origins["model.revision"] == "model card opus_mt_en_fr"

    def test_a_checkpoint_is_not_taken_for_another_model(self) -> None:
        document = GIVEN | {"model": {"key": "opus_mt_en_fr", "path": "/models/mine"}}
        assert resolve(document).config.model.path == "/models/mine"
        with pytest.raises(ConfigError, match="belongs to opus_mt_en_fr, but m2m100_418m was asked for"):
            resolve(document, model="m2m100_418m")

    def test_every_setting_has_an_origin(self) -> None:
        from mtft.fields import fields

        assert set(resolve(GIVEN).origins) == set(fields())

    def test_a_name_with_dots_is_set_by_escaping_them(self) -> None:
        resolved = resolve(GIVEN, sets=[r"cluster.node_selector.nvidia\.com/gpu=h100"])
        assert resolved.config.cluster.node_selector == {"nvidia.com/gpu": "h100"}


class TestBatch:
    BATCH: ClassVar[dict[str, Any]] = {
        "data": {"train": "rows.jsonl"},
        "train": {"epochs": 2},
        "chart": {"schedule": "@daily"},
        "models": {
            "opus_mt_en_fr": {"train": {"epochs": 3}},
            "m2m100_418m": {"enabled": False},
            "mbart50_mmt_fr": None,
        },
    }

    def test_enabled_models_in_their_order(self) -> None:
        assert models_of(self.BATCH) == ["opus_mt_en_fr", "mbart50_mmt_fr"]
        assert models_of(GIVEN) == ["opus_mt_en_fr"]
        assert models_of({"which": "opus_mt_en_fr"}) == ["opus_mt_en_fr"]
        assert models_of({}) == []

    @pytest.mark.parametrize(("key", "epochs"), [("opus_mt_en_fr", 3), ("mbart50_mmt_fr", 2)])
    def test_a_models_own_part_goes_over_the_shared_one(self, key: str, epochs: int) -> None:
        resolved = resolve(self.BATCH, model=key)
        assert (resolved.config.model.key, resolved.config.train.epochs) == (key, epochs)

    def test_set_goes_over_a_models_own_part(self) -> None:
        assert resolve(self.BATCH, model="opus_mt_en_fr", sets=["train.epochs=4"]).config.train.epochs == 4

    def test_the_only_enabled_model_is_taken(self) -> None:
        models = {"m2m100_418m": {"enabled": False}, "mbart50_mmt_fr": None}
        resolved = resolve({"data": {"train": "rows.jsonl"}, "models": models})
        assert resolved.config.model.key == "mbart50_mmt_fr"
        assert resolve({"data": {"train": "a"}, "models": models}, model="m2m100_418m").card.key == "m2m100_418m"
        with pytest.raises(ConfigError, match="chooses one model of a batch"):
            resolve({"data": {"train": "a"}, "models": {"m2m100_418m": {"enabled": False}}})

    def test_the_model_has_to_be_chosen(self) -> None:
        with pytest.raises(ConfigError, match=r"chooses one model of a batch.*--model KEY"):
            resolve(self.BATCH)
        with pytest.raises(ConfigError, match="there is no such model"):
            resolve(self.BATCH, model="opus_mt")

    def test_a_model_that_the_document_does_not_name_takes_the_shared_part(self) -> None:
        found = resolve(self.BATCH, model="opus_mt_fr_en")
        assert (found.card.key, found.config.train.epochs) == ("opus_mt_fr_en", 2)

    @pytest.mark.parametrize(
        ("models", "message"),
        [
            ({"opus_mt_enfr": {}}, "did you mean opus_mt_en_fr"),
            ({"opus_mt_en_fr": {"enabled": "yes"}}, "models.opus_mt_en_fr.enabled: is a switch"),
            ({"opus_mt_en_fr": 3}, "is not a mapping"),
            (["opus_mt_en_fr"], "is not a mapping"),
        ],
    )
    def test_a_batch_that_cannot_be_read(self, models: object, message: str) -> None:
        for ask in (models_of, resolve):
            with pytest.raises(ConfigError, match=message):
                ask({"data": {"train": "rows.jsonl"}, "models": models})

    def test_one_job_is_none_of_a_batch_left_empty(self) -> None:
        one = {"data": {"train": "rows.jsonl"}, "model": "opus_mt_en_fr"}
        assert resolve(one | {"models": None}) == resolve(one)
        with pytest.raises(ConfigError, match="models: is not a mapping"):
            resolve({"data": {"train": "rows.jsonl"}, "models": None})

    def test_one_job_and_a_batch_exclude_each_other(self) -> None:
        with pytest.raises(ConfigError, match="stands beside model"):
            resolve(self.BATCH | {"model": "opus_mt_en_fr"})


@pytest.mark.parametrize(("scheduler", "noted"), [(None, True), ("volcano", False)])
def test_a_gang_that_nobody_may_read_is_noted(scheduler: str | None, noted: bool) -> None:
    cluster = {"nodes": 2, "gang": {}, "scheduler": scheduler}
    notes = resolve({**GIVEN, "cluster": cluster}).notes
    assert [note.partition(":")[0] for note in notes] == ["cluster.gang without cluster.scheduler"] * noted


class TestEffectiveConfig:
    @settings(deadline=None, max_examples=50)
    @example(name="a\x85b", rate=1e-5, notes={})
    @given(
        name=st.text(min_size=1).filter(lambda text: "://" not in text and "_" not in text),
        rate=st.floats(1e-12, 1),
        notes=st.dictionaries(
            st.sampled_from(["no", "1e5", "0x1f", "a.b/c"]), st.sampled_from(["on", "1e3", "~", "", "a: b"])
        ),
    )
    def test_reading_it_back_gives_an_equal_one(
        self, tmp_path_factory: pytest.TempPathFactory, name: str, rate: float, notes: dict[str, str]
    ) -> None:
        document = GIVEN | {
            "lora": {"target_modules": [name]},
            "train": {"learning_rate": rate},
            "cluster": {"annotations": notes},
        }
        config = resolve(document).config
        path = written(tmp_path_factory.getbasetemp(), to_yaml(config), "effective.yaml")
        again = resolve(load_document(path))
        assert again.config == config

    def test_reading_back_a_token_budget(self, tmp_path: Path) -> None:
        config = resolve(GIVEN, sets=["train.tokens_per_batch=4096"]).config
        assert resolve(load_document(written(tmp_path, to_yaml(config)))).config == config

    def test_what_is_printed_is_what_is_written(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        config = resolve(GIVEN | {"cluster": {"annotations": {"no": "1e3", "words": f"{'é ' * 90}\u2028"}}}).config
        values = config.model_dump(mode="json")
        print_document(values, "yaml")
        assert capsys.readouterr().out == yaml_text(values) == to_yaml(config)
        assert load_document(written(tmp_path, to_yaml(config))) == values
