"""Columns of a list that are not spelt as `pack` spells them: taken, refused with the option to type, or left alone."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import command
from PIL import Image

from shards.commands.arguments import add_source_arguments, read_request, set_defaults
from shards.commands.options import SourceOptions
from shards.dataset.origin import read_origin
from shards.errors import UsageError
from shards.sources import headings
from shards.sources.model import SourceList
from shards.storage.storage import FolderStorage

NAMES = ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of four files with the names of pictures."""
    (tmp_path / "in").mkdir()
    for name in NAMES:
        (tmp_path / "in" / name).write_bytes(name.encode())
    return tmp_path / "in"


def write(folder: Path, text: str, name: str = "list.csv") -> Path:
    (folder / name).write_bytes(text.encode())
    return folder / name


def write_parquet(folder: Path, columns: Mapping[str, object]) -> Path:
    pq.write_table(pa.table(dict(columns)), folder / "list.parquet")
    return folder / "list.parquet"


def read(path: Path, *words: str) -> SourceList:
    """Read a list with words of a command line, as `pack` and `audit` do."""
    parser = argparse.ArgumentParser()
    add_source_arguments(parser)
    set_defaults(parser, SourceOptions)
    return read_request(parser.parse_args([str(path), *words]), SourceOptions).find_sources()


def refusal(path: Path, *words: str) -> str:
    with pytest.raises(UsageError) as caught:
        read(path, *words)
    return str(caught.value)


def remedies(sentence: str) -> list[list[str]]:
    """Return the words of each run of options that a sentence gives."""
    found = re.findall(r"(?:give|or|choose one with) (--.+?)(?= to | if | for |, or | \(|$)", sentence)
    return [shlex.split(words) for words in found]


def facts(listed: SourceList) -> list[tuple[str, tuple[str, ...], str | None, str, float]]:
    return [(s.name, s.labels, s.split, s.group, s.weight) for s in listed.sources]


# blanks and case: taken, with a note

BLANKS = [blank for blank in map(chr, range(0x3001)) if blank.isspace()] + list("\u200b\u200e\u2060\ufeff\u00ad")


def test_all_blanks_of_unicode_are_trimmed() -> None:
    left = [
        blank for blank in map(chr, range(0x110000)) if blank.isspace() and headings.trim(f"{blank}a{blank}") != "a"
    ]
    assert left == []


@pytest.mark.parametrize("blank", [blank for blank in BLANKS if blank not in "\n\r\t"], ids=ascii)
@pytest.mark.parametrize("spelt", ["{}split", "split{}", "{0}Split{0}"])
def test_blanks_around_a_column_of_a_csv_do_not_hide_it(folder: Path, blank: str, spelt: str) -> None:
    name = spelt.format(blank)
    listed = read(write(folder, f"path,label,{name}\n1.jpg,a,train\n2.jpg,b,train\n3.jpg,a,test\n"))
    assert [source.split for source in listed.sources] == ["train", "train", "test"]
    assert listed.notes == [f"{folder}/list.csv: columns are used despite blanks or case: {name!r} as split"]


@pytest.mark.parametrize("blank", BLANKS, ids=ascii)
def test_blanks_around_columns_and_values_of_parquet_do_not_hide_them(folder: Path, blank: str) -> None:
    values = {
        "path": NAMES[:3],
        "label": ["a", "b", "a"],
        "split": ["train", "train", "test"],
        "group": ["x", "y", "x"],
        "weight": ["1", "2", "3"],
    }
    padded = {f"{blank}{name}": [f"{value}{blank}" for value in column] for name, column in values.items()}
    listed = read(write_parquet(folder, padded))
    assert facts(listed) == [
        ("1.jpg", ("a",), "train", "x", 1.0),
        ("2.jpg", ("b",), "train", "y", 2.0),
        ("3.jpg", ("a",), "test", "x", 3.0),
    ]
    assert listed.classes == ["a", "b"]


@pytest.mark.parametrize("separator", [",", ", ", " , ", "\t", ";", "; "])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_columns_are_found_whatever_is_between_them(folder: Path, separator: str, mark: str) -> None:
    rows = [("Path", "LABEL", "Split", "Group", "Weight"), ("1.jpg", "a", "Test", "g", "2")]
    b = "b, or c" if ";" in separator else "b"
    rows += [("2.jpg", b, "TRAIN", "", ""), ("3.jpg", "a", "train", "", "")]
    listed = read(write(folder, mark + "".join(separator.join(row) + "\n" for row in rows)))
    assert facts(listed) == [
        ("1.jpg", ("a",), "test", "g", 2.0),
        ("2.jpg", (b,), "train", "", 1.0),
        ("3.jpg", ("a",), "train", "", 1.0),
    ]


def test_bars_separate_values_where_the_header_has_them_alone(folder: Path) -> None:
    listed = read(write(folder, "path|label | split\n1.jpg|a, b|train\n2.jpg|c;d|train\n3.jpg|c|test\n"))
    assert [(s.labels, s.split) for s in listed.sources] == [
        (("a, b",), "train"),
        (("c", "d"), "train"),
        (("c",), "test"),
    ]
    path = write(folder, "path,label\n1.jpg,cat|dog\n2.jpg,cat\n3.jpg,dog\n")
    assert "give --labels-as '|' to read several" in refusal(path)
    assert read(write(folder, "path,a|b,label\n1.jpg,1,c\n2.jpg,2,d\n")).classes == ["c", "d"]


@pytest.mark.parametrize("between", ["|", "\t", ";"])
def test_line_that_is_given_for_the_names_of_columns_has_the_separator_of_the_list(folder: Path, between: str) -> None:
    rows = f"1.jpg{between}train{between}a\n2.jpg{between}train{between}b\n"
    header = refusal(write(folder, rows)).rpartition("for example ")[2]
    assert read(write(folder, f"{header}\n{rows}")).classes == ["a", "b"]


@pytest.mark.parametrize("cell", ["sub\\5.jpg", ".\\sub\\5.jpg", "sub\\5", " sub\\5.jpg "])
def test_paths_of_windows_are_read_with_a_note_where_there_is_such_a_file(folder: Path, cell: str) -> None:
    (folder / "sub").mkdir()
    (folder / "sub/5.jpg").write_bytes(b"5")
    (folder / "one\\6.jpg").write_bytes(b"6")
    path = write_parquet(folder, {"path": ["one\\6.jpg", cell], "label": ["a", "b"]})
    listed = read(path, "--ending", ".jpg")
    turned = listed.sources[[source.labels for source in listed.sources].index(("b",))]
    assert turned.name.removeprefix("./") == "sub/5.jpg"
    assert listed.store.read(turned) == b"5"
    assert listed.notes == [f"{path}: \\ in 1 path is read as /, as in '{cell.strip()}'"]


def test_paths_of_windows_are_found_nearby_and_named_as_they_stand_where_they_are_not(folder: Path) -> None:
    (folder / "img/sub").mkdir(parents=True)
    for number in (1, 2):
        (folder / f"img/sub/{number}.jpg").write_bytes(bytes([number]))
    path = write(folder, "path,label\nsub\\1.jpg,a\nsub\\2.jpg,b\n")
    sentence = refusal(path)
    assert f"for '{folder}/img/sub/1.jpg'" in sentence
    assert len(read(path, *remedies(sentence)[0]).sources) == 2
    write(folder, "path,label\nno\\1.jpg,a\n2.jpg,b\n")
    assert "there is no file 'no\\1.jpg'" in refusal(path)


def test_blank_after_each_comma_is_no_traceback(folder: Path) -> None:
    listed = read(write(folder, 'path, label\n1.jpg, cat\n2.jpg, "dog, or wolf"\n'))
    assert listed.classes == ["cat", "dog, or wolf"]


def test_cells_of_blanks_alone_are_empty(folder: Path) -> None:
    listed = read(write(folder, "path,label,split,group,weight\n1.jpg,a,\u00a0, ,\u200b\n2.jpg,b, ,\u3000,\n"))
    assert facts(listed) == [("1.jpg", ("a",), None, "", 1.0), ("2.jpg", ("b",), None, "", 1.0)]


def test_file_whose_name_begins_with_a_blank_is_found_as_it_stands(folder: Path) -> None:
    (folder / " 5.jpg").write_bytes(b"5")
    listed = read(write_parquet(folder, {"path": [" 5.jpg", " 1.jpg"], "label": ["a", "b"]}))
    assert [source.name for source in listed.sources] == [" 5.jpg", "1.jpg"]


@pytest.mark.parametrize(
    ("header", "says", "options"),
    [
        ("path,label, label", "has two columns 'label' and ' label'; keep one of them", ["--columns", "label=label"]),
        ("path,Label,LABEL", "has two columns 'Label' and 'LABEL'; keep one of them", ["--columns", "label=Label"]),
        ("path,label\u00a0,label ", "has two columns 'label\\xa0' and 'label '; keep one of them", None),
    ],
)
def test_two_columns_of_one_name_are_refused(folder: Path, header: str, says: str, options: list[str] | None) -> None:
    path = write(folder, f"{header}\n1.jpg,a,c\n2.jpg,b,d\n")
    assert says in refusal(path)
    if options:
        assert remedies(refusal(path)) == [options]
        assert read(path, *options).classes == ["a", "b"]


# near misses of what can be left out: refused, with an option to take the column and one to leave it out

NEAR = {
    "split": [
        "spilt",
        "splits",
        "slpit",
        "subset",
        "Sub-Set",
        "set",
        "partition",
        "phase",
        "data split",
        "split_2",
        "x",
    ],
    "group": ["groups", "gruop", "grp_oup", "patient_id", "Patient ID", "patients", "subject", "case", "study_uid"],
    "weight": ["weights", "wieght", "weigth", "sample_weight", "Sample Weights"],
}
VALUES = {"split": ("train", "Val", "test"), "group": ("g1", "g2", "g3"), "weight": ("2", "3", "4")}
TAKEN = [(role, name) for role, names in NEAR.items() for name in names if name not in ("grp_oup", "study_uid")]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(("role", "name"), TAKEN)
def test_near_miss_is_refused_and_both_remedies_work(folder: Path, role: str, name: str, kind: str) -> None:
    values = VALUES[role]
    columns = {"path": NAMES[:3], "label": ["a", "a", "a"], name: list(values)}
    columns = {
        key: [*column, last] for (key, column), last in zip(columns.items(), ("4.jpg", "b", values[0]), strict=True)
    }
    rows = [columns, *zip(*columns.values(), strict=True)]
    path = write_parquet(folder, columns) if kind == "parquet" else write(folder, "\n".join(map(",".join, rows)))
    sentence = refusal(path)
    assert f"'{name}' looks like the column {role}, and with that name would be ignored; give --columns" in sentence
    take, leave = remedies(sentence)
    taken = [getattr(source, role) for source in read(path, *take).sources]
    assert (
        taken
        == {
            "split": ["train", "val", "test", "train"],
            "group": ["g1", "g2", "g3", "g1"],
            "weight": [2.0, 3.0, 4.0, 2.0],
        }[role]
    )
    left = read(path, *leave)
    assert {getattr(source, role) for source in left.sources} == {{"split": None, "group": "", "weight": 1.0}[role]}
    assert left.notes == [f"{path}: unused columns: {name}"]


def test_several_near_misses_are_told_in_one_sentence(folder: Path) -> None:
    path = write(folder, "path,label,subset,patient,weights\n1.jpg,a,train,p,2\n2.jpg,b,train,q,1\n")
    take, leave = remedies(refusal(path))
    assert take == ["--columns", "split=subset,group=patient,weight=weights"]
    assert facts(read(path, *take)) == [("1.jpg", ("a",), "train", "p", 2.0), ("2.jpg", ("b",), "train", "q", 1.0)]
    assert facts(read(path, *leave)) == [("1.jpg", ("a",), None, "", 1.0), ("2.jpg", ("b",), None, "", 1.0)]


def test_near_miss_whose_values_are_no_splits_is_refused_with_that(folder: Path) -> None:
    path = write(folder, "path,label,is_valid\n1.jpg,a,False\n2.jpg,b,True\n")
    sentence = refusal(path)
    assert "'is_valid' looks like the column split, but its values, for example 'False', are not splits" in sentence
    (leave,) = remedies(sentence)
    assert {source.split for source in read(path, *leave).sources} == {None}


GIVEN = [
    ("Usage", ("Training", "PublicTest", "PrivateTest", "Training"), ("train", "test", "test", "train")),
    ("usage", ("train_set", "test_set", "test_set", "train_set"), ("train", "test", "test", "train")),
    ("train_test", ("trainset", "testset", "TRAIN", "TeSt"), ("train", "test", "train", "test")),
    ("mode", ("train", "train", "train", "train"), ("train", "train", "train", "train")),
    ("purpose", ("ValidSet", "Train", "train", "hold_out"), ("val", "train", "train", "test")),
    ("x", ("train-2017", "val-2017", "test-2017", "train-2017"), ("train", "val", "test", "train")),
    ("train", ("train", "Val", "train", "test"), ("train", "val", "train", "test")),
]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(("name", "values", "splits"), GIVEN, ids=[name for name, *_ in GIVEN])
def test_splits_under_other_words_are_refused_and_the_remedy_reads_them_with_a_note(
    folder: Path, name: str, values: tuple[str, ...], splits: tuple[str, ...], kind: str
) -> None:
    columns = {"path": NAMES, "label": ["a", "a", "a", "b"], name: list(values)}
    columns["label"] = ["a" if split != "train" else "ab"[n == splits.index("train")] for n, split in enumerate(splits)]
    if splits.count("train") == 1:
        columns["label"] = ["b"] * 4
    rows = [columns, *zip(*columns.values(), strict=True)]
    path = write_parquet(folder, columns) if kind == "parquet" else write(folder, "\n".join(map(",".join, rows)))
    sentence = refusal(path)
    assert f"'{name}' looks like the column split, and with that name would be ignored" in sentence
    take, leave = remedies(sentence)
    listed = read(path, *take)
    assert tuple(source.split for source in listed.sources) == splits
    if name == "Usage":
        assert listed.notes == [
            f"{path}: values of the column split are read as splits: 'PrivateTest' as test, 'PublicTest' as test, "
            "'Training' as train"
        ]
    assert {source.split for source in read(path, *leave).sources} == {None}


def test_values_of_the_column_split_itself_may_be_words_with_affixes(folder: Path) -> None:
    path = write(folder, "path,label,split\n1.jpg,a,train_set\n2.jpg,b,train_set\n3.jpg,b,PublicTest\n")
    assert [source.split for source in read(path).sources] == ["train", "train", "test"]
    assert "'PublicTest' as test, 'train_set' as train" in read(path).notes[0]


FLAGGED = [
    "is_train",
    "isTrain",
    "train",
    "is_training",
    "training",
    "in_test",
    "test_flag",
    "used for training",
    "val",
]


@pytest.mark.parametrize("name", FLAGGED)
@pytest.mark.parametrize("values", [("1", "0"), ("True", "False"), ("1.0", "0.0"), ("yes", "no"), ("Y", "N")])
def test_flag_of_a_split_is_refused_with_what_to_write_and_how_to_ignore_it(
    folder: Path, name: str, values: tuple[str, str]
) -> None:
    path = write(folder, f"path,label,{name}\n1.jpg,a,{values[0]}\n2.jpg,b,{values[1]}\n3.jpg,b,\n")
    sentence = refusal(path)
    assert f"looks like the column split, but its values, for example '{values[0]}', are not splits" in sentence
    assert "write a column split of train, val and test instead" in sentence
    (leave,) = remedies(sentence)
    assert leave == ["--columns", "split="]
    assert read(path, *leave).notes == [f"{path}: unused columns: {name}"]
    path = write(folder, f"path,label,{name},split\n1.jpg,a,1,train\n2.jpg,b,0,train\n")
    assert {source.split for source in read(path).sources} == {"train"}


def test_flag_of_a_split_in_parquet_is_refused_whatever_its_type(folder: Path) -> None:
    for values in ([1, 0], [True, False], [1.0, 0.0]):
        path = write_parquet(folder, {"path": NAMES[:2], "label": ["a", "b"], "is_train": values})
        assert "write a column split of train, val and test instead" in refusal(path)


def test_column_train_of_railways_can_be_left_out(folder: Path) -> None:
    path = write(folder, "path,label,train\n1.jpg,a,ICE 4\n2.jpg,b,TGV\n")
    (leave,) = remedies(refusal(path))
    assert read(path, *leave).notes == [f"{path}: unused columns: train"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("fold", "0 1 2"),
        ("mode", "RGB L RGB"),
        ("valid", "good bad good"),
        ("test", "PCR swab PCR"),
        ("test_result", "1 0 1"),
        ("invalid", "1 0 1"),
        ("evaluation", "good bad good"),
        ("source", "train_1.png test_2.png val_3.png"),
        ("device", "dev_board test_rig dev_board"),
    ],
)
def test_column_that_has_a_word_for_a_split_and_means_none_is_left_alone(folder: Path, name: str, values: str) -> None:
    rows = "".join(f"{n}.jpg,{'ab'[n % 2]},{value}\n" for n, value in enumerate(values.split(), 1))
    listed = read(write(folder, f"path,label,{name}\n{rows}"))
    assert listed.notes == [f"{folder}/list.csv: unused columns: {name}"]


def test_column_that_holds_splits_is_named_before_one_that_is_called_so(folder: Path) -> None:
    path = write(folder, "path,label,is_valid,use\n1.jpg,a,0,train\n2.jpg,b,0,train\n3.jpg,b,1,test\n")
    assert remedies(refusal(path))[0] == ["--columns", "split=use"]


def test_splits_beside_another_word_are_not_lost(folder: Path) -> None:
    path = write(folder, "path,label,stage\n1.jpg,a,train\n2.jpg,b,train\n3.jpg,b,test\n4.jpg,b,unused\n")
    sentence = refusal(path)
    assert "'stage' looks like the column split, but its values, for example 'unused', are not splits" in sentence
    assert remedies(sentence) == [["--columns", "split="]]


def test_class_called_train_is_suggested_among_the_columns_of_classes(folder: Path) -> None:
    path = write(folder, "path,boat,train,car\n1.jpg,1,0,0\n2.jpg,0,1,0\n3.jpg,0,0,1\n")
    (take,) = remedies(refusal(path))
    assert take == ["--one-hot", "boat,train,car"]
    assert read(path, *take).classes == ["boat", "car", "train"]
    path = write(folder, "path,boat,is_train,car\n1.jpg,1,0,0\n2.jpg,0,1,1\n3.jpg,0,0,1\n")
    assert remedies(refusal(path)) == [["--columns", "split=", "--one-hot", "boat,car"]]


def test_value_that_is_no_split_is_refused_with_a_way_out(folder: Path) -> None:
    path = write(folder, "path,label,is_train\n1.jpg,a,1\n2.jpg,b,0\n")
    sentence = refusal(path, "--columns", "split=is_train")
    assert "row 2: '1' is not a split; write train, val (validation) or test" in sentence
    (leave,) = remedies(sentence)
    assert {source.split for source in read(path, *leave).sources} == {None}


def test_column_of_another_name_that_holds_splits_alone_is_a_near_miss(folder: Path) -> None:
    path = write(folder, "path,label,fold,use\n1.jpg,a,1,train\n2.jpg,b,2,train\n3.jpg,b,2, test\n")
    assert remedies(refusal(path))[0] == ["--columns", "split=use"]


@pytest.mark.parametrize(
    "name", ["age", "height", "width", "fold", "name", "id", "image", "dataset", "age_group", "weight_kg", "", "view"]
)
def test_column_that_is_no_near_miss_is_left_alone(folder: Path, name: str) -> None:
    listed = read(write(folder, f"path,label,{name}\n1.jpg,a,1\n2.jpg,b,2\n"))
    assert facts(listed) == [("1.jpg", ("a",), None, "", 1.0), ("2.jpg", ("b",), None, "", 1.0)]
    assert listed.notes == [f"{folder}/list.csv: unused columns: {name or '(no name)'}"]


def test_near_miss_beside_the_column_itself_is_left_alone(folder: Path) -> None:
    path = write(folder, "path,label,split,subset,group,patient\n1.jpg,a,train,test,g,1\n2.jpg,b,train,test,h,2\n")
    assert [(source.split, source.group) for source in read(path).sources] == [("train", "g"), ("train", "h")]


def test_groups_by_regex_leave_no_question_about_a_column_of_patients(folder: Path) -> None:
    path = write(folder, "path,label,patient_id\n1.jpg,a,x\n2.jpg,b,y\n")
    assert [source.group for source in read(path, "--group-regex", r"\d").sources] == ["1", "2"]


# what must be there: path and label

REAL = {
    "image_id,dx,lesion_id,age": ["--columns", "path=image_id,label=dx,group=lesion_id"],
    "Image Index,Finding Labels,Patient Age,Patient ID": [
        "--columns",
        "path=Image Index,label=Finding Labels,group=Patient ID",
    ],
    "id_code,diagnosis,x,y": ["--columns", "path=id_code,label=diagnosis"],
    "id,breed,sex,age": ["--columns", "path=id,label=breed"],
    "Filename,Class,w,h": ["--columns", "path=Filename,label=Class"],
    "fname,labels,w,h": ["--columns", "path=fname,label=labels"],
    "paths,lable,w,h": ["--columns", "path=paths,label=lable"],
    "file,category,w,h": ["--columns", "path=file,label=category"],
    "image,target,w,h": ["--columns", "path=image,label=target"],
    "path,klasse,w,h": ["--columns", "label=NAME"],
}


@pytest.mark.parametrize("header", REAL)
def test_words_of_the_field_for_path_and_label_are_refused_with_the_option(folder: Path, header: str) -> None:
    path = write(folder, f"{header}\n1.jpg,a,7,p\n2.jpg,b,8,q\n")
    (found,) = remedies(refusal(path))
    assert found == REAL[header]
    if "NAME" in found[1]:
        found[1] = found[1].replace("NAME", "klasse")
    listed = read(path, *found)
    assert [(source.name, *source.labels) for source in listed.sources] == [("1.jpg", "a"), ("2.jpg", "b")]
    if "write group= there" in refusal(path):
        found[1] = re.sub("group=.*", "group=", found[1])
        assert {source.group for source in read(path, *found).sources} == {""}


def test_options_given_already_are_kept_in_the_remedy(folder: Path) -> None:
    path = write(folder, "file,klasse,subset,n\n1.jpg,a,train,1\n2.jpg,b,train,2\n")
    take = remedies(refusal(path, "--columns", "label=klasse"))[0]
    assert take == ["--columns", "label=klasse,path=file,split=subset"]
    assert read(path, *take).classes == ["a", "b"]


def test_names_with_commas_quotes_and_blanks_can_be_named(folder: Path) -> None:
    path = write(folder, '"file, or image","my ""class""",x\n1.jpg,a,1\n2.jpg,b,1\n')
    listed = read(path, "--columns", '"path=file, or image","label=my ""class"""')
    assert listed.classes == ["a", "b"]


@pytest.mark.parametrize("rows", ["1.jpg,a\n2.jpg,b\n", "1.jpg,train,a\n2.jpg,train,b\n", "a,1.jpg\nb,2.jpg\n"])
def test_list_without_names_of_columns_is_refused_and_the_line_it_gives_helps(folder: Path, rows: str) -> None:
    sentence = refusal(write(folder, rows))
    assert f"begins with a row ('{rows.partition(chr(10))[0]}') instead of the names of its columns" in sentence
    header = sentence.rpartition("for example ")[2]
    assert read(write(folder, f"{header}\n{rows}")).classes == ["a", "b"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["path=fiel"],
            "--columns path=fiel: LIST has no such column; its columns are file, klasse; did you mean 'file'?",
        ),
        (["file=path"], "split, group, weight; did you mean --columns path=file?"),
        (["lable=klasse"], "did you mean --columns label=klasse?"),
        (["klasse"], "write path=NAME with the name of the column after the equals sign"),
        (["path=file,path=klasse"], "--columns names path twice; keep one of them"),
        (["path=file,label=file"], "name one column as path and as label; take one out"),
        (["path=file,label=klasse", "--ending", ""], "--ending is the ending of file names, for example .jpg"),
        (["path=file,label=klasse", "--labels-as", "lists"], "got 'lists'; did you mean 'list'?"),
        (["path=file", "--one-hot", "klase"], "--one-hot klase: LIST has no such column"),
        (["path=file", "--one-hot", "klasse,klasse"], "--one-hot takes names separated by commas, each once"),
        (
            ["path=file,label=klasse", "--unlabelled"],
            "--columns label= sets where labels or splits are, but --unlabelled",
        ),
        (["path="], "has no column path and no column label"),
    ],
)
def test_wrong_option_of_a_list_is_refused_by_its_fact(folder: Path, words: list[str], says: str) -> None:
    path = write(folder, "file,klasse\n1.jpg,a\n2.jpg,b\n")
    assert says.replace("LIST", str(path)) in refusal(path, "--columns", *words)


# base folder and file ending


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """A list of bare names beside the folder of its pictures."""
    for number in range(4):
        path = tmp_path / "data/train images/x.1" / f"ISIC_{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30 + number), (90 * (number % 2), 60 * number, 0)).save(path)
    rows = "".join(f"ISIC_{number},{'ab'[number % 2]},p{number // 2}\n" for number in range(4))
    return write(tmp_path / "data", "image_id,diagnosis,age\n" + rows, "train.csv")


def test_base_folder_and_ending_are_found_named_and_used(kaggle: Path) -> None:
    columns = ["--columns", "path=image_id,label=diagnosis"]
    sentence = refusal(kaggle, *columns)
    assert sentence.startswith(f"{kaggle} row 2: there is no file 'ISIC_0' (nor those of 3 more rows)")
    (found,) = remedies(sentence)
    assert found == ["--base", f"{kaggle.parent}/train images/x.1", "--ending", ".jpg"]
    listed = read(kaggle, *columns, *found)
    assert [source.name for source in listed.sources] == [f"ISIC_{number}.jpg" for number in range(4)]
    assert listed.store.read(listed.sources[0]).startswith(b"\xff\xd8")


@pytest.mark.parametrize("ending", [".jpg", "jpg", ".JPG"])
def test_ending_is_not_added_to_a_name_that_has_it(folder: Path, ending: str) -> None:
    path = write(folder, "path,label\n1.jpg,a\n2.jpg,b\n")
    assert [source.name for source in read(path, "--ending", ending).sources] == ["1.jpg", "2.jpg"]


def test_whole_numbers_of_parquet_are_paths_with_an_ending(folder: Path) -> None:
    path = write_parquet(folder, {"path": [1, 2], "label": ["a", "b"]})
    assert [source.name for source in read(path, "--ending", ".jpg").sources] == ["1.jpg", "2.jpg"]


def test_paths_below_the_folder_above_are_found(folder: Path) -> None:
    (folder / "lists").mkdir()
    path = write(folder / "lists", "path,label\n1.jpg,a\n2.jpg,b\n")
    (found,) = remedies(refusal(path))
    assert len(read(path, *found).sources) == 2


# several labels


@pytest.mark.parametrize(
    ("cell", "form"),
    [
        ("cat|dog", "|"),
        ("cat | dog", "|"),
        ("['cat', 'dog']", "list"),
        ('["cat", "dog"]', "list"),
        ("['cat' 'dog']", "list"),
        ("[cat, dog]", "list"),
        ("('cat', 'dog')", "list"),
        ("{'cat', 'dog'}", "list"),
        ("cat,dog", ","),
        ("cat dog", " "),
        ("cat/dog", "/"),
        ("cat + dog", "+"),
    ],
)
def test_cell_that_may_be_several_labels_is_refused_and_both_remedies_work(folder: Path, cell: str, form: str) -> None:
    quoted = '"' + cell.replace('"', '""') + '"'
    single = ["['cat']", "['dog']"] if form == "list" else ["cat", "dog"]
    path = write(folder, f"path,label\n1.jpg,{quoted}\n2.jpg,{single[0]}\n3.jpg,{single[1]}\n")
    sentence = refusal(path)
    assert f"row 2: '{cell}' may be one class or several labels" in sentence
    several, one = remedies(sentence)
    assert several == ["--labels-as", form]
    listed = read(path, *several)
    assert ([source.labels for source in listed.sources], listed.multi_label, listed.classes) == (
        [("cat", "dog"), ("cat",), ("dog",)],
        True,
        ["cat", "dog"],
    )
    whole = read(path, *one)
    assert (whole.multi_label, set(whole.classes)) == (False, {cell, *single})


def test_tags_between_commas_that_never_stand_alone_are_refused(folder: Path) -> None:
    path = write(folder, 'path,label\n1.jpg,"a, b"\n2.jpg,"b, c"\n3.jpg,"c, a"\n')
    assert read(path, *remedies(refusal(path))[0]).classes == ["a", "b", "c"]


def test_names_of_classes_with_marks_in_them_are_taken(folder: Path) -> None:
    path = write(folder, 'path,label\n1.jpg,"tench, Tinca tinca"\n2.jpg,New York\n3.jpg,and/or\n4.jpg,(unknown)\n')
    assert set(read(path).classes) == {"tench, Tinca tinca", "New York", "and/or", "(unknown)"}


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("[0, 1, 0]", "row 2: '[0, 1, 0]' has a label twice; if it is a vector of 0 and 1, give columns of these to"),
        ("[0 1 0]", "has a label twice"),
        ("cat", "is not a list like ['cat', 'dog'], which --labels-as list requires"),
        ("['cat', dog]", "cannot be read as a list; put each of its labels into quotes"),
    ],
)
def test_cell_that_is_no_list_is_refused_by_its_fact(folder: Path, cell: str, says: str) -> None:
    assert says in refusal(write(folder, f'path,label\n1.jpg,"{cell}"\n2.jpg,[b]\n'), "--labels-as", "list")


@pytest.mark.parametrize("words", [[], ["--labels-as", "list"]], ids=str)
def test_lists_of_parquet_are_several_labels(folder: Path, words: list[str]) -> None:
    path = write_parquet(folder, {"path": NAMES[:3], "label": [["it's", "b; c"], ["b; c"], []]})
    listed = read(path, *words)
    assert [source.labels for source in listed.sources] == [("it's", "b; c"), ("b; c",), ()]
    assert f"{path}: 1 row has no label, and its picture is of none of the classes" in listed.notes


WITHOUT_LABEL = {
    "a blank cell": ("path,label\n1.jpg,{}\n2.jpg,\n3.jpg,b\n4.jpg,a\n", []),
    "an empty list": ("path,label\n1.jpg,{}\n2.jpg,[]\n3.jpg,[b]\n4.jpg,[a]\n", ["--labels-as", "list"]),
    "a separator": ("path,label\n1.jpg,{}\n2.jpg,\n3.jpg,b\n4.jpg,a\n", ["--label-separator", "|"]),
    "columns of zeros": ("path,a,b\n1.jpg,{}\n2.jpg,0,0\n3.jpg,0,1\n4.jpg,1,0\n", ["--one-hot", "a,b"]),
}
BOTH = {"a blank cell": "a;b", "an empty list": '"[a, b]"', "a separator": "a|b", "columns of zeros": "1,1"}


@pytest.mark.parametrize("kind", WITHOUT_LABEL)
def test_row_without_a_label_beside_one_of_several_is_a_picture_of_no_class(folder: Path, kind: str) -> None:
    text, words = WITHOUT_LABEL[kind]
    path = write(folder, text.format(BOTH[kind]))
    listed = read(path, *words)
    assert [source.labels for source in listed.sources] == [("a", "b"), (), ("b",), ("a",)]
    assert (listed.multi_label, listed.classes) == (True, ["a", "b"])
    assert f"{path}: 1 row has no label, and its picture is of none of the classes" in listed.notes


@pytest.mark.parametrize("kind", ["a blank cell", "a separator", "columns of zeros"])
def test_row_without_a_label_among_rows_of_one_is_taken_where_one_says_so(folder: Path, kind: str) -> None:
    text, words = WITHOUT_LABEL[kind]
    path = write(folder, text.format({"columns of zeros": "1,0"}.get(kind, "a")))
    sentence = refusal(path, *words)
    assert "row 3 has " in sentence
    assert "give --empty-labels if it shows none of the classes, or --unlabelled to use no labels" in sentence
    listed = read(path, *words, "--empty-labels")
    assert [source.labels for source in listed.sources] == [("a",), (), ("b",), ("a",)]
    assert listed.multi_label


def test_list_without_any_label_is_refused(folder: Path) -> None:
    path = write(folder, "path,label\n1.jpg,\n2.jpg,\n")
    for words in ([], ["--empty-labels"]):
        assert refusal(path, *words) == f"{path} has no label in any row; add labels, or give --unlabelled"


@pytest.mark.parametrize("kind", ["csv", "text", "numbers", "truths"])
def test_columns_of_0_and_1_are_classes_where_one_says_so(folder: Path, kind: str) -> None:
    flags = {"MEL": [1, 0, 0], "NV, mole": [0, 1, 1], "BCC": [0, 0, 1]}
    convert = {"csv": str, "text": str, "numbers": float, "truths": bool}[kind]
    columns = {"image": NAMES[:3], "age": ["7", "8", "9"]}
    if kind == "csv":
        rows = ['image,age,MEL,"NV, mole",BCC', "1.jpg,7,1.0,0,0", "2.jpg,8,0.0,1,0", "3.jpg,9,0.0,1,1"]
        path = write(folder, "\n".join(rows))
    else:
        path = write_parquet(folder, columns | {name: list(map(convert, column)) for name, column in flags.items()})
    sentence = refusal(path)
    assert sentence.endswith("if each of these columns is a class")
    (found,) = remedies(sentence)
    assert found == ["--columns", "path=image", "--one-hot", 'MEL,"NV, mole",BCC']
    listed = read(path, *found)
    assert [source.labels for source in listed.sources] == [("MEL",), ("NV, mole",), ("NV, mole", "BCC")]
    assert (listed.multi_label, listed.classes) == (True, ["BCC", "MEL", "NV, mole"])
    assert listed.notes == [f"{path}: unused columns: age"]


VECTORS = ["[1 0]", "[1, 0]", "[1. 0.]", "[1.0, 0.0]", "[True False]", "[true, false]", "(1, 0)", "1 0", "1;0", "1|0"]


def turn(vector: str) -> str:
    """Return a vector of two whose values are swapped."""
    first, between, last = re.fullmatch(r"\W?([-\w.]+?)([ ,;|]+)([-\w.]+?)\W?", vector).groups()  # type: ignore[union-attr]
    return vector.replace(f"{first}{between}{last}", f"{last}{between}{first}")


@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize("words", [[], ["--labels-as", "list"], ["--labels-as", ";"], ["--labels-as", " "]], ids=str)
def test_column_of_vectors_of_0_and_1_is_no_column_of_lists(folder: Path, vector: str, words: list[str]) -> None:
    path = write(folder, f'path,label\n1.jpg,"{vector}"\n2.jpg,"{turn(vector)}"\n')
    sentence = refusal(path, *words)
    assert f"row 2: '{vector}' is a vector of 0 and 1, as are the labels of all rows; write a column of" in sentence
    assert "--one-hot" in sentence
    assert "--labels-as list" not in sentence
    (whole,) = remedies(sentence)
    assert [source.labels for source in read(path, *whole).sources] == [(vector,), (turn(vector),)]


@pytest.mark.parametrize("kind", [pa.int64(), pa.int8(), pa.float32(), pa.bool_()], ids=str)
@pytest.mark.parametrize("size", [-1, 2])
@pytest.mark.parametrize("words", [[], ["--labels-as", "list"]], ids=str)
def test_vectors_of_parquet_are_refused_as_those_of_csv(
    folder: Path, kind: pa.DataType, size: int, words: list[str]
) -> None:
    rows = pa.array([[1, 0], [0, 1]], pa.list_(pa.int64())).cast(pa.list_(kind)).cast(pa.list_(kind, size))
    path = write_parquet(folder, {"path": NAMES[:2], "label": rows})
    sentence = refusal(path, *words)
    assert "is a vector of 0 and 1" in sentence
    assert "--labels-as list" not in sentence
    (whole,) = remedies(sentence)
    assert len(read(path, *whole).classes) == 2
    flags = {"path": NAMES[:2], "MEL": [1, 0], "NV": [0, 1]}
    listed = read(write_parquet(folder, flags), "--one-hot", "MEL,NV")
    assert [source.labels for source in listed.sources] == [("MEL",), ("NV",)]


def test_lists_of_the_classes_0_and_1_are_read_where_their_lengths_or_quotes_show_that_they_are(folder: Path) -> None:
    path = write(folder, 'path,label\n1.jpg,"[0, 1]"\n2.jpg,[1]\n3.jpg,[0]\n')
    assert [source.labels for source in read(path, "--labels-as", "list").sources] == [("0", "1"), ("1",), ("0",)]
    path = write(folder, "path,label\n1.jpg,\"['0', '1']\"\n2.jpg,\"['1', '0']\"\n")
    assert [source.labels for source in read(path, "--labels-as", "list").sources] == [("0", "1"), ("1", "0")]
    path = write_parquet(folder, {"path": NAMES[:3], "label": [[0, 1], [1], [0]]})
    assert [source.labels for source in read(path, "--labels-as", "list").sources] == [("0", "1"), ("1",), ("0",)]
    assert read(write(folder, "path,label\n1.jpg,0\n2.jpg,1\n")).classes == ["0", "1"]


@pytest.mark.parametrize("zero", ["0", "0.0", "False"])
def test_class_of_no_picture_is_named_when_it_is_suggested_and_when_it_is_read(folder: Path, zero: str) -> None:
    path = write(folder, f"path,MEL,NV,UNK,age\n1.jpg,1,0,{zero},7\n2.jpg,0,1,{zero},8\n")
    sentence = refusal(path)
    assert sentence.endswith("columns is a class (no picture has a 1 in UNK, so it would not be a class)")
    assert remedies(sentence) == [["--one-hot", "MEL,NV"]]
    listed = read(path, "--one-hot", "MEL,NV,UNK")
    assert listed.classes == ["MEL", "NV"]
    assert f"{path}: no picture has a 1 in UNK, so it is not a class" in listed.notes


def test_several_classes_of_no_picture_are_named_in_one_note(folder: Path) -> None:
    path = write(folder, "path,MEL,NV,UNK,X\n1.jpg,1,0,0,0\n2.jpg,0,1,0,0\n")
    notes = read(path, "--one-hot", "MEL,NV,UNK,X").notes
    assert notes == [f"{path}: no picture has a 1 in UNK and X, so they are not classes"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            "1.jpg,,1",
            "row 2 has '' in the column A of --one-hot; write 1 where the picture is of the class and 0 where",
        ),
        ("1.jpg,-1,1", "row 2 has '-1' in the column A of --one-hot"),
        ("1.jpg,0.5,1", "row 2 has '0.5' in the column A of --one-hot"),
        ("1.jpg,0,0", "row 2 has a 1 in none of the columns of --one-hot, and no row has several; add one, drop the"),
    ],
)
def test_row_of_flags_that_are_none_is_refused(folder: Path, row: str, says: str) -> None:
    assert says in refusal(write(folder, f"path,A,B\n{row}\n2.jpg,1,0\n"), "--one-hot", "A,B")


def test_columns_of_0_and_1_with_one_1_each_are_one_label(folder: Path) -> None:
    listed = read(write(folder, "path,A, B\n1.jpg,1,0\n2.jpg,0,1\n"), "--one-hot", "a,b")
    assert ([source.labels for source in listed.sources], listed.multi_label) == ([("A",), ("B",)], False)


def test_the_only_column_of_0_and_1_is_the_label(folder: Path) -> None:
    path = write(folder, "path,age,sick\n1.jpg,7,1\n2.jpg,9,0\n")
    assert remedies(refusal(path)) == [["--columns", "label=sick"]]


# where else lists are


@pytest.mark.parametrize("option", [["--columns", "path=x"], ["--base", "."], ["--one-hot", "a"], ["--labels-as", "|"]])
def test_options_of_lists_are_refused_for_folders(folder: Path, option: list[str]) -> None:
    assert f"{option[0]} sets how a list is read, but {folder} is not a list" in refusal_of_folder(folder, *option)


def refusal_of_folder(folder: Path, *words: str) -> str:
    for name in "ab":
        (folder / name).mkdir()
        (folder / name / "1.jpg").write_bytes(name.encode())
    return refusal(folder, *words)


def test_list_that_lies_in_a_folder_or_an_archive_is_told_of(folder: Path) -> None:
    path = write(folder, "path,label,split\na/1.jpg,a,train\nb/1.jpg,b,train\n", "train.csv")
    with pytest.raises(UsageError, match=re.escape(f"to pack by the list in it, give {path}")):
        read(folder)
    for name in "ab":
        (folder / name).mkdir()
        (folder / name / "1.jpg").write_bytes(name.encode())
    assert f"{path} is not read; to pack by that list and not by folders, give it as SRC" in read(folder).notes
    with zipfile.ZipFile(folder.parent / "x.zip", "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, Path("in") / file.relative_to(folder))
    assert [note for note in read(folder.parent / "x.zip").notes if "in/train.csv" in note] == [
        f"{folder.parent}/x.zip/in/train.csv is not read; to pack by that list and not by folders, give it as SRC"
    ]
    with zipfile.ZipFile(folder.parent / "y.zip", "w") as archive:
        archive.write(folder / "1.jpg", "in/img/1.jpg")
        archive.write(path, "in/train.csv")
    told = refusal(folder.parent / "y.zip")
    assert told.endswith(f"; to pack by the list in it, give {folder.parent}/y.zip/in/train.csv")


@pytest.mark.parametrize("header", ["Path, weight, Group", "path;weight;GROUP\u00a0", "\ufeffpath\tWEIGHT\tgroup"])
def test_samples_csv_is_read_in_spite_of_blanks_and_case(folder: Path, header: str) -> None:
    for name in "ab":
        (folder / name).mkdir()
        (folder / name / "1.jpg").write_bytes(name.encode())
    row = re.split("[,;\t]", header)
    delimiter = header[len(row[0])]
    write(folder, f"{header}\n" + delimiter.join(["a/1.jpg", " 2", " p1\u00a0"]) + "\n", "samples.csv")
    listed = read(folder)
    assert facts(listed) == [("a/1.jpg", ("a",), None, "p1", 2.0), ("b/1.jpg", ("b",), None, "", 1.0)]
    assert any("samples.csv: columns are used despite blanks or case" in note for note in listed.notes)


# the commands


def test_pack_update_and_audit_take_the_options_and_the_dataset_keeps_them(kaggle: Path, tmp_path: Path) -> None:
    base = f"{kaggle.parent}/train images/x.1"
    options = ["--columns", "path=image_id,label=diagnosis,group=age", "--base", base, "--ending", ".jpg"]
    whole = kaggle.read_text()
    kaggle.write_text(whole.rpartition("ISIC_3")[0])
    done = command("pack", kaggle, tmp_path / "out", *options, "--split", "none")
    assert done.returncode == 0, done.stderr
    kaggle.write_text(whole)
    grown = command("pack", kaggle, tmp_path / "out", *options, "--split", "none", "--update", "--json")
    assert grown.returncode == 0, grown.stderr
    assert json.loads(grown.stdout)["updates"] == 1
    recorded = read_origin(FolderStorage(tmp_path / "out")).commands
    assert [dict(zip(each.options[::2], each.options[1::2], strict=True)) for each in recorded] == [
        {"--columns": options[1], "--base": base, "--ending": ".jpg", "--split": "none"}
    ] * 2
    audit = command("audit", kaggle, "--out", tmp_path / "audit", *options, "--json")
    assert audit.returncode == 0, audit.stderr


def test_given_test_rows_stay_test_rows_whatever_the_spelling(kaggle: Path, tmp_path: Path) -> None:
    rows = "".join(f"train images/x.1/ISIC_{n}.jpg, {'ab'[n % 2]}, {'test' if n == 3 else 'train'}\n" for n in range(4))
    write(kaggle.parent, "path, label, split\n" + rows, "list.csv")
    done = command("pack", kaggle.parent / "list.csv", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert {name: split["samples"] for name, split in json.loads(done.stdout)["splits"].items()} == {
        "train": 3,
        "test": 1,
    }
    assert "note:" in done.stderr
    assert "' split' as split" in done.stderr


def test_quiet_commands_show_no_notes_and_print_their_results(kaggle: Path, tmp_path: Path) -> None:
    rows = "".join(f"train images/x.1/ISIC_{n}.jpg, {'ab'[n % 2]}, {'test' if n == 3 else 'train'}\n" for n in range(4))
    path = write(kaggle.parent, "path, label, split\n" + rows, "list.csv")
    packed, audit = tmp_path / "out", ["--out", tmp_path / "audit"]
    for words in (["pack", path, packed], ["audit", path, *audit], ["verify", packed, "--sample", "1"]):
        quiet = command(*words, "-q")
        assert (quiet.returncode, quiet.stderr) == (0, ""), words
        assert quiet.stdout
    assert "note:" in command("audit", path, *audit).stderr
    wrong = command("pack", kaggle, tmp_path / "wrong", "-q")
    assert (wrong.returncode, wrong.stderr[:7]) == (2, "error: ")
