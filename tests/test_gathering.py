"""Queries of attacks to real .tflite files, and to a runner that keeps what it was asked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from edgeprivacy import gathering
from edgeprivacy.attacks import Signals, attacks, score_target
from edgeprivacy.attacks.queries import InputSpace
from edgeprivacy.converters import read_facts
from edgeprivacy.converters.facts import TensorFacts
from edgeprivacy.device_runner import Queries, open_runner
from edgeprivacy.errors import DataError, UsageError
from edgeprivacy.gathering import gather, query_attacks
from edgeprivacy.seeding import generator

ROWS = 40
LABEL_ONLY = ["label-only.noise", "label-only.augment", "label-only.boundary"]


class Recorder:
    """Forwards to the host runner and keeps every (file, rows) asked."""

    def __init__(self, runner):
        self.runner, self.asked = runner, []

    def collect(self, paths: Sequence[Path], queries: Queries, *, logits: bool = False):
        self.asked.append((paths[0], queries.x.copy()))
        return self.runner.collect(paths, queries, logits=logits)


@pytest.fixture(scope="module")
def host():
    runner = open_runner("host")
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def queries(leaky):
    data = np.load(leaky.members)
    ids = np.array([f"row {i}" for i in range(ROWS)])
    return Queries(data["x"][:ROWS], ids, data["y"][:ROWS])


def test_a_tflite_file_answers_as_its_own_network(leaky, host, queries):
    """The noisy rows are run once more by TensorFlow's interpreter, one by one."""
    import tensorflow as tf

    found = gather(["samia"], host, [leaky.files["float32"]], queries, seed=5)["samia"]
    assert found.shape == (1, ROWS, 5)
    interpreter = tf.lite.Interpreter(str(leaky.files["float32"]))
    interpreter.allocate_tensors()
    entry, exit_ = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def ask(x):
        answers = []
        for row in x:
            interpreter.set_tensor(entry["index"], row[None].astype(np.float32))
            interpreter.invoke()
            answers.append(interpreter.get_tensor(exit_["index"])[0].copy())
        return np.array(answers)

    rng = generator(5, "gather", "samia", 0)
    expected = attacks["samia"].gather(ask, queries.x, queries.labels, InputSpace.of(queries.x), rng)
    np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-3)


def test_all_files_are_asked_the_same_rows_whose_noise_the_coarsest_can_see(leaky, host, queries):
    files = [leaky.files["float32"], leaky.files["int8"]]
    recorder = Recorder(host)
    found = gather(["loss", "samia"], recorder, files, queries)
    assert list(found) == ["samia"] and found["samia"].shape == (2, ROWS, 5)
    by_file = [[x for path, x in recorder.asked if path == file] for file in files]
    assert len(by_file[0]) == attacks["samia"].queries
    assert all(np.array_equal(a, b) for a, b in zip(*by_file, strict=True))
    step = read_facts(files[1]).inputs[0].scale
    np.testing.assert_allclose(found["samia"][..., -1], 2 * step, rtol=1e-6)
    assert (found["samia"][1, :, :-1] > 0).any(axis=1).mean() > 0.7


def test_same_seed_same_answers_whatever_else_is_asked(leaky, host, queries):
    files = [leaky.files["int8"]]
    first, again, other = (gather(["samia"], host, files, queries, seed=seed)["samia"] for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_rows_are_varied_in_blocks_and_progress_is_told(leaky, host, queries, monkeypatch):
    monkeypatch.setattr(gathering, "_BLOCK_BYTES", 4 * 20 * 15)
    told, recorder = [], Recorder(host)
    files = [leaky.files["float32"]] * 2
    found = gather(["samia"], recorder, files, queries, progress=lambda *now: told.append(now))
    assert [len(x) for _, x in recorder.asked[:: attacks["samia"].queries]] == [15, 15, 15, 15, 10, 10]
    assert told[-1] == (6, 6, "samia asked float32.tflite") and len(told) == 6
    assert np.array_equal(found["samia"][0], found["samia"][1])
    first, second = recorder.asked[1][1] - queries.x[:15], recorder.asked[23][1] - queries.x[15:30]
    assert not np.allclose(first, second)  # each block has noise of its own


def test_logits_are_made_probabilities(leaky, host, queries):
    by_logits = gather(["samia"], host, [leaky.files["logits"]], queries, logits=True)["samia"]
    by_softmax = gather(["samia"], host, [leaky.files["float32"]], queries)["samia"]
    np.testing.assert_allclose(by_logits, by_softmax, rtol=2e-2, atol=1e-3)


def test_a_file_of_whole_numbers_is_given_whole_numbers(monkeypatch, queries):
    """Its rows may have been read as floats."""

    class Whole:
        def collect(self, paths, asked, *, logits=False):
            assert np.array_equal(asked.x, np.rint(asked.x)) and asked.x.max() <= 255 and asked.x.min() >= 0
            share = asked.x[:, :1].astype(np.float32) / 255
            return [type("Answer", (), {"probabilities": np.hstack([share, 1 - share])})]

    monkeypatch.setattr(gathering, "_input", lambda file: TensorFacts("x", (-1, 20), "uint8"))
    x = np.random.default_rng(0).integers(0, 256, (ROWS, 20)).astype(np.float32)
    rows = Queries(x, queries.row_ids, queries.labels % 2)
    found = gather(["samia"], Whole(), [Path("a.tflite")], rows)["samia"]
    np.testing.assert_allclose(found[..., -1], 2.0)
    assert (found[0, :, 0] > 0).mean() > 0.9


def test_what_was_gathered_is_attacked(leaky, host):
    """A network that knows its training rows by heart: sensitivities of members differ from others'."""
    inside, outside = np.load(leaky.members), np.load(leaky.nonmembers)
    x, y = (np.concatenate([inside[key], outside[key][:300]]) for key in "xy")
    rows = Queries(x, np.array([str(i) for i in range(600)]), y)
    files = [leaky.files["int8"]]
    answered = host.collect(files, rows)[0]
    signals = Signals(
        answered.probabilities[None],
        y,
        (np.arange(600) < 300)[None],
        np.ones((1, 600), dtype=bool),
        answered.log_floor,
        gathered=gather(["samia"], host, files, rows),
    )
    scores = score_target(attacks["samia"], signals).values
    assert scores[:300].mean() > scores[300:].mean() + 0.03


def test_classes_alone_give_members_away(leaky, host):
    """Members are farther from the boundary and keep their class in more noise; vectors cannot be shifted."""
    inside, outside = np.load(leaky.members), np.load(leaky.nonmembers)
    x, y = (np.concatenate([inside[key][:150], outside[key][:150]]) for key in "xy")
    rows = Queries(x, np.array([str(i) for i in range(300)]), y)
    found = gather(LABEL_ONLY, host, [leaky.files["int8"]], rows)
    answered = host.collect([leaky.files["int8"]], rows)[0]
    members = np.arange(300) < 150
    everything = np.ones((1, 300), dtype=bool)
    signals = Signals(
        answered.probabilities[None], y, members[None], everything, answered.log_floor, gathered=found
    )
    for name in ("label-only.noise", "label-only.boundary"):
        assert roc_auc_score(members, attacks[name](signals).values) > 0.6
    distance = found["label-only.boundary"][0]
    assert np.array_equal(distance > 0, answered.probabilities.argmax(axis=1) == y)
    assert found["label-only.augment"].shape == (1, 300, 0)
    assert "images" in attacks["label-only.augment"].missing(signals, None)


def test_names_and_labels_are_checked(leaky, host, queries):
    assert query_attacks(["loss", "samia", "lira.online"]) == ("samia",)
    assert gather(["loss"], host, [leaky.files["int8"]], queries) == {}
    with pytest.raises(UsageError, match="samia"):
        query_attacks(["samea"])
    unlabelled = Queries(queries.x, queries.row_ids, np.full(ROWS, -1))
    with pytest.raises(DataError, match="true labels"):
        gather(["samia"], host, [leaky.files["int8"]], unlabelled)
