"""The learning rate of vectors as a ratio of lr: whatever moves lr moves it too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from mars_optim import MARS, MARSM, MARSAdamW, migrate, param_groups
from mars_optim.optimizer_options import TABLE
from tests.support.cases import BACKENDS, make_grads, make_params, run, same
from tests.support.models import GPT


def twins() -> Any:
    return make_params(), make_params()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cls", [MARSAdamW, MARSM])
def test_a_ratio_is_the_rate_that_it_makes(cls: Any, backend: str) -> None:
    ours, theirs = twins()
    one = cls(ours, lr=0.1, lr_1d_ratio=0.25, **BACKENDS[backend])
    assert same(run(one, ours), run(cls(theirs, lr=0.1, lr_1d=0.025, **BACKENDS[backend]), theirs))
    assert [g["lr"] for g in one.param_groups] == [0.1, 0.1]
    assert "0.025" in one.describe().splitlines()[2]


def test_one_rate_written_into_all_groups_keeps_the_ratio() -> None:
    ours, theirs = twins()
    one = MARSAdamW(ours, lr=1.0, lr_1d_ratio=0.5)
    other = MARSAdamW(theirs)
    for step, lr in enumerate((0.5, 0.25, 0.125)):
        for group in one.param_groups:
            group["lr"] = lr  # as nanoGPT's loop
        for group, rate in zip(other.param_groups, (lr, lr / 2), strict=True):
            group["lr"] = rate
        run(one, ours, [step])
        run(other, theirs, [step])
    assert same(ours, theirs)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_scheduler_moves_both_rates(as_tensor: bool) -> None:
    ours, theirs = twins()
    lr: Any = torch.tensor(0.5, dtype=torch.float64) if as_tensor else 0.5
    pair = (ours, MARSM(ours, lr=lr, lr_1d_ratio=0.5)), (theirs, MARSM(theirs, lr=0.5, lr_1d=0.25))
    for params, optimizer in pair:
        schedule = LambdaLR(optimizer, lambda t: 0.5**t)
        for step in range(3):
            run(optimizer, params, [step])
            schedule.step()
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-14)


# constructor's arguments, the group's own, the rate of its vectors
PRECEDENCE: list[tuple[dict[str, Any], dict[str, Any], float]] = [
    ({"lr": 0.1}, {}, 0.1),
    ({"lr": 0.1, "lr_1d_ratio": 0.5}, {}, 0.05),
    ({"lr": 0.1, "lr_1d_ratio": 0.0}, {}, 0.0),
    ({"lr": 0.1, "lr_1d_ratio": 0.5}, {"lr": 0.2}, 0.1),
    ({"lr": 0.1, "lr_1d_ratio": 0.5}, {"lr_1d": 0.3}, 0.3),
    ({"lr": 0.1, "lr_1d_ratio": 0.5}, {"lr": 0.2, "lr_1d_ratio": 2.0}, 0.4),
    ({"lr": 0.1, "lr_1d": 0.3}, {"lr_1d_ratio": 2.0}, 0.2),
    ({"lr": 0.1, "lr_1d": 0.3}, {"lr": 0.2, "lr_1d_ratio": 2.0}, 0.4),
]


@pytest.mark.parametrize(("constructor", "own", "wanted"), PRECEDENCE)
def test_rate_of_vectors_is_of_the_nearest_that_said_one(
    constructor: dict[str, Any], own: dict[str, Any], wanted: float
) -> None:
    optimizer = MARSAdamW([{"params": make_params(), **own}], **constructor)
    _, vectors = optimizer.param_groups
    assert vectors["lr"] * vectors["lr_ratio"] == pytest.approx(wanted, rel=1e-15)


def test_any_group_may_have_a_ratio() -> None:
    ours, theirs = make_params([(5, 3)]), make_params([(5, 3)])
    one = MARSM([{"params": ours, "lr_ratio": 0.5}], lr=0.1)
    assert same(run(one, ours), run(MARSM(theirs, lr=0.05), theirs))


def test_param_groups_give_the_ratio_to_what_gets_plain_adamw() -> None:
    groups = param_groups(GPT(tied=False), rule="muon", lr=0.1, lr_1d_ratio=0.5)
    rates = {g["kind"]: (g["lr"], g.get("lr_ratio", 1.0)) for g in groups}
    assert rates["matrix"] == (0.1, 1.0)
    assert {rates[kind] for kind in ("embedding", "head", "vector")} == {(0.1, 0.5)}
    own = param_groups(GPT(tied=False), rule="muon", lr=0.1, lr_1d_ratio=0.5, lr_embedding=0.3)
    rates = {g["kind"]: (g["lr"], g.get("lr_ratio", 1.0)) for g in own}
    assert (rates["embedding"], rates["vector"]) == ((0.3, 1.0), (0.1, 0.5))
    groups = param_groups(GPT(tied=False), lr=0.1, lr_1d_ratio=0.5)
    rates = {g["kind"]: g.get("lr_ratio", 1.0) for g in groups}
    assert rates == {"matrix": 1.0, "embedding": 1.0, "head": 1.0, "vector": 0.5}


def test_a_ratio_of_zero_freezes_no_embedding_of_its_own_rate() -> None:
    groups = param_groups(GPT(tied=False), rule="muon", lr=0.1, lr_1d_ratio=0.0, lr_embedding=0.3)
    rates = {g["kind"]: (g["lr"], g.get("lr_ratio", 1.0)) for g in groups}
    assert (rates["embedding"], rates["vector"]) == ((0.3, 1.0), (0.1, 0.0))


def test_a_ratio_reaches_vectors_that_a_matrix_rule_splits_off() -> None:
    params = [torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(4))]
    optimizer = MARS(params, rule="muon", lr=0.1, optimize_1d=True, lr_1d_ratio=0.5)
    assert [g.get("lr_ratio") for g in optimizer.param_groups] == [1.0, 0.5]


@pytest.mark.parametrize("kind", [MARSAdamW, MARSM])
def test_a_ratio_may_stand_beside_groups_that_are_sorted(kind: Any) -> None:
    matrix, vector = torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(4))
    made = kind([matrix, vector], lr=0.1, lr_1d_ratio=0.5)
    again = kind([dict(group) for group in made.param_groups], lr=0.1, lr_1d_ratio=0.5)
    assert [g["lr_ratio"] for g in again.param_groups] == [1.0, 0.5]
    again.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "optimize_1d": True})


def test_a_checkpoint_without_a_ratio_keeps_the_optimizers() -> None:
    def make() -> MARS:
        params = [torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(4))]
        return MARS(params, lr=0.1, lr_1d_ratio=0.5)

    saved = make().state_dict()
    for group in saved["param_groups"]:
        del group["lr_ratio"]
    (optimizer := make()).load_state_dict(saved)
    assert [g["lr_ratio"] for g in optimizer.param_groups] == [1.0, 0.5]


def test_migration_to_adamw_carries_the_rate_that_acts() -> None:
    params = make_params()
    optimizer = MARSAdamW(params, lr=0.1, lr_1d_ratio=0.5, gamma=0.0, clip=None)
    run(optimizer, params)
    adamw = migrate(optimizer, to="adamw")
    assert [group["lr"] for group in adamw.param_groups] == [0.1, 0.05]


def test_absolute_rate_and_ratio_exclude_each_other() -> None:
    for build in (
        lambda **o: MARSAdamW(make_params(), **o),
        lambda **o: MARSAdamW([{"params": make_params(), **o}]),
        lambda **o: param_groups(nn.Linear(2, 2), **o),
    ):
        with pytest.raises(ValueError, match=r"lr_1d=0\.1 and lr_1d_ratio=0\.5 exclude each other"):
            build(lr_1d=0.1, lr_1d_ratio=0.5)
        with pytest.raises(ValueError, match=r"lr_1d_ratio=-1 must be a finite number of at least"):
            build(lr_1d_ratio=-1)


def test_ratio_of_a_zero_gradient_decays_by_its_own_rate() -> None:
    vector = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = MARSAdamW([vector], lr=0.1, lr_1d_ratio=0.5, weight_decay=0.2)
    vector.grad = torch.zeros_like(make_grads([vector], 0)[0])
    optimizer.step()
    assert vector.detach() == pytest.approx(1 - 0.05 * 0.2, rel=1e-12)


def test_a_ratio_that_reaches_no_vector_is_refused() -> None:
    groups = param_groups(GPT(tied=False), rule="muon")
    with pytest.raises(ValueError, match=r"lr_1d_ratio=0\.1 reaches no vector.*param_groups\("):
        MARS(groups, lr_1d_ratio=0.1)
    sorted_so = param_groups(GPT(tied=False), rule="muon", lr_1d_ratio=0.1)
    assert MARS(sorted_so, lr_1d_ratio=0.1).param_groups
    assert MARS([nn.Parameter(torch.ones(2, 2))], lr_1d_ratio=0.1).param_groups


@pytest.mark.parametrize(
    ("option", "value"),
    [("lr_1d", 0.5), ("lr_1d", torch.tensor(0.5)), ("betas_1d", [0.5, 0.6]),
     ("weight_decay_1d", 0.5)],
)  # fmt: skip
def test_options_that_reach_no_vector_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{option}=.* reaches no vector.*groups\(.*{option}=\)"):
        MARS(param_groups(GPT(tied=False), rule="muon"), **{option: value})
    sorted_so = param_groups(GPT(tied=False), rule="muon", **{option: value})
    assert MARS(sorted_so, **{option: value}).param_groups
    net = nn.Linear(2, 2)
    assert MARS(net.parameters(), **{option: value}).param_groups
    assert MARS(param_groups(net), **{option: TABLE[option].default}).param_groups


@pytest.mark.parametrize("ratio", [-1.0, float("nan")])
def test_a_ratio_out_of_range_is_named_by_its_own_name(ratio: float) -> None:
    with pytest.raises(ValueError, match=rf"^lr_ratio={ratio} must be a finite number"):
        MARS([{"params": make_params(), "lr_ratio": ratio}])
