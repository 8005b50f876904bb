"""The optional packages, and the extras of fcnseg that install them."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from fcnseg.errors import MissingExtraError

EXTRA_OF = {
    **dict.fromkeys(("SimpleITK", "contourpy", "highdicom", "pydicom"), "dicom"),
    **dict.fromkeys(("cc3d", "fill_voids", "keras", "tensorflow"), "train"),
    **dict.fromkeys(("jinja2", "markupsafe", "matplotlib", "surface_distance"), "evaluation"),
    **dict.fromkeys(("dask", "distributed"), "dask"),
    **dict.fromkeys(("grpc_health", "prometheus_client", "rapidjson"), "serving"),
    **dict.fromkeys(("h11", "tensorflow_serving", "uvicorn"), "serving"),
    "apache_beam": "pipelines",
    "gcsfs": "gcs",
    "grpc": "client",
    "nncf": "int8",
    "openvino": "openvino",
    **dict.fromkeys(("keras_tuner", "sklearn", "tensorboard"), "tuning"),
    "s3fs": "s3",
    "tensorflow_addons": "addons",
}
"""The extra of fcnseg that installs each optional package."""

_REPORTERS: dict[str, str] = dict.fromkeys(("openvino", "nncf"), "openvino_telemetry")
"""Packages that report to their makers that they are used, each by another one, if it is found."""
_NOT_FOUND: Any = None  # what Python takes, in place of a module, for one that is not installed


def require_extra(module: str) -> ModuleType:
    """Imports a module of an optional package, or raises an error that names its extra.

    OpenVINO and NNCF find no package for their telemetry, so they send none. The warning of
    tensorflow-addons that it is archived, as docs/addons.md says, is left out.

    Args:
        module: Dotted name of the module; its package is one of `EXTRA_OF`.

    Raises:
        MissingExtraError: If the package is not installed.
    """
    reporter = _REPORTERS.get(module.partition(".")[0])
    if reporter is not None:
        sys.modules[reporter] = _NOT_FOUND
    with naming_extras(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="tensorflow_addons")
        return importlib.import_module(module)


@contextlib.contextmanager
def naming_extras() -> Iterator[None]:
    """Names the extra of an optional package that an import inside does not find.

    Raises:
        MissingExtraError: If one is not found.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA_OF:
            raise
        raise MissingExtraError(
            f"{package} is not installed: it comes with fcnseg's extra {EXTRA_OF[package]},"
            f" {_remedy(EXTRA_OF[package])}"
        ) from error


def _remedy(extra: str) -> str:
    """The command that installs an extra, wherever fcnseg itself came from."""
    return f"pip install {' '.join(map(shlex.quote, sorted(_packages_of(extra))))}"


def _packages_of(extra: str) -> set[str]:
    """The requirements of an extra, of extras that it names in turn too."""
    packages: set[str] = set()
    for line in importlib.metadata.requires("fcnseg") or []:
        requirement, _, marker = map(str.strip, line.partition(";"))
        if marker == f'extra == "{extra}"':
            nested = re.fullmatch(r"fcnseg\[(.+)\]", requirement)
            found = [_packages_of(name) for name in nested[1].split(",")] if nested else []
            packages |= set().union(*found) if nested else {requirement}
    return packages
