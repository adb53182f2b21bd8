from __future__ import annotations

import math

import pytest

from gristmill.scoring.template import RowTemplate, render_rubric
from gristmill.user_error import UserError

COLUMNS = ["id", "name", "years of experience"]
ROW = {"id": "1", "name": "Ada", "years of experience": "4"}


def test_without_a_template_every_shown_column_with_a_value_is_a_line():
    template = RowTemplate(None, COLUMNS, COLUMNS[1:])
    assert template.render(ROW) == "name: Ada\nyears of experience: 4"
    assert template.render(ROW | {"name": None}) == "years of experience: 4"
    assert template.render(ROW | {"name": math.nan}) == "years of experience: 4"


def test_columns_may_be_named_like_anything():
    names = ["row", "fields", "loop", "self"]
    assert RowTemplate(None, names, names).render(dict.fromkeys(names, "x")) == "\n".join(
        f"{name}: x" for name in names
    )
    assert RowTemplate("{{ row }} {{ fields }}", names, names).render({"row": "a", "fields": "b"}) == "a b"


def test_columns_are_variables_whatever_their_name():
    template = RowTemplate('{{ name }}, {{ row["years of experience"] }} years', COLUMNS, COLUMNS)
    assert template.render(ROW) == "Ada, 4 years"


def test_cells_are_never_templates():
    assert RowTemplate("{{ name }}", COLUMNS, COLUMNS).render(ROW | {"name": "{{ 7 * 7 }}"}) == "{{ 7 * 7 }}"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ nam }}", "the column 'nam', which the table does not have. Is it 'name'\\? It has: id, name"),
        ('{{ row["age"] }}', "no attribute 'age'. It has: id, name"),
        ("{{ name }", "damaged at its line 1"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ name.__class__.__mro__ }}", "unsafe|has no attribute|is unsafe"),
    ],
)
def test_a_bad_template_is_one_clear_error(source, message):
    with pytest.raises(UserError, match=message):
        RowTemplate(source, COLUMNS, COLUMNS).render(ROW)


def test_a_rubric_knows_the_scale_but_no_column():
    assert render_rubric("Use {{ scale }}.\n", COLUMNS, {"scale": "0 to 10"}) == "Use 0 to 10."
    with pytest.raises(UserError, match=r"uses the column 'name'.*--row"):
        render_rubric("Score {{ name }}.", COLUMNS, {"scale": "x"})
    with pytest.raises(UserError, match="uses 'other', which does not exist"):
        render_rubric("Score {{ other }}.", COLUMNS, {"scale": "x"})
    with pytest.raises(UserError, match="raw"):
        render_rubric("Score {% them %}.", COLUMNS, {"scale": "x"})
