"""Tables: what is read, and what is wrong with one in one clear error."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from gristmill.scoring.table import check_ids, read_table, write_table
from gristmill.user_error import UserError


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_text_stays_text(tmp_path):
    table = read_table(write(tmp_path / "t.csv", "id,name,n\n007,=1+1,1e3\n008,NaN,\n"))
    assert table.rows() == [("007", "=1+1", "1e3"), ("008", "NaN", None)]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_what_is_written_is_read_again(tmp_path, suffix):
    table = pl.DataFrame({"id": ["1", "2"], "text": ['a "quoted", cell\nof two lines\t', "é中😀"]})
    write_table(table, tmp_path / f"t{suffix}")
    assert read_table(str(tmp_path / f"t{suffix}")).equals(table)


def test_folders_and_patterns_are_one_table_in_the_order_of_their_names(tmp_path, monkeypatch):
    for name in ("b", "a", "c"):
        write(tmp_path / f"{name}.csv", f"id\n{name}\n")
    write(tmp_path / "notes.txt", "not a table")
    assert read_table(str(tmp_path))["id"].to_list() == ["a", "b", "c"]
    assert read_table(str(tmp_path / "[ab].csv"))["id"].to_list() == ["a", "b"]
    monkeypatch.chdir(tmp_path)
    assert read_table("*.csv")["id"].to_list() == ["a", "b", "c"]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    assert read_table(write(tmp_path / "t.csv", b"\xef\xbb\xbfid\n1\n")).columns == ["id"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "t.csv is empty"),
        ("t.csv", "id,name\n", "has no rows"),
        ("t.csv", b"id,name\n1,Ren\xe9e\n", "is not UTF-8: its line 2"),
        ("t.csv", "id,name\n1,x\n".encode("utf-16"), "is UTF-16"),
        ("t.csv", 'id,name\n1,"open\n2,x\n', "cannot be read as a table"),
        ("t.csv", "id,name\n1,x,more\n", "cannot be read as a table"),
        ("t.jsonl", '{"id": 1}\n{"id"\n', "cannot be read as a table"),
        ("t.parquet", "no parquet", "cannot be read as a table"),
        ("t.xlsx", "PK", "save it as CSV"),
        ("t.doc", "x", "no table this can read"),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message):
        read_table(write(tmp_path / name, content))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="There is no table"):
        read_table(str(tmp_path / "none.csv"))


def test_files_with_other_columns_are_named(tmp_path):
    write(tmp_path / "a.csv", "id,name\n1,x\n")
    write(tmp_path / "b.csv", "id,title\n1,x\n")
    with pytest.raises(UserError, match=r"b\.csv has other columns than .*a\.csv: 'name' is missing, 'title' is new"):
        read_table(str(tmp_path))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["1", None, "3", ""], "2 rows have no id in 'id': row 2, row 4"),
        (["1", "2", "1", "2", "3"], r"4 rows share an id .* row 1, row 2, row 3, row 4 \(such as '1'\)"),
    ],
)
def test_every_row_needs_an_id_of_its_own(ids, message):
    with pytest.raises(UserError, match=message):
        check_ids(pl.DataFrame({"id": ids}), "id")


def test_an_id_column_that_is_not_there():
    with pytest.raises(UserError, match="no column 'key' for --id. It has: id"):
        check_ids(pl.DataFrame({"id": [1]}), "key")


CELLS = ["=1+1", "+49 30 1234", "-3.5", "+2", "@SUM(A1)", "\t=1", "\r=1", "-", "a=b", "", None, "-1e-3", "-2+3", "=A1"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_no_cell_that_is_written_is_a_formula_but_numbers_stay_numbers(tmp_path: Path, suffix: str):
    table = pl.DataFrame({"=id": CELLS, "number": pl.Series([-1.5] * len(CELLS))})
    path = tmp_path / f"out{suffix}"
    write_table(table, path)
    found = pl.read_csv(path, separator="," if suffix == ".csv" else "\t", infer_schema=False)
    assert found.columns == ["'=id", "number"]
    assert found["'=id"].to_list() == [
        "'=1+1", "'+49 30 1234", "-3.5", "+2", "'@SUM(A1)", "'\t=1", "'\r=1", "'-", "a=b", "", None, "-1e-3",
        "'-2+3", "'=A1",
    ]  # fmt: skip
    assert set(found["number"]) == {"-1.5"}
    write_table(table, path, keep_formulas=True)
    assert path.read_text().startswith("=id")


def test_other_formats_are_not_changed(tmp_path: Path):
    table = pl.DataFrame({"=id": CELLS})
    write_table(table, tmp_path / "out.parquet")
    assert pl.read_parquet(tmp_path / "out.parquet").equals(table)


@pytest.mark.parametrize("name", ["a[b]", "r*"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path, name, suffix):
    for file, cell in ((tmp_path / f"row{suffix}", "other"), (tmp_path / f"{name}{suffix}", "mine")):
        write_table(pl.DataFrame({"a": [cell]}), file)
    assert read_table(str(tmp_path / f"{name}{suffix}"))["a"].to_list() == ["mine"]
