"""A parameter group as given -> the plain groups that MARS keeps: matrices apart from vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.nn.parameter import is_lazy

from ...optimizer_options import MATRIX_RULES, TABLE
from ..blocks import WAY_OUT
from ..distributed.flat_pieces import PIECES, GivenShapes, check_partitions, way_out
from ..distributed.tensor_parallel import line_of, whole_shape
from ..gamma.schedule import check_stages
from ..hyperparameters import Settings, resolve_clip, resolve_correction, resolve_gamma
from ..values import at_least_zero, check_option, flag, number, plain
from .keys import check_group_keys
from .names import bare

Group = dict[str, Any]

OF_VECTORS = tuple(name for name, option in TABLE.items() if not option.kept)
_KEYS = dict(lr_1d="lr", lr_1d_ratio="lr_ratio", betas_1d="betas", weight_decay_1d="weight_decay")


def split_group(
    given: Group, defaults: Mapping[str, Any], constructor: Mapping[str, Any]
) -> list[Group]:
    """Resolve one group into one for matrices and one for vectors, where it has them.

    Args:
        given: as the user wrote it: ``params`` and any options.
        defaults: the optimizer's defaults for what ``given`` leaves out.
        constructor: ``clip``, ``correction``, ``lr_1d``, ``lr_1d_ratio``, ``betas_1d`` and
            ``weight_decay_1d`` as the constructor was given them.

    Returns:
        One or two groups with every option set. They say ``optimize_1d=True`` ("the rule is for
        all of this group"), so adding them again does not split them again.

    Raises:
        ValueError: for a value out of range, a misspelt key, or complex matrices under a rule
            that cannot take them.
    """
    check_group_keys(given)
    options = {k: plain(v) for k, v in given.items() if k not in ("params", "param_names")}
    own_1d = {k: options.pop(k, None) for k in OF_VECTORS}
    check_vector_options(own_1d)
    resolve_gamma(options)
    schedule = options.get("gamma_schedule", defaults["gamma_schedule"])
    if "correction" not in options:
        options["correction"] = resolve_correction(constructor["correction"], schedule)
    options["clip"] = _clip(options, constructor)
    whole = {**{k: plain(v) for k, v in defaults.items()}, **options}
    whole["optimize_1d"] = flag("optimize_1d", whole["optimize_1d"])
    settings = Settings.from_group(whole)

    params = _as_list(given)
    takes_vectors = whole["optimize_1d"] and settings.rule not in MATRIX_RULES
    if not takes_vectors:
        _check_known(params)
    vectors = [] if takes_vectors else [p for p in params if bare(p).ndim < 2]
    matrices = params if takes_vectors else [p for p in params if bare(p).ndim >= 2]
    ratio = _given_ratio(own_1d, constructor)
    own = own_1d["lr_1d_ratio"] is not None  # the constructor's may be for other groups
    if takes_vectors and ratio is not None and (own or "optimize_1d" not in options):
        raise ValueError(
            f"lr_1d_ratio={ratio!r} is for vectors that plain AdamW steps, and with "
            f"optimize_1d=True rule={settings.rule!r} steps them itself: leave one of them out"
        )
    groups = []
    if matrices or not params:
        for matrix in matrices:
            check_shape(bare(matrix), settings)
            check_split(matrix, settings)
        kind = {} if takes_vectors else {"kind": "matrix"}
        groups.append({**whole, "params": matrices, "optimize_1d": True, **kind})
    if vectors:
        rule: Group = {"rule": "adamw"}
        if not whole["optimize_1d"]:
            rule = _plain_adamw(options, own_1d, constructor, defaults)
        rule["lr_ratio"] = whole["lr_ratio"] * (1.0 if ratio is None else ratio)
        of_vectors = {"params": vectors, "optimize_1d": True, "kind": "vector", "split": None}
        groups.append({**whole, **rule, **of_vectors})
    return groups


def own_rate(group: Group, others: Iterable[Group]) -> None:
    """Give a group a copy of its tensor ``lr`` where one of ``others`` has this very tensor.

    Schedulers write into it for each group in turn. A tensor of several groups would be moved
    several times, and away from the rates of all other groups.
    """
    lr = group["lr"]
    if isinstance(lr, Tensor) and any(other["lr"] is lr for other in others):
        group["lr"] = lr.detach().clone()


def _check_known(params: list[Any]) -> None:
    """Raise ValueError for a parameter that has no shape yet, and so no place."""
    for i, param in enumerate(params):
        if is_lazy(bare(param)):
            name = param[0] if isinstance(param, tuple) else f"parameter {i}"
            raise ValueError(
                f"{name} is lazy: whether it is a matrix is not known before a batch has passed "
                "through the model. Pass one first; or, under rule 'adamw' or 'lion', give "
                "optimize_1d=True"
            )


def check_vector_options(options: Mapping[str, Any]) -> None:
    """Raise ValueError unless ``lr_1d``, ``betas_1d`` and their like are in range."""
    absolute, ratio = options.get("lr_1d"), options.get("lr_1d_ratio")
    if absolute is not None and ratio is not None:
        raise ValueError(
            f"lr_1d={absolute!r} and lr_1d_ratio={ratio!r} exclude each other: give one of them"
        )
    for name in OF_VECTORS:
        if (value := options.get(name)) is not None:
            value = value if name == "betas_1d" else at_least_zero(name, value)
            check_option(name, value, TABLE[name])


def _clip(options: Mapping[str, Any], constructor: Mapping[str, Any]) -> float | None:
    """The group's own clip; else the constructor's, which a folded group has no use for."""
    correction = options["correction"]
    if "clip" in options:
        return resolve_clip(options["clip"], correction)
    return None if correction == "folded" else resolve_clip(constructor["clip"], correction)


def _plain_adamw(
    options: Mapping[str, Any],
    own_1d: Mapping[str, Any],
    constructor: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> Group:
    """The paper's treatment of vectors: AdamW on the raw gradient (``optimize_1d=False``)."""

    def first_given(name: str) -> Any:
        # the group's own *_1d, the group's own value, the constructor's *_1d, its value
        of_constructor = constructor[f"{name}_1d"]
        if name == "lr" and own_1d["lr_1d_ratio"] is not None:
            of_constructor = None
        candidates = (own_1d[f"{name}_1d"], options.get(name), of_constructor, defaults[name])
        return plain(next(value for value in candidates if value is not None))

    return {
        "rule": "adamw",
        "lr": first_given("lr"),
        "weight_decay": first_given("weight_decay"),
        "betas": constructor["betas_1d"] if own_1d["betas_1d"] is None else own_1d["betas_1d"],
        "gamma": 0.0,
        "clip": None,
        "correction": "approx",
    }


def _given_ratio(own_1d: Mapping[str, Any], constructor: Mapping[str, Any]) -> float | None:
    """Factor from lr to the lr of vectors: the group's own, unless it gives them an lr."""
    for options in (own_1d, constructor):
        if options["lr_1d_ratio"] is not None:
            return float(number("lr_1d_ratio", options["lr_1d_ratio"]))
        if options["lr_1d"] is not None:
            return None
    return None


def _as_list(group: Group) -> list[Any]:
    """The group's tensors or (name, tensor) pairs; generators are used up here, once."""
    if "params" not in group:
        raise ValueError("a parameter group needs the key 'params'")
    params = group["params"]
    if isinstance(params, Tensor):
        return [params]
    if isinstance(params, set):
        raise TypeError("params must be ordered: a set is not, use a list")
    params = list(params)
    if group.get("param_names") and not isinstance(params[0], tuple):
        params = list(zip(group["param_names"], params, strict=True))
    for param in params:
        if not isinstance(bare(param), Tensor):
            raise TypeError(f"params must hold tensors, not {type(bare(param)).__name__}")
    return params


def checked_settings(groups: list[Group], given: GivenShapes) -> list[Settings]:
    """The settings of groups as they are now.

    Args:
        groups: of a MARS; hands and hosts may have edited them.
        given: the shapes that it was given.

    Raises:
        ValueError: for groups that a step cannot take.
    """
    check_stages(groups)
    of_groups = [Settings.from_group(group) for group in groups]
    check_partitions(groups, given)
    for group, settings in zip(groups, of_groups, strict=True):
        names = group.get("param_names") or ()
        if len(names) != len(group["params"]):  # a host has changed its parameters
            names = [None] * len(group["params"])
        for name, param in zip(names, group["params"], strict=True):
            if param.grad is not None:
                check_shape(param, settings, group.get("kind"))
                check_split(param if name is None else (name, param), settings)
    return of_groups


def check_clip_reached(groups: list[Group], defaults: Mapping[str, Any], clip: Any) -> None:
    """Raise ValueError where a constructor's ``clip_over="global"`` finds no clip in any group.

    Not where ``clip=None`` was given, or a group has a clip of its own.
    """
    clipped = defaults["clip"] is not None or any(group["clip"] for group in groups)
    if defaults["clip_over"] == "global" and clip is not None and not clipped:
        raise ValueError(
            "clip_over='global' has nothing to clip by: correction='folded', which gamma='auto' "
            "takes, has no clip. Leave clip_over out, and clip gradients before the step "
            "(torch.nn.utils.clip_grad_norm_)"
        )


def check_vectors_reached(groups: list[Group], constructor: Mapping[str, Any]) -> None:
    """Raise ValueError where an option of the constructor for vectors acts on no group of them.

    Those of ``param_groups``, which say ``why``, have got what it was told.

    Args:
        groups: all of the optimizer.
        constructor: ``lr_1d``, ``lr_1d_ratio``, ``betas_1d`` and ``weight_decay_1d`` as it was
            given them.
    """
    vectors = [group for group in groups if group.get("kind") == "vector"]
    if not vectors or not all("why" in group for group in vectors):
        return
    for name, key in _KEYS.items():
        value = constructor[name]
        given = tuple(value) if name == "betas_1d" else value
        there = [tuple(g[key]) if name == "betas_1d" else g[key] for g in vectors]
        if value is None or given == TABLE[name].default or given in there:
            continue
        raise ValueError(
            f"{name}={value!r} reaches no vector of these groups, which param_groups made: "
            f"give it there, param_groups(..., {name}=), or leave it out here"
        )


def check_shape(param: Tensor, settings: Settings, kind: str | None = None) -> None:
    """Raise ValueError for a parameter that the group's rule cannot take.

    A group of matrices (``kind``) in which vectors are found later has been partitioned by its
    host; then only what works element by element is right.
    """
    if settings.rule not in MATRIX_RULES:
        if kind == "matrix" and param.ndim < 2 and settings.gamma and settings.clip is not None:
            raise ValueError(
                f"a group held matrices, {PIECES} now, and clip needs the norm of a whole "
                "tensor: set clip=None, which is right element by element"
            )
        return
    wrong = "complex" if param.is_complex() else f"{param.ndim}-D" if param.ndim < 2 else ""
    if wrong:
        way = way_out() if param.ndim < 2 else "use rule='adamw' or 'lion' for their group"
        flat = ", such as flat pieces (FSDP1, DeepSpeed ZeRO)" if param.ndim < 2 else ""
        raise ValueError(f"rule={settings.rule!r} does not take {wrong} parameters{flat}: {way}")


def check_split(param: Any, settings: Settings) -> None:
    """Raise ValueError for a weight, or a (name, weight) pair, that ``split`` does not fit."""
    if settings.split is None:
        return
    tensor, given = bare(param), settings.split.given
    line = line_of(tensor)
    shape = tensor.shape if line is None else whole_shape(tensor, line)
    if reason := settings.split.misfit(shape, stacked=settings.stacked):
        name = param[0] if isinstance(param, tuple) else "a parameter"
        raise ValueError(
            f"split={given!r} does not fit {name} of shape {tuple(shape)}: {reason}. Give its "
            f"group another one: {WAY_OUT}"
        )
