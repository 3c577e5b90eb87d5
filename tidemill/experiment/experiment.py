"""The experiment: data, features, models and gates in one file."""

from __future__ import annotations

import ast
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails

from tidemill.experiment.compute import Compute
from tidemill.experiment.evaluation import Evaluation, Predict
from tidemill.experiment.features import Feature, raw_column_names
from tidemill.experiment.models import MemberConfig, unique_names
from tidemill.experiment.source import Source, Split, Validation
from tidemill.experiment.training import Ensemble, Training, Tuning
from tidemill.models.core.family import Family
from tidemill.section import Column, Name, Section

_SHARED_TRAINING = ("folds", "backend")


class Experiment(Section):
    """An experiment: data, features, models and gates."""

    name: Name
    """The name under which models are published."""
    description: str = ""
    """A sentence for readers of the file. It has no effect."""
    source: Source
    label: Column | None = None
    """The column to predict: 0 and 1, or false and true."""
    labels: Annotated[list[Column], Field(min_length=1)] | None = None
    """Instead of `label`: several columns that one model predicts. Only families such as `mmoe` support it. A model
    must pass the gates for each label. The objective is the mean over the labels."""
    key: list[Column] = []
    """Columns that together identify a row and are copied to the predictions. They are features only if `features`
    names them too."""
    split: Split = Split()
    validation: Validation = Validation()
    features: dict[Column, Feature] | None = None
    """Features by column name. A cross may have any name."""
    transform_module: str | None = None
    """Instead of `features`: a Python file with a TFX-style `preprocessing_fn(inputs)`, or its text. Modules that the
    file imports from its folder become part of the text. A `custom_config` without default is an empty dict."""
    models: Annotated[list[MemberConfig], Field(min_length=1), AfterValidator(unique_names)]
    """The members: the models to train, evaluate and compare."""
    training: Training = Training()
    ensemble: Ensemble = Ensemble()
    tuning: Tuning | None = None
    evaluation: Evaluation = Evaluation()
    predict: Predict = Predict()
    compute: Compute = Compute()

    @field_validator("transform_module")
    @classmethod
    def _is_a_module(cls, module: str | None) -> str | None:
        if module is not None:
            try:
                ast.parse(module)
            except SyntaxError as error:
                raise ValueError(f"line {error.lineno} is not Python: {error.msg}") from None
            if "preprocessing_fn" not in module:
                raise ValueError("name a Python file that defines preprocessing_fn(inputs)")
        return module

    @model_validator(mode="after")
    def _one_label(self) -> Experiment:
        if (self.label is None) == (self.labels is None):
            given = "neither label nor labels is" if self.label is None else "label and labels are both"
            raise ValueError(f"{given} given; give label, the column to predict, or labels, a list of them")
        return self

    @model_validator(mode="after")
    def _labels_differ(self) -> Experiment:
        labels = self.label_columns()
        if duplicate := next((label for label in labels if labels.count(label) > 1), None):
            raise ValueError(f"labels names {duplicate!r} twice; name each once")
        return self

    @model_validator(mode="after")
    def _one_transform(self) -> Experiment:
        if (self.features is None) == (self.transform_module is None):
            raise ValueError("give either features or transform_module")
        if self.features is not None and not self.features:
            raise ValueError("features is empty; name at least one")
        return self

    @model_validator(mode="after")
    def _label_is_no_feature(self) -> Experiment:
        used = self.feature_columns()
        if label := next((label for label in self.label_columns() if label in used), None):
            raise ValueError(f"the label {label!r} is also a feature; remove it from features")
        return self

    @model_validator(mode="after")
    def _gpus_are_used(self) -> Experiment:
        if self.compute.train.gpu > 1 and self.training.backend != "jax":
            got = f"compute.train.gpu is {self.compute.train.gpu}, but training.backend {self.training.backend}"
            raise ValueError(f"{got} uses only one; set it to 1, or set training.backend to jax, which uses all")
        return self

    @model_validator(mode="after")
    def _members_have_training_settings(self) -> Experiment:
        for i, model in enumerate(self.models):
            if forbidden := next((key for key in _SHARED_TRAINING if key in model.training), None):
                raise ValueError(
                    f"the model {model.name!r} sets training.{forbidden}, which is the same for all members"
                )
            try:
                self.training_of(model)
            except ValidationError as error:
                raise _below(error, ("models", i, "training")) from None
        return self

    @model_validator(mode="after")
    def _models_name_features(self) -> Experiment:
        for model in self.models if self.features is not None else []:
            sized = getattr(model, "embedding_dims", {})
            shared = [name for group in getattr(model, "shared_embeddings", []) for name in group]
            named = [*(sized if isinstance(sized, dict) else {}), *shared]
            if unknown := next((name for name in named if name not in self.features), None):
                raise ValueError(f"the model {model.name!r} embeds {unknown!r}, which is not a feature")
        return self

    @model_validator(mode="after")
    def _thresholds_are_of_features(self) -> Experiment:
        used = self.feature_columns()
        for gate, columns in (("drift", self.validation.drift.columns), ("unseen", self.validation.unseen.columns)):
            if unknown := next((name for name in columns if used and name not in used), None):
                raise ValueError(f"validation.{gate}.columns names {unknown!r}, which no feature reads")
        return self

    def training_of(self, model: Family) -> Training:
        """Returns the settings of a member: `training`, with what the member sets differently."""
        return Training.model_validate(_merged(self.training.model_dump(), model.training))

    def label_columns(self) -> list[str]:
        """Returns the columns to predict: `labels`, or `label` as the only one."""
        return [self.label] if self.label is not None else list(self.labels or [])

    def feature_columns(self) -> list[str]:
        """Returns the raw columns that `features` reads, each once, in the order of the file. Empty with
        `transform_module`."""
        return raw_column_names(self.features or {})


def _merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Returns settings with changes, section by section."""
    merged = dict(settings)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _below(error: ValidationError, path: tuple[str | int, ...]) -> ValidationError:
    """Returns an error of a section as one of the experiment, where the section is at `path`."""
    details: list[InitErrorDetails] = [
        {"type": each["type"], "loc": (*path, *each["loc"]), "input": each["input"], "ctx": each.get("ctx", {})}
        for each in error.errors(include_url=False)
    ]
    return ValidationError.from_exception_data(error.title, details)


def json_schema() -> dict:
    """Returns the JSON Schema (draft 2020-12) of the experiment file, for editors."""
    return Experiment.model_json_schema(by_alias=True)
