"""What the schema is made of: the base of every part and the kinds of values they share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _whole(value: Any) -> Any:
    """Read 1e6 and 5.0 as integers: JSON and the chart's YAML may write a whole number that way."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


LARGEST = 2**53
"""Largest whole number: up to here every program reads a JSON number exactly."""
LARGEST_32 = 2**31 - 1
"""Largest whole number of 32 bits, which is how Kubernetes counts some things."""
TEN_YEARS = 10 * 366 * 24 * 60  # minutes; Kubernetes counts their seconds in 32 bits

# A field that bounds it otherwise takes Whole: pydantic does not join a bound with another of its kind.
Whole = Annotated[int, BeforeValidator(_whole)]
Natural = Annotated[int, Field(ge=0, le=LARGEST), BeforeValidator(_whole)]
Positive = Annotated[int, Field(ge=1, le=LARGEST), BeforeValidator(_whole)]
Natural32 = Annotated[int, Field(ge=0, le=LARGEST_32), BeforeValidator(_whole)]
Positive32 = Annotated[int, Field(ge=1, le=LARGEST_32), BeforeValidator(_whole)]
Minutes = Annotated[int, Field(ge=0, le=TEN_YEARS), BeforeValidator(_whole)]
PositiveMinutes = Annotated[int, Field(ge=1, le=TEN_YEARS), BeforeValidator(_whole)]
UpTo64 = Annotated[int, Field(ge=1, le=64), BeforeValidator(_whole)]
Text = Annotated[str, Field(min_length=1)]
PATH = r"^[^\x00-\x1f\x7f]*$"
"""No system opens a name with NUL, and one with a line break is no one line of a message or a list."""
PathText = Annotated[str, Field(min_length=1, pattern=PATH)]


class Part(BaseModel):
    """A part of the configuration: closed, strict about types, read-only."""

    # Validators are built when first used: once for the whole, not for every part as well.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, defer_build=True)
