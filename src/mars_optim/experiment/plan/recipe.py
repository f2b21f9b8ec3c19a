"""Additions of a recipe to a plan: its source, published results, and our own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from ...errors import UserError, did_you_mean
from .table import Number, Whole, option, table

RECIPE_VERSION = 1


@table
class Recipe:
    """A published experiment as a plan. No part of what a run is."""

    title: str = option("", "model and data, in a line")
    version: Whole = option(RECIPE_VERSION, "of the recipe's form", ge=1)
    source: str = option("", "where the settings were published")
    notes: tuple[str, ...] = option((), "what to keep in mind: a sentence or two each")
    changed: tuple[str, ...] = option((), "where this plan departs from the recipe's file")


@table
class Published:
    """Published results of one arm; a key is left out where nothing was published."""

    loss: Number | None = option(None, "final validation loss, nats per token")
    accuracy: Number | None = option(None, "of the test set, in per cent", ge=0.0, le=100.0)
    settings: Literal["published", "ours"] = option(
        "published", 'the arm\'s: "published", or "ours" (to be tuned) where none were'
    )
    source: str = option("", 'of these numbers; "not published" where there are none')
    note: str = option("", "what to keep in mind")


@table
class Ours:
    """Our own results with this recipe."""

    loss: Number | None = option(None, "final validation loss, nats per token")
    accuracy: Number | None = option(None, "of the test set, in per cent", ge=0.0, le=100.0)
    seeds: Whole = option(1, "that the numbers are the mean of", ge=1)
    machine: str = option("", "that it ran on")
    date: str = option("", "of the run")
    command: str = option("", "that makes it again")
    note: str = option("", "what to keep in mind: all that is not as published")


def check_version(version: object) -> None:
    """See that a recipe is of this version, before its other keys are looked at.

    Raises:
        UserError: if not, with what to do.
    """
    if version != RECIPE_VERSION:
        raise UserError(
            f"recipe.version = {version!r}, and this mars-optim reads recipes of version "
            f"{RECIPE_VERSION}: use the recipe that came with it, or the mars-optim that came "
            "with the recipe"
        )


def check_recipe(
    recipe: Recipe,
    published: Mapping[str, Published],
    ours: Mapping[str, Ours],
    arms: Iterable[str],
) -> None:
    """Check what no single key of a recipe can tell.

    Raises:
        UserError: naming the key.
    """
    check_version(recipe.version)
    arms = tuple(arms)
    for key, entries in (("published", published), ("ours", ours)):
        for name, entry in entries.items():
            if name not in arms:
                hint = did_you_mean(name, arms)
                raise UserError(f"{key}.{name} is not among arms = {list(arms)}{hint}")
            _check_source(f"{key}.{name}", entry)


def _check_source(where: str, entry: Published | Ours) -> None:
    """A number without its origin is none."""
    needed = ("source",) if isinstance(entry, Published) else ("machine", "date", "command")
    for key in needed:
        if not getattr(entry, key).strip():
            raise UserError(f"{where} needs the key '{key}': where its numbers come from")
