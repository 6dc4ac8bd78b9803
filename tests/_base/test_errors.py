"""What errors say."""

import pytest

from tuckertree._base.errors import first_line, one_line


@pytest.mark.parametrize(
    ("message", "first", "whole"),
    [
        ("one", "one", "one"),
        ("\n a \n b", "a", "a b"),
        ("", "ValueError", "ValueError"),
        (" \n", "ValueError", "ValueError"),
    ],
)
def test_an_error_is_told_in_one_line_also_where_it_says_nothing(message, first, whole):
    assert (first_line(ValueError(message)), one_line(ValueError(message))) == (first, whole)
