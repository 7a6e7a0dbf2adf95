"""The deliverable: complete, free of pickles, and usable by a program that has never heard of mtft."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from mtft.errors import InputError
from mtft.runs import RunPaths
from tests.trainer.helpers import (
    ALONE,
    FAMILIES,
    KEYS,
    Practised,
    Setup,
    build,
    logits_of,
    new_state,
    segments_of,
    train,
)
from trainer.export import all_finite, export, refuse_pickles
from trainer.families import language_id
from trainer.generation import Decoding, Segment, translate
from trainer.loading import check_tied

Practise = Callable[[str], Practised]
BEAMS = 3

# Nothing but public loaders: what a user's own program would do.
PROGRAM = """
import importlib.util, json, sys
jobs = json.loads(sys.argv[1])
sys.path = [path for path in sys.path if path != jobs["checkout"]]
assert not [name for name in ("mtft", "trainer", "launcher") if importlib.util.find_spec(name)]
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

results = {}
for name, job in jobs["deliverables"].items():
    folder = job["folder"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if job["base"]:
        settings = {"generation_config": GenerationConfig.from_pretrained(folder)}
        base = AutoModelForSeq2SeqLM.from_pretrained(job["base"], dtype="float32")
        model = PeftModel.from_pretrained(base, folder).eval()
    else:
        settings = {}
        model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    results[name] = []
    for source, source_code, target_token in job["sentences"]:
        if source_code:  # only a model of both directions has to be told
            tokenizer.src_lang = source_code
            settings["forced_bos_token_id"] = tokenizer.convert_tokens_to_ids(target_token)
        output = model.generate(**tokenizer(source, return_tensors="pt"), **settings)
        text = tokenizer.batch_decode(output, skip_special_tokens=True)[0]
        results[name].append([output[0].tolist()[:2], text])
print(json.dumps(results))
"""


@dataclass(frozen=True)
class Deliverable:
    """An exported run and what the trainer itself made of some sentences."""

    setup: Setup
    paths: RunPaths
    folder: Path
    segments: list[Segment]
    translations: list[str]


def deliver(family: str, method: str, practised: Practised, root: Path) -> Deliverable:
    """Tune a little further on pairs the base knows badly, export, and translate."""
    key = KEYS[family]
    setup = build(key, practised.folder, list(practised.pairs[6:]), method=method, eval={"beams": BEAMS})
    loop = setup.loop(6, learning_rate=2e-3)
    train(loop, new_state(loop, bins_per_step=1, bin_tokens=2000, steps=6))
    paths = RunPaths.at(root, key, "20250101-000000-abc")
    paths.folder.mkdir(parents=True)
    folder = export(setup.model, setup.card, setup.config, setup.encoder, paths)
    segments, _ = segments_of(setup.card, practised.pairs)
    decoding = Decoding(beams=BEAMS, batch_tokens=1000, dtype=torch.float32)
    found = translate(setup.model, setup.encoder, segments, decoding, ALONE)
    ended = [index for index, hypothesis in enumerate(found) if not hypothesis.truncated]
    assert len(ended) >= 8
    return Deliverable(
        setup=setup,
        paths=paths,
        folder=folder,
        segments=[segments[index] for index in ended],
        translations=[found[index].text for index in ended],
    )


@pytest.fixture(scope="module")
def deliverables(practised: Practise, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Deliverable]:
    """Give an adapter of each family and one fully tuned one-way model."""
    wanted = [(family, "lora") for family in FAMILIES] + [("mbart50", "full")]
    return {
        f"{family}-{method}": deliver(family, method, practised(family), tmp_path_factory.mktemp("root"))
        for family, method in wanted
    }


@pytest.fixture(scope="module")
def elsewhere(
    deliverables: dict[str, Deliverable], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[tuple[list[int], str]]]:
    """Give what one clean interpreter without this checkout makes of all deliverables."""
    jobs: dict[str, Any] = {}
    for name, its in deliverables.items():
        card = its.setup.card
        two_way = len(card.directions) > 1
        jobs[name] = {
            "folder": str(its.folder),
            "base": None if name.endswith("full") else str(its.setup.config.model.path),
            "sentences": [
                (
                    segment.source,
                    card.language_codes[segment.direction[0]] if two_way else None,
                    f"__{segment.direction[1]}__",
                )
                for segment in its.segments
            ],
        }
    checkout = Path(__file__).resolve().parents[2]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM, json.dumps({"checkout": str(checkout), "deliverables": jobs})],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results: dict[str, list[tuple[list[int], str]]] = json.loads(done.stdout.splitlines()[-1])
    return results


NAMES = [*(f"{family}-lora" for family in FAMILIES), "mbart50-full"]


@pytest.mark.parametrize("name", NAMES)
class TestElsewhere:
    def test_translates_as_the_trainer_does(
        self,
        name: str,
        deliverables: dict[str, Deliverable],
        elsewhere: dict[str, list[tuple[list[int], str]]],
    ) -> None:
        assert [text for _, text in elsewhere[name]] == deliverables[name].translations

    def test_begins_in_the_target_language(
        self,
        name: str,
        deliverables: dict[str, Deliverable],
        elsewhere: dict[str, list[tuple[list[int], str]]],
    ) -> None:
        """One-way models without a single extra argument."""
        its = deliverables[name]
        for segment, (ids, _) in zip(its.segments, elsewhere[name], strict=True):
            assert ids[0] == its.setup.base.config.decoder_start_token_id
            expected = language_id(its.setup.card, its.setup.encoder.tokenizer, segment.direction[1])
            assert expected is None or ids[1] == expected


class TestContent:
    @pytest.mark.parametrize("name", NAMES)
    def test_reloads_to_equal_logits_and_tied_weights(self, name: str, deliverables: dict[str, Deliverable]) -> None:
        its = deliverables[name]
        model: Any
        if name.endswith("full"):
            model = AutoModelForSeq2SeqLM.from_pretrained(its.folder)
        else:
            base = AutoModelForSeq2SeqLM.from_pretrained(its.setup.config.model.path, dtype=torch.float32)
            plain = logits_of(base, its.setup.rows)
            model = PeftModel.from_pretrained(base, its.folder)
            assert (logits_of(model, its.setup.rows) - plain).abs().max() > 0.01
        check_tied(model)
        assert torch.equal(logits_of(model, its.setup.rows), logits_of(its.setup.model, its.setup.rows))
        if not name.endswith("full"):
            check_tied(model.merge_and_unload(safe_merge=True))

    @pytest.mark.parametrize("name", NAMES)
    def test_files(self, name: str, deliverables: dict[str, Deliverable]) -> None:
        its = deliverables[name]
        names = {path.name for path in its.folder.iterdir()}
        weights = {"adapter_model.safetensors", "adapter_config.json"}
        assert {"generation_config.json", "tokenizer_config.json"} <= names
        assert names >= ({"model.safetensors", "config.json"} if name.endswith("full") else weights)
        assert name.endswith("full") or "config.json" not in names
        everything = [path for path in its.paths.root.rglob("*") if path.is_file()]
        assert {path.suffix for path in everything} <= {".json", ".safetensors", ".model", ".spm", ".jinja"}
        assert not [path for path in its.paths.folder.iterdir() if path.name.startswith(".")]

    @pytest.mark.parametrize("family", FAMILIES)
    def test_config_and_tokenizer_lie_beside_it_too(self, family: str, deliverables: dict[str, Deliverable]) -> None:
        its = deliverables[f"{family}-lora"]
        config = json.loads((its.paths.folder / "config.json").read_text())
        assert config["model_type"] == its.setup.base.config.model_type
        assert config["use_cache"] is True
        beside = AutoTokenizer.from_pretrained(its.paths.folder)
        inside = AutoTokenizer.from_pretrained(its.folder)
        assert beside("Two cod.")["input_ids"] == inside("Two cod.")["input_ids"]

    @pytest.mark.parametrize("name", NAMES)
    def test_generation_settings(self, name: str, deliverables: dict[str, Deliverable]) -> None:
        its = deliverables[name]
        settings = GenerationConfig.from_pretrained(its.folder)
        assert (settings.num_beams, settings.max_length) == (BEAMS, 512)
        forced = {"m2m100-lora": None, "marian-lora": None}
        french = its.setup.encoder.tokenizer.convert_tokens_to_ids("fr_XX")
        assert settings.forced_bos_token_id == forced.get(name, french)

    def test_adapter_names_its_base(self, deliverables: dict[str, Deliverable]) -> None:
        its = deliverables["marian-lora"]
        saved = json.loads((its.folder / "adapter_config.json").read_text())
        assert saved["base_model_name_or_path"] == its.setup.config.model.path
        assert (saved["r"], saved["lora_alpha"], saved["task_type"]) == (8, 16, "SEQ_2_SEQ_LM")
        assert saved["modules_to_save"] is None

    def test_a_second_export_replaces_the_first(self, deliverables: dict[str, Deliverable]) -> None:
        its = deliverables["marian-lora"]
        before = sorted(path.name for path in its.folder.iterdir())
        (its.folder / "stray.txt").write_text("left over")
        again = export(its.setup.model, its.setup.card, its.setup.config, its.setup.encoder, its.paths)
        assert again == its.folder
        assert sorted(path.name for path in its.folder.iterdir()) == before

    def test_on_a_full_volume_leaves_none_of_its_room_taken(
        self, deliverables: dict[str, Deliverable], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(folder: Path) -> None:
            (folder / "half").write_text("a")
            raise OSError(errno.ENOSPC, "No space left on device")

        its = deliverables["marian-lora"]
        before = sorted(path.name for path in its.folder.parent.iterdir())
        monkeypatch.setattr(its.setup.model, "save_pretrained", full)
        with pytest.raises(OSError, match="No space left"):
            export(its.setup.model, its.setup.card, its.setup.config, its.setup.encoder, its.paths)
        assert sorted(path.name for path in its.folder.parent.iterdir()) == before
        assert not (its.folder / "half").exists()


class TestRefusals:
    @pytest.mark.parametrize("name", ["pytorch_model.bin", "sub/optimizer.pt", "a.pkl", "b.pth"])
    def test_a_pickle_is_not_published(self, name: str, tmp_path: Path) -> None:
        refuse_pickles(tmp_path)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        with pytest.raises(InputError, match="is a pickle; published files hold none"):
            refuse_pickles(tmp_path)

    def test_weights_that_are_no_numbers_are_seen(self) -> None:
        linear = torch.nn.Linear(2, 2)
        assert all_finite(linear)
        with torch.no_grad():
            linear.weight[0, 0] = torch.nan
        assert not all_finite(linear)
        assert all_finite(linear.requires_grad_(False))  # frozen weights are the base's business
