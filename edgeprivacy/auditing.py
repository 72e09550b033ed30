"""`audit`: attack a model file that somebody else built, on rows of known membership, and say what holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from numpy.typing import ArrayLike

from edgeprivacy.audit_data import RowsLike
from edgeprivacy.audit_preparing import Settings, prepare
from edgeprivacy.audit_running import run_audit
from edgeprivacy.gate_grammar import GateOn
from edgeprivacy.results import Audit
from edgeprivacy.sides import (
    RESAMPLES,
)
from edgeprivacy.worker_progress import Progress


def audit(
    files: str | Path | Sequence[str | Path],
    members: RowsLike,
    nonmembers: RowsLike,
    *,
    null_members: RowsLike | None = None,
    attacks: Sequence[str] = (),
    fail_if: Sequence[str] = (),
    gate_on: GateOn = "point",
    device: str | Sequence[str] = "host",
    out: str | Path | None = None,
    records: str | Path | None = None,
    label: str | None = None,
    header: bool = True,
    logits: bool = False,
    drop_overlap: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
    original: str | Path | None = None,
    shadow_files: Sequence[str | Path] = (),
    shadow_membership: str | Path | Mapping[str, ArrayLike] | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Audit:
    """Run model files on rows of known membership, attack their answers, test the measurement and report.

    No training code and no TensorFlow are needed: without files of shadows, attacks do without, thresholds
    are cross-fitted, and a seeded part of the non-members (a quarter, at least 50, at most half) is the
    population, which attack-p compares against and which is never scored. Several files get the same rows and
    one report.

    The output folder then holds audit.json, report.html and confidences/ (one file an artifact and side).

    Args:
        files: One model file (.tflite) or several.
        members: Rows that trained the model: an .npz (`x` [rows, ...], `y` [rows], optional `ids`), a CSV, an
            image folder, a factory "file.py:function", a tuple (x, y) or (x, y, ids), or a `Dataset`.
        nonmembers: Rows of the same distribution that did not.
        null_members: Further rows that did not, loaded as the members are: the null test that passes them off
            as members. Without them that test is listed as not run.
        attacks: Names, see `edgeprivacy attacks`; the default set if empty. Those that need shadows that are
            not there are listed as skipped.
        fail_if: Gates, e.g. "tpr@1%fpr>0.05"; they decide `verdict` and `exit_code`.
        gate_on: Whether gates are decided by the estimate ("point") or by its interval ("ci").
        device: Where the files are run: "host", "host:logits" (the same, answers read before a softmax that
            rounds them), "native", "adb" (the only device attached), "adb:SERIAL", "adb:all", or several of
            them: then every file stands in the report once a device.
        out: Output folder; "edgeprivacy-out/audit-NAME-HASH" if None.
        records: Also write what was found of every single row, as CSV (see `records`). Nothing else holds it.
        label: Label column of CSV files, by name or index.
        header: Whether CSV files begin with a line of column names.
        logits: The files answer logits: apply the softmax.
        drop_overlap: Drop non-members and null members that are also members, by id or content, instead of
            refusing them.
        resamples: Bootstrap resamples behind each interval.
        seed: Of every random choice.
        original: The model that the files were made from, as a model file or a Keras file (.keras, .h5: run
            as its float32 conversion). Attacks on several versions see it beside each file; gates do not.
        shadow_files: Files (or folders of them) of models that were trained and exported as the audited one
            was, on parts of the same rows; run in the same place on the same rows. A file is attacked with
            those of its own format, where there are any. The population is then of non-members that trained
            no shadow; attacks that need one are skipped where there are too few.
        shadow_membership: What trained them: an .npz, or a mapping, of `members` bool [shadows, rows], rows
            named by `ids` [rows] or else the members, then the non-members; see
            `shadow_membership.read_membership`.
        progress: Called with steps done, steps in all, and the last finished step.

    Raises:
        UsageError: Unknown attack, gate or device; a folder that belongs to something else.
        ArtifactError: A file is no model file of a known kind.
        DataError: Rows cannot be read, do not fit the file, stand on two sides, or are too few.
        MissingDependency: The extra "litert" is not installed.
        RunnerError: The interpreter or the device failed.
    """
    settings = Settings(
        attacks=tuple(attacks),
        fail_if=tuple(fail_if),
        gate_on=gate_on,
        device=(device,) if isinstance(device, str) else tuple(device),
        out=None if out is None else Path(out),
        records=None if records is None else Path(records),
        label=label,
        header=header,
        logits=logits,
        drop_overlap=drop_overlap,
        resamples=resamples,
        seed=seed,
        original=None if original is None else Path(original),
        shadow_files=tuple(Path(file) for file in shadow_files),
        shadow_membership=shadow_membership,
    )
    several = [files] if isinstance(files, str | Path) else list(files)
    prepared = prepare([Path(file) for file in several], members, nonmembers, null_members, settings)
    return run_audit(prepared, progress)
