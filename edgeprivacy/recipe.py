"""What to do, fully said: typed, validated, loaded from TOML or flags, hashed.

`Recipe` describes what is made and measured; `Run` how it is run (jobs, folders, gates), which stands outside
the recipe's identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from edgeprivacy.backends.table import BACKENDS
from edgeprivacy.files import sha256_json
from edgeprivacy.recipe_sections import (
    AuditSection,
    ClusterSection,
    DataSection,
    DefenseSection,
    ModelSection,
    PruneSection,
    QuantizeSection,
    Section,
    SplitSection,
    TrainingSection,
    require_known,
    validated,
)
from edgeprivacy.recipe_toml import merge, read_toml, to_toml

ABLATION = ({"prune": {"schedule": "finetune"}}, {"prune": {"schedule": "untrained"}})
"""Versions that tell fine-tuning on members from compression: either without the other."""
_VERSION_KEYS = ("prune", "cluster", "quantize", "formats")


class Recipe(Section):
    """The full description of what is made and measured. `id` is its identity."""

    backend: str = Field("tflite", description="tflite, executorch, or both with a comma: one report")
    defense: DefenseSection = DefenseSection(name="none")
    compare: tuple[DefenseSection, ...] = ()
    defense_phases: Literal["all", "pruning"] = Field(
        "all", description="training steps the defense governs; 'pruning' is an ablation"
    )
    seed: int = Field(0, ge=0, lt=2**31)
    formats: tuple[str, ...] = ("float32", "int8")
    data: DataSection = DataSection()
    split: SplitSection = SplitSection()
    model: ModelSection = ModelSection()
    training: TrainingSection = TrainingSection()
    prune: PruneSection = PruneSection()
    cluster: ClusterSection = ClusterSection()
    quantize: QuantizeSection = QuantizeSection()
    audit: AuditSection = AuditSection()
    versions: tuple[dict[str, Any], ...] = Field(
        (),
        description="other versions of the model that somebody may hold: what differs in prune, cluster, "
        "quantize, formats",
    )

    @field_validator("backend", mode="before")
    @classmethod
    def _backends(cls, value: Any) -> Any:
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            return value
        names = [name.strip() for name in names]
        for name in names:
            require_known("no backend", name, BACKENDS)
        if not names or len(set(names)) != len(names):
            raise ValueError("each backend can stand once")
        return ",".join(names)

    @field_validator("formats")
    @classmethod
    def _formats(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("formats must be one or more different formats")
        if "backend" not in info.data:
            return value  # an unknown backend is reported
        entries = {name: BACKENDS[name] for name in info.data["backend"].split(",")}
        formats = list(dict.fromkeys(format for entry in entries.values() for format in entry.formats))
        for format in value:
            require_known(f"no format of {info.data['backend']}", format, formats)
        for name, entry in entries.items():
            if not set(value) & set(entry.formats):
                raise ValueError(f"none of them is a format of {name}: {', '.join(entry.formats)}")
        return value

    @field_validator("compare", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | dict) else value

    @model_validator(mode="after")
    def _arms_differ(self) -> Recipe:
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError(
                f"each defense can stand once, got {', '.join(names)} (the defense first, 'none' where it is "
                "left out, then what it is compared with)"
            )
        return self

    @model_validator(mode="after")
    def _versions_differ(self) -> Recipe:
        for version in self.versions:
            for key in version:
                require_known("a version cannot differ in", key, _VERSION_KEYS)
        names = [recipe.artifact_name(f, "") for recipe in self.all_versions for f in recipe.formats]
        if len(set(names)) != len(names):
            twice = sorted({name.strip(".") for name in names if names.count(name) > 1})
            raise ValueError(f"versions must differ in what is done to the weights: {', '.join(twice)} twice")
        return self

    @field_validator("prune")
    @classmethod
    def _schedule(cls, value: PruneSection, info: ValidationInfo) -> PruneSection:
        for name in info.data.get("backend", "").split(","):
            if name and value.schedule not in BACKENDS[name].schedules:
                require_known(f"no pruning schedule of {name}", value.schedule, BACKENDS[name].schedules)
        return value

    @property
    def backends(self) -> tuple[str, ...]:
        """Names of the backends, in the order of the report."""
        return tuple(self.backend.split(","))

    def formats_of(self, backend: str) -> tuple[str, ...]:
        """The recipe's formats that a backend writes."""
        return tuple(format for format in self.formats if format in BACKENDS[backend].formats)

    @property
    def all_versions(self) -> tuple[Recipe, ...]:
        """This recipe, and one for each further version: equal in everything but the compression."""
        return (self, *self._others)

    @cached_property
    def _others(self) -> tuple[Recipe, ...]:
        base = self.model_dump(mode="json", exclude={"versions"})
        others = []
        for version in self.versions:
            changes = {
                f"{section}.{key}" if isinstance(content, dict) else section: value
                for section, content in version.items()
                for key, value in (content.items() if isinstance(content, dict) else [("", content)])
            }
            others.append(Recipe.build(merge(base, changes)))
        return tuple(others)

    @property
    def arms(self) -> tuple[DefenseSection, ...]:
        """The defense and what it is compared with."""
        return (self.defense, *self.compare)

    @property
    def prunes(self) -> bool:
        """Whether anything is pruned."""
        return self.prune.schedule not in ("none", "finetune") and self.prune.sparsity > 0

    @property
    def finetunes(self) -> bool:
        """Whether the model is trained as if it were pruned, and is not (an ablation)."""
        return self.prune.schedule == "finetune"

    @cached_property
    def id(self) -> str:
        """First 16 hex digits of the hash of everything that is made and measured."""
        # What is not asked for says nothing, so that recipes from before it existed keep their identity.
        exclude: dict[str, Any] = {} if self.versions else {"versions": True}
        if self.audit.canaries is None:
            exclude["audit"] = {"canaries": True}
        plain, grid = QuantizeSection(), ("weight_bits", "outer_bits", "grid_epochs")
        exclude["quantize"] = {k: True for k in grid if getattr(self.quantize, k) == getattr(plain, k)}
        return sha256_json(self.model_dump(mode="json", exclude=exclude))[:16]

    @property
    def compression_name(self) -> str:
        """What is done to the weights, e.g. "prune60-cluster16"; "dense" if nothing."""
        parts = []
        if self.prunes:
            word = "channels" if self.prune.schedule == "structured" else "prune"
            parts.append(f"{word}{100 * self.prune.sparsity:g}")
            parts += ["untrained"] if self.prune.schedule == "untrained" else []
        if self.finetunes:
            parts.append("finetuned")
        if self.cluster.clusters:
            parts.append(f"cluster{self.cluster.clusters}")
        if self.quantize.low_bits:
            # "bits4" of inner layers; "bits4-4" with the first and the last layer's.
            outer = f"-{self.quantize.outer_bits}" if self.quantize.outer_bits < 8 else ""
            parts.append(f"bits{self.quantize.weight_bits}{outer}")
        return "-".join(parts) or "dense"

    def input_scale(self, input_shape: tuple[int, ...]) -> float:
        """What built-in networks divide inputs by. It never looks at the rows: that would let rows that are
        no members shape the file."""
        if self.model.scale is not None:
            return self.model.scale
        if self.data.source == "digits" and self.data.train is None:
            return 16.0
        return 255.0 if len(input_shape) == 3 else 1.0

    def artifact_name(self, format: str, defense: str, backend: str | None = None) -> str:
        """Name that says what was done: "prune60-int8.wemem"; of one backend among several,
        "tflite-prune60-int8.wemem"."""
        prefix = f"{backend}-" if backend is not None and len(self.backends) > 1 else ""
        return f"{prefix}{self.compression_name}-{format}.{defense.replace(':', '-')}"

    @classmethod
    def build(cls, content: Mapping[str, Any]) -> Recipe:
        """A recipe from plain content.

        Raises:
            RecipeError: Unknown key (with the closest known one) or a value out of range.
        """
        return validated(cls, content)

    @classmethod
    def load(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
        """A recipe from TOML; `overrides` ({"audit.shadows": 4}) win over the file. [run] and [tune] are
        not read here.

        Raises:
            RecipeError: Missing or unreadable file, or content as in `build`.
        """
        content = read_toml(path)
        for other in ("run", "tune"):
            content.pop(other, None)
        return cls.build(merge(content, overrides or {}))

    def to_toml(self) -> str:
        """The resolved recipe, every default filled in, as TOML that `load` reads back to an equal recipe."""
        return f"# recipe {self.id}\n" + to_toml(self.model_dump(mode="json", exclude_none=True))


class Run(Section):
    """How a recipe is run. Nothing here changes what is made or measured."""

    out: str | None = None
    records: str | None = None
    jobs: int | None = Field(None, ge=1)
    device: tuple[str, ...] = ("host",)
    shadow_device: Literal["auto", "host", "same"] = "auto"
    cache: bool = True
    fail_if: tuple[str, ...] = ()
    gate_on: Literal["point", "ci"] = "point"

    @classmethod
    def build(cls, content: Mapping[str, Any]) -> Run:
        """Run settings from plain content; RecipeError as in `Recipe.build`. One device may stand alone."""
        content = dict(content)
        if isinstance(content.get("device"), str):
            content["device"] = [content["device"]]
        return validated(cls, content, "run")
