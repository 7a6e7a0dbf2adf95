"""Secrets are given by reference; a value that looks like one is refused and never shown."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "(hidden: it looks like a secret)"
UNSHOWN = "(hidden: it may be a secret)"

SECRET_VALUES = re.compile(
    r"hf_[A-Za-z0-9]{20,}"  # Hugging Face
    r"|(AKIA|ASIA)[0-9A-Z]{16}"  # AWS access key
    r"|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{20,}"
    r"|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,}|\bsk-[\w-]{20,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|://[^/\s:@]+:[^/\s@]+@"  # user:password@host in an address
    r"|^[^/\s:@]+:[^/\s@]+@[^\s@]*/",  # and without a scheme, as before an image; its digest has no / behind the @
    re.ASCII,  # as Helm reads it
)
SECRET_NAMES = re.compile(
    r"(?i)(^|[_.-])(token|secret|pass|auth|(api|access|private|secret)_?key|credentials?)$"
    r"|[_.-]pwd$|(password|passwd|passphrase)$",  # PWD alone is where a shell stands
    re.ASCII,
)
SWITCHES = re.compile(r"(?i)0|1|true|false|", re.ASCII)
"""What switches something named after a secret on or off, as HF_HUB_DISABLE_IMPLICIT_TOKEN: no secret itself."""

_REFERENCES = re.compile(r"^(models\.[^.]*\.)?cluster\.(secrets|image_pull_secrets)([.\[]|$)")
_VARIABLE = re.compile(r"^(?:models\.[^.]*\.)?cluster\.env\.([^.\[]+)")
_BELOW_SECRETS = re.compile(r"((?:models\.[^.]*\.)?cluster\.secrets\.)(.*)", re.DOTALL)
_REFERENCE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.(name|key|optional))?")


def looks_secret(value: Any) -> bool:
    """Tell whether a value has the form of a known kind of secret."""
    return isinstance(value, str) and SECRET_VALUES.search(value) is not None


def masked_path(path: str) -> str:
    """Return a dotted path with every key replaced that looks like a secret, or may be one below cluster.secrets."""
    if (below := _BELOW_SECRETS.fullmatch(path)) and not _REFERENCE.fullmatch(below[2]):
        return below[1] + "(a key)"
    if not looks_secret(path):
        return path
    return ".".join("(a key)" if looks_secret(name) else name for name in path.split("."))


def masked(text: str) -> str:
    """Return a text with what looks like a secret in it replaced."""
    return SECRET_VALUES.sub(HIDDEN, text)


def names_secret(name: str) -> bool:
    """Tell whether a field of this name would hold a secret."""
    return SECRET_NAMES.search(name) is not None


def holds_secret(name: str, value: str) -> bool:
    """Tell whether an environment variable would hold a secret: it is named as one, and its value is no switch."""
    return names_secret(name) and SWITCHES.fullmatch(value) is None


def refers_to_secret(path: str) -> bool:
    """Tell whether a reference to a secret stands at a path; what is wrong there may be the secret itself.

    So it may at a variable that is named as one, whatever kind of value is there.
    """
    variable = _VARIABLE.search(path)
    return _REFERENCES.search(path) is not None or (variable is not None and names_secret(variable[1]))
