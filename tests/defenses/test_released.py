"""DP-SGD and SELENA released for real, on few rows and both backends: what the report promises is of the
steps that were taken, and the soft labels are all that a student learns."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import math
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprivacy.backends import open_backend
from edgeprivacy.backends.base import Material
from edgeprivacy.cache import Cache
from edgeprivacy.data.dataset import Dataset, Source
from edgeprivacy.data.splits import Shares, Split, make_split
from edgeprivacy.defenses import Defense, TrainingRows, make_defense
from edgeprivacy.defenses.dpsgd import PrivateSteps
from edgeprivacy.device_runner import open_runner
from edgeprivacy.recipe import Recipe, Run
from edgeprivacy.release import Release, ReleaseMaker
from edgeprivacy.release_audit import audit_releases
from edgeprivacy.release_stages import Making, Stages
from edgeprivacy.results import ArtifactResult, Audit

NEEDS = {"tflite": "tf_keras", "executorch": "executorch"}
BACKENDS = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in NEEDS]
CLASSES = 3
PRUNING = ["prune 1/2", "prune 2/2"]


def rows_of(learnable: float, rows: int = 200) -> Source:
    """Rows of three classes whose centres lie so far apart; 0 leaves labels that can only be remembered."""
    rng = np.random.default_rng(4)
    y = rng.permutation(np.arange(rows) % CLASSES)
    centres = learnable * rng.normal(size=(CLASSES, 20))
    x = (centres[y] + rng.normal(size=(rows, 20))).astype(np.float32)
    ids = np.array([f"row{k}" for k in range(rows)])
    return Source(Dataset(x, y.astype(np.int64), ids, CLASSES, tuple("abc"), "rows"))


@dataclass
class Trained:
    """An original or sub-model that a release trained: on which rows, by whom, and what came out."""

    ids: set[str]
    defense: Any
    weights: list[np.ndarray]


class Watched:
    """A real session that remembers its trainings."""

    def __init__(self, session: Any, seen: list[Trained]) -> None:
        self._session, self._seen = session, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def check(self) -> None:
        """What fails for the model's reasons alone is tested elsewhere."""

    def train(self, material: Any, *arguments: Any, **options: Any) -> Any:
        made = self._session.train(material, *arguments, **options)
        self._seen.append(Trained(set(material.train.ids.tolist()), options.get("defense"), made[0]))
        return made


@dataclass
class Shop:
    """Releases of one recipe with one backend, all by one session."""

    backend: str
    folder: Path
    recipe: Recipe
    source: Source
    trained: list[Trained] = field(default_factory=list)

    def __post_init__(self) -> None:
        pytest.importorskip(NEEDS[self.backend], reason=f"needs the extra {self.backend}")
        self.split: Split = make_split(self.source, "half", Shares(), 0, 0)
        self.session = Watched(open_backend(self.backend).open(self.recipe, CLASSES, (20,)), self.trained)

    @property
    def material(self) -> Material:
        """The target's rows."""
        pool, roles = self.source.pool, self.split.roles
        train = pool.take(roles["pool"][self.split.members(0)])
        return Material(train, *(pool.take(roles[of]) for of in ("validation", "reference", "calibration")))

    def make(self) -> Release:
        """The target, down to what its files answer."""
        opened, of, cache = lambda: self.session, self.source.pool, Cache(self.folder / "kept")
        runner = open_runner("host")
        return ReleaseMaker(self.recipe, self.backend, opened, of, self.split, runner, cache).make(0)

    def compress(self, defense: Defense) -> None:
        """What a release does before it writes files, which are tested elsewhere."""
        opened, cache = lambda: self.session, Cache(self.folder / "kept")
        probe, making = self.material.validation, Making(self.material, 3)
        stages = Stages(
            self.recipe, self.backend, opened, self.source.pool, open_runner("host"), cache, probe
        )
        arm = stages.arm(defense.name, defense, making, stages.original(making))
        stages.compressed(stages.original(making, arm), arm, making)

    def audit(self, release: Release) -> Audit:
        """As `compress` audits it."""
        (self.folder / "artifacts").mkdir(exist_ok=True)
        for made in release.artifacts:
            shutil.copyfile(made.file, self.folder / "artifacts" / made.published_name(None))
        run = Run(jobs=1)
        return audit_releases(
            self.recipe, run, self.source, self.split, [release], self.folder, time.monotonic()
        )


def recipe_of(backend: str, **sections: Any) -> Recipe:
    audit = {"shadows": 0, "attacks": ["loss"], "bootstrap": 100}
    return Recipe.build({"backend": backend, "data": {"source": "rows.npz"}, "audit": audit, **sections})


EPOCHS, PATIENCE, BATCH, EPSILON, DELTA = 8, 2, 8, 0.3, 1e-4
TRAINING = {"epochs": EPOCHS, "patience": PATIENCE, "batch_size": BATCH, "learning_rate": 1e-2}


@dataclass(frozen=True)
class Private:
    """A finished audit, and how many steps were taken with which noise: counted where noise is drawn."""

    members: int
    audit: Audit
    taken: Counter[float]

    def of(self, defense: str) -> ArtifactResult:
        """The compressed file of an arm."""
        return next(a for a in self.audit.artifacts if a.defense == defense and a.role != "original")


@pytest.fixture(scope="module", params=BACKENDS)
def private(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Private:
    """Under DP-SGD from the start, under it from pruning on, and under nothing."""
    recipe = recipe_of(
        request.param,
        training=TRAINING,
        prune={"iterations": 2, "finetune_epochs": EPOCHS, "sparsity": 0.2},
        defense={"name": "dpsgd", "settings": {"epsilon": EPSILON, "delta": DELTA}},
        compare=[
            {"name": "none"},
            {"name": "dpsgd:utility", "settings": {"original": False, "delta": DELTA, "noise": 0.3}},
        ],
        formats=["float32"],
    )
    shop = Shop(request.param, tmp_path_factory.mktemp("private"), recipe, rows_of(learnable=0.0))
    taken: Counter[float] = Counter()
    drawn = PrivateSteps.noise_like

    def noise_like(self: PrivateSteps, *arguments: Any) -> Any:
        taken[self.noise] += 1
        return drawn(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PrivateSteps, "noise_like", noise_like)
        # Attacks are measured here, not in workers, which would take longer to start.
        patch.setattr(
            "edgeprivacy.release_measuring.parallel_map",
            lambda function, items, jobs, told: [function(item) for item in items],
        )
        audit = shop.audit(shop.make())
    return Private(len(shop.material.train), audit, taken)


def test_the_steps_of_the_guarantee_are_those_that_were_taken(private: Private) -> None:
    for name, phases in {"dpsgd": ["original", *PRUNING], "dpsgd:utility": PRUNING}.items():
        facts = private.of(name).facts
        ran = [phase for phase in facts["history"] if "private" in phase]
        (noise,) = {phase["private"]["noise"] for phase in ran}
        assert facts["guarantee"]["steps"] == private.taken[noise] > 0
        assert [phase["phase"] for phase in ran] == phases == list(facts["guarantee"]["phases"])
        a_pass = math.ceil(private.members / BATCH)
        assert facts["guarantee"]["steps"] == sum(a_pass * phase["epochs"] for phase in ran)
        assert sum(phase["epochs"] for phase in ran) < EPOCHS * len(phases), "stops early somewhere"
        assert all(
            phase["private"]["sampling_rate"] == pytest.approx(BATCH / private.members) for phase in ran
        )
    assert len(private.taken) == 2


def test_the_reports_epsilon_is_that_of_these_steps(private: Private) -> None:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.rdp import RdpAccountant

    noise = max(private.taken)
    step = PoissonSampledDpEvent(BATCH / private.members, GaussianDpEvent(noise))
    by_losses, by_moments = (
        kind().compose(step, private.taken[noise]) for kind in (PLDAccountant, RdpAccountant)
    )
    found = private.of("dpsgd").facts["guarantee"]
    assert found["epsilon"] == pytest.approx(by_losses.get_epsilon(DELTA), abs=1e-3)
    assert 0 < found["epsilon"] < by_moments.get_epsilon(DELTA) and found["delta"] == DELTA
    assert found["epsilon"] < EPSILON, "what stopped early keeps more than was asked for"
    said = f"(ε, δ) = ({found['epsilon']:.3g}, {DELTA:g})"
    assert any(said in note and note.startswith("dpsgd: ") for note in private.audit.notes)


def test_a_plain_original_leaves_no_guarantee(private: Private) -> None:
    found = private.of("dpsgd:utility").facts["guarantee"]
    assert found["epsilon"] is None and list(found["unprotected"]) == ["original"]
    (note,) = [note for note in private.audit.notes if note.startswith("dpsgd:utility: ")]
    assert "ε = ∞, no guarantee" in note and "without it: original" in note


def test_what_one_run_shows_stays_below_what_is_promised(private: Private) -> None:
    promised = private.of("dpsgd").facts["guarantee"]["epsilon"]
    shown = {name: private.of(name).bounds.one_run for name in ("dpsgd", "none")}
    assert all(bound.not_run is None for bound in shown.values())
    assert shown["dpsgd"].epsilon <= promised
    assert shown["none"].epsilon > promised, "rows that can only be remembered show when they are"


SUB_MODELS, LEFT_OUT = 4, 2
SELENA = make_defense("selena", {"sub_models": SUB_MODELS, "left_out": LEFT_OUT})


@pytest.fixture(scope="module", params=BACKENDS)
def student(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Every phase that there is: original, pruning, clustering; quantization-aware training is asked for by
    itself."""
    recipe = recipe_of(
        request.param,
        training={"epochs": 2, "batch_size": 32},
        prune={"iterations": 2, "finetune_epochs": 1},
        cluster={"clusters": 8, "epochs": 1},
        quantize={"qat_epochs": 1},
        defense="selena",
        formats=["float32"],
    )
    return Shop(request.param, tmp_path_factory.mktemp("student"), recipe, rows_of(learnable=1.0))


def test_each_soft_label_is_the_mean_of_the_models_that_never_saw_the_row(student: Shop) -> None:
    student.trained.clear()
    student.compress(SELENA)
    train = student.material.train
    everybody = set(train.ids.tolist())
    sub_models = [made for made in student.trained if made.defense is None and made.ids != everybody]
    by_selena = [made for made in student.trained if made.defense is not None]
    assert len(sub_models) == SUB_MODELS and [made.ids for made in by_selena] == [everybody]
    (file,) = (student.folder / "kept").rglob("soft_labels/**/scores.npz")
    soft = np.load(file)["scores"]
    assert soft.shape == (len(everybody), CLASSES)
    answers = [student.session.predict(made.weights, train.x) for made in sub_models]
    for position, row in enumerate(train.ids.tolist()):
        strangers = [k for k, made in enumerate(sub_models) if row not in made.ids]
        assert len(strangers) == LEFT_OUT
        expected = sum(answers[k][position].astype(float) for k in strangers) / LEFT_OUT
        np.testing.assert_allclose(soft[position], expected, atol=1e-6)
    assert len({tuple(sorted(made.ids)) for made in sub_models}) == SUB_MODELS
    assert np.abs(answers[0] - answers[1]).max() > 1e-2, "the mean over others would be another"


def test_hard_labels_change_no_bit_of_the_student(student: Shop) -> None:
    """With soft labels that are given, in every phase; no defense shows that hard ones matter."""
    session, train = student.session, student.material.train
    soft = np.random.default_rng(1).dirichlet(np.ones(CLASSES), len(train)).astype(np.float32)
    made: dict[str, list[list[list[np.ndarray]]]] = {"selena": [], "none": []}
    for labels in (train.y, (train.y + 1) % CLASSES):
        material = replace(student.material, train=replace(train, y=labels))
        rows = TrainingRows(labels, CLASSES).knowing("soft_labels", soft)
        original, _ = session.train(material, 3, defense=SELENA, rows=rows)
        compressed = session.compress(original, material, SELENA, rows, 3)
        finished = session.quantize_aware(compressed, material, SELENA, rows, 3)
        assert [phase["phase"] for phase in finished.history] == [*PRUNING, "cluster", "qat"]
        assert min(phase["steps"] for phase in finished.history) > 0
        made["selena"].append([original, compressed.weights, finished.quantized])
        made["none"].append([session.train(material, 3)[0]])
    for one, other in zip(*made["selena"], strict=True):
        assert len(one) == len(other) > 0 and all(map(np.array_equal, one, other))
    assert not all(map(np.array_equal, *(weights[0] for weights in made["none"])))
