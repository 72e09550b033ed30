"""--records: the table of single rows, which nothing else holds."""

import csv
import json

import numpy as np
import pytest

from edgeprivacy.bounds_results import Records
from edgeprivacy.errors import UsageError
from edgeprivacy.records import COLUMNS, check_records, write_records


def records(risks=None):
    members = np.array([True, False])
    return Records("loss", np.array([2, 0]), np.array([1, 0]), members, np.array([0.5, -1.25]), risks)


def read(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_line_an_artifact_and_row(tmp_path):
    ids = np.array(["a", "b", "=HYPERLINK(1)"])
    path = tmp_path / "records.csv"
    write_records(path, [("int8", ids, records(np.array([0.75, 0.5]))), ("float32", ids, records())])
    found = read(path)
    assert found[0] == {
        **{"artifact": "int8", "row": "'=HYPERLINK(1)", "class": "1", "member": "1", "attack": "loss"},
        **{"score": "0.5", "risk": "0.75"},
    }
    assert [(row["artifact"], row["row"], row["risk"]) for row in found[1:]] == [
        *[("int8", "a", "0.5"), ("float32", "'=HYPERLINK(1)", ""), ("float32", "a", "")]
    ]
    check_records(path)  # a table of records may be written anew


def test_what_somebody_had_is_not_overwritten(tmp_path):
    other = tmp_path / "mine.csv"
    other.write_text("my,own\n1,2\n")
    for path, text in (
        (other, "no table of records"),
        (tmp_path, "is a folder"),
        (tmp_path / "absent" / "r.csv", "does not exist"),
    ):
        with pytest.raises(UsageError, match=text):
            check_records(path)
    assert other.read_text() == "my,own\n1,2\n"
    check_records(None)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Saved outputs of a target and eight shadows that are surer of their members."""
    rng = np.random.default_rng(0)
    members = rng.random((9, 400)) < 0.5
    labels = rng.integers(0, 3, 400)
    logits = rng.normal(size=(9, 400, 3)) + rng.normal(size=(1, 400, 3))
    logits[:, np.arange(400), labels] += 1 + 2 * members
    shares = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    path = tmp_path_factory.mktemp("outputs") / "table.npz"
    ids = np.array([f"row-{number}" for number in range(400)])
    np.savez(path, probabilities=shares.astype(np.float32), labels=labels, members=members, row_ids=ids)
    return path, labels, members[0], ids


def test_records_leave_by_the_option_alone(outputs, tmp_path, edgeprivacy):
    path, labels, members, ids = outputs
    attacks = ["--attacks", "loss,lira.online.global"]
    plain = edgeprivacy("attack", "--table", path, *attacks, "--out", "plain", cwd=tmp_path)
    assert plain.returncode == 0, plain.stderr
    done = edgeprivacy(
        "attack", "--table", path, *attacks, "--out", "out", "--records", "r.csv", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    for folder in ("plain", "out"):
        for file in (tmp_path / folder).rglob("*"):
            assert file.is_dir() or b"row-1" not in file.read_bytes(), file
    found = read(tmp_path / "r.csv")
    assert tuple(found[0]) == COLUMNS and len(found) == 400
    assert {row["attack"] for row in found} == {"lira.online.global"}
    where = {str(row_id): position for position, row_id in enumerate(ids)}
    for row in found:
        assert int(row["member"]) == members[where[row["row"]]]
        assert int(row["class"]) == labels[where[row["row"]]]
        assert 0 <= float(row["risk"]) <= 1
    audit = json.loads((tmp_path / "out" / "audit.json").read_text())["artifacts"][0]["bounds"]
    risky = [row for row in found if float(row["risk"]) >= 0.9]
    told = next(entry for entry in audit["risk"]["above"] if entry[0] == 0.9)
    assert told[1:] == [
        sum(row["member"] == "1" for row in risky),
        sum(row["member"] == "0" for row in risky),
    ]
    assert "fair coins" in audit["one_run"]["not_run"]


def test_a_file_that_is_no_table_stops_before_anything_is_attacked(outputs, tmp_path, edgeprivacy):
    mine = tmp_path / "mine.csv"
    mine.write_text("keep me\n")
    done = edgeprivacy("attack", "--table", outputs[0], "--records", "mine.csv", cwd=tmp_path)
    assert done.returncode == 2 and "no table of records" in done.stderr
    assert mine.read_text() == "keep me\n" and not (tmp_path / "edgeprivacy-out").exists()
