"""Loading the base: precision, tying, positions, devices, and checkpoints that have to be refused."""

from __future__ import annotations

import builtins
import errno
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from mtft import models
from mtft.errors import InputError, Retry
from tests.trainer.helpers import ALONE, KEYS, make_config
from trainer.distributed import World, choose_device, choose_precision
from trainer.families import load_tokenizer
from trainer.loading import check_tied, choose_device_map, load_base
from trainer.loop import autocast
from trainer.node import GPU_VARIABLE

Standins = Callable[[str], Path]


def load(key: str, folder: Path, **parts: Any) -> PreTrainedModel:
    return load_base(models.card(key), make_config(key, folder, **parts), ALONE)


@pytest.fixture
def copy(standins: Standins, tmp_path: Path) -> Callable[[str], Path]:
    """Give a copy of a family's stand-in that a test may damage."""

    def make(family: str) -> Path:
        return Path(shutil.copytree(standins(family), tmp_path / family))

    return make


def long_input(model: PreTrainedModel, length: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(10, 200, (1, length), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": ids[:, :5]}


class TestBase:
    @pytest.mark.parametrize("key", models.MODELS)
    def test_is_in_fp32_tied_and_keeps_every_layer(self, key: str, standins: Standins) -> None:
        folder = standins(key)
        stored = load_file(folder / "model.safetensors")
        model = load(key, folder)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        check_tied(model)
        # M2M100 has more rows than tokens: shrinking to the tokenizer would cut them off.
        assert model.get_input_embeddings().weight.shape[0] == model.config.vocab_size
        assert any(tensor.shape[0] == model.config.vocab_size for tensor in stored.values() if tensor.ndim == 2)
        assert [getattr(model.config, f"{side}_layerdrop") for side in ("encoder", "decoder")] == [0.0, 0.0]
        assert [model.model.encoder.layerdrop, model.model.decoder.layerdrop] == [0.0, 0.0]

    def test_marian_was_half_precision_on_disk(self, standins: Standins) -> None:
        stored = load_file(standins("marian") / "model.safetensors")
        assert {tensor.dtype for tensor in stored.values()} == {torch.float16}

    def test_an_output_layer_of_its_own_is_refused(self, family: str, standins: Standins) -> None:
        model: Any = load(KEYS[family], standins(family))
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
        with pytest.raises(InputError, match=r"lm_head and decoder\.embed_tokens should be one tensor"):
            check_tied(model)

    def test_m2m100_takes_more_tokens_than_its_table_has_rows(self, standins: Standins, tmp_path: Path) -> None:
        """1,100 tokens: the table of positions is rebuilt, in any arithmetic, and is no part of the weights."""
        model = load(KEYS["m2m100"], standins("m2m100")).eval()
        inputs = long_input(model, 1100)
        with torch.no_grad():
            short = model(**long_input(model, 50)).logits
            logits = model(**inputs).logits
            with autocast(ALONE.device, torch.bfloat16):
                rough = model(**inputs).logits
            assert torch.equal(model(**long_input(model, 50)).logits, short)
        assert torch.isfinite(logits).all()
        assert (rough.float() - logits).abs().max() < 0.1 * logits.abs().max()
        model.save_pretrained(tmp_path)
        again = load(KEYS["m2m100"], tmp_path).eval()
        with torch.no_grad():
            assert torch.equal(again(**inputs).logits, logits)

    def test_saved_and_reloaded_gives_equal_logits_and_stays_tied(
        self, family: str, standins: Standins, tmp_path: Path
    ) -> None:
        """Computed positions (M2M100, Marian) are not in the file; Marian's output bias is."""
        model = load(KEYS[family], standins(family)).eval()
        model.save_pretrained(tmp_path)
        again = load(KEYS[family], tmp_path).eval()
        check_tied(again)
        with torch.no_grad():
            assert torch.equal(again(**long_input(model, 40)).logits, model(**long_input(model, 40)).logits)


class TestQuantised:
    def test_is_nf4_with_double_quantisation_but_for_embeddings_and_output(
        self, family: str, standins: Standins
    ) -> None:
        model: Any = load(KEYS[family], standins(family), method="qlora")
        linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        quantised = {name for name, module in linear.items() if isinstance(module, bnb.nn.Linear4bit)}
        assert linear.keys() - quantised == {"lm_head"}
        weight: Any = linear["model.encoder.layers.0.fc1"].weight
        assert (weight.quant_state.quant_type, weight.quant_state.nested) == ("nf4", True)
        assert model.get_input_embeddings().weight.dtype == torch.float32
        check_tied(model)


CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)
# (processes, OPUS, quantised, device) -> map; "balanced" is what the configuration asks for.
DEVICE_MAPS: dict[tuple[int, bool, bool, torch.device], Any] = {
    (1, False, False, CPU): {"": "cpu"},
    (1, False, False, GPU): "balanced",
    (1, False, True, CPU): {"": "cpu"},
    (1, False, True, GPU): "balanced",
    (1, True, False, CPU): None,
    (1, True, False, GPU): None,
    (1, True, True, CPU): {"": "cpu"},
    (1, True, True, GPU): {"": 1},
    (2, False, False, CPU): None,
    (2, False, False, GPU): None,
    (2, False, True, CPU): {"": "cpu"},
    (2, False, True, GPU): {"": 1},
    (2, True, False, CPU): None,
    (2, True, False, GPU): None,
    (2, True, True, CPU): {"": "cpu"},
    (2, True, True, GPU): {"": 1},
}


class TestDeviceMap:
    """The rule: several processes never share one model's layers out; OPUS never does."""

    @pytest.mark.parametrize("device", [CPU, GPU], ids=str)
    @pytest.mark.parametrize("method", ["lora", "full", "qlora"])
    @pytest.mark.parametrize("size", [1, 2])
    @pytest.mark.parametrize("key", models.MODELS)
    def test_truth_table(self, key: str, size: int, method: str, device: torch.device) -> None:
        world = World(rank=size - 1, local_rank=size - 1, size=size, device=device)
        config = make_config(key, "somewhere", method=method, train={"device_map": "balanced"})
        expected = DEVICE_MAPS[size, key.startswith("opus"), method == "qlora", device]
        assert choose_device_map(models.card(key), config, world) == expected

    def test_nobody_asked_for_a_map(self) -> None:
        config = make_config("m2m100_418m", "somewhere", train={"device_map": None})
        world = World(rank=0, local_rank=0, size=1, device=torch.device("cuda", 0))
        assert choose_device_map(models.card("m2m100_418m"), config, world) is None


class TestPrecision:
    @pytest.mark.parametrize(
        ("asked", "given"), [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)]
    )
    def test_on_a_cpu(self, asked: str, given: torch.dtype) -> None:
        config = make_config("opus_mt_en_fr", "somewhere", train={"precision": asked})
        assert choose_precision(config, torch.device("cpu")) == given

    def test_fp16_on_a_cpu_is_refused(self) -> None:
        config = make_config("opus_mt_en_fr", "somewhere", train={"precision": "fp16"})
        with pytest.raises(InputError, match=r"'fp16', but this process computes on a CPU\. Allowed: auto"):
            choose_precision(config, torch.device("cpu"))

    @pytest.mark.parametrize(
        ("visible", "local_rank", "told"), [(0, 0, "shows no CUDA device"), (1, 1, "no GPU of its own: 1 visible")]
    )
    def test_a_gpu_that_is_not_there_is_refused(
        self, visible: int, local_rank: int, told: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: visible > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
        config = make_config("opus_mt_en_fr", "somewhere", train={"device": "cuda"})
        with pytest.raises(InputError, match=told):
            choose_device(config, local_rank)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
    def test_a_pod_given_gpus_without_cuda_fails_instead_of_training_slowly(
        self, standins: Standins, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = make_config(
            "opus_mt_en_fr", standins("marian"), train={"device": "auto"}, cluster={"gpus_per_node": 2}
        )
        assert choose_device(config, 0).type == "cpu"
        monkeypatch.setenv(GPU_VARIABLE, "1")
        with pytest.raises(InputError, match=r"cluster\.gpus_per_node is 2"):
            choose_device(config, 0)


class TestRefused:
    """One clear message that names the place; nothing is unpickled."""

    def test_no_checkpoint_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"could not be read from .*config\.json"):
            load("opus_mt_en_fr", tmp_path)

    def test_another_family(self, standins: Standins) -> None:
        with pytest.raises(InputError, match="is a marian checkpoint; model m2m100_418m needs m2m_100"):
            load("m2m100_418m", standins("marian"))

    def test_no_weights(self, copy: Callable[[str], Path]) -> None:
        folder = copy("marian")
        (folder / "model.safetensors").unlink()
        with pytest.raises(InputError, match="holds no weights"):
            load("opus_mt_en_fr", folder)

    def test_only_a_pickle_and_the_advice_helps(self, copy: Callable[[str], Path], tmp_path: Path) -> None:
        folder = copy("marian")
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        with pytest.raises(
            InputError, match=r"only as a pickle \(pytorch_model\.bin\), which is never read"
        ) as refused:
            load("opus_mt_en_fr", folder)
        code = shlex.split(str(refused.value).splitlines()[1])[2]
        exec(code.replace("FOLDER", str(tmp_path / "converted")))
        assert load("opus_mt_en_fr", tmp_path / "converted").config.model_type == "marian"
        load_tokenizer(models.card("opus_mt_en_fr"), tmp_path / "converted")

    def test_a_weight_is_missing(self, family: str, copy: Callable[[str], Path]) -> None:
        path = copy(family) / "model.safetensors"
        weights = load_file(path)
        del weights["model.decoder.layers.1.fc1.weight"]
        save_file(weights, path, metadata={"format": "pt"})
        with pytest.raises(
            InputError, match=r"1 weights are missing or of another shape, first .*decoder\.layers\.1\.fc1\.weight"
        ):
            load(KEYS[family], path.parent)

    @pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "source.spm", "model.safetensors"])
    def test_but_a_volume_that_fails_for_a_moment_is_asked_by_another_start(
        self, copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        folder, opened = copy("marian"), builtins.open

        def failing(file: Any, *arguments: Any, **options: Any) -> Any:
            if str(file).endswith(f"/{name}"):
                raise OSError(errno.EIO, "Input/output error", str(file))
            return opened(file, *arguments, **options)

        for where in ("builtins.open", "io.open"):
            monkeypatch.setattr(where, failing)
        with pytest.raises(Retry, match="Input/output error"):
            load_tokenizer(models.card("opus_mt_en_fr"), folder)
            load("opus_mt_en_fr", folder)

    def test_a_truncated_weight_file(self, copy: Callable[[str], Path]) -> None:
        path = copy("marian") / "model.safetensors"
        path.write_bytes(path.read_bytes()[:5000])
        with pytest.raises(InputError, match="could not be read from"):
            load("opus_mt_en_fr", path.parent)

    def test_a_weight_of_another_shape(self, copy: Callable[[str], Path]) -> None:
        folder = copy("mbart50")
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(settings | {"encoder_ffn_dim": 96}))
        with pytest.raises(InputError, match=r"6 weights are missing or of another shape, first .*fc1"):
            load("mbart50_mmt_fr", folder)

    @pytest.mark.parametrize("side", ["source", "target"])
    def test_rows_longer_than_the_positions(self, family: str, side: str, standins: Standins) -> None:
        """M2M100 computes further ones; the others would stop with an index error at the first long row."""
        options = {f"max_{side}_length": 1025}
        if family == "m2m100":
            assert load(KEYS[family], standins(family), train=options)
        else:
            with pytest.raises(InputError, match=rf"train\.max_{side}_length is 1025, but .* has 1024 positions"):
                load(KEYS[family], standins(family), train=options)

    def test_code_from_the_checkpoint_is_not_run(self, copy: Callable[[str], Path]) -> None:
        folder = copy("marian")
        settings = json.loads((folder / "config.json").read_text())
        settings |= {"auto_map": {"AutoModelForSeq2SeqLM": "evil.Model"}}
        (folder / "config.json").write_text(json.dumps(settings))
        (folder / "evil.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
        load("opus_mt_en_fr", folder)
        assert not (folder / "ran").exists()


def test_the_library_would_load_marian_in_half_precision(standins: Standins) -> None:
    """Why load_base names the type."""
    assert AutoModelForSeq2SeqLM.from_pretrained(standins("marian")).dtype == torch.float16
