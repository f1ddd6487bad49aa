"""Run a program of this folder; a user's mistake ends in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def run(program: Callable[[], Any], *others: type[Exception]) -> None:
    """Print a user's mistake in one line; ``others`` are further exceptions that are mistakes."""
    try:
        program()
    except (ValueError, OSError, ImportError, *others) as error:
        sys.exit(f"error: {error}")
