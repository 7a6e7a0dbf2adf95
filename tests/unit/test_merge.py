"""What is sent of a document with ``--set`` and flags over it: the same as was shown."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import pytest

from mtft.settings import merge, resolve
from tests.unit.documents import GIVEN


class TestMerge:
    def test_the_document_stays_unresolved(self) -> None:
        assert merge(GIVEN) == GIVEN
        assert merge(GIVEN, ["train.epochs=2"], {"method": "full"}) == GIVEN | {
            "train": {"epochs": 2},
            "method": "full",
        }

    def test_the_input_is_not_changed(self) -> None:
        document = {"model": "opus_mt_en_fr", "data": {"train": "a"}}
        merge(document, ["data.train=b", "model.path=/c"])
        assert document == {"model": "opus_mt_en_fr", "data": {"train": "a"}}

    @pytest.mark.parametrize(
        "document",
        [
            GIVEN | {"lora_r": 4},
            {"data": {"train": "a"}, "lora_r": 4, "models": {"opus_mt_en_fr": {"lora": {"r": 5, "alpha": 3}}}},
            {"data": {"train": "a"}, "models": {"opus_mt_en_fr": {"lora_r": 6}}},
        ],
    )
    @pytest.mark.parametrize("sets", [["lora.r=9"], ["lora_r=9"], ["lora={r: 9}"]])
    def test_what_is_sent_resolves_to_what_was_shown(self, document: dict[str, Any], sets: list[str]) -> None:
        shown = resolve(document, model="opus_mt_en_fr", sets=sets).config
        assert resolve(merge(document, sets), model="opus_mt_en_fr").config == shown
        assert shown.lora.r == 9

    @pytest.mark.parametrize("own", [None, {}, {"model": {"path": "/own", "revision": "abc"}}])
    @pytest.mark.parametrize("model", [None, "opus_mt_en_fr"])
    def test_where_the_base_is_can_be_set_beside_models(self, own: dict[str, Any] | None, model: str | None) -> None:
        document = {"data": {"train": "a"}, "models": {"opus_mt_en_fr": own, "m2m100_418m": {"model": {"path": "/m"}}}}
        before = copy.deepcopy(document)
        merged = merge(document, ["model.path=/b"], model=model)
        shown = resolve(document, model="opus_mt_en_fr", sets=["model.path=/b"]).config
        assert resolve(merged, model="opus_mt_en_fr").config == shown
        assert shown.model.path == "/b" and document == before
        assert resolve(merged, model="m2m100_418m").config.model.path == ("/m" if model else "/b")

    @pytest.mark.parametrize("own", [{"model": {"key": "m2m100_418m", "path": "/b"}}, {"model": {"path": "/b"}}])
    def test_a_model_that_is_set_keeps_where_its_base_is(self, own: dict[str, Any]) -> None:
        sent = resolve(merge({"data": {"train": "a"}, **own}, ["model=m2m100_418m"])).config.model
        assert (sent.key, sent.path) == ("m2m100_418m", "/b")

    def test_a_model_that_is_set_replaces_its_old_name(self) -> None:
        document = {"data": {"train": "a"}, "which": "m2m100_418m"}
        assert resolve(merge(document, ["model=opus_mt_en_fr"])).config.model.key == "opus_mt_en_fr"

    @pytest.mark.parametrize(
        "sets",
        [
            ["models.opus_mt_en_fr.train.epochs=5", "train.epochs=2"],
            ["train.epochs=2", "models.opus_mt_en_fr.train.epochs=5"],
        ],
    )
    @pytest.mark.parametrize("flags", [{}, {"train.epochs": 7}])
    def test_of_one_models_and_all_models_values_what_is_shown_is_sent(
        self, sets: list[str], flags: dict[str, Any]
    ) -> None:
        document = {"data": {"train": "a"}, "models": {"opus_mt_en_fr": None, "m2m100_418m": None}}
        sent = merge(document, sets, flags)
        for key, epochs in (("opus_mt_en_fr", 5), ("m2m100_418m", 2)):
            shown = resolve(document, model=key, sets=sets, flags=flags).config
            assert resolve(sent, model=key).config == shown
            assert shown.train.epochs == flags.get("train.epochs", epochs)

    @pytest.mark.parametrize(
        ("old", "path"),
        [
            ({"which": "m2m100_418m", "model_name": "/x"}, "/x"),
            ({"model": "m2m100_418m", "model_name": "./x"}, "./x"),
            ({"model_name": "facebook/m2m100_418M"}, None),
        ],
    )
    @pytest.mark.parametrize("flags", [{}, {"model.key": "m2m100_418m"}, {"model.path": "/new"}])
    def test_an_old_name_that_says_a_folder_goes_with_another_path_alone(
        self, old: dict[str, Any], path: str | None, flags: dict[str, Any]
    ) -> None:
        sent = resolve(merge({"data": {"train": "a"}, **old}, flags=flags)).config.model
        assert (sent.key, sent.path) == ("m2m100_418m", flags.get("model.path", path))

    def test_where_the_base_of_a_model_is_that_models_does_not_name_can_be_set(self) -> None:
        document = {"data": {"train": "a"}, "models": {"opus_mt_en_fr": None}}
        merged = merge(document, flags={"model.path": "/b"}, model="m2m100_418m")
        assert resolve(merged, model="m2m100_418m").config.model.path == "/b"
        assert resolve(merged, model="opus_mt_en_fr").config.model.path is None

    def test_one_models_part_can_be_set(self) -> None:
        document = {"data": {"train": "a"}, "models": {"opus_mt_en_fr": None, "m2m100_418m": None}}
        merged = merge(document, ["models.m2m100_418m.lora.r=8"])
        assert resolve(merged, model="m2m100_418m").config.lora.r == 8
        assert resolve(merged, model="opus_mt_en_fr").config.lora.r == 32


class TestHashOfOtherData:
    KEY = "opus_mt_en_fr"
    OLD, NEW = "0" * 64, "1" * 64
    FILE: ClassVar = {"data": {"train": "a", "sha256": OLD}}

    @pytest.mark.parametrize(
        ("document", "sets", "flags", "kept"),
        [
            (FILE, [], {}, OLD),
            (FILE, [], {"data.train": "a"}, OLD),
            (FILE, [], {"data.train": "b"}, None),
            (FILE, ["data.train=b"], {}, None),
            (FILE, ["data.train=b", f"data.sha256='{NEW}'"], {}, NEW),
            (FILE, [f"data.sha256='{NEW}'"], {"data.train": "b"}, NEW),
            (FILE, [f"models.{KEY}.data.train=b"], {}, None),
            ({"data": {"sha256": OLD}}, [], {"data.train": "b"}, None),
            ({"data_path": "a", "data": {"sha256": OLD}}, ["data_path=b"], {}, None),
            (FILE | {"models": {KEY: {}}}, [], {"data.train": "b"}, None),
            (FILE | {"models": {KEY: {"data": {"train": "b"}}}}, [], {}, None),
            (FILE | {"models": {KEY: {"data": {"train": "b", "sha256": NEW}}}}, [], {}, NEW),
            (FILE | {"models": {KEY: {"data": {"train": "b", "sha256": NEW}}}}, [], {"data.train": "a"}, OLD),
            (FILE | {"models": {KEY: {"data": {"train": "b", "sha256": NEW}}}}, [], {"data.train": "c"}, None),
            (FILE | {"models": {KEY: {"data": {"train": "b", "sha256": NEW}}}}, [], {"data.train": "b"}, NEW),
            ({"data": {"sha256": OLD}, "models": {KEY: {"data": {"train": "b"}}}}, [], {}, OLD),
        ],
    )
    def test_it_is_left_out(
        self, document: dict[str, Any], sets: list[str], flags: dict[str, Any], kept: str | None
    ) -> None:
        document = copy.deepcopy(document)
        if sets and sets[0].startswith("models."):
            document["models"] = {self.KEY: {}}
        resolved = resolve(document, model=self.KEY, sets=sets, flags=flags)
        assert resolved.config.data.sha256 == kept
        told = [note for note in resolved.notes if "data.sha256 is left out" in note]
        assert told or kept is not None
        sent = resolve(merge(document, sets, flags), model=self.KEY).config
        assert sent.data == resolved.config.data

    def test_the_note_names_both_places(self) -> None:
        assert not resolve(self.FILE, model=self.KEY).notes
        [note] = resolve(self.FILE, model=self.KEY, flags={"data.train": "b"}, source="mtft.yaml").notes
        assert note == "mtft.yaml: data.sha256 is left out: it is of other data than data.train of --data"
