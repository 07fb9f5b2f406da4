from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.packing.tar import RECORD, TarWriter, build_header
from shards.packing.write import _facts
from shards.sources.model import Source


@given(
    name=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=100),
    size=st.integers(0, 8**11 - 1),
)
def test_header_is_that_of_tarfile(name: str, size: int) -> None:
    expected = tarfile.TarInfo(name)
    expected.size, expected.mode = size, 0o644
    assert build_header(name.encode(), size) == expected.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 100_000])
def test_written_samples_are_read_back_by_tarfile(size: int) -> None:
    file = io.BytesIO()
    writer = TarWriter(file)
    offset = writer.add("000000000", {"jpg": b"x" * size, "cls": b"3"})
    again = writer.add("000000001", {"jpg": b"y"})
    sha256 = writer.finish()
    data = file.getvalue()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert content == {"000000000.jpg": b"x" * size, "000000000.cls": b"3", "000000001.jpg": b"y"}
    assert (data[offset : offset + size], data[again : again + 1]) == (b"x" * size, b"y")
    assert sha256 == hashlib.sha256(data).hexdigest()
    assert len(data) % RECORD == 0


@given(st.builds(Source, st.text(min_size=1), st.lists(st.text(), max_size=3).map(tuple), st.none(), st.just(1),
                 weight=st.floats(1e-6, 1e6), group=st.text()))  # fmt: skip
def test_json_beside_a_picture_is_what_json_dumps_writes(source: Source) -> None:
    expected: dict[str, object] = {"source": source.name, "weight": source.weight}
    if len(source.labels) == 1:
        expected["label"] = source.labels[0]
    elif source.labels:
        expected["labels"] = source.labels
    if source.group:
        expected["group"] = source.group
    assert _facts(source) == json.dumps(expected, ensure_ascii=False, sort_keys=True)
