"""Attacks on outputs that were collected already: arrays, saved confidences or tables."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeprivacy.attacks import Population, Signals
from edgeprivacy.attacks.calibration import without
from edgeprivacy.confidences import FLOAT_LOG_FLOOR, Confidences
from edgeprivacy.data.checks import LABEL_SETS_NOTE, is_label_sets
from edgeprivacy.environment import describe
from edgeprivacy.errors import DataError
from edgeprivacy.files import sha256_arrays, sha256_json
from edgeprivacy.folders import output_folder
from edgeprivacy.gate import evaluate, parse_gate, verdict
from edgeprivacy.gate_grammar import GateOn, refuse_bounds
from edgeprivacy.given_shadows import GivenShadows, fit_beside, usable_models
from edgeprivacy.measuring import chosen_attacks, measure_attacks, run_facts
from edgeprivacy.multi_label import as_two_classes, checked_sigmoids
from edgeprivacy.probabilities import checked_probabilities, labels_in_range
from edgeprivacy.records import check_records, write_records
from edgeprivacy.report import write
from edgeprivacy.results import ArtifactResult, AttackResult, Audit
from edgeprivacy.seeding import derive_seed
from edgeprivacy.sides import (
    NO_SHADOWS,
    RESAMPLES,
    Sides,
    attack_sides,
    bound_sides,
    enough_rows,
    shadow_tests,
)


def attack(
    probabilities: ArrayLike,
    labels: ArrayLike,
    members: ArrayLike,
    *,
    attacks: Sequence[str] = (),
    population: tuple[ArrayLike, ArrayLike] | None = None,
    log_floor: float = FLOAT_LOG_FLOOR,
    logits: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[AttackResult, ...]:
    """Attack a model through its outputs on rows of known membership.

    Without shadows, thresholds and learned attacks are cross-fitted: no row takes part in its own threshold.

    Args:
        probabilities: [rows, classes] of the target, each row summing to one ([rows] or one column: p of
            class 1); or [models, rows, classes], the target first and shadows trained by the same recipe
            after it. A shadow trained on exactly the rows that the target did not is put aside.
        labels: int [rows], true classes 0..classes-1; or, of a model of independent labels, 0 and 1
            [rows, labels], with probabilities of each label [(models,) rows, labels].
        members: bool [rows], whether a row trained the target; with shadows [models, rows].
        attacks: Names, see `edgeprivacy attacks`; the default set if empty.
        population: Outputs and labels of rows that trained no model and are not among `probabilities`, for
            attack-p and RMIA: ([rows, classes] or [models, rows, classes], [rows]).
        log_floor: Smallest probability that carries information: half a step of the grid for quantized
            probabilities (`Confidences.log_floor`).
        logits: The outputs are logits; the softmax is taken in float64.
        resamples: Bootstrap resamples behind each interval.
        seed: Of folds, intervals and learned attacks.

    Returns:
        One result an attack, with metrics from 0 to 1, or with the reason why it was skipped.

    Raises:
        UsageError: Unknown attack.
        DataError: Shapes do not fit, outputs are no distributions, a label is out of range, too few rows, or
            a shadow that trained on exactly the target's members.
    """
    names = chosen_attacks(attacks)
    outputs = _outputs(probabilities, labels, "the probabilities", logits)
    classes = _classes(labels, outputs, "the labels")
    known = np.asarray(members)
    if known.dtype.kind not in "biu" or not np.isin(known, (0, 1)).all():
        raise DataError("members must be true or false", got=str(known.dtype))
    known = np.atleast_2d(known.astype(np.bool_))
    others = None
    if population is not None:
        values = _outputs(population[0], population[1], "the population", logits)
        if len(values) != len(outputs) or values.shape[2] != outputs.shape[2]:
            raise DataError(
                "the population has other models or classes",
                got=values.shape,
                allowed=f"{len(outputs)} models, {outputs.shape[2]} classes",
            )
        others = Population(values, _classes(population[1], values, "the population's labels"), log_floor)
    signals = Signals(
        outputs,
        classes,
        known,
        np.ones_like(known),
        log_floor,
        others,
        independent_labels=is_label_sets(labels),
    )
    for row in known:
        enough_rows(int(row.sum()), int((~row).sum()))
    for model in reversed(np.setdiff1d(np.arange(len(known)), usable_models(known)).tolist()):
        signals = without(signals, model)
    return measure_attacks(signals, names, resamples, seed)[0]


def audit_confidences(
    sides: Sides,
    name: str,
    *,
    sources: Mapping[str, str] | None = None,
    attacks: Sequence[str] = (),
    fail_if: Sequence[str] = (),
    gate_on: GateOn = "point",
    out: Path | None = None,
    records: Path | None = None,
    drop_overlap: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Audit, Path]:
    """Audit a model of which only its outputs are there.

    Args:
        sides: Its outputs.
        name: Name of the artifact in the report.
        sources: Side name ("members", ...) to the file it came from.
        out: Output folder; "edgeprivacy-out/attack-NAME-HASH" if None. Holds audit.json and report.html.
        records: Also write what was found of every single row, as CSV (see `records`). Nothing else holds it.
        drop_overlap: Drop non-members and population rows that are also members, by id.

    Returns:
        The audit, and the folder.

    Raises:
        UsageError: Unknown attack or gate, or the folder belongs to something else.
        DataError: Rows on both sides, outputs of different widths, too few rows, or a shadow that cannot be
            one (see `given_shadows.fit_beside`).
    """
    # Imported late: half of the start-up time, which a mistake in the arguments need not wait for.
    from edgeprivacy.audit_nulls import output_null_tests

    started = time.monotonic()
    names = chosen_attacks(attacks)
    gates = [parse_gate(text) for text in fail_if]
    refuse_bounds(gates)
    check_records(records)
    sides, dropped = _disjoint(sides, drop_overlap)
    n_members, n_nonmembers = len(sides.members.labels), len(sides.nonmembers.labels)
    enough_rows(n_members, n_nonmembers)
    every = {"members": sides.members, "nonmembers": sides.nonmembers}
    if sides.population is not None:
        every["population"] = sides.population
    _one_model(every)
    if sides.shadows is not None:
        floor = sides.members.log_floor
        sides = replace(sides, shadows=fit_beside(sides.shadows, sides.probabilities, sides.truth, floor))
    hashes = {
        side: sha256_arrays(
            entry.probabilities, entry.labels, np.array(entry.row_ids.tolist(), dtype=np.str_)
        )
        for side, entry in every.items()
    }
    if sides.shadows is not None:
        hashes["shadows"] = sides.shadows.sha256
    settings = {"attacks": list(names), "drop_overlap": drop_overlap, "resamples": resamples, "seed": seed}
    identity = sha256_json({"outputs": hashes, "model": name, **settings})
    folder = out or Path("edgeprivacy-out") / f"attack-{name}-{identity[:8]}"
    with output_folder(folder, f"attack {identity[:16]}"):
        attacked, scores = attack_sides(sides, names, resamples, seed, gates)
        extra = shadow_tests(sides)
        tests = output_null_tests(scores, n_members, n_nonmembers, derive_seed(seed, "null tests"), extra)
        bounds, rows = bound_sides(sides, names, scores, resamples, seed)
        result = replace(_result(name, sides, attacked, hashes), bounds=bounds)
        decided = evaluate(gates, [result], gate_on)
        word, code = verdict(decided, tests)
        audit = Audit(
            verdict=word,
            exit_code=code,
            recipe_id=None,
            split=_split(every, hashes, sources or {}, dropped, seed, sides.shadows),
            null_tests=tests,
            artifacts=(result,),
            gates=decided,
            notes=_notes(sides, dropped),
            recipe=settings,
            environment=describe(time.monotonic() - started),
        )
        if records is not None:
            write_records(records, [] if rows is None else [(name, sides.row_ids, rows)])
        audit.save(folder / "audit.json")
        write(audit, "html", folder / "report.html")
    return audit, folder


def _outputs(values: ArrayLike, labels: ArrayLike, what: str, logits: bool) -> NDArray[np.float32]:
    """float32 [models, rows, classes]; two classes stand for independent labels."""
    array = np.asarray(values)
    models = array if array.ndim == 3 else array[None]
    if is_label_sets(labels):
        answers = [checked_sigmoids(model, Path(what), logits) for model in models]
        return np.stack([as_two_classes(each, np.asarray(labels), what) for each in answers])
    return np.stack([checked_probabilities(model, Path(what), logits) for model in models])


def _classes(labels: ArrayLike, outputs: NDArray[np.float32], what: str) -> NDArray[np.int64]:
    array = np.asarray(labels)
    if is_label_sets(array):
        return np.ones(len(array), dtype=np.int64)
    if array.shape != (outputs.shape[1],) or array.dtype.kind not in "biu":
        raise DataError(f"{what} must be one class index a row", got=f"shape {array.shape} of {array.dtype}")
    classes = array.astype(np.int64)
    labels_in_range(classes, outputs.shape[2], what)
    return classes


def _one_model(every: Mapping[str, Confidences]) -> None:
    """Raises DataError unless all sides can be the answers of one model."""
    labels = {name: None if side.sets is None else side.sets.truth.shape[1] for name, side in every.items()}
    if len(set(labels.values())) > 1:
        got = ", ".join(f"{count or 'no'} independent labels of the {name}" for name, count in labels.items())
        raise DataError("the sides have different numbers of labels", got=got)
    classes = {name: side.probabilities.shape[1] for name, side in every.items()}
    if len(set(classes.values())) > 1:
        got = ", ".join(f"{count} of the {name}" for name, count in classes.items())
        raise DataError("the sides have different numbers of classes", got=got)
    models = {name: _model(side) for name, side in every.items()}
    if len(set(models.values())) > 1:
        got = ", ".join(f"{str(digest)[:12]} for the {name}" for name, digest in models.items())
        raise DataError(
            "the sides were answered by different model files", got=got, hint="collect them from one file"
        )


def _disjoint(sides: Sides, drop: bool) -> tuple[Sides, dict[str, int]]:
    """Sides without a row in common, by id; probabilities do not tell whether inputs are equal.

    Raises:
        DataError: Rows in common that are not to be dropped.
    """
    taken, dropped = sides.members.row_ids, {}
    masks = {"scored": np.ones(len(taken), dtype=np.bool_)}
    kept: dict[str, Confidences | None] = {"nonmembers": sides.nonmembers, "population": sides.population}
    for name, before in (("nonmembers", "members"), ("population", "members and non-members")):
        side = kept[name]
        if side is None:
            continue
        both = np.isin(side.row_ids, taken)
        if both.any() and not drop:
            raise DataError(
                f"{int(both.sum())} of {len(both)} rows of the {name} stand among the {before} too",
                got=f"id '{side.row_ids[np.argmax(both)]}'",
                hint=f"take them out, or let --drop-overlap drop them from the {name}",
            )
        dropped[name] = int(both.sum())
        kept[name] = side.take(~both)
        masks[name] = ~both
        taken = np.concatenate([taken, side.row_ids])
    nonmembers = kept["nonmembers"]
    assert nonmembers is not None
    shadows = sides.shadows
    if shadows is not None:
        rows = np.concatenate([masks["scored"], masks["nonmembers"]])
        shadows = shadows.take(rows, masks.get("population"))
    return Sides(sides.members, nonmembers, kept["population"], shadows), dropped


def _result(
    name: str, sides: Sides, attacked: tuple[AttackResult, ...], hashes: dict[str, str]
) -> ArtifactResult:
    """The file that answered where it is known (`collect` notes it), else the outputs themselves."""
    file: dict[str, Any] = sides.members.facts.get("artifact") or {}
    return ArtifactResult(
        name=name,
        role="candidate",
        backend=file.get("backend", "unknown"),
        format=file.get("format", "unknown"),
        defense="unknown",
        file=file.get("file", ""),
        sha256=file.get("sha256") or sha256_json(hashes),
        size_bytes=file.get("size_bytes", 0),
        gzip_bytes=file.get("gzip_bytes", 0),
        utility=sides.utility(),
        parity=None,
        attacks=attacked,
        run={
            key: value for key, value in run_facts(sides.members).items() if key not in ("artifact", "data")
        },
    )


def _split(
    every: dict[str, Confidences],
    hashes: dict[str, str],
    sources: Mapping[str, str],
    dropped: dict[str, int],
    seed: int,
    shadows: GivenShadows | None,
) -> dict[str, Any]:
    counts = {side: len(entry.labels) for side, entry in every.items()}
    text = f"{counts['members']} members and {counts['nonmembers']} non-members, as given"
    if "population" in counts:
        text += f"; {counts['population']} further rows are the population and are never scored"
    told: dict[str, Any] = {}
    if shadows is not None:
        text += f"; {len(shadows.members)} shadows answered the same rows"
        told = {"shadows": {"number": len(shadows.members), **shadows.about}}
    return {
        "design": "outputs only",
        "seed": seed,
        "sha256": sha256_json(hashes),
        "text": text + ".",
        "counts": counts,
        "sources": {
            side: {"file": sources.get(side, ""), "outputs_sha256": digest} for side, digest in hashes.items()
        },
        "dropped": dropped,
        **told,
    }


def _notes(sides: Sides, dropped: dict[str, int]) -> tuple[str, ...]:
    notes = [NO_SHADOWS] if sides.shadows is None else list(sides.shadows.notes)
    if sides.members.sets is not None:
        notes.append(LABEL_SETS_NOTE)
    if "artifact" not in sides.members.facts:
        notes.append(
            "Only outputs were given: the model file was not seen, its size and types are not known, and the "
            "hash is that of the outputs."
        )
    notes += [
        f"{count} {side} rows that stand elsewhere too were dropped."
        for side, count in dropped.items()
        if count
    ]
    notes.append(
        "Rows on two sides were looked for by id only: outputs do not tell whether inputs are equal."
    )
    return tuple(notes)


def _model(side: Confidences) -> str | None:
    """Hash of the file that answered; None where it is not known."""
    found = side.facts.get("artifact") or {}
    return str(found["sha256"]) if "sha256" in found else None
