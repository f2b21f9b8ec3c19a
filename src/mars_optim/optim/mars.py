"""class MARS: groups, state and step. The arithmetic, as the paper has it, is in reference.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, overload

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..optimizer_options import (
    IN_GROUPS,
    NS_COEFFICIENTS,
    RULES,
    TABLE,
    Clip,
    ClipOver,
    Coefficients,
    Correction,
    GammaSchedule,
    Rule,
    check_choice,
)
from .backends import Amp
from .distributed.flat_pieces import (
    GivenShapes,
    check_one_group,
    check_partitions,
    inside_zero_redundancy,
)
from .gamma import choice, kept
from .gamma import schedule as gammas
from .groups.split import (
    OF_VECTORS,
    check_clip_reached,
    check_vector_options,
    check_vectors_reached,
    own_rate,
    split_group,
)
from .hyperparameters import Settings, resolve
from .state.checkpointed import new_runtime
from .step_layout import StepLayout
from .two_gradient import TwoGradientForm
from .values import check_option


class MARS(TwoGradientForm, StepLayout):
    """MARS: a variance-reduced gradient inside an adaptive optimizer (arXiv 2411.10438).

    The step, with k = gamma beta1 / (1 - beta1)::

        c_t  = g_t + k (g_t - g_{t-1})
        c~_t = c_t min(1, clip / ||c_t||)
        m_t  = beta1 m_{t-1} + (1 - beta1) c~_t
        x   <- x - lr (direction(m_t) + weight_decay x)

    Every argument from ``lr`` to ``ns_coefficients`` can also be given per parameter group, lives
    there, and is read at each step. With ``optimize_1d=False`` each group is split when it is
    added: tensors with fewer than two dimensions become a plain AdamW group of their own, so
    ``param_groups`` may be longer than the list that was given. A value that a group gives itself
    wins over the constructor's. Its ``lr`` and ``weight_decay`` hold for its vectors too, so
    ``{"params": ..., "weight_decay": 0.0}`` decays nothing in that group; for the rest its vectors
    have AdamW's own settings: ``betas_1d``, no correction, no clip.

    A group may also say ``stacked`` (leading dimensions are a batch of matrices), ``split`` (the
    blocks of each matrix that are matrices of their own, see :mod:`.blocks`) and ``lr_ratio``
    (what its lr is multiplied by in each step).

    Args:
        params: tensors, (name, tensor) pairs, or dicts of them with options.
        lr: learning rate, >= 0 (default: 3e-3).
        betas: (beta1, beta2), each in [0, 1) (default: (0.95, 0.99)). Only rule "adamw" has a
            second moment and reads beta2.
        eps: added to the root of the second moment, >= 0 (default: 1e-8).
        weight_decay: decoupled, times lr, >= 0 (default: 0.01).
        amsgrad: divide by the running maximum of the second moment; rule "adamw" only
            (default: False).
        rule: "adamw", "lion", "shampoo" or "muon" (default: None, the class's own, which is
            "adamw" for MARS). The last two orthogonalise matrices by Newton-Schulz in bfloat16
            (float64 for float64 parameters, float32 on CPUs without bfloat16 products); tensors of
            more dimensions are flattened to (shape[0], -1).
        gamma: scale of the correction, >= 0 (default: 0.025). 0 switches it off; "auto" is
            ``gamma_schedule="auto"`` from 0.1 on.
        gamma_schedule: "constant"; "lr" makes it ``gamma * lr / (highest lr so far)`` at each
            step, "sqrt_lr" the same with a root. The others choose it every 10 steps, for each
            group, and begin with ``gamma``: "auto" compares each new gradient with what the last
            gradient had beyond the average, and raises gamma if they agree, lowers it if not
            (``correction="folded"`` only); "least_error" (experimental) takes that of the least
            estimated error of the momentum. The one in force is ``float(group["gamma_now"])``
            (default: "constant").
        clip: largest norm of c_t per tensor, None for no clip (default: "auto", which is 1.0, and
            None for ``correction="folded"``, which refuses any other).
        clip_over: "tensor" or, as levanter and optax do, "global": the norm is that of c_t over all
            tensors of all groups that have a clip with ``clip_over="global"``, and one scale holds
            for all of them; vectors under plain AdamW have no clip and do not count
            (default: "tensor").
        cautious: step only where the direction has the sign of g_t, the gradient as it is in
            p.grad, and scale the rest up by the tensor's share of such elements, of at least 1e-3
            (arXiv 2411.16085). The direction is the rule's: m_t / sqrt(v_t) for "adamw",
            sign(m_t) for "lion", U V^T for "shampoo" and "muon". Moments and decay are as
            without; vectors under plain AdamW are masked too (default: False).
        correction: "approx" takes the difference to the last step's gradient, kept as a copy and
            zero before the first step (Remark 3.3). "folded" is the same without a clip and
            without a stored gradient: m_t = (1 - gamma) EMA(g)_t + gamma g_t; its second
            moment is of g_t, so for rule "adamw" it is a method with a learning rate of its own.
            "exact" takes the difference to this batch's gradient at the last step's parameters
            (Alg. 1): give ``step`` a closure or use :meth:`previous_point`; it costs a second
            pass and the parameters once more (default: None, "folded" where "auto" chooses gamma
            and "approx" elsewhere).
        optimize_1d: give tensors with fewer than two dimensions the rule and correction too
            (default: False). Rules "shampoo" and "muon" give them MARS-AdamW.
        lr_1d: learning rate of vectors (default: None, the group's lr).
        lr_1d_ratio: the same as a multiple of lr, taken at each step, so that whatever moves the
            group's lr moves it too, also a host that writes one rate into all groups
            (default: None).
        betas_1d: betas of vectors (default: (0.9, 0.95)).
        weight_decay_1d: decay of vectors (default: None, the group's weight_decay).
        maximize: ascend (default: False).
        foreach: True forces multi-tensor arithmetic, False the plain reference loop (default:
            None, the fastest right path).
        fused: True forces torch's fused kernel, False forbids it (default: None, where it can).
        ns_steps: Newton-Schulz iterations, 1 to 99 (default: 5).
        ns_coefficients: (a, b, c) of its polynomial, three for each step, or the name of a set:
            "simple", "quintic", "polar_express", "cans" or "deepseek_v4", which needs
            ``ns_steps=10`` (default: (3.4445, -4.775, 2.0315), which is "simple").
        state_dtype: of moments and stored gradient, such as torch.float32 for bfloat16 parameters;
            the step is then computed in it (default: None, the parameter's own).
        last_grad_dtype: of the stored gradient alone; torch.bfloat16 saves 2 bytes per parameter
            (default: None, ``state_dtype``).
        stochastic_rounding: round steps of bfloat16 parameters up or down by chance, so that no
            step is lost for being small (default: False).
        capturable: keep step counters beside the parameters, so that a CUDA graph can hold a step;
            an lr that changes must then be a tensor on that device. A gamma that is chosen in the
            run moves in the graph; of sharded parameters its sums then travel in every step
            (default: False).

    Raises:
        ValueError: for a value out of range, an unknown rule, a misspelt group key, or an option
            for vectors that reaches none, since ``param_groups`` made all their groups.
    """

    _rule: ClassVar[Rule] = "adamw"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 3e-3,
        betas: tuple[float, float] = (0.95, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        *,
        rule: Rule | None = None,
        gamma: float | Literal["auto"] = 0.025,
        gamma_schedule: GammaSchedule = "constant",
        clip: Clip = "auto",
        clip_over: ClipOver = "tensor",
        cautious: bool = False,
        correction: Correction | None = None,
        optimize_1d: bool = False,
        lr_1d: float | Tensor | None = None,
        lr_1d_ratio: float | None = None,
        betas_1d: tuple[float, float] = (0.9, 0.95),
        weight_decay_1d: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        ns_steps: int = 5,
        ns_coefficients: str | Coefficients | Sequence[Coefficients] = NS_COEFFICIENTS,
        state_dtype: torch.dtype | None = None,
        last_grad_dtype: torch.dtype | None = None,
        stochastic_rounding: bool = False,
        capturable: bool = False,
    ) -> None:
        arguments = locals()
        given = {name: arguments[name] for name in TABLE}
        if rule is not None:
            check_choice("rule", rule, RULES)
        if type(self) is not MARS and rule not in (None, self._rule):
            raise ValueError(
                f"{type(self).__name__} always has rule={self._rule!r}: use MARS for rule={rule!r}"
            )
        defaults = {name: given.get(name, option.default) for name, option in IN_GROUPS.items()}
        defaults = resolve({**defaults, "rule": self._rule if rule is None else rule})
        Settings.from_group(defaults)
        # as given: a group with another schedule or correction resolves its own
        self._constructor = {name: given[name] for name in ("clip", "correction", *OF_VECTORS)}
        check_option("betas_1d", betas_1d, TABLE["betas_1d"])
        check_vector_options(self._constructor)
        if isinstance(params, set):
            raise TypeError("params must be ordered: a set is not, use a list")
        self._runtime = new_runtime()
        self._runtime["built"] = False
        self._given = GivenShapes(dealt=inside_zero_redundancy())
        super().__init__(params, defaults)
        check_partitions(self.param_groups, self._given)
        check_vectors_reached(self.param_groups, self._constructor)
        check_clip_reached(self.param_groups, self.defaults, clip)
        self._runtime["built"] = True
        self._refuse_silence()

    # --- groups ------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add one group, split by ndim unless ``optimize_1d`` and the rule take vectors.

        Raises:
            ValueError: for a value out of range or a key that looks like a misspelling.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, not {type(param_group).__name__}")
        before = len(self.param_groups)
        try:
            parts = split_group(param_group, self.defaults, self._constructor)
            if self._given.dealt:
                sorted_before = param_group.get("optimize_1d", self.defaults["optimize_1d"])
                check_one_group(len(parts), sorted_before)
            for part in parts:
                own_rate(part, self.param_groups)
                super().add_param_group(part)
                gammas.check_stages([part])
            self._given.note(self.param_groups)
            kept.begin(self.param_groups, self._runtime["plans"])
        except Exception:
            del self.param_groups[before:]  # all of the group or nothing
            raise
        if self._runtime["built"]:
            self._warn_of_misplaced(self.param_groups[before:])

    # --- step --------------------------------------------------------------------------------

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """For torch.amp.GradScaler: whether the step unscales and skips by itself, as torch's."""
        return self.defaults["fused"] is True or self._runtime["released"]

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient; gradients are only read.

        ``reference.py`` has the whole of the arithmetic as a loop that reads like the paper: read
        it first. From here it goes by ``step_layout.py`` and ``backends/dispatch.py`` to
        ``backends/foreach.py`` or to a faster one, which do the same.

        Args:
            closure: re-evaluates the model and returns the loss; called once, with gradients on.

        Raises:
            ValueError: for a sparse gradient, or a group edited to a value out of range.
        """
        loss = self._evaluate(closure)
        amp = Amp(getattr(self, "grad_scale", None), getattr(self, "found_inf", None))
        if not amp.skips:
            # everything is checked before the first parameter moves
            updates = self._work(amp) if torch.compiler.is_compiling() else self._checked_work(amp)
            self._before_update(amp)
            self._check_itself()
            for update in updates:
                update()
            plans, arrived = self._runtime["plans"], self._runtime["arrived"]
            choice.observe(self.param_groups, plans, amp, arrived)
            arrived.clear()
        self._runtime["done"] = False
        return loss


class MARSAdamW(MARS):
    """MARS with rule "adamw" (paper Alg. 2). Arguments as in :class:`MARS`.

    ``gamma=0, clip=None`` is torch.optim.AdamW; ``correction="folded", gamma=1 - beta1`` is AdamW
    with Nesterov momentum (NAdamW, at constant beta1).

    The step, line by line: ``reference.adamw_direction``.
    """

    _rule = "adamw"


class MARSLion(MARS):
    """MARS with rule "lion": x <- x - lr (sign(m_t) + weight_decay x) (paper Alg. 3).

    Arguments as in :class:`MARS`. The step has the size of lr in every coordinate: start from a
    third to a tenth of AdamW's lr with three to ten times its decay. ``betas=(b2, _),
    gamma=(b2 - b1) / b2, clip=None`` is Lion(b1, b2).

    The step, line by line: ``reference.lion_direction``.
    """

    _rule = "lion"


class MARSShampoo(MARS):
    """MARS with rule "shampoo": x <- x - lr (sqrt(max(1, rows / cols)) U V^T + weight_decay x).

    U V^T is the orthogonal factor of m_t (paper Alg. 4, with the scale and the clip of the
    authors' code). Arguments as in :class:`MARS`. Embeddings and heads are better left to rule
    "adamw": see ``param_groups``.

    The step, line by line: ``reference.shampoo_direction``.
    """

    _rule = "shampoo"


class MARSM(MARS):
    """MARS-M, MARS on Muon (arXiv 2510.21800), with Moonlight's scale 0.2 sqrt(max(rows, cols)).

    Arguments as in :class:`MARS`; beta1 is Muon's momentum. ``gamma=1 - beta1, clip=None`` is
    torch.optim.Muon with Nesterov momentum and ``adjust_lr_fn="match_rms_adamw"``. Embeddings and
    heads belong to rule "adamw": see ``param_groups``.

    The step, line by line: ``reference.muon_direction``.
    """

    _rule = "muon"
