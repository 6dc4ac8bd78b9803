"""Tables fit the width they are printed at, and say what they leave out."""

from io import StringIO

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tuckertree.io.report import FittingTable

WORDS = st.text("abc.0123", min_size=1, max_size=12)


def printed(table, width):
    out = StringIO()
    Console(file=out, width=width, color_system=None).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


@st.composite
def tables(draw):
    count = draw(st.integers(2, 9))
    heads = [f"column{number}" for number in range(count - 1)]
    cells = st.tuples(
        st.text("abc.0123", min_size=1, max_size=60),
        *[WORDS] * (count - 1),
        st.sampled_from(["", "a reason"]),
    )
    return FittingTable(
        ("name", *heads, "reason"), draw(st.lists(cells, min_size=1, max_size=5)), heads, note="reason"
    )


@given(tables(), st.integers(40, 240))
def test_no_line_is_wider_than_the_terminal_and_what_is_left_out_is_named(table, width):
    lines = printed(table, width)
    assert max(map(len, lines)) <= width
    text = " ".join(lines)
    told = text.partition("not shown at this width: ")[2]
    for head in table.expendable:
        assert (head in lines[1].split()) != (head in told)
    if "reason" not in lines[1].split():
        assert ("a reason: " in text) == any(row[-1] for row in table.rows)


@given(tables())
def test_a_wide_terminal_shows_every_cell(table):
    lines = printed(table, 240)
    assert len(lines) == table.row_count + 4
    for row, line in zip(table.rows, lines[3:], strict=False):
        assert line.split() == [word for cell in row for word in cell.split()]


def test_long_names_are_folded_before_numbers_are_lost_and_markup_is_text():
    name = "backbone.stage1.block2.[bold]conv.weight"
    lines = printed(FittingTable(("layer", ">parameters"), [(name, "1234567890123")]), 32)
    assert "".join(line.split()[0] for line in lines[3:6] if line.strip()) == name
    assert any(line.endswith("1234567890123") for line in lines)
