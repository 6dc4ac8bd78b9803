"""Packages that only some of tuckertree needs, imported where they are used."""

import importlib
from types import ModuleType

from tuckertree._base.errors import TuckertreeError


def require_extra(module: str, *, extra: str) -> ModuleType:
    """Import an optional package, or say how to install it.

    Parameters
    ----------
    module
        The module to import, such as ``"pyarrow.parquet"``. Always a constant of the calling code.
    extra
        The extra of tuckertree that installs it, such as ``"vision"``.

    Returns
    -------
    ModuleType
        The imported module.

    Raises
    ------
    TuckertreeError
        If the package is not installed, or is installed and cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        absent = isinstance(error, ModuleNotFoundError) and error.name in (package, module)
        reason = "is not installed" if absent else f"cannot be imported ({error})"
        raise TuckertreeError(
            f"the package {package}, needed here, {reason}; run in the folder of tuckertree's source: "
            f"pip install '.[{extra}]'"
        ) from error
