"""A secret in the wrong place is refused and never shown, wherever in the values it stands."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.pytorchjob import render
from mtft.errors import ConfigError
from tests.chart.helm import Helm, HelmFailed
from tests.chart.test_refusals import TOKEN, document

ADDRESS = "user:pass-word@example.org/mtft:1"

# Where it stands -> what is written over a good document.
PLACES: dict[str, dict[str, Any]] = {
    "cluster.secrets.HF_TOKEN.name": {"cluster": {"secrets": {"HF_TOKEN": {"name": TOKEN, "key": "k"}}}},
    "cluster.secrets.HF_TOKEN.key": {"cluster": {"secrets": {"HF_TOKEN": {"name": "n", "key": TOKEN}}}},
    "cluster.image": {"cluster": {"image": ADDRESS}},
    "cluster.image_pull_secrets[0]": {"cluster": {"image_pull_secrets": [TOKEN]}},
    "cluster.queue": {"cluster": {"queue": TOKEN}},
    "cluster.node_selector.pool": {"cluster": {"node_selector": {"pool": TOKEN}}},
    "cluster.env.(a key)": {"cluster": {"env": {f"{TOKEN}_TOKEN": "x"}}},
    "cluster.annotations.(a key)": {"cluster": {"annotations": {TOKEN: "x"}}},
    "cluster.labels.(a key)": {"cluster": {"labels": {f"{TOKEN}!": "x"}}},
    "data.sha256": {"data": {"sha256": TOKEN}},
    "storage.root": {"storage": {"root": f"s3://user:{TOKEN}@host"}},
    "models.(a key)": {"models": {TOKEN: {}}},
    "models.m2m100_418m.cluster.claim": {"models": {"m2m100_418m": {"cluster": {"claim": TOKEN}}}},
    "chart.claim.size": {"chart": {"claim": {"size": TOKEN}}},
    "chart.schedule.cron": {"chart": {"schedule": {"cron": TOKEN}}},
    "chart.(a key)": {"chart": {TOKEN: 1}},
    "(a key)": {TOKEN: 1},
}


@pytest.mark.parametrize("place", PLACES)
def test_it_is_refused_without_being_shown(helm: Helm, place: str) -> None:
    with pytest.raises(HelmFailed) as refused:
        helm.template("weekly", values=document(PLACES[place]))
    text = str(refused.value)
    assert f"\n  {place}: a secret is given by reference only; got (hidden" in text, text
    assert "aaaa" not in text and "pass-word" not in text, text
    if not place.startswith("chart"):
        with pytest.raises(ConfigError) as launcher:
            render(document(PLACES[place]), "m2m100_418m")
        text = str(launcher.value)
        assert ("got (hidden" in text or "(a key)" in text) and "aaaa" not in text and "pass-word" not in text, text


def test_what_the_schema_refuses_besides_shows_it_neither(helm: Helm) -> None:
    with pytest.raises(HelmFailed, match="/cluster/nodes") as refused:
        helm.template("weekly", values=document({"cluster": {"nodes": "two", "queue": TOKEN}, "models": {TOKEN: {}}}))
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize("value", ["wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "My Pass!"])
@pytest.mark.parametrize("part", ["name", "key"])
def test_a_value_in_place_of_its_reference_is_not_shown(helm: Helm, part: str, value: str) -> None:
    """No form tells such a secret, but that it is no name of anything."""
    reference = {"name": "hub", "key": "token", part: value}
    values = document({"cluster": {"secrets": {"HF_TOKEN": reference}, "nodes": 0}, "models": {"m2m100_418m": {}}})
    with pytest.raises(HelmFailed, match="/cluster/nodes") as told:
        helm.template("weekly", values=values)
    assert value not in str(told.value)
    values["cluster"]["nodes"] = 1
    with pytest.raises(HelmFailed) as refused:
        helm.template("weekly", values=values)
    with pytest.raises(ConfigError) as launcher:
        render(values, "m2m100_418m")
    for text in (str(refused.value), str(launcher.value)):
        assert f"cluster.secrets.HF_TOKEN.{part}: has the wrong form; got (hidden" in text and value not in text, text


@pytest.mark.parametrize(
    ("cluster", "path", "said"),
    [
        ({"image_pull_secrets": ["good", "Hunter2!"]}, "image_pull_secrets[1]", "has the wrong form; got (hidden"),
        ({"secrets": {"Hunter2!": {"name": "n", "key": "k"}}}, "secrets.(a key)", "has the wrong form"),
        ({"secrets": {"Hunter2!": "x"}}, "secrets.(a key)", "has the wrong form"),
        ({"secrets": {"Hunter2!": {}}}, "secrets.(a key)", "has the wrong form"),
        ({"secrets": {"Hunter2!": {"name": "n"}}}, "secrets.(a key)", "has the wrong form"),
        ({"secrets": {"Hunter2!": None}}, "secrets.(a key)", "has the wrong form"),
        ({"secrets": {"A": {"name": "n", "key": "k", "Hunter2!": "x"}}}, "secrets.A.(a key)", "there is no such field"),
    ],
)
def test_what_may_be_a_secret_is_not_shown_as_a_key_either(
    helm: Helm, cluster: dict[str, Any], path: str, said: str
) -> None:
    for values, prefix in (
        ({"cluster": cluster}, "cluster."),
        ({"models": {"m2m100_418m": {"cluster": cluster}}}, "models.m2m100_418m.cluster."),
    ):
        with pytest.raises(HelmFailed) as refused:
            helm.template("weekly", values=document(values))
        with pytest.raises(ConfigError) as launcher:
            render(document(values), "m2m100_418m")
        assert f"  {prefix}{path}: {said}" in str(refused.value), refused.value
        assert f" cluster.{path.replace('A.', '')}: " in str(launcher.value)
        assert "Hunter" not in str(refused.value) + str(launcher.value), launcher.value


@pytest.mark.parametrize("name", ["PGPASSWORD", "DB_PASS", "AUTH", "mysqlPasswd", "MINIO_SECRET_KEY", "DB_PWD"])
def test_variables_that_hold_secrets_are_refused_by_name(helm: Helm, name: str) -> None:
    values = document({"cluster": {"env": {name: "Hunter2"}}})
    with pytest.raises(HelmFailed) as refused:
        helm.template("weekly", values=values)
    with pytest.raises(ConfigError) as launcher:
        render(values, "m2m100_418m")
    for text in (str(refused.value), str(launcher.value)):
        assert f" cluster.env.{name}: a secret is given by reference only" in text and "Hunter2" not in text


@pytest.mark.parametrize("value", [12345678, ["Hunter2"], {"value": "Hunter2"}])
def test_a_secret_of_the_wrong_kind_is_not_shown(helm: Helm, value: Any) -> None:
    values = document({"cluster": {"env": {"HF_TOKEN": value}}})
    with pytest.raises(HelmFailed) as refused:
        helm.template("weekly", values=values)
    with pytest.raises(ConfigError) as launcher:
        render(values, "m2m100_418m")
    assert "cluster.env.HF_TOKEN: has the wrong type; got (hidden" in str(launcher.value)
    for text in (str(refused.value), str(launcher.value)):
        assert "Hunter2" not in text and "12345678" not in text, text


def test_variables_that_only_sound_like_it_are_taken(helm: Helm) -> None:
    names = ("COMPASS", "SSH_AUTH_SOCK", "TOKENIZERS_PARALLELISM", "AUTHOR", "PASSES")
    values = document({"cluster": {"env": dict.fromkeys(names, "1")}})
    assert helm.template("weekly", values=values)
    assert render(values, "m2m100_418m")


def test_both_programs_read_the_forms_of_secrets_alike(helm: Helm) -> None:
    """Letters beyond ASCII are no part of a word in Helm's regular expressions."""
    values = document({"cluster": {"annotations": {"note": "github_pat_" + "é" * 20, "other": "ésk-" + "b" * 20}}})
    with pytest.raises(HelmFailed) as refused:
        helm.template("weekly", values=values)
    with pytest.raises(ConfigError) as launcher:
        render(values, "m2m100_418m")
    for text in (str(refused.value), str(launcher.value)):
        assert "cluster.annotations.other: a secret is given" in text and "annotations.note" not in text, text


@pytest.mark.parametrize(
    "image",
    ["example.org:5000/mtft:1.0@sha256:" + "a" * 64, "mtft:1.0@sha256:" + "a" * 64, "disk-image-of-the-team-mtft:1.0"],
)
def test_names_that_hold_none_are_taken(helm: Helm, image: str) -> None:
    assert helm.template("weekly", values=document({"cluster": {"image": image}}))
