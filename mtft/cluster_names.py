"""What Kubernetes lets be a name, a label or a variable; checked here so that the message names our field."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from mtft.naming import DNS_LABEL

_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_SUBDOMAIN = rf"{DNS_LABEL}(\.{DNS_LABEL})*"
_PATH = r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*"
# A first part with neither dot nor port is part of the repository, which is lower-case: no registry has such a name.
_HOST = r"[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?"
_REGISTRY = rf"{_HOST}((\.{_HOST})+(:[0-9]+)?|:[0-9]+)"
# Asked for, or a digest: a name alone means :latest, of which each node keeps the one it has pulled (IfNotPresent).
_TAG = r":[A-Za-z0-9_][-A-Za-z0-9_.]{0,127}"

_POSITIVE = r"0*[1-9][0-9]*(\.[0-9]*)?|0*\.0*[1-9][0-9]*"


def _cron_field(value: str, names: str = "") -> str:
    any_case = "|".join((value, f"(?i:{names})")) if names else value
    one = rf"([*?]|({any_case})(-({any_case}))?)(/0*[1-9][0-9]*)?"
    return f"{one}(,{one})*"


_GAP = r"[ \t]"
_CRON_FIELDS = (
    _cron_field("0?[0-9]|[1-5][0-9]"),
    _cron_field("0?[0-9]|1[0-9]|2[0-3]"),
    _cron_field("0?[1-9]|[12][0-9]|3[01]"),
    _cron_field("0?[1-9]|1[0-2]", "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"),
    _cron_field("0?[0-6]", "SUN|MON|TUE|WED|THU|FRI|SAT"),  # Kubernetes knows no 7
)

# What the patterns below mean; their texts are no help to a reader.
PATTERNS: dict[str, str] = {
    f"^{DNS_LABEL}$": "name of a to z, 0 to 9 and - (at most 63)",
    f"^{_SUBDOMAIN}$": "name of a to z, 0 to 9, - and .",
    f"^({_SUBDOMAIN}/)?{_NAME}$": "label key, such as pool or example.org/pool",
    f"^({_NAME})?$": "label value of letters, digits, -, _ and . (at most 63)",
    f"^{_SUBDOMAIN}/{_NAME}$": "resource name, such as nvidia.com/gpu",
    rf"^({_REGISTRY}/)?{_PATH}(/{_PATH})*({_TAG}|({_TAG})?@sha256:[0-9a-f]{{64}})$": "image name with tag or digest, "
    "lower case before the tag, such as example.org/mtft:1.0",
    r"^[A-Za-z_][A-Za-z0-9_]*$": "name of letters, digits and _",
    r"^[-._A-Za-z0-9]{1,253}$": "name of letters, digits, -, _ and .",
    rf"^({_POSITIVE})([KMGTPE]i|[kMGTPE]|[eE][-+]?[0-9]{{1,2}})?$": "size, such as 100Gi or 0.5Ti",
    rf"^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|{_GAP}*{f'{_GAP}+'.join(_CRON_FIELDS)}{_GAP}*)$": (
        "five fields of cron (minute 0-59, hour 0-23, day 1-31, month 1-12, day of week 0-6 from Sunday), "
        "such as 0 2 * * 0, or @weekly"
    ),
    r"^[A-Za-z][-+_A-Za-z0-9]*(/[-+_A-Za-z0-9]+)*$": "name of the IANA time zone database, such as Europe/Paris",
}
_LABEL_TEXT, _NAME_TEXT, _KEY, _VALUE, _RESOURCE, _IMAGE, _VARIABLE, _SECRET_KEY, SIZE, _CRON, _ZONE = PATTERNS

# Names in the terms of Kubernetes: DNS-1123 label and subdomain, qualified label key, label value.
DnsLabel = Annotated[str, Field(pattern=_LABEL_TEXT)]
DnsName = Annotated[str, Field(pattern=_NAME_TEXT, max_length=253)]
LabelKey = Annotated[str, Field(pattern=_KEY)]
LabelValue = Annotated[str, Field(pattern=_VALUE)]
ImageName = Annotated[str, Field(pattern=_IMAGE, max_length=500)]
ResourceName = Annotated[str, Field(pattern=_RESOURCE)]
SecretKey = Annotated[str, Field(pattern=_SECRET_KEY)]
Size = Annotated[str, Field(pattern=SIZE)]
Cron = Annotated[str, Field(pattern=_CRON)]
TimeZone = Annotated[str, Field(pattern=_ZONE)]

# Set by the training operator, which appends: a second entry of a name is refused by the API server. And what a pod is
# told of itself (cluster_config.POD_FACTS): records are made of it.
SET_VARIABLES = re.compile(
    r"PYTHONUNBUFFERED|MASTER_ADDR|MASTER_PORT|(LOCAL_)?RANK|(LOCAL_)?WORLD_SIZE|PET_.*"
    r"|MTFT_(NAMESPACE|POD|POD_UID|BATCH|RUN|IMAGE_DIGEST)"
)
# Of labels and annotations: a release, a Job or the operator would take the object for another than it is.
OUR_KEYS = re.compile(
    r"(app\.kubernetes\.io|mtft|training\.kubeflow\.org|(meta\.)?helm\.sh|batch\.kubernetes\.io)/.*"
    r"|job-role|job-name|controller-uid"
)


def _free_variable(name: str) -> str:
    if SET_VARIABLES.fullmatch(name):
        raise ValueError("is set by the training operator or mtft")
    return name


def _free_key(key: str) -> str:
    if OUR_KEYS.fullmatch(key):
        raise ValueError("is set by mtft, the training operator, Helm or a Kubernetes Job")
    return key


Variable = Annotated[str, Field(pattern=_VARIABLE), AfterValidator(_free_variable)]
FreeKey = Annotated[LabelKey, AfterValidator(_free_key)]
NodeLabels = dict[LabelKey, Annotated[list[LabelValue], Field(min_length=1)]]
