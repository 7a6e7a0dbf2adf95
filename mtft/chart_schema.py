"""The JSON Schema of the Helm chart's values: that of a document, and the chart's own key."""

from __future__ import annotations

from typing import Any

from mtft.chart_config import ChartConfig
from mtft.redaction import SECRET_VALUES
from mtft.reference import close_maps, document_schema


def values_schema() -> dict[str, Any]:
    """Return the schema Helm checks values against before it renders anything.

    It differs from a document's in seven things: ``model`` may stand beside ``models``, because values.yaml always
    names the models; ``chart`` is closed too; there is ``global``, which Helm gives to every subchart; it is written in
    draft 7 with few branches, because Helm tells of each branch that did not fit; it lets pass what looks like a
    secret, because Helm prints what does not fit: the templates refuse it without showing it; for the same reason
    it says no form of a reference to a secret; and none of an image or a cron, whose patterns explain nothing to who
    reads them.
    """
    whole = document_schema()
    del whole["not"]
    chart = ChartConfig.model_json_schema()
    whole["$defs"] |= chart.pop("$defs")
    whole["$defs"]["ChartConfig"] = chart
    properties = whole["properties"]
    models = properties["models"]
    models["properties"] = {key: {"$ref": "#/$defs/Overrides"} for key in models.pop("propertyNames")["enum"]}
    models["additionalProperties"] = False
    # As any part left empty. Beside `models` it would say which one alone is trained: a null there is refused.
    model = properties["model"]
    whole["$defs"]["Overrides"]["properties"] |= {"model": {**model, "anyOf": [*model["anyOf"], {"type": "null"}]}}
    properties["chart"] = {"$ref": "#/$defs/ChartConfig"}
    properties["global"] = {
        "type": ["object", "null"],
        "description": "Helm gives it to every subchart; nothing here reads it.",
    }
    close_maps(whole)
    parts = [said["$ref"].rpartition("/")[2] for said in chart["properties"].values() if "$ref" in said]
    for name in ("ChartConfig", "Overrides", *parts):
        # Helm drops the null of a model from files and `--set`, but not from what `upgrade --reuse-values` takes over.
        whole["$defs"][name]["type"] = ["object", "null"]
    _leave_to_templates(whole["$defs"])
    about = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the mtft chart"}
    whole["$defs"]["Secret"] = {"description": "What looks like a secret.", "pattern": SECRET_VALUES.pattern}
    return {**_secrets_pass(_few_branches(whole)), **about}


def _leave_to_templates(types: dict[str, Any]) -> None:
    """Take out what the templates refuse in better words, or without showing it (:func:`mtft.chart.forms`)."""
    for said in types["SecretRef"]["properties"].values():
        said.pop("pattern", None)
    references = types["ClusterConfig"]["properties"]
    del references["image_pull_secrets"]["items"]["pattern"]
    del references["image"]["anyOf"][0]["pattern"]
    for keys in (types["SecretRef"], references["secrets"]):
        keys["additionalProperties"] = True
    del types["ScheduleConfig"]["properties"]["cron"]["anyOf"][0]["pattern"]


def _secrets_pass(part: Any) -> Any:
    """Return the schema with every pattern and every closed set of keys open for what looks like a secret."""
    if isinstance(part, list):
        return [_secrets_pass(each) for each in part]
    if not isinstance(part, dict):
        return part
    spared = {name: _secrets_pass(inside) for name, inside in part.items()}
    secret = {"$ref": "#/$defs/Secret"}
    if part.get("additionalProperties") is False:
        spared["patternProperties"] = {**spared.get("patternProperties", {}), SECRET_VALUES.pattern: True}
    if "propertyNames" in part:
        spared["propertyNames"] = {"if": secret, "else": spared["propertyNames"]}
    if isinstance(part.get("pattern"), str) and part["pattern"] != SECRET_VALUES.pattern:
        return {"if": secret, "else": {"pattern": spared.pop("pattern")}, **spared}
    return spared


def _few_branches(part: Any) -> Any:
    """Return the schema with "this or null" as one type instead of two branches, and without pydantic's titles."""
    if isinstance(part, list):
        return [_few_branches(each) for each in part]
    if not isinstance(part, dict):
        return part
    plain = {
        name: _few_branches(inside)
        for name, inside in part.items()
        if not (name == "title" and isinstance(inside, str))
    }
    match plain.get("anyOf"):
        case [{"type": str() as kind} as one, {"type": "null"}]:
            del plain["anyOf"]
            choices = {"enum": [*one["enum"], None]} if "enum" in one else {}
            return {**plain, **one, **choices, "type": [kind, "null"]}
    return plain
