"""Options of the commands that train are the settings, each with its help and its default."""

import inspect
from dataclasses import fields
from typing import get_args

import pytest

from tuckertree.tools.cli.training_options import takes_settings
from tuckertree.tools.settings import Settings

KNOWN = {field.name: field for field in fields(Settings)}


def command_of(*more, **defaults):
    taken = []

    @takes_settings(*more, **defaults)
    def command(name: str, given: dict[str, object], last: bool = False) -> None:
        taken.append((name, given, last))

    return command, taken


@pytest.mark.parametrize("more", [(), ("momentum", "admm_rho")])
def test_every_option_is_a_setting_with_its_default_and_what_its_docstring_says(more):
    command, _ = command_of(*more, epochs=7, augment=None)
    parameters = inspect.signature(command).parameters
    options = {name: p for name, p in parameters.items() if name not in ("name", "last")}
    assert set(more) < set(options) < set(KNOWN)
    for name, parameter in options.items():
        help_text = get_args(parameter.annotation)[1].help
        assert len(help_text) > 10
        assert "`" not in help_text
        expected = {"epochs": 7, "augment": None}.get(name, KNOWN[name].default)
        assert parameter.default == expected


def test_the_command_gets_settings_together_and_its_own_arguments_by_name():
    command, taken = command_of(epochs=7)
    names = [n for n in inspect.signature(command).parameters if n not in ("name", "last")]
    values = {name: Settings(1).to_json()[name] for name in names}
    command(name="x", last=True, **values)
    assert taken == [("x", values, True)]
    assert Settings(**values) == Settings(1)
