"""The public surface: sorted, complete, cheap to import; and layers, versions and documents that agree."""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib.util
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

import justenough
from tests.builders import population

ROOT = Path(__file__).parent.parent.parent
STUB = ROOT / "src" / "justenough" / "__init__.pyi"


def test_all_is_sorted_and_every_name_is_there() -> None:
    assert list(justenough.__all__) == sorted(justenough.__all__)
    for name in justenough.__all__:
        assert getattr(justenough, name).__module__.startswith("justenough."), name
    assert set(justenough.__all__) <= set(dir(justenough))


def test_the_stub_lists_the_public_names_in_the_order_of_their_modules() -> None:
    """The package reads its names from the stub; a type checker sees a name only if it is imported as itself."""
    imports = [node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ImportFrom)]
    modules = [node.module or "" for node in imports]
    assert modules == sorted(set(modules))
    names = [alias.name for node in imports for alias in node.names]
    assert [alias.asname for node in imports for alias in node.names] == names
    assert sorted(names) == justenough.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(justenough, "magic")


def test_import_and_help_are_light() -> None:
    """Heavy libraries load only when used; the times themselves are in benchmarks, not here."""
    code = (
        "import sys, justenough; from justenough.cli.main import build_parser; build_parser('');"
        " print(' '.join(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    for heavy in ("numpy", "scipy", "pyarrow", "onnxruntime", "httpx", "torch", "transformers"):
        assert heavy not in loaded, heavy


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == justenough.__version__


def test_the_reference_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_link_in_the_documents_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


# Third-party tables that three methods return; none of these libraries is imported by `import justenough`.
FRAMES = {name: SimpleNamespace(Table=type(name, (), {}), DataFrame=type(name, (), {})) for name in ("pa", "pd", "pl")}
# And classes of a library that one function takes.
FRAMES["transformers"] = SimpleNamespace(
    PreTrainedTokenizerBase=type("PreTrainedTokenizerBase", (), {}), TextStreamer=type("TextStreamer", (), {})
)
ALLOWED_MODULES = ("builtins", "collections", "numpy", "pathlib", "types", "typing")


def public_things() -> list[object]:
    return [getattr(justenough, name) for name in justenough.__all__]


def members(thing: type) -> Iterator[tuple[str, Callable[..., object]]]:
    """The functions behind the public methods and properties of a class, its own and those of private bases."""
    for owner in thing.__mro__:
        if not owner.__module__.startswith("justenough"):
            continue
        for name, member in vars(owner).items():
            if name.startswith("_") and not (name == "__init__" and owner is thing):
                continue
            function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            function = function.fget if isinstance(function, property) else function
            # A protocol gets an `__init__` from `typing`.
            if inspect.isfunction(function) and function.__module__ != "typing":
                yield name, function


def written_types() -> Iterator[tuple[str, object]]:
    """Where a type is written in the public interface, and the type."""
    # A name that a module imports for type checkers only must be public, or one of the frame libraries.
    known = {name: getattr(justenough, name) for name in justenough.__all__}
    for name, thing in known.items():
        parts: list[tuple[str, object]] = [(name, thing)]
        if inspect.isclass(thing):
            parts += [(f"{name}.{method}", function) for method, function in members(thing)]
        for where, part in parts:
            hints = get_type_hints(part, localns={**known, **FRAMES})
            signature = inspect.signature(part) if inspect.isfunction(part) else None
            if signature is not None:
                written = {key for key in signature.parameters if key not in ("self", "cls")}
                assert written <= hints.keys(), f"{where} has a parameter without a type"
            yield from ((f"{where}: {key}", hint) for key, hint in hints.items() if not key.startswith("_"))


def parts_of(hint: object) -> Iterator[object]:
    """A type and all types inside it; aliases are already resolved."""
    if isinstance(hint, list | tuple):
        for part in hint:
            yield from parts_of(part)
        return
    origin = get_origin(hint)
    if origin is Literal:
        return
    yield origin or hint
    # NumPy writes `Any` for the shape of an array.
    if getattr(origin, "__module__", "").split(".")[0] != "numpy":
        for part in get_args(hint):
            yield from parts_of(part)


def private_types() -> list[str]:
    """Each place in the public interface that needs a type which is not public."""
    public = [*public_things(), *(one for library in FRAMES.values() for one in vars(library).values())]
    private = []
    for where, hint in written_types():
        for part in parts_of(hint):
            if part is Any:
                private.append(f"{where}: Any")
            elif inspect.isclass(part) and part not in public and part.__module__.split(".")[0] not in ALLOWED_MODULES:
                private.append(f"{where}: {part.__qualname__}")
    return private


def test_every_public_signature_uses_public_types_only() -> None:
    assert private_types() == []


def test_a_type_that_is_not_exported_would_be_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(justenough, "__all__", [name for name in justenough.__all__ if name != "Separation"])
    reported = private_types()
    assert {line.partition(":")[0].partition(".")[0] for line in reported} == {"Diagnosis", "Evaluation"}
    assert all(line.endswith(": Separation") for line in reported)


def test_no_public_function_takes_arbitrary_keywords() -> None:
    for thing in public_things():
        functions = [one for _, one in members(thing)] if inspect.isclass(thing) else [thing]
        for function in functions:
            assert callable(function)
            kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
            assert inspect.Parameter.VAR_KEYWORD not in kinds, function


def library_page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("library", ROOT / "docs" / "library.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGE = library_page()


def test_the_reference_shows_every_public_name_with_an_example() -> None:
    shown = re.findall(r"^### `(\w+)`$", (ROOT / "docs" / "reference" / "library.md").read_text(), flags=re.MULTILINE)
    assert sorted(shown) == justenough.__all__
    assert sorted(PAGE.examples()) == justenough.__all__


def test_every_field_of_a_public_class_has_a_note() -> None:
    page = (ROOT / "docs" / "reference" / "library.md").read_text()
    fields = [field for name in justenough.__all__ for field, _ in PAGE._fields(getattr(justenough, name))]
    assert len(fields) > 100
    assert re.findall(r"^- \*\*`\w+`\*\*: `[^`]+`$", page, flags=re.MULTILINE) == []


@pytest.mark.parametrize("name", justenough.__all__)
def test_the_example_of_the_reference_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    traces = population(200, seed=2)
    justenough.write_traces(traces, "traces.parquet")
    given = {public: getattr(justenough, public) for public in justenough.__all__}
    given |= {"traces": traces, "np": np, "asyncio": asyncio, "Path": Path}
    example = doctest.DocTestParser().get_doctest(PAGE.examples()[name], given, name, None, 0)
    output: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=output.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(output)
