"""What a resumed run needs of its controller: plain numbers, checked when they are put back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError, GossamerError, refuse

FIELDS = (
    "integral",
    "boost",
    "average",
    "tightened",
    "taken",
    "start",
    "bias",
    "sampling",
    "settled",
    "restarts",
    "done",
    "aim",
    "price",
)
FALLING = ("average", "lowest", "steps")  # of the open units
UNKNOWN_AT_FIRST = ("average", "price", "open_average", "open_lowest")


def state_of(controller: Any) -> dict[str, Any]:
    """The state of a controller, with the ceiling that it must share with its start."""
    found = {"ceiling": str(controller.ceiling)} | {name: getattr(controller, name) for name in FIELDS}
    return found | {f"open_{name}": getattr(controller.falling, name) for name in FALLING}


def put_state(controller: Any, state: Mapping[str, Any]) -> None:
    """Put a saved state back.

    Raises: `CheckpointError` for the state of another ceiling, or one that lacks something or is of another kind.
    """
    now = state_of(controller)
    if missing := [name for name in now if name not in state]:
        raise _unlike(f"without {', '.join(missing)}")
    if state["ceiling"] != now["ceiling"]:
        raise refuse(
            f"ceiling {now['ceiling']} on a checkpoint made with ceiling {state['ceiling']}",
            "the same ceiling",
            "resume with what the run was started with, or start a new one in another folder",
            CheckpointError,
        )
    for name in now:
        if name != "ceiling" and not _fits(name, now[name], state[name]):
            raise _unlike(f"with {name} {state[name]!r}")
    for name in FIELDS:
        setattr(controller, name, state[name])
    for name in FALLING:
        setattr(controller.falling, name, state[f"open_{name}"])


def _fits(name: str, now: Any, value: Any) -> bool:
    """Whether `value` is of the kind that a run has there: a switch, a count or a number."""
    if value is None:
        return name in UNKNOWN_AT_FIRST
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool) != isinstance(now, bool)
        or value != value
    ):
        return False
    return isinstance(value, int) or not isinstance(now, int)


def _unlike(what: str) -> GossamerError:
    return refuse(
        f"a controller's state {what}",
        "one that this version wrote",
        "resume from another checkpoint",
        CheckpointError,
    )
