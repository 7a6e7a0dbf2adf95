"""Kubernetes quantities such as ``500m``, ``10Gi`` and ``2e3`` as numbers."""

from __future__ import annotations

import re
from decimal import Decimal

_SCALES = {
    **{
        name: Decimal(1000) ** power for power, name in enumerate(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), -3)
    },
    **{name: Decimal(1024) ** power for power, name in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}
_QUANTITY = re.compile(r"([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)([a-zA-Z]*)")


def parse_quantity(text: str | int | float) -> Decimal:
    """Return a quantity as a number of its unit: CPUs, bytes, devices.

    Raises:
        ValueError: it is none.
    """
    found = _QUANTITY.fullmatch(str(text))
    if not found or found[2] not in _SCALES:
        raise ValueError(f"{text!r} is not a Kubernetes quantity")
    return Decimal(found[1]) * _SCALES[found[2]]


def show_quantity(value: Decimal) -> str:
    """Return a number with at most one decimal, in Gi or Mi where it is large."""
    for name in ("Gi", "Mi"):
        if value >= _SCALES[name]:
            return f"{value / _SCALES[name]:.1f}".removesuffix(".0") + name
    return f"{value:.2f}".rstrip("0").rstrip(".")
