"""tuckertree: compress trained convolutional networks by hierarchical Tucker-2 decomposition.

result = tuckertree.compress(model, example_inputs, energy=0.9)
print(result)
result.save("out/")
model = tuckertree.load("out/")
"""

from typing import TYPE_CHECKING, Any

from tuckertree._base.version import __version__ as __version__

if TYPE_CHECKING:
    from tuckertree.api import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Import what is offered when the first of it is asked for: torch takes seconds, ``--help`` needs none of it."""
    import tuckertree.api as api

    globals().update({offered: getattr(api, offered) for offered in api.__all__}, __all__=api.__all__)
    globals().update(Error=api.ErrorBound)  # its name of before, which reads as an exception
    if name not in globals():
        raise AttributeError(f"module 'tuckertree' has no attribute {name!r}")
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
