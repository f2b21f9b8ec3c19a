"""Whether loaded groups are a MARS optimizer's, made as the one that they are loaded into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...optimizer_options import RULES
from .counter import check_counter

Group = Mapping[str, Any]

REMAKE = (
    "Make the optimizer with the groups, rule and optimize_1d of the one that was saved; or carry "
    "AdamW's moments by mars_optim.migrate(state_dict, model)"
)


def check_loaded(state_dict: Mapping[str, Any], own: Sequence[Group]) -> None:
    """Raise ValueError, before anything is changed, for a state dict that no MARS can go on from.

    Args:
        state_dict: as it is to be loaded.
        own: the groups of the optimizer that it is loaded into.
    """
    groups = state_dict["param_groups"]
    check_own(groups, own)
    for group in groups:
        names = group.get("param_names") or [f"parameter {i}" for i in group["params"]]
        for i, name in zip(group["params"], names, strict=False):
            state = state_dict["state"].get(i, {})
            if "step" in state:
                check_counter(state["step"], name)


def check_own(loaded: Sequence[Group], own: Sequence[Group]) -> None:
    """Raise ValueError for groups of another optimizer, or of a MARS that is made in another way.

    Groups of ours always have a rule and a gamma. Without them they are AdamW's, say; taken as they
    are, the correction would act on all their tensors, vectors too. Numbers (lr, gamma, clip) are
    the state dict's, as with torch's optimizers; which rule a tensor has, and whether it is a
    vector under plain AdamW, is the program's.
    """
    for group in loaded:
        missing = [key for key in ("rule", "gamma", "correction") if key not in group]
        if missing or group["rule"] not in RULES:
            what = f"no {missing[0]!r}" if missing else f"rule={group['rule']!r}"
            raise ValueError(
                f"this state dict is not a MARS optimizer's: its groups have {what}. Continue "
                "from AdamW's by mars_optim.migrate(state_dict, model); from another "
                "optimizer's, begin anew"
            )
    if len(loaded) != len(own):
        raise ValueError(
            f"loaded state dict has a different number of parameter groups ({len(loaded)}: "
            f"{_kinds(loaded)}) than this optimizer ({len(own)}: {_kinds(own)}). {REMAKE}"
        )
    for i, (theirs, ours) in enumerate(zip(loaded, own, strict=True)):
        if theirs["rule"] != ours["rule"]:
            raise ValueError(
                f"group {i} of the state dict has rule={theirs['rule']!r}, this optimizer's has "
                f"{ours['rule']!r}: their moments differ. {REMAKE}"
            )
        if _is_vector(ours) and _is_plain(ours) and not _is_plain(theirs):
            raise ValueError(
                f"group {i} of the state dict corrects vectors (gamma={theirs['gamma']!r}), this "
                f"optimizer leaves them to plain AdamW (optimize_1d=False). {REMAKE}"
            )
        if _is_vector(theirs) and _is_plain(theirs) and not (_is_vector(ours) or _is_plain(ours)):
            raise ValueError(
                f"group {i} of the state dict leaves vectors to plain AdamW (optimize_1d=False), "
                f"this optimizer corrects them. {REMAKE}"
            )


def _is_vector(group: Group) -> bool:
    return bool(group.get("kind") == "vector")


def _is_plain(group: Group) -> bool:
    return bool(group["gamma"] == 0 and group.get("clip") is None)


def _kinds(groups: Sequence[Group]) -> str:
    return ", ".join(str(group.get("kind", group["rule"])) for group in groups)


def restored(loaded: Sequence[Group], own: Sequence[Group]) -> list[dict[str, Any]]:
    """Loaded groups, with what ours say of their tensors where they say nothing.

    ``split`` is the program's, as the rule is: momentum is the same with and without it.
    """
    kept = ("kind", "why", "stacked", "lr_ratio")
    return [
        {**{key: ours[key] for key in kept if key in ours}, **theirs, "split": ours.get("split")}
        for theirs, ours in zip(loaded, own, strict=True)
    ]
