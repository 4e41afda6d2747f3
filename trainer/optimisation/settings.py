"""Settings of optimisers, schedules and losses, checked against the annotations of their classes.

Torch itself takes some wrong ones without a word ("false" as true), others only to fail at a step.
"""

import inspect
import re
from typing import Any

from utils.config_kinds import Anything, Bool, Choice, Float, Int, Kind, ListOf, Nullable, Str
from utils.errors import UserError, did_you_mean

# What torch's classes raise where their settings make no sense.
NONSENSE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
_SIMPLE = {"bool": Bool(), "int": Int(0), "float": Float(), "str": Str()}
_SHOWN_CHARACTERS = 200


def check_settings(
    part: str, kind: str, made: type, settings: dict[str, Any], given: int = 1
) -> None:
    """Refuse settings that a class does not know, misses, or has of another kind.

    Args:
        part: the section of the config: "optimizer", "lr_scheduler" or "loss".
        kind: the type that the section names.
        made: its class.
        settings: the section's args.
        given: how many of its first parameters are no settings: what it works on.

    Raises:
        UserError: names the setting, and what was expected.
    """
    parameters = _parameters(made, given)
    known = {name: _kind_of(parameter) for name, parameter in parameters.items()}
    for name, value in settings.items():
        if name not in known:
            raise UserError(
                f'{part}.args do not fit {kind}: it has no setting "{name}"'
                f"{did_you_mean(name, known)}; it has {', '.join(known) or 'none'}."
            )
        for problem in known[name].problems(value, (part, "args", name)):
            raise UserError(f"{problem.sentence}.")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in settings:
            raise UserError(
                f'"{part}.args.{name}" is missing: {kind} needs it; it must be '
                f"{known[name].describe()}."
            )


def build(part: str, kind: str, made: type, what: Any, settings: dict[str, Any]) -> Any:
    """Make an object of a class that works on something, from settings that are checked first.

    Args as in `check_settings`; `what` is what it works on.

    Raises:
        UserError: the settings do not fit.
    """
    check_settings(part, kind, made, settings)
    try:
        return made(what, **settings)
    except NONSENSE as error:
        raise does_not_fit(part, kind, error) from error


def does_not_fit(part: str, kind: str, error: Exception, when: str = "") -> UserError:
    """Return the error to raise where a class refused its settings, or failed with them."""
    why = " ".join(str(error).split()).removesuffix(".") or type(error).__name__
    found = f"{when}: {why}" if when else why
    return UserError(f"{part}.args do not fit {kind}: {found[:_SHOWN_CHARACTERS]}.")


def _parameters(made: type, given: int) -> dict[str, inspect.Parameter]:
    """Return the settings of a class; what its `**` takes are those of the class it is made of."""
    found: dict[str, inspect.Parameter] = {}
    for base in made.__mro__:
        begins = vars(base).get("__init__", object.__init__)
        parameters = [*inspect.signature(begins).parameters.values()][1 + given :]
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        found = {p.name: p for p in named} | found
        if len(named) == len(parameters):
            break
    return found


def _kind_of(parameter: inspect.Parameter) -> Kind:
    text = parameter.annotation
    if not isinstance(text, str):
        text = inspect.formatannotation(text)
    text = text.replace(" | torch.Tensor", "")
    kind = _kind_of_text(text.removesuffix(" | None"))
    if parameter.name == "last_epoch":  # -1 says that the schedule begins
        return Int(-1, -1)
    return Nullable(kind) if text.endswith(" | None") else kind


def _kind_of_text(text: str) -> Kind:
    if text in _SIMPLE:
        return _SIMPLE[text]
    form, _, inner = text.removesuffix("]").partition("[")
    if form == "Literal":
        return Choice(*re.findall(r"'(\w+)'", inner))
    if form == "tuple":
        entries = inner.split(", ")
        nullable = any("None" in entry for entry in entries)
        return ListOf(Nullable(Float()) if nullable else Float(), exactly=len(entries))
    if text == "Iterable[int]":
        return ListOf(Int(0))
    return Anything()
