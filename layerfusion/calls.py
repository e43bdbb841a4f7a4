"""A wrong call of a public function ends in one line that names the argument and what it takes."""

from __future__ import annotations

import functools
import inspect
import numbers
import os
import re
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Any, ParamSpec, TypeVar

from layerfusion.errors import UserError, short, unknown

P = ParamSpec("P")
R = TypeVar("R")

_KINDS: dict[str, tuple[str, tuple[type, ...]]] = {
    "str": ("a string", (str,)),
    "Path": ("a path", (os.PathLike,)),
    "bool": ("True or False", (bool,)),
    "int": ("a whole number", (numbers.Integral,)),
    "float": ("a number", (numbers.Real,)),
    "None": ("None", (type(None),)),
    "Mapping": ("a dict", (Mapping,)),
    "Sequence": ("a list", (Iterable,)),
}
"""Word of an annotation to what a message calls it, and to the types that it accepts."""
WHOLE_NUMBERS = "Sequence[int]"
"""A list each item of which is looked at. Those of texts are left to what reads them."""


def plain_calls(
    name: str | None = None, *, settings: Iterable[str] = (), values: bool = True
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function refuse a wrong call in one line, in place of Python's `TypeError`.

    Refused are names that the function does not have, arguments that are missing, given twice or
    too many, and values of another type than the annotation says. An annotation with any type that
    is not known here, such as `Any`, accepts every value: the function has a check of its own.

    Args:
        name: what the message calls the function; its own name if None.
        settings: what may stand in the place of `**settings`; a dotted name belongs to the first of
            its words, and an underscore at its end does not count.
        values: False where only names and numbers of arguments are looked at.

    Example:
        >>> @plain_calls()
        ... def split(texts, *, test_size: float = 0.2): ...
        >>> split([], test=0.5)
        Traceback (most recent call last):
        ...
        layerfusion.errors.UserError: split: there is no 'test'; there are: texts, test_size; did you mean test_size?
        >>> split([], test_size="half")
        Traceback (most recent call last):
        ...
        layerfusion.errors.UserError: split: test_size= takes a number, found 'half'
    """  # noqa: E501

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        called = name or function.__qualname__.removesuffix(".__init__")
        signature = inspect.signature(function)
        known = frozenset(settings)

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                raise _misfit(called, signature, args, kwargs) from None
            extra = next(
                (one.name for one in signature.parameters.values() if one.kind is one.VAR_KEYWORD),
                None,
            )
            for key in bound.arguments.get(extra or "", {}) if known else ():
                first = key.partition(".")[0].rstrip("_")
                if first.isidentifier() and first not in known:
                    own = _names(signature)
                    raise unknown(called, key, [*own, *sorted(known.difference(own))])
            if values:
                _check_values(called, function, signature, bound.arguments)
            return function(*args, **kwargs)

        return checked

    return decorate


def plain_methods(cls: type[R]) -> type[R]:
    """Make every public method of a class, and its `__init__`, refuse a wrong call in one line.

    The values that `__init__` gets are left to the class: an estimator of scikit-learn keeps what
    it is given until `fit`, which looks at it by `check_params`.
    """
    for key, found in list(vars(cls).items()):
        own = key == "__init__"
        inner = found.__func__ if isinstance(found, classmethod) else found
        if not inspect.isfunction(inner) or (key.startswith("_") and not own):
            continue
        called = cls.__name__ if own else f"{cls.__name__}.{key}"
        made = plain_calls(called, values=not own)(inner)
        setattr(cls, key, classmethod(made) if inner is not found else made)
    return cls


def _names(signature: inspect.Signature) -> list[str]:
    """Name the arguments, without that of the object itself and without `**settings`."""
    return [
        one.name
        for one in signature.parameters.values()
        if one.name not in ("self", "cls") and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    ]


def _misfit(
    called: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> UserError:
    """Say why a call does not fit a signature."""
    names = _names(signature)
    parameters = signature.parameters
    for key in kwargs:
        if key not in parameters:
            return unknown(called, key, names)
    placed = [one.name for one in parameters.values() if one.kind is one.POSITIONAL_OR_KEYWORD]
    own = [key for key in placed if key in names]
    given = len(args) - (len(placed) - len(own))
    listed = ", ".join(names) or "none"
    if given > len(own):
        named = [key for key in names if key not in own]
        first = f"at most {len(own)} of them without a name ({', '.join(own)})" if own else "none"
        rest = f"; name the others: {', '.join(f'{key}=' for key in named)}" if named else ""
        return UserError(f"{called}: {given} values stand there, and it takes {first}{rest}")
    twice = [key for key in own[: max(given, 0)] if key in kwargs]
    if twice:
        return UserError(f"{called}: {twice[0]}= is given twice, by its place and by its name")
    there = {*own[: max(given, 0)], *kwargs}
    missing = [key for key in names if parameters[key].default is inspect.Parameter.empty]
    lacking = ", ".join(f"{key}=" for key in missing if key not in there)
    return UserError(f"{called}: {lacking} must be given; there are: {listed}")


def check_params(estimator: object) -> None:
    """Refuse a parameter of another type than the annotation in `__init__` says.

    Args:
        estimator: an estimator of scikit-learn, which has its parameters as attributes.
    """
    made = type(estimator).__init__
    signature = inspect.signature(made)
    values = {key: getattr(estimator, key) for key in _names(signature)}
    _check_values(type(estimator).__name__, made, signature, values)


def _check_values(
    called: str,
    function: Callable[..., Any],
    signature: inspect.Signature,
    values: Mapping[str, Any],
) -> None:
    """Refuse a value of another type than its annotation says."""
    space = inspect.unwrap(function).__globals__
    for key, value in values.items():
        parameter = signature.parameters[key]
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        accepted = _accepted(parameter.annotation, space)
        if not accepted or any(_is(value, types, kind) for kind, _, types in accepted):
            continue
        words = list(dict.fromkeys(word for _, word, _ in accepted))
        told = " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
        listed = "Sequence" in {kind for kind, _, _ in accepted} and isinstance(value, str)
        cure = f"; write [{short(value)}]" if listed else ""
        raise UserError(f"{called}: {key}= takes {told}, found {short(value)}{cure}")


def _is(value: Any, types: tuple[type, ...], kind: str) -> bool:
    if type(value).__name__ in ("bool", "bool_"):  # NumPy's is of no type that is known here
        return kind == "bool"
    if kind == WHOLE_NUMBERS and isinstance(value, Iterable):
        return all(_is(one, _KINDS["int"][1], "int") for one in value)
    return isinstance(value, types) and not (kind == "Sequence" and isinstance(value, str | bytes))


@functools.cache
def _parts(annotation: str) -> tuple[str, ...]:
    """Split `str | Sequence[str | int]` where a bar stands outside of brackets."""
    return tuple(re.findall(r"[^|\[\]\s]+(?:\[(?:[^\[\]]|\[[^\[\]]*\])*\])?", annotation))


def _accepted(annotation: Any, space: Mapping[str, Any]) -> list[tuple[str, str, tuple[type, ...]]]:
    """List the kinds of values that an annotation accepts; none where one of them is not known."""
    found = []
    for part in _parts(annotation) if isinstance(annotation, str) else ():
        kind = part.partition("[")[0]
        if kind in _KINDS:
            word, types = _KINDS[kind]
            if part in (WHOLE_NUMBERS, "Sequence[str]"):
                word += " of whole numbers" if part == WHOLE_NUMBERS else " of strings"
            found.append((part if part == WHOLE_NUMBERS else kind, word, types))
        elif isinstance(one := space.get(kind), type) and one is not Any:
            article = "an" if kind[0] in "AEIOU" else "a"
            found.append((kind, f"{article} {kind}", (one,)))
        elif isinstance(one, UnionType) and all(isinstance(each, type) for each in one.__args__):
            found += _accepted(" | ".join(each.__name__ for each in one.__args__), space)
        else:
            return []
    return found
