"""Rows of several independent labels, trained, compressed and written as .pte and .ptl files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeprivacy.backends.base import Material
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.defenses import Batch, TrainingRows, make_defense
from edgeprivacy.device_runner import Queries, open_runner
from edgeprivacy.errors import ModelError

torch = pytest.importorskip("torch", reason="needs the extra executorch")
pytestmark = pytest.mark.executorch
nn = torch.nn

LABELS = 4


def several(rows: int, seed: int) -> Dataset:
    """Labels that hold where a direction of their own says so."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 12)).astype(np.float32)
    directions = np.random.default_rng(99).normal(size=(12, LABELS))
    y = (x @ directions + rng.normal(size=(rows, LABELS)) > 0).astype(np.int64)
    ids = np.array([f"{seed}:{row}" for row in range(rows)])
    return Dataset(x, y, ids, LABELS, tuple(map(str, range(LABELS))), "rows")


@pytest.fixture(scope="module")
def made(tools: Any) -> tuple[Any, Material, Any]:
    """A session, its rows, and the original trained on them."""
    from edgeprivacy.backends import open_backend

    material = Material(*(several(size, seed) for seed, size in enumerate((300, 80, 20, 60))))
    recipe = tools.recipe(training__epochs=8, cluster__clusters=8)
    session = open_backend("executorch").open(recipe, LABELS, (12,), label_sets=True)
    return session, material, session.train(material, 3)


def test_the_loss_is_the_mean_binary_cross_entropy(tools: Any) -> None:
    from edgeprivacy.backends.executorch.ops import TorchOps

    rng = np.random.default_rng(1)
    z, y = rng.normal(size=(6, LABELS)).astype(np.float32), rng.integers(0, 2, (6, LABELS))
    p = 1 / (1 + np.exp(-z.astype(float)))
    wanted = [
        -np.mean([np.log(p[r, k] if y[r, k] else 1 - p[r, k]) for k in range(LABELS)]) for r in range(6)
    ]
    found = make_defense("wemem").loss(TorchOps(), Batch(torch.tensor(z), torch.tensor(y)))
    assert float(found) == pytest.approx(np.mean(wanted), rel=1e-5)


def test_each_label_is_learned(made: tuple[Any, Material, Any]) -> None:
    session, material, (weights, history) = made
    answers = session.predict(weights, material.validation.x)
    assert answers.shape == (80, LABELS) and not np.allclose(answers.sum(axis=1), 1)
    right = (answers > 0.5) == material.validation.y
    assert history["validation_accuracy"] == pytest.approx(right.mean(), abs=1e-6)
    assert (right.mean(axis=0) > 0.75).all()


def test_files_answer_what_the_network_does(made: tuple[Any, Material, Any], tmp_path: Any) -> None:
    session, material, (weights, _) = made
    rows = TrainingRows.of(material.train.y, LABELS)
    rows = TrainingRows(rows.labels, rows.classes, np.random.default_rng(0).random(300))
    compressed = session.compress(weights, material, make_defense("wemem"), rows, 5)
    aware = session.quantize_aware(compressed, material, make_defense("wemem"), rows, 5)
    probe = material.validation
    for format, most in (("float32", 1e-5), ("int8", 0.1)):
        check(session, compressed, format, probe, tmp_path / f"{format}.pte", most)
    check(session, compressed, "ptl-int8", probe, tmp_path / "ptl-int8.ptl", 0.1)
    check(session, aware, "qat-int8", probe, tmp_path / "qat-int8.pte", 0.1)


def check(session: Any, ready: Any, format: str, probe: Dataset, path: Any, most: float) -> None:
    _, expected = session.convert(ready, format, probe.x, path, probe.x)
    assert expected.shape == (len(probe), LABELS)
    found = open_runner("host").collect([path], Queries(probe.x, probe.ids, probe.y))[0]
    assert np.abs(found.sets.answers - expected).max() < most, format
    assert found.labels.tolist() == [1] * len(probe)


def test_a_network_of_ones_own_ends_in_sigmoids_or_logits(tools: Any) -> None:
    from edgeprivacy.backends.executorch.models import builder

    def built(*last: Any, labels: bool = True) -> Any:
        return builder(lambda: nn.Sequential(nn.Linear(12, LABELS), *last), "mine", LABELS, (12,), labels)()

    x = torch.randn(5, 12)
    for own in (built(), built(nn.Sigmoid())):
        assert own.head == "sigmoid" and not torch.allclose(own(x).sum(dim=1), torch.ones(5))
    for last, labels in ((nn.Softmax(dim=-1), True), (nn.Sigmoid(), False)):
        with pytest.raises(ModelError, match="one for each label where rows have several"):
            built(last, labels=labels)
    with pytest.raises(ModelError, match="another number of labels"):
        builder(lambda: nn.Linear(12, 1), "mine", 2, (12,), True)()


def test_a_network_with_batch_norm_and_several_labels_can_be_tried(tools: Any) -> None:
    from edgeprivacy.backends import open_backend

    session = open_backend("executorch").open(tools.recipe(), 3, (8, 8, 3), label_sets=True)
    session.check()
