"""Tables: reading them without guessing, and writing them."""

from __future__ import annotations

import codecs
import glob
from collections.abc import Callable
from pathlib import Path

import polars as pl

from gristmill.user_error import UserError

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_NAMED_ROWS = 5
#: How a formula begins, or what a spreadsheet strips before it looks; and what begins so and is none.
_FORMULA = r"^[=+\-@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20]"
_NUMBER = r"^[+\-]?(\d+([.,]\d+)*|\.\d+)([eE][+\-]?\d+)?$"
_TEXT_LIKE = (pl.Categorical, pl.Enum)


def read_table(source: str) -> pl.DataFrame:
    """A file, a folder of files or a pattern. What is in CSV and TSV stays text: "007" is not 7. Raises UserError."""
    files = table_files(source)
    frames = [_read(file) for file in files]
    for file, frame in zip(files, frames, strict=True):
        if frame.schema != frames[0].schema:
            raise UserError(f"{file} has other columns than {files[0]}: {_difference(frames[0], frame)}.")
    table = pl.concat(frames)
    if table.height == 0:
        raise UserError(f"{source} has no rows.")
    return table


def check_ids(table: pl.DataFrame, column: str) -> None:
    """Every row has an id of its own. Raises UserError naming rows, counted from 1 without the header."""
    if column not in table.columns:
        raise UserError(f"The table has no column '{column}' for --id. It has: {', '.join(table.columns)}.")
    ids = table[column].cast(pl.String)
    missing = ids.is_null() | (ids.str.strip_chars() == "")
    if missing.any():
        rows = missing.arg_true()
        raise UserError(f"{len(rows):,} rows have no id in '{column}': {_named(rows)}. Give each one an id of its own.")
    double = ids.is_duplicated()
    if double.any():
        rows = double.arg_true()
        raise UserError(
            f"{len(rows):,} rows share an id in '{column}' with another: {_named(rows)} (such as "
            f"'{ids[int(rows[0])]}'). Give each row an id of its own, or remove the duplicates."
        )


def truth_values(table: pl.DataFrame, column: str) -> list[float | None]:
    """Right scores as numbers, None where a row has none. Raises UserError."""
    if column not in table.columns:
        raise UserError(f"The table has no column '{column}' for --truth. It has: {', '.join(table.columns)}.")
    return number_values(table, column, "a right score")


def number_values(table: pl.DataFrame, column: str, what: str) -> list[float | None]:
    """A column as numbers, None where a row has none; ``what`` says what they are. Raises UserError."""
    given = table[column]
    texts = given.cast(pl.String).str.strip_chars()
    values = texts.cast(pl.Float64, strict=False).fill_nan(None)
    given_none = texts.is_null() | texts.str.to_lowercase().is_in(["", "nan"])
    wrong = (values.is_null() | values.is_infinite()) & ~given_none
    if wrong.any():
        rows = wrong.arg_true()
        raise UserError(
            f"{len(rows):,} rows have {what} in '{column}' that is not a number: {_named(rows)} (such as "
            f"'{texts[int(rows[0])]}')."
        )
    return values.to_list()


def check_target(path: Path, table: pl.DataFrame) -> None:
    """Raises UserError for a name whose format cannot be written, or cannot hold the table."""
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        raise UserError(f"{path} cannot be written: name a file that ends in {', '.join(_WRITERS)}.")
    nested = [name for name, kind in table.schema.items() if kind.is_nested() or kind in (pl.Object, pl.Binary)]
    if suffix in (".csv", ".tsv") and nested:
        raise UserError(f"The column '{nested[0]}' holds {table.schema[nested[0]]}: write .jsonl or .parquet instead.")


def write_table(table: pl.DataFrame, path: Path, keep_formulas: bool = False) -> None:
    """In one step: the file is there whole or not at all. What a spreadsheet would take for a formula is written as
    text into CSV and TSV, unless ``keep_formulas``."""
    if path.suffix.lower() in (".csv", ".tsv") and not keep_formulas:
        table = without_formulas(table)
    partial = path.with_name(f".{path.name}.part")
    _WRITERS[path.suffix.lower()](table, partial)
    partial.replace(path)


def without_formulas(table: pl.DataFrame) -> pl.DataFrame:
    """Texts that begin as a formula does get an apostrophe before it: a spreadsheet shows the rest and computes
    nothing. Numbers stay numbers, with their sign."""
    texts = [name for name, kind in table.schema.items() if kind == pl.String or isinstance(kind, _TEXT_LIKE)]
    cells = [pl.col(name).cast(pl.String) for name in texts]
    safe = [
        pl.when(cell.str.contains(_FORMULA) & ~cell.str.contains(_NUMBER)).then("'" + cell).otherwise(cell).alias(name)
        for name, cell in zip(texts, cells, strict=True)
    ]
    names = pl.Series(table.columns, dtype=pl.String)
    changed = names.str.contains(_FORMULA) & ~names.str.contains(_NUMBER)
    titles = {name: f"'{name}" for name, change in zip(names, changed, strict=True) if change}
    return table.with_columns(safe).rename(titles)


_WRITERS: dict[str, Callable[[pl.DataFrame, Path], None]] = {
    ".csv": lambda table, path: table.write_csv(path),
    ".tsv": lambda table, path: table.write_csv(path, separator="\t"),
    ".jsonl": lambda table, path: table.write_ndjson(path),
    ".parquet": lambda table, path: table.write_parquet(path),
}


def table_files(source: str) -> list[Path]:
    """Those that ``read_table`` reads. Raises UserError."""
    path = Path(source)
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if each.suffix.lower() in _SUFFIXES and each.is_file())
    elif path.exists():
        found = [path]
    else:
        found = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    if not found:
        raise UserError(f"There is no table {source}: name a file ({', '.join(_SUFFIXES)}), a folder or a pattern.")
    for file in found:
        if file.suffix.lower() in (".xlsx", ".xls", ".ods"):
            raise UserError(f"{file} is a spreadsheet's own format: save it as CSV first.")
        if file.suffix.lower() not in _SUFFIXES:
            raise UserError(f"{file} is no table this can read: it takes {', '.join(_SUFFIXES)}.")
    return found


def _read(file: Path) -> pl.DataFrame:
    suffix = file.suffix.lower()
    # Polars would take "file:/..." for an address and "[" for a pattern, and read other files.
    path = file.absolute()
    try:
        if file.stat().st_size == 0:
            raise UserError(f"{file} is empty.")
        if suffix == ".parquet":
            return pl.read_parquet(path, glob=False)
        _check_encoding(file)
        if suffix in (".jsonl", ".ndjson"):
            return pl.read_ndjson(glob.escape(str(path)), infer_schema_length=None)
        separator = "\t" if suffix == ".tsv" else ","
        return pl.read_csv(path, separator=separator, infer_schema=False, glob=False)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}.") from None
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{file} cannot be read as a table: {str(error).strip().splitlines()[0]}.") from None


def _check_encoding(file: Path) -> None:
    """Raises UserError naming the line that is not UTF-8."""
    with file.open("rb") as stream:
        begin = stream.read(4)
        stream.seek(0)
        if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise UserError(f"{file} is UTF-16: save it as UTF-8 (a spreadsheet's 'CSV UTF-8').")
        for number, line in enumerate(stream, 1):
            if line.isascii():
                continue
            try:
                line.decode()
            except UnicodeDecodeError as error:
                shown = line[max(error.start - 20, 0) : error.start + 20].decode("latin-1").strip()
                raise UserError(
                    f"{file} is not UTF-8: its line {number} has another encoding (near '{shown}'). Save it as UTF-8."
                ) from None


def _difference(one: pl.DataFrame, other: pl.DataFrame) -> str:
    missing = [name for name in one.columns if name not in other.columns]
    more = [name for name in other.columns if name not in one.columns]
    types = [
        f"'{name}' is {other.schema[name]} instead of {one.schema[name]}"
        for name in one.columns
        if name in other.columns and one.schema[name] != other.schema[name]
    ]
    parts = [f"'{name}' is missing" for name in missing] + [f"'{name}' is new" for name in more] + types
    return ", ".join(parts) or "they stand in another order"


def _named(rows: pl.Series) -> str:
    """The first few row numbers, counted from 1."""
    listed = ", ".join(f"row {int(row) + 1:,}" for row in rows[:_NAMED_ROWS])
    return listed + (" and more" if len(rows) > _NAMED_ROWS else "")
