"""A training spec from the command line: an option for each value of the guide, and `--spec FILE.yaml` below them."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from openledger_cli.deferred import Deferred
from openledger_client.training_parameters import GUIDE, Parameter

if TYPE_CHECKING:
    import yaml
    from openledger.trainer.v1 import trainer_pb2 as pb
else:
    pb = Deferred("openledger.trainer.v1.trainer_pb2")
    yaml = Deferred("yaml")

_TYPES: Mapping[str, Any] = {
    "number": float | None,
    "integer": int | None,
    "choice": str | None,
    "names": str | None,
}
_FILE = "spec"
_FILE_HELP = (
    "The spec, a YAML file with the names that `openledger train parameters` shows; options override it."
)
_EXCLUDE_EACH_OTHER = ("steps", "epochs")


def with_spec(command: Callable[..., None]) -> Callable[..., None]:
    """Returns a command whose `values` come from an option for each value of a spec, and from `--spec`."""
    signature, hints = inspect.signature(command), get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name])
        for name, parameter in signature.parameters.items()
        if name != "values"
    ]
    names = {_option(parameter): parameter.name for parameter in GUIDE.values()}

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        file = given.pop(_FILE)
        options = {name: given.pop(key) for key, name in names.items()}
        command(**given, values=merged(file, options))

    parameters = [*own, _file_option(), *map(_spec_option, GUIDE.values())]
    vars(with_options)["__signature__"] = signature.replace(parameters=parameters)
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def merged(file: Path | None, options: Mapping[str, object]) -> dict[str, Any]:
    """Returns the values that were set, by path: those of the file, and over them those of the options, which are None where
    they were not given. Raises BadParameter."""
    chosen = {
        name: _read(GUIDE[name], value, f"--{_option(GUIDE[name]).replace('_', '-')}")
        for name, value in options.items()
        if value is not None and (name, value) != ("rehearsal.kind", "suggested")
    }
    from_file = dict(_values_of(file)) if file is not None else {}
    if any(name in chosen for name in _EXCLUDE_EACH_OTHER):
        for name in _EXCLUDE_EACH_OTHER:
            from_file.pop(name, None)
    if chosen.get("rehearsal.kind") == "none":
        from_file = {name: value for name, value in from_file.items() if not name.startswith("rehearsal.")}
    return {**from_file, **chosen}


def message(values: Mapping[str, Any]) -> pb.TrainingSpec:
    """Returns the spec of these values, by path; what is not among them is left to the platform. Raises BadParameter."""
    spec = pb.TrainingSpec()
    for path, value in values.items():
        into: Any = spec.rehearsal if path.startswith("rehearsal.") else spec
        field = into.DESCRIPTOR.fields_by_name[path.rpartition(".")[2]]
        try:
            if isinstance(value, tuple):
                spec.target_modules.extend(value)
            elif field.enum_type is not None:
                setattr(into, field.name, _number_of(field.enum_type, value))
            else:
                setattr(into, field.name, value)
        except ValueError as error:  # more than the field's type holds
            raise typer.BadParameter(str(error), param_hint=path) from None
    return spec


def _option(parameter: Parameter) -> str:
    """The name of a value's argument in Python: rehearsal's kind is `--rehearsal` on the command line."""
    return "rehearsal" if parameter.name == "rehearsal.kind" else parameter.name.replace(".", "_")


def _spec_option(parameter: Parameter) -> inspect.Parameter:
    bounds = "" if parameter.choices else f" {parameter.range[0].upper()}{parameter.range[1:]}."
    words = f" One of {', '.join(parameter.choices)}." if parameter.kind == "choice" else bounds
    if parameter.kind == "names":
        words = " Several with commas."
    text = f"{parameter.words}{words} Not set: {parameter.default}."
    option = typer.Option(f"--{_option(parameter).replace('_', '-')}", help=text, show_default=False)
    return inspect.Parameter(
        _option(parameter),
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[_TYPES[parameter.kind], option],
    )


def _file_option() -> inspect.Parameter:
    option = typer.Option("--spec", help=_FILE_HELP, show_default=False)
    return inspect.Parameter(
        _FILE, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[Path | None, option]
    )


def _values_of(file: Path) -> Iterator[tuple[str, Any]]:
    """Yields what a file sets, by path. Raises BadParameter, which names the key."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{str(file)!r} cannot be read: {error}", param_hint="--spec") from None
    except yaml.YAMLError as error:
        raise typer.BadParameter(f"{str(file)!r} is not YAML: {error}", param_hint="--spec") from None
    for path, value in _flat(content or {}, file):
        if path not in GUIDE:
            near = difflib.get_close_matches(path, GUIDE, 1, cutoff=0.0)[0]
            raise typer.BadParameter(
                f"{str(file)!r}: {path} is no value of a training spec; the nearest is {near}",
                param_hint="--spec",
            )
        if value is not None:
            yield path, _read(GUIDE[path], value, f"--spec {path}")


def _flat(content: object, file: Path) -> Iterator[tuple[str, object]]:
    if not isinstance(content, Mapping):
        raise typer.BadParameter(f"{str(file)!r} holds no names with values", param_hint="--spec")
    for key, value in content.items():
        if key == "rehearsal" and isinstance(value, Mapping):
            yield from ((f"rehearsal.{below}", each) for below, each in value.items())
        else:
            yield str(key), value


def _read(parameter: Parameter, value: object, hint: str) -> Any:
    """Returns a value as the API takes it. YAML reads 5e-4 as text, so numbers may be text. Raises BadParameter, with the
    guide's sentence."""
    if parameter.kind == "names":
        names = tuple(
            value.split(",") if isinstance(value, str) else map(str, value if isinstance(value, list) else ())
        )
        named = tuple(name.strip() for name in names)
        if not all(named) or not named:
            raise typer.BadParameter(f"{value!r} {parameter.too_small}", param_hint=hint)
        return named
    if parameter.kind == "choice":
        word = str(value).replace("-", "_")
        if word not in parameter.choices:
            raise typer.BadParameter(f"{value!r} {parameter.too_small}", param_hint=hint)
        return word
    number = _number(parameter, value)
    if number is None:
        raise typer.BadParameter(f"{value!r} is no {parameter.kind}", param_hint=hint)
    if not parameter.reaches(number):
        raise typer.BadParameter(f"{value} {parameter.too_small}", param_hint=hint)
    if not parameter.fits(number):
        raise typer.BadParameter(f"{value} {parameter.too_large}", param_hint=hint)
    return number


def _number(parameter: Parameter, value: object) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return (
            int(value)
            if parameter.kind == "integer" and not isinstance(value, float)
            else _real(parameter, value)
        )
    except ValueError:
        return None


def _real(parameter: Parameter, value: int | float | str) -> float | int | None:
    number = float(value)
    if parameter.kind == "number":
        return number
    return int(number) if number.is_integer() else None


def _number_of(enum: Any, word: str) -> int:
    """The number of an enum's value: `self_generated` is REHEARSAL_KIND_SELF_GENERATED."""
    ending = f"_{word.upper()}"
    return int(next(value.number for value in enum.values if value.number and value.name.endswith(ending)))
