"""What to do, fully said: typed, validated, loaded from TOML or flags, hashed.

`Recipe` describes what is made and measured; `Run` how it is run (jobs, folders, gates), which stands outside
the recipe's identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from edgeprivacy.backends.table import BACKENDS
from edgeprivacy.errors import RecipeError, did_you_mean
from edgeprivacy.files import sha256_json
from edgeprivacy.recipe_toml import merge, read_toml, to_toml

Share = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """A part of the recipe: frozen, finite, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


SectionT = TypeVar("SectionT", bound=Section)


class DataSection(Section):
    """Where the rows come from."""

    source: str = Field(
        "digits", description="digits, FILE.npz, FILE.csv, an image folder, or FILE.py:FUNCTION"
    )
    label: str | None = Field(
        None, description="label column of a CSV: a name or an index (default: the last)"
    )
    header: bool = Field(True, description="whether a CSV starts with column names")
    train: str | None = Field(None, description="rows the model is trained on ('given' split); with holdout")
    holdout: str | None = Field(None, description="rows never trained on ('given' split); with train")
    split_column: str | None = Field(None, description="column or npz array that says 'train' or 'holdout'")
    drop_overlap: bool = Field(False, description="drop hold-out rows that are also train rows, by content")


class SplitSection(Section):
    """Which rows are for what. The shares do not depend on the defense."""

    design: Literal["auto", "half", "given", "disjoint"] = Field(
        "auto", description="half: a coin a row; given: train and hold-out as they are; disjoint: two pools"
    )
    pool: Share = 0.72
    test: Share = 0.14
    validation: Share = 0.06
    reference: Share = 0.04
    calibration: Share = 0.04

    @model_validator(mode="after")
    def _sum(self) -> SplitSection:
        total = self.pool + self.test + self.validation + self.reference + self.calibration
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares must add up to 1, they add up to {total:.4f}")
        return self


class ModelSection(Section):
    """The network."""

    source: str = Field(
        "auto",
        description="auto, mlp, cnn, resnet, FILE.py:FUNCTION; tflite: FILE.keras|.h5; executorch: resnet18, "
        "mobilenetv2",
    )
    weights: str | None = Field(
        None, description="trained weights: the original is this model, not trained anew"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout of the built-in mlp")
    scale: float | None = Field(
        None, gt=0, description="built-ins divide inputs by this (default: 16 digits, 255 images, 1 else)"
    )


class TrainingSection(Section):
    """How the original is trained; every later phase uses the same optimizer settings."""

    epochs: int = Field(100, ge=1)
    patience: int = Field(5, ge=0, description="stop once more than this many epochs bring no improvement")
    batch_size: int = Field(128, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(5e-4, ge=0, description="L2, coupled into Adam's gradient, on all parameters")
    function: str | None = Field(
        None, description="FILE.py:FUNCTION of your own that trains the originals, the shadows' too"
    )


class PruneSection(Section):
    """Magnitude pruning, each layer to the same sparsity."""

    schedule: Literal[
        "iterative", "one-shot", "polynomial", "structured", "none", "finetune", "untrained"
    ] = Field(
        "iterative",
        description="structured removes whole channels (executorch); ablations: finetune trains as iterative "
        "does and prunes nothing, untrained prunes at once and trains nothing",
    )
    sparsity: float = Field(
        0.6, ge=0, lt=1, description="share of zeros (structured: of channels removed); 0 means no pruning"
    )
    iterations: int = Field(5, ge=2, description="of the iterative schedule; the first fine-tunes unpruned")
    finetune_epochs: int = Field(21, ge=1, description="at most, per iteration (per phase for the others)")
    layers: Literal["auto", "all"] | tuple[str, ...] = Field(
        "auto", description="auto: all weighted layers, but the classifier of an mlp; or layer names"
    )


class ClusterSection(Section):
    """Weight clustering: at most this many distinct values a layer; 0 means none."""

    clusters: int = Field(0, ge=0, le=256)
    epochs: int = Field(10, ge=1)

    @field_validator("clusters")
    @classmethod
    def _two(cls, value: int) -> int:
        if value == 1:
            raise ValueError("clusters must be 0 (none) or at least 2")
        return value


class QuantizeSection(Section):
    """Quantization-aware training, for formats that begin with qat."""

    qat_epochs: int = Field(10, ge=1)


class DefenseSection(Section):
    """A defense by name, with settings other than its defaults."""

    name: str
    settings: dict[str, float | int | str | bool] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and "name" in value and "settings" not in value:
            return {"name": value["name"], "settings": {k: v for k, v in value.items() if k != "name"}}
        return value


class AuditSection(Section):
    """What is measured."""

    shadows: int = Field(16, ge=0, le=1024)
    attacks: tuple[str, ...] = Field((), description="names, or empty for the default set")
    bootstrap: int = Field(1000, ge=100, description="resamples behind each interval")
    permutations: int = Field(200, ge=200, description="of the permuted-labels null test")
    canaries: str | None = Field(
        None,
        description="training rows turned into rows made to be remembered: N, N:mislabelled, "
        "N:near-duplicate or N:ood. The files are then for the audit, not to ship",
    )

    @field_validator("canaries", mode="before")
    @classmethod
    def _canaries(cls, value: Any) -> Any:
        if not isinstance(value, str | int) or isinstance(value, bool):
            return value
        from edgeprivacy.data.canaries import CanarySpec  # imported late: it brings numpy

        return CanarySpec.parse(str(value)).text


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
            _known("no backend", name, BACKENDS)
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
        known = list(dict.fromkeys(format for entry in entries.values() for format in entry.formats))
        for format in value:
            _known(f"no format of {info.data['backend']}", format, known)
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
            raise ValueError(f"each defense can stand once, got {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _versions_differ(self) -> Recipe:
        for version in self.versions:
            for key in version:
                _known("a version cannot differ in", key, _VERSION_KEYS)
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
                _known(f"no pruning schedule of {name}", value.schedule, BACKENDS[name].schedules)
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
        return _validated(cls, content)

    @classmethod
    def load(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
        """A recipe from TOML; `overrides` ({"audit.shadows": 4}) win over the file. [run] is not read here.

        Raises:
            RecipeError: Missing or unreadable file, or content as in `build`.
        """
        content = read_toml(path)
        content.pop("run", None)
        return cls.build(merge(content, overrides or {}))

    def to_toml(self) -> str:
        """The resolved recipe, every default filled in, as TOML that `load` reads back to an equal recipe."""
        return f"# recipe {self.id}\n" + to_toml(self.model_dump(mode="json", exclude_none=True))


class Run(Section):
    """How a recipe is run. Nothing here changes what is made or measured."""

    out: str | None = None
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
        return _validated(cls, content)


def _validated(cls: type[SectionT], content: Mapping[str, Any]) -> SectionT:
    try:
        return cls.model_validate(content)
    except ValidationError as error:
        raise _explain(cls, error) from None


def _known(what: str, word: str, known: Iterable[str]) -> None:
    """Raise what `_explain` turns into an error with the closest known word, unless the word is known."""
    if word not in known:
        raise PydanticCustomError("unknown_word", "{what}", {"what": what, "word": word, "known": [*known]})


def _explain(cls: type[Section], error: ValidationError) -> RecipeError:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "recipe"
    if first["type"] == "extra_forbidden":
        known = _keys(cls, first["loc"][:-1])
        name = str(first["loc"][-1])
        return RecipeError(
            f"unknown recipe key '{place}'", allowed=", ".join(known), hint=did_you_mean(name, known)
        )
    if first["type"] == "unknown_word":
        word, words = first["ctx"]["word"], first["ctx"]["known"]
        return RecipeError(
            f"recipe key '{place}': {first['msg']}",
            got=word,
            allowed=", ".join(words),
            hint=did_you_mean(word, words),
        )
    got = first["input"] if isinstance(first["input"], str | int | float | bool) else None
    message = first["msg"].removeprefix("Value error, ")
    hint = None
    if first["type"] == "literal_error" and isinstance(got, str):
        hint = did_you_mean(
            got, [word.strip(" '") for word in first["ctx"]["expected"].replace(" or ", ",").split(",")]
        )
    return RecipeError(f"recipe key '{place}': {message}", got=got, hint=hint)


def _keys(cls: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        field = cls.model_fields.get(str(part))
        annotation = field.annotation if field is not None else None
        for candidate in (annotation, *get_args(annotation)):  # a section, or a tuple of them
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                cls = candidate
    return list(cls.model_fields)
