import pytest

from justenough.errors import InputError
from justenough.importing import ImportOptions


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("then", ImportOptions(then="x")),
        ("tasks", ImportOptions(tasks="x")),
        ("split", ImportOptions(split="x")),
    ],
)
def test_an_option_that_the_format_does_not_use_is_refused(name: str, options: ImportOptions) -> None:
    with pytest.raises(InputError, match=f"--{name} means nothing to the format inspect"):
        options.refuse("inspect", takes=())
    options.refuse("inspect", takes=(name,))


def test_every_format_takes_a_grader_and_a_model() -> None:
    ImportOptions(grader="number", model="m").refuse("inspect", takes=())
