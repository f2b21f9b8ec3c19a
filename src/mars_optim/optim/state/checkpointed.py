"""Checkpoints and copies of an optimizer: what they keep, and what begins anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from torch import Tensor
from torch.optim.optimizer import Optimizer

from ..distributed.flat_pieces import GivenShapes
from ..distributed.sharded import local
from ..gamma import kept
from ..gamma.choice import Seen
from ..groups.split import own_rate
from ..telemetry import Telemetry
from .counter import counter
from .fit import LAST_PARAM, check_names, check_state
from .loaded import check_loaded, check_own, restored


class Runtime(TypedDict):
    """Memory of an optimizer's steps beside the state; no checkpoint holds it."""

    done: bool  # whether there was a previous pass since the last step,
    scale: float  # the scaler's in it,
    scaled: bool  # and whether there was a scaler
    exact: bool  # whether the last step kept its point for correction="exact"
    steps: int  # in this process
    ratios: dict[int, Tensor]  # of correction to gradient in one of them, by number of the group
    telemetry: Telemetry | None  # if any is gathered
    plans: kept.Plans  # where the samples are by which gamma is chosen, by number of the group
    arrived: dict[int, list[Seen]]  # what they showed of gradients that are gone already
    released: bool  # whether backward takes the steps
    built: bool  # whether the constructor is done


def new_runtime(telemetry: Telemetry | None = None) -> Runtime:
    """Nothing yet."""
    return {
        "done": False,
        "scale": 1.0,
        "scaled": False,
        "exact": False,
        "steps": 0,
        "ratios": {},
        "telemetry": telemetry,
        "plans": {},
        "arrived": {},
        "released": False,
        "built": True,
    }


class Checkpointed(Optimizer):
    """MARS's additions to torch's state dict and pickling."""

    # A dict, for Lightning's wrappers are subclasses with attributes of their own: they share it.
    _runtime: Runtime
    _constructor: dict[str, Any]
    _given: GivenShapes

    def state_dict(self) -> dict[str, Any]:
        """As torch's; what gamma's schedule keeps of each parameter is in the groups.

        So all tensors in the state of a parameter are of its shape, or numbers, as hosts expect.
        Where gamma is chosen for sharded parameters, every process must call it.
        """
        of_gamma = kept.saved(self.param_groups, self._runtime["plans"])
        return kept.out_of_state(super().state_dict(), of_gamma)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load by torch's rules, but each state tensor keeps the dtype that it was saved in.

        torch casts state to the parameter's dtype, which would round float32 moments of bfloat16
        parameters. Pre-hooks are heard first, as torch says: what counts is what they return.

        Raises:
            ValueError: for the state of another optimizer, another rule or split into groups, or a
                step counter that is none.
        """
        found: dict[str, Any] = {}

        def look(_: Optimizer, final: dict[str, Any]) -> dict[str, Any]:
            check_loaded(final, self.param_groups)
            found.update(kept.into_groups(final))
            return found

        def restore(_: Optimizer) -> None:
            keep_dtypes(self, found)

        hooks = [
            self.register_load_state_dict_pre_hook(look),  # the last: it sees what is loaded
            self.register_load_state_dict_post_hook(restore, prepend=True),
        ]
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()

    def __getstate__(self) -> dict[str, Any]:
        own = {"_constructor": self._constructor, "_given": self._given}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a loaded or copied state, if it fits; else nothing is changed.

        Raises:
            ValueError: naming the parameter that has another's state.
        """
        if "param_groups" in state and "state" in state:
            # a hook of the user's may put states into another order; one of the hooks is ours
            hooks = self.__dict__.get("_optimizer_load_state_dict_pre_hooks", ())
            if "param_groups" in self.__dict__:
                check_own(state["param_groups"], self.param_groups)
                state = {
                    **state,
                    "param_groups": restored(state["param_groups"], self.param_groups),
                }
                if len(hooks) < 2:
                    check_names(self.param_groups, state["param_groups"])
            check_state(state["param_groups"], state["state"])
        super().__setstate__(state)
        before: Runtime | None = self.__dict__.get("_runtime")  # a copy has none yet
        telemetry = None if before is None else before["telemetry"]
        # a live optimizer that loads a state goes on measuring, anew
        self._runtime = new_runtime(telemetry and Telemetry(telemetry.every))
        self._runtime["exact"] = any(LAST_PARAM in its for its in self.state.values())
        for i, group in enumerate(self.param_groups):
            for key, default in self.defaults.items():
                if key != "differentiable":  # torch adds it to the defaults when it loads
                    group.setdefault(key, default)
            own_rate(group, self.param_groups[:i])
            for param in group["params"]:
                if "step" in self.state.get(param, ()):
                    its = self.state[param]
                    beside = local(param).device if group["capturable"] else None
                    its["step"] = counter(its["step"], device=beside)
        kept.begin(self.param_groups, self._runtime["plans"])

    def memory(self) -> dict[str, Any]:
        """Memory of :meth:`telemetry` and of a schedule of gamma, as plain JSON data.

        For checkpoints that keep the parameters' state alone: ``state_dict`` has the schedule's
        part in its groups. Waits for the device.
        """
        telemetry = self._runtime["telemetry"]
        return {
            "gamma": kept.to_json(self.param_groups, self._runtime["plans"]),
            "telemetry": None if telemetry is None else telemetry.to_json(),
        }

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Go on from what :meth:`memory` gave, to the same bits; telemetry if it is measured."""
        kept.from_json(self.param_groups, self._runtime["plans"], memory["gamma"])
        telemetry, measured = self._runtime["telemetry"], memory["telemetry"]
        if telemetry and measured:
            telemetry.from_json(measured)


def keep_dtypes(optimizer: Optimizer, state_dict: Mapping[str, Any]) -> None:
    """Give state that torch has cast in loading the dtype that it has in ``state_dict``."""
    ids = [i for group in state_dict["param_groups"] for i in group["params"]]
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for i, param in zip(ids, params, strict=True):
        for key, saved in state_dict["state"].get(i, {}).items():
            kept = isinstance(saved, Tensor) and key != "step"
            if kept and saved.dtype != optimizer.state[param][key].dtype:
                optimizer.state[param][key] = saved.to(param.device, copy=True)
