"""A stand-in is a complete, loadable checkpoint that differs from the published one in nothing but size and weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from demo.corpus import Pair, write_jsonl
from mtft.errors import InputError
from mtft.files import sha256_file
from mtft.models import MODELS
from tests.conftest import require
from tests.standins.__main__ import main
from tests.standins.build import FAMILIES, build_standin, cached_standin, write_files
from tests.standins.text import lines_of

Standins = Callable[[str], Path]

CLASSES = {
    "m2m100": "M2M100ForConditionalGeneration",
    "mbart50": "MBartForConditionalGeneration",
    "marian": "MarianMTModel",
}
TOKENIZER_FILES = {
    "m2m100": {"sentencepiece.bpe.model", "vocab.json"},
    "mbart50": {"sentencepiece.bpe.model"},
    "marian": {"source.spm", "target.spm", "vocab.json"},
}
# Model rows without a token. fairseq's 8 made-up words: 128,112 rows for 128,104 tokens.
UNOWNED_ROWS = {"m2m100": 8, "mbart50": 0, "marian": 0}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load(folder: Path) -> Any:
    return AutoModelForSeq2SeqLM.from_pretrained(folder)


class TestCheckpoint:
    def test_holds_the_published_files_and_no_pickle(self, family: str, standins: Standins) -> None:
        names = {path.name for path in standins(family).iterdir()}
        always = {"config.json", "generation_config.json", "model.safetensors"}
        assert names == always | {"special_tokens_map.json", "tokenizer_config.json"} | TOKENIZER_FILES[family]

    def test_loads_with_the_auto_classes(self, family: str, standins: Standins) -> None:
        folder = standins(family)
        model, info = AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
        assert type(model).__name__ == CLASSES[family]
        assert not any(info.values()), info
        generation = GenerationConfig.from_pretrained(folder)
        assert generation.num_beams == model.generation_config.num_beams == FAMILIES[family].GENERATION["num_beams"]

    def test_rows_without_a_token(self, family: str, standins: Standins) -> None:
        folder = standins(family)
        rows = load(folder).get_input_embeddings().weight.shape[0]
        assert rows == AutoConfig.from_pretrained(folder).vocab_size
        assert rows - len(AutoTokenizer.from_pretrained(folder)) == UNOWNED_ROWS[family]

    def test_tied_weights_share_storage(self, family: str, standins: Standins) -> None:
        model = load(standins(family))
        tables = [model.lm_head, model.get_encoder().embed_tokens, model.get_decoder().embed_tokens]
        assert {table.weight.data_ptr() for table in tables} == {model.get_input_embeddings().weight.data_ptr()}

    def test_same_arguments_give_the_same_files(self, family: str, tmp_path: Path, parallel_text: list[Pair]) -> None:
        lines = lines_of(parallel_text)
        digests = {}
        for name, seed in {"one": 0, "two": 0, "other": 1}.items():
            folder = build_standin(family, tmp_path / name, lines=lines, seed=seed)
            digests[name] = {path.name: sha256_file(path) for path in folder.iterdir()}
        assert digests["one"] == digests["two"]
        assert {name for name, digest in digests["one"].items() if digests["other"][name] != digest} == {
            "model.safetensors"
        }

    def test_fifty_training_steps_learn_and_stay_finite(
        self, family: str, standins: Standins, parallel_text: list[Pair]
    ) -> None:
        folder = standins(family)
        model = load(folder).float().train()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        codes = next(card.language_codes for card in MODELS.values() if card.family == family)
        tokenizer.src_lang, tokenizer.tgt_lang = codes.get("en"), codes.get("fr")
        sources, targets = (
            [pair.source_en for pair in parallel_text[:8]],
            [pair.target_fr for pair in parallel_text[:8]],
        )
        batch = tokenizer(sources, text_target=targets, padding=True, return_tensors="pt")
        batch["labels"][batch["labels"] == tokenizer.pad_token_id] = -100
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        torch.manual_seed(0)
        losses = []
        for _ in range(50):
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        assert all(torch.isfinite(torch.tensor(losses)))
        assert losses[-1] < losses[0] - 1


class TestFamilies:
    def test_m2m100_has_the_published_layerdrop(self, standins: Standins) -> None:
        config = AutoConfig.from_pretrained(standins("m2m100"))
        assert (config.encoder_layerdrop, config.decoder_layerdrop) == (0.05, 0.05)

    def test_mbart50_starts_with_eos_and_forces_it_at_the_end(self, standins: Standins) -> None:
        generation = GenerationConfig.from_pretrained(standins("mbart50"))
        assert (generation.decoder_start_token_id, generation.forced_eos_token_id) == (2, 2)

    def test_marian_is_half_precision_on_disk_and_loads_so(self, standins: Standins) -> None:
        folder = standins("marian")
        tensors = load_file(folder / "model.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
        assert load(folder).dtype == torch.float16

    def test_marian_computes_its_positions(self, standins: Standins) -> None:
        assert not any("position" in name for name in load_file(standins("marian") / "model.safetensors"))

    def test_marian_bias_is_trained_and_pad_is_empty(self, standins: Standins) -> None:
        model = load(standins("marian"))
        pad = model.config.pad_token_id
        bias = model.get_buffer("final_logits_bias")[0]
        assert bias.abs().mean() > 0.1
        assert bias[pad] == 0
        assert not model.get_input_embeddings().weight[pad].any()

    def test_marian_starts_with_pad_and_never_says_it(self, standins: Standins) -> None:
        folder = standins("marian")
        model, tokenizer = load(folder).float(), AutoTokenizer.from_pretrained(folder)
        pad = model.generation_config.pad_token_id
        assert model.generation_config.decoder_start_token_id == pad
        assert model.generation_config.bad_words_ids == [[pad]]
        with torch.no_grad():
            model.get_buffer("final_logits_bias")[0, pad] = 100.0  # without bad_words_ids every token would be <pad>
        output = model.generate(**tokenizer("The captain counted.", return_tensors="pt"), max_new_tokens=8, num_beams=1)
        assert output[0, 0] == pad
        assert pad not in output[0, 1:]


class TestRealSize:
    # Parameters with tied embeddings: m2m100_418M is 1.94 GB in fp32, mbart-large-50 2.44 GB, tc-big 0.46 GB in fp16.
    @pytest.mark.parametrize(
        ("key", "tokens", "parameters", "special"),
        [
            ("m2m100_418m", 128_104, 483_905_536, {"__en__": 128_022, "__fr__": 128_028, "<pad>": 1}),
            ("mbart50_mmt_fr", 250_054, 610_879_488, {"en_XX": 250_004, "fr_XX": 250_008, "<mask>": 250_053}),
            ("opus_mt_fr_en", 53_017, 232_743_936, {"</s>": 43_311, "<pad>": 53_016}),
        ],
    )
    def test_has_the_published_geometry_and_ids(
        self,
        key: str,
        tokens: int,
        parameters: int,
        special: dict[str, int],
        tmp_path: Path,
        parallel_text: list[Pair],
    ) -> None:
        card = MODELS[key]
        config = write_files(card, tmp_path, lines_of(parallel_text), "real")
        assert config == FAMILIES[card.family].CONFIG
        with torch.device("meta"):
            model = AutoModelForSeq2SeqLM.from_config(AutoConfig.from_pretrained(tmp_path))
        tokenizer = AutoTokenizer.from_pretrained(tmp_path)
        assert (len(tokenizer), model.num_parameters()) == (tokens, parameters)
        assert {token: tokenizer.convert_tokens_to_ids(token) for token in special} == special


class TestBuilding:
    def test_a_cached_standin_is_built_once_for_its_arguments(
        self, tmp_path: Path, parallel_text: list[Pair], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        lines = lines_of(parallel_text)
        first = cached_standin("marian", lines=lines)
        assert first.is_relative_to(tmp_path / "mtft" / "standins")
        written = (first / "model.safetensors").stat()
        assert cached_standin("opus_mt_en_fr", lines=lines) == first
        assert (first / "model.safetensors").stat().st_ino == written.st_ino
        assert cached_standin("marian", lines=lines, seed=1) != first
        assert cached_standin("marian", lines=lines[:-1]) != first

    @pytest.mark.parametrize(
        ("model", "size", "lines", "named"),
        [
            ("opus_mt_enfr", "tiny", ["Text."], "opus_mt_en_fr"),
            ("marian", "huge", ["Text."], "tiny, small, real"),
            ("marian", "tiny", [], "lines of text"),
        ],
    )
    def test_bad_arguments_name_what_is_allowed(
        self, model: str, size: str, lines: list[str], named: str, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match=named):
            build_standin(model, tmp_path / "new", lines=lines, size=size)
        assert not list(tmp_path.iterdir())

    def test_an_existing_folder_is_left_alone(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="already exists"):
            build_standin("marian", tmp_path, lines=["Text."])
        assert not list(tmp_path.iterdir())

    def test_a_failed_build_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tests.standins.build._write_weights", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build_standin("marian", tmp_path / "new", lines=["The captain counted the cod."])
        assert not list(tmp_path.iterdir())

    def test_the_command_trains_on_a_data_file(self, tmp_path: Path, parallel_text: list[Pair]) -> None:
        data = tmp_path / "data.jsonl.gz"
        write_jsonl(data, parallel_text[:100])
        assert main(["opus_mt_fr_en", str(tmp_path / "new"), "--text", str(data), "--pieces", "300"]) == 0
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "new")
        assert (tokenizer.source_lang, tokenizer.target_lang) == ("fr", "en")
        assert 250 < len(tokenizer) < 350

    def test_the_command_reports_a_missing_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        absent = tmp_path / "absent.jsonl"
        assert main(["marian", str(tmp_path / "new"), "--text", str(absent)]) == 2
        assert str(absent) in capsys.readouterr().err


class TestMissingParts:
    def test_a_missing_part_skips_or_fails_as_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MTFT_REQUIRE", "helm, real-data")
        with pytest.raises(pytest.fail.Exception, match="real-data is required by MTFT_REQUIRE: not here"):
            require("real-data", "not here")
        with pytest.raises(pytest.skip.Exception, match="kubelet: not here"):
            require("kubelet", "not here")
        monkeypatch.delenv("MTFT_REQUIRE")
        with pytest.raises(pytest.skip.Exception):
            require("real-data", "not here")
