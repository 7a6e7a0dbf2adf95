"""From what a user gave to one effective configuration: precedence, origins, every problem at once.

built-in < model card < preset < file < ``--set`` < flags. In a batch, ``models.<key>`` goes over the shared part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtft.config import Config
from mtft.data_hash import DATA, HASH, SHARED, place_of_hash, without_outdated
from mtft.documents import Document, load_document, read_document, yaml_text
from mtft.errors import ConfigError, Problem
from mtft.fields import leaves, setting_paths
from mtft.layers import Layer, Source, layer_of, overrides_of, parse_sets
from mtft.legacy import translate, without_old_names
from mtft.models import MODELS, ModelCard, card
from mtft.paths import flattened, look_up, overlay, put
from mtft.presets import PRESETS
from mtft.problems import misplaced_secrets, schema_problems

__all__ = [
    "FLAGS",
    "Document",
    "Resolved",
    "load_document",
    "merge",
    "models_of",
    "read_document",
    "resolve",
    "to_yaml",
]

# The settings that have a command-line flag of their own.
FLAGS: dict[str, str] = {
    "data.train": "--data",
    "storage.root": "--output",
    "train.epochs": "--epochs",
    "train.max_steps": "--max-steps",
    "preset": "--preset",
    "method": "--method",
    "train.learning_rate": "--learning-rate",
    "train.batch_size": "--batch-size",
}

BUILT_IN = "built-in"


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """One effective configuration.

    Attributes:
        config: every setting of the run.
        card: the model's card.
        origins: dotted path of every setting -> where its value comes from.
        notes: what was understood differently from how it was written, or may be read by nobody.
    """

    config: Config
    card: ModelCard
    origins: Mapping[str, str]
    notes: Sequence[str]


def models_of(document: Mapping[str, Any]) -> list[str]:
    """Return the model keys a document trains, in its order: the enabled ones of a batch, or the one of ``model``.

    Raises:
        ConfigError: ``models`` is not a mapping of known keys, or ``enabled`` is not true or false.
    """
    where = _places(document, "")
    problems: list[Problem] = []
    overrides = overrides_of(document, where, problems)
    if problems:
        raise ConfigError(_with_unread(document, problems))
    if "models" in document:
        return _enabled(document, overrides)
    key = look_up(translate(document, where).values, "model.key")
    return [key] if isinstance(key, str) else []


def switch_models(document: dict[str, Any], sets: Sequence[str]) -> None:
    """Write ``models.KEY.enabled`` of ``--set`` into a document in place, where ``model`` chooses none.

    What else ``--set`` says, and what is wrong with it, is left to `resolve`.
    """
    models, above = document.get("models", {}), parse_sets(sets, []).get("models")
    if "model" in document or not isinstance(models, Mapping) or not isinstance(above, Mapping):
        return
    for key, override in above.items():
        on = override.get("enabled") if isinstance(override, Mapping) else None
        if isinstance(on, bool) and key in MODELS and isinstance(models.get(key, {}), Mapping | None):
            put(document, ("models", key, "enabled"), on)


def resolve(
    document: Mapping[str, Any],
    *,
    model: str | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    source: str = "the document",
) -> Resolved:
    """Return the effective configuration of one model.

    Args:
        document: what the user's file says.
        model: key of the model; goes over the one in the document and chooses one of a batch.
        sets: ``path=value`` texts of ``--set``, the later ones stronger.
        flags: dotted path -> value of the command line's own flags.
        source: name of the document for messages, where it does not know its file.

    Raises:
        ConfigError: with every problem of the document, ``--set`` and flags.
    """
    problems: list[Problem] = []
    layers = [
        layer_of(document, _places(document, source), problems),
        layer_of(parse_sets(sets, problems), lambda _: "--set", problems),
        layer_of(_nested(flags or {}), lambda path: FLAGS.get(path, "flag"), problems),
    ]
    key, choice = _choose_model(layers, _enabled(document, layers[0].overrides), model, problems)
    stack = _stack(layers, key)
    values, origins = _combine(stack, key)
    forgotten = _forget_hash(layers, key, values, origins)
    if key is not None:
        put(values, "model.key", key)
    where = _where(stack)
    problems += misplaced_secrets(values, where)
    config = schema_problems(values, where, problems)
    problems = _with_unread(document, problems)
    if problems or config is None:
        raise ConfigError(problems)
    notes = [note for layer in layers for about in (None, key) for note in layer.notes.get(about, ())]
    notes += [*forgotten, *_unread_settings(config)]
    return Resolved(config=config, card=card(config.model.key), origins={**origins, **choice}, notes=notes)


def _unread_settings(config: Config) -> Iterator[str]:
    """Yield what is asked for and may be read by nobody."""
    if config.cluster.gang is not None and config.cluster.scheduler is None:
        yield (
            "cluster.gang without cluster.scheduler: the cluster's own scheduler does not read it, so pods may be "
            "placed one by one; set cluster.scheduler to the gang scheduler's name, such as volcano"
        )


def merge(
    document: Mapping[str, Any],
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    *,
    model: str | None = None,
) -> dict[str, Any]:
    """Return the user's document with ``--set`` and flags written into it, otherwise as given: what a job is sent.

    A value set for all models replaces those of single models too, and old names of the same field. What is set below
    ``model`` goes to the parts of the models where a document has ``models``, which ``model`` may not stand beside.
    The hash of data that others replace is left out.

    Args:
        document: what the user's file says.
        sets: ``path=value`` texts of ``--set``.
        flags: dotted path -> value of the command line's own flags.
        model: the only one that is meant; None: all of ``models``.

    Raises:
        ConfigError: a value of the document or a ``--set`` cannot be read.
    """
    problems = _with_unread(document, [])
    parsed = translate(parse_sets(sets, problems), lambda _: "--set")
    if problems or parsed.problems:
        raise ConfigError(problems + parsed.problems)
    if isinstance(key := parsed.values.get("model"), str):
        parsed.values["model"] = {"key": key}  # beside what the document says below model
    above = (parsed.values, _nested(flags or {}))
    merged = without_outdated(document, *above)
    # As they are resolved: flags go over --set, and in each what one model has of its own over what all share.
    ordered = [pair for each in above for pair in sorted(flattened(each).items(), key=lambda it: it[0][0] == "models")]
    for names, value in ordered:
        merged = without_old_names(merged, ".".join(names))
        models = merged.get("models")
        if isinstance(models, Mapping) and names[0] == "model" and names[1:] not in ((), ("key",)):
            meant = [model] if model else list(models)
            merged["models"] = {**models, **{key: _without(models.get(key), names) for key in meant}}
            for key in meant:
                put(merged, ("models", key, *names), value)
            continue
        if isinstance(models, Mapping) and names[0] != "models":
            merged["models"] = {key: _without(override, names) for key, override in models.items()}
        put(merged, names, value)
    return merged


def to_yaml(config: Config) -> str:
    """Write the effective configuration; reading it back gives an equal one."""
    return yaml_text(config.model_dump(mode="json"))


def _with_unread(document: Mapping[str, Any], problems: Sequence[Problem]) -> list[Problem]:
    """Return each problem once, the values of the document that could not be read first and told only as that."""
    unread = document.problems if isinstance(document, Document) else ()
    paths = {problem.path for problem in unread}
    return list(dict.fromkeys([*unread, *(problem for problem in problems if problem.path not in paths)]))


def _enabled(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> list[str]:
    return [key for key in overrides if (document["models"][key] or {}).get("enabled", True)]


def _choose_model(
    layers: Sequence[Layer], enabled: Sequence[str], model: str | None, problems: list[Problem]
) -> tuple[str | None, Mapping[str, str]]:
    """Return the key of the model to resolve, None where nothing says it, and the origin of the choice."""
    key, origin = model, "--model"
    for layer in reversed(layers):
        given = look_up(layer.shared, "model.key")
        if key is None and isinstance(given, str):
            key, origin = given, layer.origin("model.key")
    file = layers[0]
    if key is None and len(enabled) == 1:
        (key,) = enabled
        origin = file.origin(f"models.{key}")
    elif key in file.overrides:
        origin = file.origin(f"models.{key}")
    elif file.overrides and key is None:
        problems.append(
            Problem(
                path="model",
                message="chooses one model of a batch",
                value=None,
                allowed=" | ".join(file.overrides),
                hint="add --model KEY",
            )
        )
    written = look_up(file.shared, "model.key")
    if look_up(file.shared, "model.path") is not None and written not in (None, key):
        message = f"belongs to {written}, but {key} was asked for"
        problems.append(Problem(path="model.path", message=message, where=file.origin("model.path")))
    return key, {"model.key": origin} if key else {}


def _stack(layers: Sequence[Layer], key: str | None) -> list[Source]:
    """Return the values over the built-in ones, from the weakest to the strongest."""
    user = [source for layer in layers for source in layer.sources(key)]
    below: list[Source] = []
    if key in MODELS:
        below.append((_card_values(MODELS[key]), lambda _: f"model card {key}"))
    preset = next((values["preset"] for values, _ in reversed(user) if "preset" in values), None)
    if isinstance(preset, str) and preset in PRESETS:
        below.append((PRESETS[preset], lambda _: f"preset {preset}"))
    return below + user


def _combine(stack: Sequence[Source], key: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {"model": {}, "data": {}}
    origins = dict.fromkeys(setting_paths(), BUILT_IN)
    for layer, origin in stack:
        overlay(values, layer)
        origins |= {path: origin(path) for path in leaves(layer)}
    # Not a layer: null written by the user asks for the card's commit too.
    if key in MODELS and MODELS[key].revision is not None and look_up(values, "model.revision") is None:
        put(values, "model.revision", MODELS[key].revision)
        origins["model.revision"] = f"model card {key}"
    # The card's batch size gives way to a token budget; one the user wrote beside it is a contradiction.
    by_card = origins["train.batch_size"].startswith("model card ")
    if by_card and look_up(values, "train.tokens_per_batch") is not None:
        put(values, "train.batch_size", None)
        origins["train.batch_size"] = origins["train.tokens_per_batch"]
    # So does a preset's number of steps to the epochs the user asks for.
    by_user = not origins["train.epochs"].startswith(("preset ", "model card ", BUILT_IN))
    if by_user and origins["train.max_steps"].startswith("preset "):
        put(values, "train.max_steps", None)
        origins["train.max_steps"] = origins["train.epochs"]
    return values, origins


def _forget_hash(
    layers: Sequence[Layer], key: str | None, values: dict[str, Any], origins: dict[str, str]
) -> list[str]:
    """Take out in place the hash of other data than those that are trained on, and return a note of it."""
    place, file = place_of_hash(layers, key), layers[0]
    fitting = look_up(file.shared, HASH) if place == SHARED else look_up(values, HASH) if place is not None else None
    if look_up(values, HASH) == fitting:
        return []
    note = f"{origins[HASH]}: {HASH} is left out: it is of other data than {DATA} of {origins[DATA]}"
    put(values, HASH, fitting)
    origins[HASH] = origins[DATA] if place is None else file.origin(HASH)
    return [note]


def _where(stack: Sequence[Source]) -> Callable[[str], str | None]:
    """Return the function that tells where the strongest value at a path was written."""

    def where(path: str) -> str | None:
        around = path.partition("[")[0]
        while around:
            for values, origin in reversed(stack):
                if look_up(values, around, default=stack) is not stack:
                    return origin(path)
            around = around.rpartition(".")[0]
        return None

    return where


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for path, value in flat.items():
        put(values, path, value)
    return values


def _card_values(model: ModelCard) -> dict[str, Any]:
    return {"train": {"batch_size": model.batch_size, "learning_rate": model.learning_rate}}


def _without(override: Any, names: Sequence[str]) -> Any:
    """Return one model's overrides without a path and without its old names."""
    if not isinstance(override, Mapping):
        return override
    result = without_old_names(override, ".".join(names))
    name, *rest = names
    if not rest:
        result.pop(name, None)
    elif isinstance(result.get(name), Mapping):
        result[name] = _without(result[name], rest)
    return result


def _places(document: Mapping[str, Any], source: str) -> Callable[[str], str]:
    return document.where if isinstance(document, Document) else lambda _: source
