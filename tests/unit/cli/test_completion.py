"""`justenough completion`: what the shells complete."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from justenough.cli.main import COMMANDS
from tests.unit.cli.invoke import run

ASK = """
source {script}
COMP_WORDS=({words}); COMP_CWORD={last}
_shtab_justenough
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_every_command(shell: str) -> None:
    result = run("completion", shell)
    assert (result.code, result.err) == (0, "")
    assert all(command in result.out for command in COMMANDS)


def test_another_shell_is_refused() -> None:
    result = run("completion", "cmd")
    assert result.code == 2
    assert "invalid choice: 'cmd'" in result.err


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("justenough co", {"collect", "completion"}),
        ("justenough calibrate --thre", {"--threshold"}),
        ("justenough serve --mode o", {"off", "observe"}),
        ("justenough evaluate tra", {"traces.parquet"}),
        ("justenough serve --calibration cal", {"calibration.json"}),
        ("justenough collect --tasks tra", {"traces.parquet"}),
        ("justenough demo --out res", {"results"}),
    ],
)
def test_bash_completes_commands_options_choices_and_files(words: str, offered: set[str], tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(run("completion", "bash").out)
    for name in ("traces.parquet", "calibration.json"):
        (tmp_path / name).touch()
    (tmp_path / "results").mkdir()
    text = ASK.format(script=script, words=words, last=len(words.split()) - 1)
    done = subprocess.run(["bash", "-c", text], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered
