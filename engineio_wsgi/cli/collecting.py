"""What the command does about Python's garbage collection. Owns its flags."""

from __future__ import annotations

import argparse
import gc

from engineio_wsgi.heap import DEFAULT_SHARE, freeze_heap, limit_collections

__all__ = ["add_collection_flags", "set_collection_defaults", "settle_heap"]

DEFAULT_PERCENT = 100 * DEFAULT_SHARE


def set_collection_defaults(parser: argparse.ArgumentParser) -> None:
    """For a command that has none of the flags."""
    parser.set_defaults(freeze=True, full_collections=DEFAULT_PERCENT, gc_threshold=None)


def add_collection_flags(parser: argparse.ArgumentParser) -> None:
    """The flags about garbage collection."""
    group = parser.add_argument_group("garbage collection")
    group.add_argument("--freeze", action=argparse.BooleanOptionalAction, default=True,
                       help="keep what exists after the start out of all collections (gc.freeze)")
    group.add_argument("--full-collections", metavar="PERCENT", type=_percent, default=DEFAULT_PERCENT,
                       help="put off full collections so that they take at most so much of the time; 100 leaves them to Python "
                            f"({DEFAULT_PERCENT:g})")
    group.add_argument("--gc-threshold", metavar="NUMBERS", type=_thresholds, default=None,
                       help="Python's thresholds (gc.set_threshold), separated by commas; 0 switches collections off")


def settle_heap(chosen: argparse.Namespace) -> None:
    """Do what the flags say. The application has been imported, and nothing is served yet."""
    if chosen.gc_threshold is not None:
        gc.set_threshold(*chosen.gc_threshold)
    limit_collections(chosen.full_collections / 100)
    if chosen.freeze:
        freeze_heap()


def _percent(text: str) -> float:
    try:
        percent = float(text)
    except ValueError:
        percent = 0.0
    if not 0 < percent <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and up to 100")
    return percent


def _thresholds(text: str) -> tuple[int, ...]:
    numbers = text.split(",")
    if len(numbers) > 3 or not all(number.strip().isdecimal() and int(number) < 2**31 for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} is not one to three numbers, separated by commas")
    return tuple(map(int, numbers))
