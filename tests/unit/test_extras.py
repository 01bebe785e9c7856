"""Which packages an installation needs: the gateway needs neither onnxruntime nor torch."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, entry_points, requires

import pytest
from packaging.requirements import Requirement

import justenough.cli
import justenough.gateway

HEAVY = ("onnxruntime", "torch", "transformers", "safetensors", "xllamacpp")
BLOCK = f"import sys\nfor name in {HEAVY!r}: sys.modules[name] = None\n"


def without_heavy(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process in which no heavy package can be imported."""
    return subprocess.run(
        [sys.executable, "-c", BLOCK + code, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in such a process."""
    return without_heavy("from justenough.cli import main; sys.exit(main(sys.argv[1:]))", *arguments)


def needed(package: str, extras: Sequence[str] = ()) -> set[str]:
    """The names of all packages that a package needs, also indirectly, from the installed metadata."""
    names: set[str] = set()
    waiting = [(package, tuple(extras))]
    while waiting:
        name, wanted = waiting.pop()
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        for line in lines:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                key = re.sub(r"[-_.]+", "-", requirement.name).lower()
                if key not in names:
                    names.add(key)
                    waiting.append((key, tuple(requirement.extras)))
    return names


def modules(package: str) -> list[str]:
    """A package and all modules in it."""
    path = sys.modules[package].__path__
    return [package, *(found.name for found in pkgutil.walk_packages(path, prefix=f"{package}."))]


def test_the_core_and_the_gateway_need_no_heavy_package() -> None:
    assert needed("justenough") >= {"numpy", "scipy", "pyarrow", "jinja2", "httpx", "msgspec", "shtab"}
    assert needed("justenough", ["gateway"]) >= {"starlette", "uvicorn", "aiohttp"}
    for extras in ([], ["gateway"], ["math"]):
        assert not needed("justenough", extras) & set(HEAVY), extras


def test_the_demo_needs_onnxruntime_and_no_torch() -> None:
    assert "onnxruntime" in needed("justenough", ["demo"])
    assert "torch" not in needed("justenough", ["demo"])


@pytest.mark.parametrize("package", [justenough.gateway.__name__, justenough.cli.__name__])
def test_every_module_can_be_imported_without_heavy_packages(package: str) -> None:
    names = modules(package)
    assert len(names) > 10
    done = without_heavy(f"import importlib\nfor name in {names!r}: importlib.import_module(name)")
    assert done.returncode == 0, done.stderr


def test_the_gateway_starts_without_heavy_packages() -> None:
    code = (
        "from justenough.gateway.app.server import build_server\n"
        "from justenough.gateway.settings import GatewaySettings\n"
        "settings = GatewaySettings(upstream='http://127.0.0.1:1', mode='relay')\n"
        "server, listener = build_server(settings, host='127.0.0.1', port=0, allow_remote=False)\n"
        "listener.close()\n"
        "print(sorted(name for name in sys.modules if name.startswith('justenough.toy')))"
    )
    done = without_heavy(code)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("solve", "47*36"),
        ("solve", "47*36", "--model", "embedded:repaired"),
        ("solve", "47*36", "--model", "adadec"),
        ("collect", "--model", "embedded", "--tasks", "arithmetic", "--out", "/dev/null"),
        ("demo", "--quick"),
    ],
    ids=["solve", "sibling", "adadec", "collect", "demo"],
)
def test_the_embedded_model_names_its_extra(arguments: tuple[str, ...]) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "onnxruntime is not installed (pip install 'justenough[demo]')" in done.stderr


def test_the_checkpoint_backends_name_their_extras() -> None:
    for spec, extra in (("hf:models/embedded", "hf"), ("llamacpp:models/embedded/model.gguf", "llamacpp")):
        done = command("solve", "47*36", "--model", spec)
        assert done.returncode == 2
        assert f"justenough[{extra}]" in done.stderr


def test_tasks_and_notations_need_no_decoder() -> None:
    """`--model openai:justenough-embedded --tasks arithmetic` asks a server that has the embedded model."""
    code = (
        "from justenough.backends.openai import OpenAIBackend\n"
        "from justenough.grading import read_tasks\n"
        "backend = OpenAIBackend('justenough-embedded', base_url='http://127.0.0.1:1')\n"
        "print([backend.read(problem.problem) == problem.id for problem in read_tasks('arithmetic', limit=3)])"
    )
    done = without_heavy(code)
    assert (done.returncode, done.stdout) == (0, "[True, True, True]\n"), done.stderr


def test_the_help_lists_the_built_in_tasks_from_the_registry() -> None:
    done = command("collect", "--help")
    assert done.returncode == 0
    names = [point.name for point in entry_points(group="justenough.tasks")]
    assert len(names) >= 5
    for name in names:
        assert re.search(rf"^  {re.escape(name)} +\S", done.stdout, flags=re.MULTILINE), name
