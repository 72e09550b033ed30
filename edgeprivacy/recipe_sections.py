"""The recipe's sections, each frozen and typed, and how a mistake in one is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from edgeprivacy.errors import RecipeError, did_you_mean

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
        None,
        description="label column of a CSV: a name or an index (default: the last); several independent "
        "labels: with commas between them",
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
        description="auto, mlp, cnn, resnet, resnet-no-norm (no BatchNorm), FILE.py:FUNCTION; tflite: "
        "FILE.keras|.h5; executorch: resnet18, mobilenetv2",
    )
    weights: str | None = Field(
        None, description="trained weights: the original is this model, not trained anew"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="rate of the built-in mlp, cnn, mobilenetv2")
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
    """Quantization-aware training, for formats that begin with qat; and weights of fewer than 8 bits, for all
    formats: after pruning they are trained on a grid. An int8 file packs 4 bits and fewer where it can."""

    qat_epochs: int = Field(10, ge=1)
    weight_bits: int = Field(8, ge=2, le=8, description="bits of a weight of the inner layers; 8: no grid")
    outer_bits: int = Field(8, ge=2, le=8, description="of the first and the last layer")
    grid_epochs: int = Field(10, ge=1, description="of the training under the grid, at most")

    @property
    def low_bits(self) -> bool:
        """Whether any weights have fewer than 8 bits."""
        return self.weight_bits < 8 or self.outer_bits < 8


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
            value = {"name": value["name"], "settings": {k: v for k, v in value.items() if k != "name"}}
        if isinstance(value, dict) and isinstance(value.get("settings"), dict):
            # A composition's part may have a table of its own: [defense.settings.relaxloss].
            flat: dict[str, Any] = {}
            for key, content in value["settings"].items():
                inner = content if isinstance(content, dict) else None
                flat.update({key: content} if inner is None else {f"{key}.{k}": v for k, v in inner.items()})
            value = {**value, "settings": flat}
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


def validated(cls: type[SectionT], content: Mapping[str, Any], table: str = "") -> SectionT:
    """The section; RecipeError with the key, and the closest known word, where the content does not fit.

    Args:
        table: The recipe's table that holds the content, for the key as the recipe has it.
    """
    try:
        return cls.model_validate(content)
    except ValidationError as error:
        raise _explain(cls, error, table) from None


def require_known(what: str, word: str, words: Iterable[str]) -> None:
    """Raise what `_explain` turns into an error with the closest known word, unless the word is known."""
    if word not in words:
        raise PydanticCustomError("unknown_word", "{what}", {"what": what, "word": word, "known": [*words]})


def _explain(cls: type[Section], error: ValidationError, table: str) -> RecipeError:
    first = error.errors()[0]
    place = ".".join(str(part) for part in ([table] if table else []) + list(first["loc"]))
    where = f"recipe key '{place}'" if place else "recipe"
    if first["type"] == "extra_forbidden":
        keys = _keys(cls, first["loc"][:-1])
        name = str(first["loc"][-1])
        return RecipeError(
            f"unknown recipe key '{place}'", allowed=", ".join(keys), hint=did_you_mean(name, keys)
        )
    if first["type"] == "unknown_word":
        word, words = first["ctx"]["word"], first["ctx"]["known"]
        return RecipeError(
            f"{where}: {first['msg']}",
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
    return RecipeError(f"{where}: {message}", got=got, hint=hint)


def _keys(cls: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        field = cls.model_fields.get(str(part))
        annotation = field.annotation if field is not None else None
        for candidate in (annotation, *get_args(annotation)):  # a section, or a tuple of them
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                cls = candidate
    return list(cls.model_fields)
