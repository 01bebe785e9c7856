"""Let a reasoning model stop as soon as its own entropy says that it knows, and prove what that saved and cost.

All public names are here. Each of them is loaded when it is first used, so `import justenough` is fast.
"""

import ast
from importlib import import_module
from pathlib import Path

__version__ = "0.1.0"

# The stub is the only list of the public names: type checkers read it too.
_MODULES = {
    alias.name: node.module
    for node in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom) and node.module
    for alias in node.names
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'justenough' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
