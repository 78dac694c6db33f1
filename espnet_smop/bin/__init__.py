"""One thin main per command."""

import contextlib
from collections.abc import Iterator
from unittest import mock


@contextlib.contextmanager
def unchecked_imports() -> Iterator[None]:
    """Import ESPnet without its run-time type checks.

    It rewrites its functions for them, which is a quarter of the time that importing it takes. For
    commands that check settings, and whose user waits.
    """
    with mock.patch("typeguard.typechecked", lambda function: function):
        yield
