"""What a reader of a release's audit must see beside its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeprivacy.backends.planning import planned_steps
from edgeprivacy.confidences import FLOAT_LOG_FLOOR
from edgeprivacy.data.dataset import Source
from edgeprivacy.data.splits import Split
from edgeprivacy.defenses import make_defense
from edgeprivacy.recipe import Recipe
from edgeprivacy.recipe_sections import DefenseSection
from edgeprivacy.results import ArtifactResult
from edgeprivacy.version_sets import ablation_note


def audit_notes(
    recipe: Recipe, source: Source, split: Split, results: Sequence[ArtifactResult]
) -> tuple[str, ...]:
    """Everything about these numbers that their reader must know."""
    described = split.describe()
    notes = [described["text"], *source.notes]
    if recipe.audit.canaries is not None:
        notes.append(
            "These are audit files, not to ship: they were trained on canaries, rows made to be remembered. "
            "For the file that ships, train again without them."
        )
        targets = max((a.targets for result in results for a in result.canary_attacks), default=1)
        notes.append(
            (
                f"Attacks on canaries are measured with each of the {targets} models as the target in turn, "
                "all pairs of model and canary together; their intervals are over canaries."
                if targets > 1
                else "Attacks on canaries are measured on the target alone: "
                + (
                    "its shadows were trained on other numbers of rows."
                    if split.design == "given"
                    else "there are too few models to take each as the target."
                )
            )
            + " Files that are attacked together are attacked on the other rows."
        )
    overlaps = {pair: count for pair, count in described["overlaps"]["by_content"].items() if count}
    if overlaps:
        listed = "; ".join(f"{count} {pair}" for pair, count in overlaps.items())
        notes.append(f"Rows with equal inputs in different parts of the split: {listed}.")
    controls = [result.name for result in results if result.role == "control"]
    if recipe.versions:
        notes.append("Other versions of the model stand beside it as controls.")
    ablation = ablation_note(recipe, results)
    if ablation is not None:
        notes.append(ablation)
    if controls:
        notes.append(
            "Controls stand beside the candidates and never decide a gate: " + ", ".join(controls) + "."
        )
    phases = [phase for result in results for phase in result.facts["history"]]
    notes += dict.fromkeys(note for phase in phases for note in phase.get("notes", ()))
    promised = [result.facts["guarantee"]["told"] for result in results if "guarantee" in result.facts]
    notes += dict.fromkeys(promised)
    if recipe.audit.shadows == 0:
        notes.append("No shadows were made: attacks that need them are listed as skipped.")
    idle = [arm.name for arm in recipe.arms if arm.name != "none" and not _trains_under(recipe, arm)]
    if idle:
        notes.append(
            f"Nothing is trained under {', '.join(idle)} in this recipe: there is nothing to govern, and the "
            "files are those of no defense."
        )
    trains = recipe.prunes or recipe.finetunes or recipe.cluster.clusters or recipe.quantize.low_bits
    if (
        not trains
        and not any(f.startswith("qat") for f in recipe.formats)
        and {arm.name for arm in recipe.arms} == {"none"}
    ):
        notes.append("Nothing trains after the original in this recipe, so a defense has nothing to govern.")
    if Path(recipe.model.source).suffix and ":" not in recipe.model.source and recipe.model.weights is None:
        notes.append(
            f"{recipe.model.source} gave the network alone, its weights were not used: --weights names the "
            "file whose weights are the original (with --train and --holdout)."
        )
    if recipe.model.weights is not None:
        notes.append(
            "The original was given with its weights; shadows were trained by "
            + (
                f"{recipe.training.function}."
                if recipe.training.function
                else "the built-in trainer, so an attacker who knows your training exactly may do better. "
                "[training] function names your own."
            )
        )
    pooled = {a.name: a.pooled_rows for result in results for a in result.attacks if a.pooled_rows}
    for name, rows in pooled.items():
        notes.append(f"{name}: {rows} rows had too few IN or OUT shadows and use pooled estimates.")
    notes += rounding_notes(results)
    if recipe.data.source == "digits" and recipe.data.train is None:
        notes.append(
            "The embedded digits leak little: they show that the road works, not how bad leakage gets. "
            "Try a data set that does leak next: examples/location/recipe.toml."
        )
    return tuple(notes)


def _trains_under(recipe: Recipe, arm: DefenseSection) -> bool:
    """Whether any phase of any version does, the original's among them."""
    defense = make_defense(arm.name, arm.settings)
    return any(planned_steps(version, defense, 1)[0] > 0 for version in recipe.all_versions)


def answers_in_steps(result: ArtifactResult) -> bool:
    """Whether the answers' own grid hides small probabilities that the file's logits tell apart."""
    return result.backend == "tflite" and result.run.get("log_floor", 0.0) > FLOAT_LOG_FLOOR


def rounding_notes(results: Sequence[ArtifactResult]) -> list[str]:
    """That files round what they answer, where their logits were not attacked beside it."""
    read = {result.sha256 for result in results if "read_before" in result.run}
    rounded = [result for result in results if answers_in_steps(result) and result.sha256 not in read]
    asked = [result for result in rounded if result.device == "host:logits"]
    inside = [result.name for result in results if "read_before" in result.run]
    notes = []
    if inside:
        notes.append(
            f"{', '.join(inside)}: attacked are the logits inside the file, which whoever holds it can "
            "read; what it answers is rounded."
        )
    if not rounded:
        return notes
    step = max(2 * result.run["log_floor"] for result in rounded)
    told = (
        f"{', '.join(result.name for result in asked or rounded)}: answers probabilities in steps of "
        f"1/{1 / step:.0f}, which hides how unlikely it finds a class. "
    )
    if asked:
        return [
            *notes,
            told + "Its logits could not be read here (something stands between them and the answer).",
        ]
    return [*notes, told + "Who holds the file can read its logits: --device host:logits attacks those."]
