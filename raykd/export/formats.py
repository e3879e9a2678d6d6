"""The formats of an exported student by name, and the licences that its card can name."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import NamedTuple

from trainables.core.errors import UserError, first_line, nearest

OPTION = "--format"
LICENCE_OPTION = "--licence"


class Format(NamedTuple):
    """What a format is."""

    place: str  # in the export's folder
    packages: tuple[str, ...] = ()  # of the extra that is called as the format


TIMM, ONNX, TORCH_EXPORT = "timm", "onnx", "torch_export"
FORMATS = {
    TIMM: Format("student"),
    ONNX: Format("student.onnx", ("onnx", "onnxscript", "onnxruntime")),
    TORCH_EXPORT: Format("student.pt2"),
}

# The identifiers of huggingface.co/docs/hub/repositories-licenses.
_LICENCES = """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
    bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda
    cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0
    cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
    cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0
    etalab-2.0 eupl-1.1 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl
    mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr
    deepfloyd-if-license llama2 gemma unknown other
"""
LICENCES = tuple(_LICENCES.split())


def check_formats(given: str | Iterable[str]) -> tuple[str, ...]:
    """The formats that are asked for, each once: `given` is a comma list or names.

    Raises `UserError` for an unknown one, and for one whose packages cannot be imported here.
    """
    words = given.split(",") if isinstance(given, str) else given
    names = tuple(dict.fromkeys(str(word).strip() for word in words))
    for name in names:
        if name not in FORMATS:
            always = "student/model.safetensors is written with every format, and without one"
            raise UserError(OPTION, "no such format", value=name, choices=FORMATS, hints=[always])
    for name in names:
        for package in FORMATS[name].packages:
            try:
                importlib.import_module(package)
            except ImportError as error:
                problem = f"needs the package {package}, which cannot be imported ({first_line(error)})"
                raise UserError(
                    OPTION, problem, value=name, expected=f"`pip install raykd[{name}]`"
                ) from None
    return names


def check_licence(given: str | None) -> str | None:
    """`given` as the Hugging Face hub writes it. Raises `UserError` with the nearest for an unknown one."""
    if given is None or given.lower() in LICENCES:
        return given and given.lower()
    near = nearest(given, LICENCES)
    raise UserError(
        LICENCE_OPTION,
        "no such licence",
        value=given,
        expected="an identifier of huggingface.co/docs/hub/repositories-licenses; `other` for your own",
        hints=[f"Did you mean {near!r}?"] if near else [],
    )
