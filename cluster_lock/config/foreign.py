"""The section of a driver that is not ours, held against the model that this driver names."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from cluster_lock.drivers import driver_class
from cluster_lock.errors import ConfigError
from cluster_lock.host.masking import keep_secret

from .checking import wording
from .known_keys import mentions, unknown
from .source_tree import NOWHERE, Place, Problems, Written


def settings_model(name: str) -> type[BaseModel] | None:
    """What the driver `name` names as `settings_model`; None if it takes its section unchecked. Raises ConfigError if
    the driver cannot be used, or names something else."""
    model = getattr(driver_class(name), "settings_model", None)
    if model is None or (isinstance(model, type) and issubclass(model, BaseModel)):
        return model
    raise ConfigError([f"the driver {name!r} names {model!r} as its settings_model: it must be a pydantic model"])


def checked_section(name: str, values: dict[str, Any], written: Written, problems: Problems) -> BaseModel | None:
    """The section `name`, as its driver's model makes it of `values`. What is wrong is added to `problems`, each with
    the place and the path of its key; None then, and without a model."""
    try:
        model = settings_model(name)
    except ConfigError as error:
        problems.add(written["backend"].place, "backend", str(error))
        return None
    if model is None:
        return None
    secrets = {key for key, info in model.model_fields.items() if mentions(info.annotation, SecretStr)}
    keep_secret(*(str(values[key]) for key in secrets & values.keys()))
    for key in sorted(values.keys() - model.model_fields.keys()):
        problems.add(_place(written, f"{name}.{key}"), f"{name}.{key}", unknown(key, model.model_fields))
    try:
        return model.model_validate({key: value for key, value in values.items() if key in model.model_fields})
    except ValidationError as error:
        for found in error.errors(include_url=False, include_input=False):
            path = ".".join([name, *(step for step in found["loc"] if isinstance(step, str))])
            problems.add(_place(written, path), path, wording(found))
        return None


def _place(written: Written, path: str) -> Place:
    """Where `path` was written, or the setting that it is a part of."""
    node = written.get(".".join(path.split(".")[:2]))
    return NOWHERE if node is None else node.place
