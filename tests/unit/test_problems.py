"""What is wrong with a document: every problem at once, each with its place, value and hint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtft.errors import ConfigError
from mtft.paths import put
from mtft.settings import load_document, read_document, resolve
from tests.unit.documents import GIVEN, written


class TestProblems:
    def test_all_at_once_each_with_place_value_and_hint(self, tmp_path: Path) -> None:
        path = written(
            tmp_path,
            "model: opus_mt_enfr\ndata: {trian: rows.jsonl}\nlearning_rate: 1e-5\n"
            "train:\n  epochs: -1\n  seed: '7'\nlora: {r: 1.5}\n",
        )
        with pytest.raises(ConfigError) as refused:
            resolve(load_document(path), sets=["method=lorra", "oops"], flags={"train.batch_size": 0})
        problems = {problem.path: problem for problem in refused.value.problems}
        assert set(problems) == {
            "model.key",
            "data.train",
            "data.trian",
            "learning_rate",
            "train.epochs",
            "train.seed",
            "train.batch_size",
            "lora.r",
            "method",
            "oops",
        }
        assert problems["model.key"].hint == "did you mean opus_mt_en_fr?"
        assert problems["learning_rate"].hint == "did you mean train.learning_rate?"
        assert problems["data.trian"].hint == "did you mean data.train?"
        assert (problems["train.epochs"].value, problems["train.epochs"].where) == ("-1", f"{path}:5")
        assert problems["train.seed"].value == '"7"'
        assert problems["method"].allowed == "lora | qlora | full"
        assert problems["method"].where == "--set"
        assert problems["train.batch_size"].where == "--batch-size"

    def test_what_yaml_readers_disagree_about_is_told_with_the_rest(self, tmp_path: Path) -> None:
        path = written(tmp_path, "model: opus_mt_en_fr\nmethod: no\nlora:\n  r: 4\n  r: 8\ndata: {trian: rows.jsonl}\n")
        with pytest.raises(ConfigError) as refused:
            resolve(read_document(path))
        assert [problem.path for problem in refused.value.problems] == ["method", "lora.r", "data.train", "data.trian"]
        with pytest.raises(ConfigError, match="got no"):
            load_document(path)

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ("train.max_steps=" + "9" * 400, "train.max_steps: is too large, more than 9007199254740992; got 999"),
            ("train.max_steps=1e300", "is too large, more than 9007199254740992"),
            ("data.split_seed=9007199254740993", "is too large, more than 9007199254740992"),
            ("train.epochs=1e308", "train.epochs: is too large; got 1e+308; allowed: number > 0, <= 1000000"),
            ("cluster.deadline_minutes=9e9", "allowed: whole number >= 1, <= 5270400"),
            ("gate.min_delta=" + "9" * 400, "gate.min_delta: has the wrong type"),
        ],
    )
    def test_huge_numbers_are_refused(self, setting: str, message: str) -> None:
        with pytest.raises(ConfigError) as refused:
            resolve(GIVEN, sets=[setting])
        assert message in str(refused.value)
        assert len(str(refused.value)) < 400

    @pytest.mark.parametrize(
        ("setting", "text"), [("cluster.node_selector={gpu: true}", "true"), ("model.revision=123", "123")]
    )
    def test_what_yaml_takes_for_no_text_wants_quotes(self, setting: str, text: str) -> None:
        with pytest.raises(ConfigError, match=f"got {text}; .*text is wanted: write it in quotes"):
            resolve(GIVEN, sets=[setting])

    def test_the_largest_number_is_as_written(self) -> None:
        assert resolve(GIVEN, sets=["data.split_seed=9007199254740992"]).config.data.split_seed == 2**53

    def test_a_name_that_is_not_utf8(self) -> None:
        with pytest.raises(ConfigError) as refused:
            resolve(GIVEN, flags={"data.train": "caf\udce9.jsonl"})
        assert "data.train: is not UTF-8 text; give the file or folder a name that is" in str(refused.value)
        assert "pydantic" not in str(refused.value)
        assert "surrogate" not in str(refused.value)

    @pytest.mark.parametrize(
        "path",
        [
            *("storage.root", "model.path", "data.train", "data.dev", "data.test", "data.train[0]"),
            *("gate.guard_sets.a", "gate.guard_sets.a[0]"),
        ],
    )
    @pytest.mark.parametrize(("sign", "shown"), [("\0", r"\u0000"), ("\n", r"\n"), ("\x7f", r"\x7f")])
    def test_a_path_with_a_control_character(self, path: str, sign: str, shown: str) -> None:
        value = f"/mnt/a{sign}b"
        given: dict[str, Any] = {"model": "opus_mt_en_fr", "data": {"train": "rows.jsonl"}}
        put(given, path.removesuffix("[0]"), [value] if path.endswith("[0]") else value)
        with pytest.raises(ConfigError) as refused:
            resolve(given)
        (problem,) = [each for each in refused.value.problems if each.path == path]
        assert "control character" in problem.message
        assert f'got "/mnt/a{shown}b"' in str(problem) and str(problem).isprintable()

    def test_a_name_with_a_line_break_stays_on_its_line(self) -> None:
        with pytest.raises(ConfigError) as refused:
            resolve(GIVEN | {"gate": {"guard_sets": {"a\nb": "rows.jsonl"}}})
        (problem,) = refused.value.problems
        assert r"gate.guard_sets.a\nb" in str(problem) and str(problem).isprintable()

    def test_of_a_batch_says_where_each_model_was_chosen_and_no_notes_of_others(self, tmp_path: Path) -> None:
        text = "data: {train: a}\nmodels:\n  opus_mt_en_fr: {lora_r: 8}\n  opus_mt_fr_en: {}\n"
        document = load_document(written(tmp_path, text))
        noted, plain = (resolve(document, model=key) for key in ("opus_mt_en_fr", "opus_mt_fr_en"))
        assert noted.origins["model.key"].endswith(":3") and plain.origins["model.key"].endswith(":4")
        assert any("lora_r" in note for note in noted.notes) and not plain.notes

    @pytest.mark.parametrize(
        ("given", "hint"),
        [
            ("opus", "did you mean opus_mt_en_fr or opus_mt_fr_en?"),
            ("M2M100_4", "did you mean m2m100_418m?"),
            ("opus-mt-en-de", "did you mean opus_mt_en_fr?"),
            ("", None),
            ("llama", None),
        ],
    )
    def test_which_model_was_meant(self, given: str, hint: str | None) -> None:
        with pytest.raises(ConfigError) as refused:
            resolve(GIVEN, model=given)
        (problem,) = refused.value.problems
        assert (problem.message, problem.hint) == ("there is no such model", hint)
        assert f'there is no such model; got "{given}"; allowed: m2m100_418m | ' in str(problem)

    def test_what_is_missing_says_how_to_give_it(self) -> None:
        with pytest.raises(ConfigError) as refused:
            resolve({})
        assert {problem.path: problem.hint for problem in refused.value.problems} == {
            "model.key": "add --model KEY",
            "data.train": "add --data PATH",
        }

    @pytest.mark.parametrize(
        "wrong",
        [
            {"train": 5},
            {"data": ["rows.jsonl"]},
            {"model": 3},
            {"cluster": {"secrets": []}},
            {"eval": {"early_stopping": "nll"}},
            {"cluster": {"tolerations": [{"key": 1}]}},
        ],
    )
    def test_a_wrong_type_anywhere_is_one_problem_with_its_place(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigError) as refused:
            resolve(GIVEN | wrong, source="given.yaml")
        assert len(refused.value.problems) == 1
        assert refused.value.problems[0].where == "given.yaml"
        assert refused.value.problems[0].allowed

    @pytest.mark.parametrize(
        ("document", "secret"),
        [
            ({"cluster": {"secrets": {"HF_TOKEN": "opensesame"}}}, "opensesame"),
            ({"cluster": {"secrets": "opensesame"}}, "opensesame"),
            ({"cluster": {"secrets": {"HF_TOKEN": ["opensesame"]}}}, "opensesame"),
            ({"hf_token": "opensesame"}, "opensesame"),
            ({"tracking": {"api_key": "opensesame"}}, "opensesame"),
            ({"data": {"train": "https://me:opensesame@example.org/rows.jsonl"}}, "opensesame"),
            ({"cluster": {"image": "hf_" + "a1B2" * 8}}, "hf_a1B2"),
            ({"cluster": {"secrets": {"HF_TOKEN": {"name": "hf_" + "a1B2" * 8, "key": "token"}}}}, "hf_a1B2"),
        ],
    )
    def test_a_secret_is_refused_and_never_shown(self, document: dict[str, Any], secret: str) -> None:
        with pytest.raises(ConfigError) as refused:
            resolve(GIVEN | document)
        assert "by reference only" in str(refused.value)
        assert secret not in str(refused.value)

    def test_a_reference_to_a_secret_is_welcome(self) -> None:
        secrets = {"HF_TOKEN": {"name": "hub", "key": "token"}}
        assert resolve(GIVEN | {"cluster": {"secrets": secrets}}).config.cluster.secrets["HF_TOKEN"].key == "token"


@pytest.mark.parametrize(
    ("image", "good"),
    [
        ("mtft:1.0", True),
        ("team/mtft:1.0", True),
        ("localhost/mtft:1", True),
        ("localhost:5000/mtft:1", True),
        ("registry:5000/a/b_c/d__e/f--g:V1.0-RC", True),
        ("Example.ORG/mtft:1.0", True),
        ("example.org:443/mtft:1.0@sha256:" + "0" * 64, True),
        ("example.org/mtft@sha256:" + "0" * 64, True),
        ("UPPER/x:1", False),
        ("example.org/Mtft:1", False),
        ("Mtft:1", False),
        ("a..b/x:1", False),
        ("a___b:1", False),
        ("example.org./x:1", False),
        ("-a.org/x:1", False),
        ("example.org:port/x:1", False),
        ("mtft:", False),
        ("mtft@sha256:0", False),
        ("https://example.org/mtft:1", False),
        # Whatever "latest" is, and each node keeps its own.
        ("mtft", False),
        ("example.org/mtft", False),
        ("localhost:5000/mtft", False),
    ],
)
def test_image_names_are_those_a_node_can_pull(image: str, good: bool) -> None:
    document = {"model": "m2m100_418m", "data": {"train": "x.jsonl"}, "cluster": {"image": image}}
    if good:
        assert resolve(document).config.cluster.image == image
    else:
        with pytest.raises(
            ConfigError, match=r"cluster.image: .*image name with tag or digest, lower case before the tag"
        ):
            resolve(document)
