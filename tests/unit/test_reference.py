"""What is generated from the schema is up to date, and the JSON Schema agrees with the program."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mtft import generated, reference
from mtft.config import Config
from mtft.fields import fields
from mtft.models import MODELS, card
from mtft.settings import load_document, resolve
from tests.goldens import CONFIGS, cases

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = reference.document_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("path", generated.documents(), ids=lambda path: path.name)
def test_generated_files_are_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == generated.documents()[path], "run `python -m mtft.generated`"


def test_check_tells_stale_from_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    monkeypatch.setattr(generated, "CHECKOUT", tmp_path)
    for arguments, code in ((["--check"], 1), ([], 0), (["--check"], 0), (["--chek"], 2)):
        monkeypatch.setattr("sys.argv", ["generated", *arguments])
        assert generated.main() == code
    assert "helm/mtft/values.schema.json: stale, run `python -m mtft.generated`" in capsys.readouterr().out
    assert "version: 1.2.3" in (tmp_path / "helm" / "mtft" / "Chart.yaml").read_text()


@pytest.mark.parametrize("package", ["mtft", "launcher", "trainer"])
def test_every_module_is_in_the_table_of_its_package_and_no_other(package: str) -> None:
    text = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.split(f"\n### {package}:")[1].split("\n### ")[0]
    named = re.findall(r"`([\w/*]+\.py)`", table)
    modules = {path.relative_to(CHECKOUT / package).as_posix() for path in (CHECKOUT / package).rglob("*.py")}
    implied = {name for name in modules if name.endswith("__init__.py")} | {"__main__.py"}
    assert [name for name in sorted(modules - implied) if not any(fnmatch(name, each) for each in named)] == []
    assert [each for each in named if not any(fnmatch(name, each) for name in modules)] == []


def test_every_setting_is_in_the_reference() -> None:
    text = reference.reference()
    for path in fields():
        assert f"| `{path}` |" in text


@pytest.mark.parametrize(
    "document",
    [
        {"model": "opus_mt_en_fr", "data": {"train": ["a", "b"]}},
        {"model": {"path": "/models/mine"}, "train": {"learning_rate": 1e-5}},
        {"models": {"opus_mt_en_fr": {"enabled": False, "lora": {"r": 8}}, "m2m100_418m": None}, "chart": {"x": 1}},
        {"which": "opus_mt_en_fr", "lora_r": 8},
        {"cluster": {"secrets": {"HF_TOKEN": {"name": "hub", "key": "token"}}}},
        {"models": {"m2m100_418m": {"cluster": {"secrets": {"HF_TOKEN": {"key": "other"}}}}}},
    ],
)
def test_the_json_schema_accepts(validator: Draft202012Validator, document: dict[str, Any]) -> None:
    assert list(validator.iter_errors(document)) == []


@pytest.mark.parametrize("case", cases())
def test_the_json_schema_accepts_every_document_that_is_rendered(validator: Draft202012Validator, case: str) -> None:
    assert list(validator.iter_errors(dict(load_document(CONFIGS / f"{case}.yaml")))) == []


@pytest.mark.parametrize(
    "document",
    [
        {"model": "opus"},
        {"model": "opus_mt_en_fr", "models": {}},
        {"models": {"opus": {}}},
        {"models": {"opus_mt_en_fr": {"models": {}}}},
        {"learning_rate": 1e-5},
        {"train": {"epochs": "1"}},
        {"train": {"max_steps": 0}},
        {"cluster": {"secrets": {"HF_TOKEN": "value"}}},
        {"cluster": {"secrets": {"NOT A NAME": {"name": "hub", "key": "token"}}}},
        {"cluster": {"node_selector": {"a b": "c"}}},
        {"cluster": {"image": "Not An Image"}},
    ],
)
def test_the_json_schema_refuses(validator: Draft202012Validator, document: dict[str, Any]) -> None:
    assert list(validator.iter_errors(document))


@pytest.mark.parametrize("key", MODELS)
def test_the_starter_file_uncommented_changes_nothing(
    key: str, tmp_path: Path, validator: Draft202012Validator
) -> None:
    path = tmp_path / "mtft.yaml"
    starter = reference.starter_file(card(key), "rows.jsonl")
    path.write_text(starter, encoding="utf-8")
    config = resolve(load_document(path)).config
    path.write_text(re.sub(r"(?m)^#(?!#)", "", starter), encoding="utf-8")
    document = load_document(path)
    assert set(document) == set(Config.model_fields)
    assert list(validator.iter_errors(dict(document))) == []
    assert resolve(document).config == config
