"""The verification of an endpoint, its command, and hostile pictures: over real HTTP through Ray Serve."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from endpoints import MAX_MIB, OPTIONS
from odd_pictures import write_odd
from safetensors.torch import load_file, save_file
from test_docs_python import list_blocks

import cluster
from cluster.client import Answer, Client, PictureRefusedError, RequestRefusedError
from cluster.client.__main__ import main as ask
from cluster.client.problem import Limit
from cluster.verify.__main__ import main
from cluster.verify.differences import Difference, Pair, Tolerance, list_differences
from cluster.verify.sample import Sampled, draw_samples
from cluster.verify.verify import answer_all
from shards.cli.ending import run_command
from shards.dataset.dataset import open_dataset
from shards.errors import DecodeError, UsageError
from shards.files.fingerprint import fingerprint_file
from trainer.contract.bundle import Bundle
from trainer.contract.intact import PAGE, WEIGHTS
from trainer.contract.preprocess import PreprocessSpec, prepare
from trainer.contract.probes import OTHER_BACK_END, SAME_BACK_END, TENSORS, synthesise_pictures

Change = Callable[[dict[str, Any]], object]
TOLERANCE = Tolerance(logits=SAME_BACK_END, ood_score=1e-3)
KINDS = [
    "fingerprint",
    "refused",
    "logits",
    "probabilities",
    "ood_score",
    "label",
    "labels",
    "decision",
    "abstain",
    "set",
]


@pytest.fixture(scope="module")
def bundle(decided_path: Path) -> Bundle:
    return Bundle.load(decided_path)


def change_page(folder: Path, out: Path, change: Change) -> Path:
    """Copy a bundle, and change its bundle.json."""
    shutil.copytree(folder, out)
    page = json.loads((out / PAGE).read_text())
    change(page)
    (out / PAGE).write_text(json.dumps(page))
    return out


def change_weights(folder: Path, out: Path) -> Path:
    """Copy a bundle with other weights in its head, and with the probes' results of those."""
    shutil.copytree(folder, out)
    loaded, tensors = Bundle.load(folder), load_file(out / WEIGHTS)
    tensors["backbone.fc.weight"] = -tensors["backbone.fc.weight"]
    save_file(tensors, out / WEIGHTS)
    loaded.model.load_state_dict(tensors)
    images = load_file(out / "probes" / TENSORS)["images"]
    save_file({"images": images, "logits": loaded.compute_logits(images)}, out / "probes" / TENSORS)
    page = json.loads((out / PAGE).read_text())
    page["weights_sha256"] = fingerprint_file(out / WEIGHTS)
    (out / PAGE).write_text(json.dumps(page))
    return out


def count(differences: list[Difference]) -> dict[str, int]:
    """Return the number of differing pictures of each kind that differs."""
    return {each.kind: each.differs for each in differences if each.differs}


def test_an_endpoint_agrees_with_the_bundle_that_it_serves(
    endpoint_url: str, decided_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, [endpoint_url, str(decided_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[1:-1]] == [[kind, "0", "8"] for kind in KINDS]
    assert lines[-1].endswith("logits may differ by 0.0001 of the largest")
    assert "computes with eager" in lines[-1]


def test_pictures_of_a_split_are_drawn_by_a_seed_and_agree(
    endpoint_url: str, decided_path: Path, dataset_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wish = [f"{dataset_path}:train", "--samples", "10", "--json"]
    assert run_command(main, [endpoint_url, str(decided_path), *wish]) == 0
    page = json.loads(capsys.readouterr().out)
    assert (page["agrees"], page["pictures"], page["tolerance"]) == (True, 10, SAME_BACK_END)
    assert page["served"] == page["bundle"] == Bundle.load(decided_path).page.fingerprint()
    split = open_dataset(dataset_path)["train"]
    drawn = [[each.name for each in draw_samples(split, 10, seed)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 10
    assert len(draw_samples(split, 1000, 0)) == len(split) == 72
    verified = cluster.verify_endpoint(endpoint_url, decided_path, open_dataset(dataset_path), samples=5)
    assert (verified.agrees, verified.pictures) == (True, 5)


def test_other_weights_differ_in_logits_and_words(
    endpoint_url: str, decided_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = change_weights(decided_path, tmp_path / "other")
    assert run_command(main, [endpoint_url, str(other)]) == 3
    out, err = capsys.readouterr()
    rows = {line.split()[0]: line for line in out.splitlines()[1:-1]}
    assert rows["logits"].split()[1] == rows["fingerprint"].split()[1] == "8"
    assert ", not " in rows["logits"]
    assert int(rows["label"].split()[1]) > 0
    assert rows["ood_score"].split()[1] == rows["refused"].split()[1] == "0"
    served, here = (Bundle.load(folder).page.fingerprint() for folder in (decided_path, other))
    assert err.startswith(f"error: {endpoint_url} differs from {other} in fingerprint, logits, ")
    assert "first at probe 0, probe 1, probe 2, probe 3, probe 4; " in err
    assert f"it serves the bundle {served}, and {other} is {here}: deploy that one" in err


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (lambda page: page["decision"]["point"].update(threshold=1e-9), {"label", "labels", "decision"}),
        (lambda page: (page["decision"].pop("conformal"), page["decision"]["ood"].update(threshold=1e9)), {"abstain"}),
        (lambda page: page["decision"]["conformal"].update(thresholds=[1.0, 1.0, 1.0]), {"set"}),
        (lambda page: page["decision"].update(temperature=3.0), {"probabilities"}),
    ],
)
def test_another_decision_differs_in_its_words_alone(
    endpoint_url: str, decided_path: Path, tmp_path: Path, dataset_path: Path, change: Change, kinds: set[str]
) -> None:
    other = change_page(decided_path, tmp_path / "other", change)
    verified = cluster.verify_endpoint(endpoint_url, other, dataset_path)
    found = count(verified.differences)
    assert not verified.agrees
    assert found.pop("fingerprint") == verified.pictures == 24
    assert kinds <= found.keys()
    assert not {"logits", "ood_score", "refused"} & found.keys()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "nowhere does not exist; a finished run keeps its bundle"),
        (["{bundle}", "nowhere"], "nowhere does not exist"),
        (["{bundle}", "{data}:valid"], "a dataset has the splits train, val and test, got 'valid'"),
    ],
)
def test_a_mistake_of_the_command_is_told(
    decided_path: Path, dataset_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    filled = [word.format(bundle=decided_path, data=dataset_path) for word in words]
    assert run_command(main, ["http://127.0.0.1:9", *filled]) == 2
    assert sentence in capsys.readouterr().err


# What counts as a difference, on answers made here.


def make_pairs(bundle: Bundle, changes: dict[str, Any] | None = None) -> list[Pair]:
    """Return the bundle's own answers for its probes, as an endpoint gives them; those of the first are changed."""
    sampled = [Sampled(f"probe {number}", data) for number, data in enumerate(synthesise_pictures())]
    own = answer_all(bundle, sampled)
    theirs: list[Any] = [
        {**each.describe(), "bundle": bundle.page.fingerprint()} for each in own if not isinstance(each, str)
    ]
    theirs[0] |= changes or {}
    return [Pair(*each) for each in zip(sampled, theirs, own, strict=True)]


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, []),
        ({"bundle": "f" * 64}, ["fingerprint"]),
        ({"label": "grey"}, ["label"]),
        ({"labels": []}, ["labels"]),
        ({"decision": None}, ["decision"]),
        ({"set": ["grey"]}, ["set"]),
        ({"probabilities": {"blue": 1.0}}, ["probabilities"]),
        ({"ood_score": 1e9}, ["ood_score"]),
        ({"ood_score": None}, ["ood_score"]),
        ({"logits": None}, ["logits"]),
        ({"logits": [0.0]}, ["logits"]),
        ({"logits": [float("nan")] * 3}, ["logits", "probabilities"]),
    ],
)
def test_each_field_that_differs_is_a_kind_of_its_own(
    bundle: Bundle, changes: dict[str, Any], kinds: list[str]
) -> None:
    found = list_differences(bundle, make_pairs(bundle, changes), TOLERANCE)
    assert list(count(found)) == kinds
    assert all(each.pictures == ["probe 0"] and each.example for each in found if each.differs)


def test_a_picture_that_only_one_of_both_refuses_differs(bundle: Bundle) -> None:
    pairs = make_pairs(bundle)
    refusal = PictureRefusedError("it is empty")
    pairs[0] = Pair(pairs[0].sampled, refusal, pairs[0].own)
    pairs[1] = Pair(pairs[1].sampled, pairs[1].theirs, "it is damaged")
    pairs[2] = Pair(pairs[2].sampled, refusal, "it is empty")
    found = {each.kind: each for each in list_differences(bundle, pairs, TOLERANCE)}
    assert found["refused"].pictures == ["probe 0", "probe 1"]
    assert found["refused"].example == "the endpoint refuses it (it is empty)"
    assert found["logits"].compared == 5


def test_words_of_a_picture_at_a_border_are_equal_if_the_bundle_decides_so_for_the_endpoints_logits(
    bundle_path: Path,
) -> None:
    bundle, sampled = Bundle.load(bundle_path), Sampled("border", b"")
    scale = 10.0
    near, far = torch.tensor([scale, scale + 1e-5, 0.0]), torch.tensor([scale, scale - 1e-5, 0.0])
    own, theirs = bundle.answer(near), bundle.answer(far)
    assert own.label != theirs.label

    def compare(said: dict[str, Any], tolerance: float) -> dict[str, int]:
        answer: Answer = {**said, "bundle": bundle.page.fingerprint()}  # type: ignore[typeddict-item]
        return count(list_differences(bundle, [Pair(sampled, answer, own)], Tolerance(tolerance, 0.0)))

    assert compare(theirs.describe(), SAME_BACK_END) == {}
    assert compare(theirs.describe(), 1e-9) == {"logits": 1, "label": 1, "labels": 1}
    lying = theirs.describe() | {"label": own.label, "labels": own.labels}
    assert compare(lying, SAME_BACK_END) == {}, "the words are those of the bundle"


@pytest.mark.parametrize(
    ("model", "tolerance"),
    [
        ({"backend": "computes with eager: no choice", "device": "cpu"}, SAME_BACK_END),
        ({"backend": "computes with eager, as requested", "device": "cuda:0"}, OTHER_BACK_END),
        ({"backend": "computes with onnxruntime, as requested", "device": "cpu"}, OTHER_BACK_END),
        ({}, OTHER_BACK_END),
    ],
)
def test_the_tolerance_is_that_of_the_back_end_that_the_endpoint_states(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, model: dict[str, Any], tolerance: float
) -> None:
    said = [pair.theirs for pair in make_pairs(bundle)]
    monkeypatch.setattr(Client, "model", lambda _: model)
    monkeypatch.setattr(Client, "predict_many", lambda _, pictures: said[: len(list(pictures))])
    assert cluster.verify_endpoint("http://127.0.0.1:9", bundle).tolerance == tolerance


def test_a_bundle_in_memory_needs_data(bundle: Bundle) -> None:
    unsaved = Bundle(bundle.page, bundle.model, bundle.device, detector=bundle.detector)
    with pytest.raises(UsageError, match="exists only in memory"):
        cluster.verify_endpoint("http://127.0.0.1:9", unsaved)


# The endpoint and the process, through the client.


def test_the_example_of_the_page_runs_on_a_real_endpoint(
    endpoint_url: str, decided_path: Path, dataset_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = next(text for needs_endpoint, text in list_blocks() if needs_endpoint)
    red, blue = (next((pictures / "test" / name).iterdir()) for name in ("red", "blue"))
    for written, there in (
        ("http://127.0.0.1:8000", endpoint_url), ("pictures/cat/1.png", red), ("pictures/dog/1.png", blue),
        ("runs/smoke/bundle", decided_path),
    ):  # fmt: skip
        assert written in code
        code = code.replace(written, str(there))
    exec(compile(code, "docs/python.md", "exec"), {"data": open_dataset(dataset_path)})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[3] == "2"
    assert lines[4].startswith("True [Difference(")


@pytest.mark.parametrize("size", [int(MAX_MIB * 2**20) + 1, 40 * 2**20])
def test_a_picture_over_the_limit_is_refused_with_the_limit(endpoint_url: str, size: int) -> None:
    with Client(endpoint_url) as client, pytest.raises(PictureRefusedError, match="over the limit of") as caught:
        client.predict(bytes(size))
    assert caught.value.problem is not None
    assert caught.value.problem.limit == Limit("max_mib", MAX_MIB)


def test_an_option_that_the_endpoint_refuses_is_the_callers_mistake(endpoint_url: str, pictures: Path) -> None:
    good = next((pictures / "test" / "red").iterdir())
    with Client(endpoint_url) as client:
        for refused in ({"top_k": 0}, {"threshold": 2.0}):
            with pytest.raises(RequestRefusedError, match="refuses the request: "):
                client.predict(good, **refused)  # type: ignore[arg-type]
        answer = client.predict(good, top_k=2, explain=True, threshold=0.0)
    assert (len(answer["top_k"]), answer["label"], answer["explanation"]["label"]) == (2, "red", "red")
    assert "logits" not in answer


def prepare_or_explain(data: bytes, spec: PreprocessSpec) -> torch.Tensor | str:
    try:
        return prepare(data, spec)
    except DecodeError as err:
        return str(err)


@pytest.mark.filterwarnings("default")  # a warning of Pillow that is an error here gives another sentence
def test_every_odd_and_hostile_picture_has_the_outcome_that_it_has_in_process(
    endpoint_url: str, bundle: Bundle, tmp_path: Path
) -> None:
    files = write_odd(tmp_path)
    with Client(endpoint_url) as client:
        outcomes = client.predict_many(files)
    spec = bundle.page.preprocess
    limited = spec.decode.model_copy(update={"max_pixels": int(OPTIONS["max_megapixels"] * 1e6)})
    refused = 0
    for file, outcome in zip(files, outcomes, strict=True):
        data = file.read_bytes()
        if len(data) > MAX_MIB * 2**20:
            assert f"the picture has {len(data):,} bytes, over the limit" in str(outcome), file.name
            continue
        image = prepare_or_explain(data, spec.model_copy(update={"decode": limited}))
        if isinstance(image, str):
            assert isinstance(outcome, PictureRefusedError), file.name
            assert str(outcome) == image, file.name
            refused += 1
            continue
        assert not isinstance(outcome, PictureRefusedError), f"{file.name}: {outcome}"
        expected = bundle.compute(image[None])[0].logits
        torch.testing.assert_close(torch.tensor(outcome["logits"]), expected, rtol=1e-3, atol=1e-3, msg=file.name)
    assert 30 < refused < len(files) - 30


def test_a_hostile_picture_spoils_no_other_and_says_its_own_sentence_alone_too(
    endpoint_url: str, pictures: Path, tmp_path: Path
) -> None:
    good = next((pictures / "test" / "red").iterdir())
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(good.read_bytes()[:100])
    with Client(endpoint_url) as client:
        with pytest.raises(PictureRefusedError) as alone:
            client.predict(bad)
        first, second, third = client.predict_many([good, bad, good])
    assert isinstance(second, PictureRefusedError)
    assert str(second) == str(alone.value)
    assert alone.value.problem is not None
    assert alone.value.problem.request_id
    assert not isinstance(first, PictureRefusedError)
    assert not isinstance(third, PictureRefusedError)
    assert first["label"] == third["label"]


def test_the_clients_csv_is_that_of_predict(
    endpoint_url: str, decided_path: Path, pictures: Path, tmp_path: Path
) -> None:
    from trainer.predict.__main__ import main as predict

    folder = str(pictures / "test")
    assert run_command(ask, [endpoint_url, folder, "--out", str(tmp_path / "endpoint.csv")]) == 0
    assert run_command(predict, [str(decided_path), folder, "--out", str(tmp_path / "process.csv")]) == 0
    with open(tmp_path / "endpoint.csv") as one, open(tmp_path / "process.csv") as other:
        rows, expected = list(csv.DictReader(one)), list(csv.DictReader(other))
    assert len(rows) == 24
    for row, wanted in zip(rows, expected, strict=True):
        assert row.keys() == wanted.keys()
        for name, value in row.items():
            if name == "probability" or name.startswith("probability_") or name == "ood_score":
                assert float(value) == pytest.approx(float(wanted[name]), rel=1e-3, abs=1e-5)
            else:
                assert value == wanted[name]
