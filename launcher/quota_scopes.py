"""Which pods a ResourceQuota with scopes counts, as the quota admission of Kubernetes decides it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Object = Mapping[str, Any]


def binds(quota: Object, spec: Object) -> bool:
    """Return whether a quota counts the pods of a specification; one without scopes counts all."""
    wanted = quota.get("spec") or {}
    rules = [{"scopeName": name, "operator": "Exists"} for name in wanted.get("scopes") or []]
    rules += (wanted.get("scopeSelector") or {}).get("matchExpressions") or []
    return all(_holds(rule, spec) for rule in rules)


def _holds(rule: Object, spec: Object) -> bool:
    scope, operator = rule["scopeName"], rule["operator"]
    if scope == "PriorityClass":
        # The cluster may give pods without one a default, which is not known here.
        name, values = spec.get("priorityClassName"), rule.get("values") or []
        return {
            "In": name in values,
            "NotIn": name not in values,
            "Exists": name is not None,
            "DoesNotExist": name is None,
        }.get(operator, True)
    return _SCOPES[scope](spec) if scope in _SCOPES else True


def _ends_by_itself(spec: Object) -> bool:
    return spec.get("activeDeadlineSeconds") is not None


def _asks_for_nothing(spec: Object) -> bool:
    containers = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    parts = [each.get("resources") or {} for each in containers]
    return not any(part.get("requests") or part.get("limits") for part in parts)


def _names_namespaces(spec: Object) -> bool:
    affinity = spec.get("affinity") or {}
    terms = [
        weighted.get("podAffinityTerm", weighted)
        for kind in ("podAffinity", "podAntiAffinity")
        for terms in (affinity.get(kind) or {}).values()
        for weighted in terms
    ]
    return any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms)


_SCOPES: Mapping[str, Callable[[Object], bool]] = {
    "Terminating": _ends_by_itself,
    "NotTerminating": lambda spec: not _ends_by_itself(spec),
    "BestEffort": _asks_for_nothing,
    "NotBestEffort": lambda spec: not _asks_for_nothing(spec),
    "CrossNamespacePodAffinity": _names_namespaces,
}
