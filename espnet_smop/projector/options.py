"""Checks of a projector's options; errors state the given and the expected value."""

from collections.abc import Iterable, Mapping
from typing import Any

from espnet_smop.class_path import unknown_key


def one_of(name: str, given: Any, choices: Iterable[Any]) -> Any:
    """Return ``given`` if it is one of ``choices``.

    Raises:
        ValueError: it is not one of them; the message lists them.
    """
    choices = tuple(choices)
    if given not in choices:
        listed = ", ".join("null" if c is None else str(c) for c in choices)
        raise ValueError(f"{name} is {given!r}, expected one of: {listed}")
    return given


def check_positive_int(name: str, given: Any) -> int:
    """Return ``given`` if it is a whole number above 0.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise ValueError(f"{name} is {given!r}, expected a whole number of at least 1")
    return given


def check_not_negative(name: str, given: float) -> float:
    """Return ``given`` if it is at least 0.

    Raises:
        ValueError: it is not.
    """
    if not given >= 0:
        raise ValueError(f"{name} is {given!r}, expected a number of at least 0")
    return given


def rates_of(name: str, given: Any) -> tuple[int, ...]:
    """Return the rates that an option gives: a whole number above 0, or a list of distinct ones.

    Raises:
        ValueError: it is neither.
    """
    if not isinstance(given, list | tuple):
        return (check_positive_int(name, given),)
    rates = tuple(check_positive_int(name, rate) for rate in given)
    if not rates or len(set(rates)) < len(rates):
        raise ValueError(f"{name} is {given!r}, expected different numbers of frames per token")
    return rates


def complete(name: str, given: Mapping[str, Any] | None, defaults: Mapping[str, Any]) -> dict:
    """Complete a partial dictionary, such as from ``--projector_conf downsample.video=2``.

    Raises:
        ValueError: ``given`` is not a dictionary or has a key that is not in ``defaults``.
    """
    if given is None:
        return dict(defaults)
    if not isinstance(given, Mapping):
        raise ValueError(f"{name} is {given!r}, expected a dictionary with {', '.join(defaults)}")
    for key in given:
        if key not in defaults:
            raise ValueError(unknown_key(name, key, defaults))
    return {**defaults, **given}
