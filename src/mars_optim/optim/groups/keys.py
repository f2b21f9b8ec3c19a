"""The keys of a parameter group: which are ours, which are a host's, which are misspelt."""

from __future__ import annotations

from collections.abc import Iterable

from ...optimizer_options import IN_GROUPS, TABLE

# What users may give in a group; the constructor's arguments have the same names.
OPTIONS = frozenset(TABLE)
# What a group may say and no constructor.
_OF_GROUPS = "split", "stacked", "lr_ratio"
# All the keys that mars-optim owns. Hosts add their own (``initial_lr``, ...).
_STATE = "gamma_now gamma_steps gamma_sums gamma_memory gamma_silent gamma_probes lr_peak".split()
GROUP_KEYS = frozenset((*OPTIONS, *IN_GROUPS, *_STATE, "params", "param_names", "kind", "why"))
# Keys that hosts are known to write although they are a letter or two from one of ours.
HOST_KEYS = frozenset("beta1 beta2 beta3 eps1 eps2 lr2 l1 l2 wd_ratio lr_rate".split())


def check_group_keys(keys: Iterable[str]) -> None:
    """Raise ValueError for a key that is a misspelling of one of our options (``split``, too).

    Hosts and schedulers keep data of their own in groups, and name it after what it belongs to:
    ``initial_lr``, ``lr_scale``, ``weight_decay_mult``, ``base_weight_decay``. They add whole
    words. A slip of the pen changes letters. So the rule counts letters:

    - A key within two of them (added, left out, changed, or two neighbours exchanged) of an option
      of six and more letters is a misspelling; for shorter options it is within one.
    - For options of up to three letters (``lr``, ``eps``) only what has the same letters and no
      others is one (``rl``, ``llr``): too many words are one letter away.
    - Case does not count.
    - What hosts are known to use (:data:`HOST_KEYS`, such as ``beta1``) is never one.

    All other keys pass, and stay in the group untouched.
    """
    for key in keys:
        if key in GROUP_KEYS or key in HOST_KEYS or not isinstance(key, str):
            continue
        near = min((*OPTIONS, *_OF_GROUPS), key=lambda name: (distance(key.lower(), name), name))
        if _is_slip(key.lower(), near):
            raise ValueError(
                f"unknown key {key!r} in a parameter group; did you mean {near!r}? Give your "
                "own data a name that differs more"
            )


def _is_slip(key: str, name: str) -> bool:
    """Whether ``key`` is ``name`` misspelt."""
    apart = distance(key, name)
    if len(name) <= 3:
        return set(key) == set(name) and apart <= 1
    return apart <= (2 if len(name) >= 6 else 1)


def distance(a: str, b: str) -> int:
    """Letters to add, leave out, change, or exchange with a neighbour, from ``a`` to ``b``."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, last, row = row, before, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
