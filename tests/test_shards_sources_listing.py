from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import ShardError, UsageError
from shards.sources.find import find_sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of four picture files, one of them elsewhere below it."""
    for name in ("1.jpg", "2.jpg", "größe 3.PNG", "deep/4.jpg"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "in"


def write(folder: Path, text: str, name: str = "list.csv", encoding: str = "utf-8") -> Path:
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        find_sources(path, **options)
    return str(caught.value)


ROWS = [("1.jpg", "cat"), ("2.jpg", "dog"), ("größe 3.PNG", "cat"), ("deep/4.jpg", "dog")]
EXPECTED = [(*row, len(row[0].encode()), row[0].encode()) for row in sorted(ROWS)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(("separator", "name"), [(",", "list.csv"), ("\t", "list.csv"), ("\t", "list.tsv")])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_lists_pictures_below_its_folder(folder: Path, encoding: str, separator: str, name: str, end: str) -> None:
    lines = [separator.join(("path", "label")), *(separator.join(row) for row in ROWS), ""]
    listed = find_sources(write(folder, end.join(lines), name, encoding))
    assert [(s.name, *s.labels, s.size, listed.store.read(s)) for s in listed.sources] == EXPECTED
    assert (listed.classes, listed.display_names, listed.notes) == (["cat", "dog"], ["cat", "dog"], [])
    assert {source.split for source in listed.sources} == {None}


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_lists_pictures_below_its_folder(folder: Path, kind: pa.DataType) -> None:
    columns = {name: pa.array([row[n] for row in ROWS]).cast(kind) for n, name in enumerate(("path", "label"))}
    pq.write_table(pa.table(columns), folder / "list.parquet")
    listed = find_sources(folder / "list.parquet")
    assert [(s.name, *s.labels, s.size, listed.store.read(s)) for s in listed.sources] == EXPECTED


def test_absolute_paths_and_paths_out_of_the_folder_are_read(folder: Path) -> None:
    (folder.parent / "list.d").mkdir()
    absolute, climbing = f"{folder}/1.jpg", "../in/2.jpg"
    path = write(folder.parent / "list.d", f"path,label\n{absolute},a\n{climbing},b\n")
    listed = find_sources(path)
    assert {s.name: listed.store.read(s) for s in listed.sources} == {absolute: b"1.jpg", climbing: b"2.jpg"}


def test_split_group_and_weight_come_from_their_columns(folder: Path) -> None:
    path = write(
        folder,
        "weight,path,split,label,group\n2,1.jpg,train,a,p1\n,2.jpg,Train,b,\n0.5,deep/4.jpg,Validation,a,p2\n",
    )
    assert [(s.name, s.split, s.group, s.weight) for s in find_sources(path).sources] == [
        ("1.jpg", "train", "p1", 2.0),
        ("2.jpg", "train", "", 1.0),
        ("deep/4.jpg", "val", "p2", 0.5),
    ]


def test_values_of_parquet_may_be_numbers_and_nulls(folder: Path) -> None:
    table = pa.table(
        {
            "path": ["1.jpg", "2.jpg", "größe 3.PNG", "deep/4.jpg"],
            "label": [9, 10, 0, 10],
            "group": [1, None, 2, 2],
            "weight": [0.5, None, 2.0, 1.0],
            "split": pa.nulls(4),
        }
    )
    pq.write_table(table, folder / "list.parquet")
    listed = find_sources(folder / "list.parquet")
    assert listed.classes == ["0", "9", "10"]
    assert {(*s.labels, s.group, s.weight, s.split) for s in listed.sources} == {
        ("9", "1", 0.5, None),
        ("10", "", 1.0, None),
        ("0", "2", 2.0, None),
        ("10", "2", 1.0, None),
    }


def test_labels_separated_by_semicolons_are_several(folder: Path) -> None:
    path = write(folder, "path,label\n1.jpg,effusion; edema\n2.jpg,edema\ngröße 3.PNG,edema;edema;\n")
    listed = find_sources(path)
    assert [source.labels for source in listed.sources] == [("effusion", "edema"), ("edema",), ("edema",)]
    assert (listed.multi_label, listed.classes) == (True, ["edema", "effusion"])


def test_one_label_each_is_not_multi_label(folder: Path) -> None:
    assert find_sources(write(folder, "path,label\n1.jpg,a\n2.jpg,b\n")).multi_label is False


def test_list_of_bare_paths_can_be_unlabelled(folder: Path) -> None:
    listed = find_sources(write(folder, "path\n2.jpg\n1.jpg\n"), unlabelled=True)
    assert [(s.name, s.labels, s.split) for s in listed.sources] == [("1.jpg", (), "all"), ("2.jpg", (), "all")]


def test_columns_of_other_names_are_left_alone_with_a_note(folder: Path) -> None:
    path = write(folder, "path,label,age,view\n1.jpg,a,7,AP\n2.jpg,b,8,PA\n")
    assert find_sources(path).notes == [f"{path}: unused columns: age, view"]


def test_other_columns_of_parquet_may_be_of_any_type(folder: Path) -> None:
    table = pa.table({"path": ["1.jpg", "2.jpg"], "label": ["a", "b"], "box": [[1, 2], [3, 4]]})
    pq.write_table(table, folder / "list.parquet")
    assert find_sources(folder / "list.parquet").notes == [f"{folder}/list.parquet: unused columns: box"]


def test_groups_and_class_names_apply_to_lists(folder: Path) -> None:
    path = write(folder, "path,label,group\n1.jpg,0,x\n2.jpg,1,\n")
    (folder / "names.txt").write_text("0 null\n1 eins\n")
    listed = find_sources(path, group_regex=r"(\d)\.jpg", class_names=folder / "names.txt")
    assert ([source.group for source in listed.sources], listed.display_names) == (["1", "2"], ["null", "eins"])
    assert "replaces 1 groups" in listed.notes[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,label\n1.jpg,a\n", "has no column path; its columns are file, label; give --columns path=file"),
        ("path:label\n1.jpg:a\n", "has no column path and no column label; its columns are path:label"),
        ("path,class\n1.jpg,a\n", "has no column label"),
        ("", "is empty; write the names of its columns, and below them a row for each picture"),
        ("path,label\n", "has no rows"),
        ("path,label,label\n1.jpg,a,b\n", "has two columns label; keep one of them"),
        ("path,label\n1.jpg,a\n2.jpg\n", "row 3 has fewer values than the 2 columns"),
        ("path,label\n1.jpg,a,b\n2.jpg,b\n", "row 2 has more values than the 2 columns"),
        ('path,label\n1.jpg,a\n2.jpg,"b\n', "cannot be read after row 2 (unexpected end of data)"),
        (
            "path,label\n1.jpg,a\n2.jpg,\n",
            "row 3 has no label, and no row has several; add one, drop the row, give ",
        ),
        ("path,label\n1.jpg,a\n2.jpg,;\n", "row 3 has no label"),
        ("path,label\n1.jpg,a\n2.jpg,a\n", "has only one class, 'a'"),
        ("path,label\n1.jpg,a\n9.jpg,b\n", "row 3: there is no file '9.jpg'; paths are absolute or relative to"),
        ("path,label\n8.jpg,a\n2.jpg,b\n9.jpg,b\n", "row 2: there is no file '8.jpg' (nor those of 1 more rows)"),
        ("path,label\n1.jpg,a\ndeep,b\n", "row 3: there is no file 'deep'"),
        ("path,label\n1.jpg,a\n,b\n", "row 3: there is no file ''"),
        ("path,label\n1.jpg,a\n2.jpg,b\n1.jpg,b\n", "row 4 names '1.jpg', as row 2 does; keep one of them"),
        ("path,label\n1.jpg,a\n./deep/../1.jpg,b\n", "row 3 names './deep/../1.jpg', as row 2 does"),
        ("path,label,split\n1.jpg,a,train\n2.jpg,b,\n", "row 3 has no split but other rows do; fill the column"),
        (
            "path,label,split\n1.jpg,a,train\n2.jpg,b,odd\n",
            "row 3: 'odd' is not a split; write train, val (validation)",
        ),
        ("path,label,split\n1.jpg,a,train\n2.jpg,b,val\n", "class 'b' has no pictures in train"),
        ("path,label,weight\n1.jpg,a,0\n2.jpg,b,1\n", "the weight of '1.jpg' must be a number above 0, got '0'"),
    ],
)
def test_wrong_list_is_refused_by_its_fact(folder: Path, text: str, says: str) -> None:
    assert says in refusal(write(folder, text))


def test_row_numbers_are_those_of_the_file_when_a_value_spans_lines(folder: Path) -> None:
    path = write(folder, 'path,label,note\n1.jpg,a,"two\nlines"\n9.jpg,b,\n')
    assert "row 4: there is no file '9.jpg'" in refusal(path)


def test_list_in_another_encoding_is_refused_with_the_remedy(folder: Path) -> None:
    path = write(folder, "path,label\n1.jpg,正常\n2.jpg,b\n", encoding="gbk")
    assert "is not UTF-8 text (byte 17); save it again as 'CSV UTF-8'" in refusal(path)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"path": ["1.jpg", "2.jpg"], "label": [0.5, 1.5]}, "column label is double; write it as text"),
        ({"path": [1, 2], "label": ["a", "b"]}, "column path is int64; write it as text"),
        ({"path": ["1.jpg", "2.jpg"], "label": [[0.5], [1.5]]}, "column label is list<"),
        ({"path": ["1.jpg", "2.jpg"], "label": ["a", None]}, "row 2 has no label"),
    ],
)
def test_parquet_of_other_types_is_refused(folder: Path, columns: dict[str, Any], says: str) -> None:
    pq.write_table(pa.table(columns), folder / "list.parquet")
    assert says in refusal(folder / "list.parquet")


def test_damaged_parquet_is_refused_by_name(folder: Path) -> None:
    pq.write_table(pa.table({"path": ["1.jpg"], "label": ["a"]}), folder / "list.parquet")
    data = (folder / "list.parquet").read_bytes()
    for cut in (0, 7, len(data) // 2, len(data) - 1):
        (folder / "list.parquet").write_bytes(data[:cut])
        with pytest.raises(ShardError, match=r"list\.parquet is damaged or not a Parquet file"):
            find_sources(folder / "list.parquet")
