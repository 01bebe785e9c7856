"""How arguments are read, and what an error about them looks like."""

from __future__ import annotations

import pytest

from tests.unit.cli.invoke import run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["setup", "--limit", "x"], "--limit: 'x' is not a whole number (all options: justenough setup --help)"),
        (["serve", "--port", "1.5"], "--port: '1.5' is not a whole number (all options: justenough serve --help)"),
        (["solve", "1", "--temperature", "x"], "--temperature: 'x' is not a number (all options: justenough solve"),
        (["serve", "--mode", "fly"], "--mode: invalid choice: 'fly' (choose from "),
        (["setup", "--limit"], "--limit: expected one argument (all options: justenough setup --help)"),
        (["collect"], "the following arguments are required: --model, --tasks, --out (all options: "),
        (["evaluate", "x", "--plot", "x.png"], "--plot: 'x.png' does not end in .svg"),
        (["exits", "train", "--rate", "x"], "--rate: 'x' is not a number (all options: justenough exits train --help)"),
    ],
)
def test_a_value_that_does_not_fit_is_one_line_that_names_the_option(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert result.error.startswith(f"justenough {arguments[0]}: {message}")
