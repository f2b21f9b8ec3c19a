"""One run: its steps are the optimizer's, its rows and its outcome tell what happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mars_optim.experiment.records.run import TIMINGS
from mars_optim.experiment.training import lr_factor
from tests.support.regression import Regression, Scripted, make_spec, record, rows_of, train_by_hand


def weights(task: Regression) -> list[torch.Tensor]:
    return [p.detach().cpu().clone() for p in task.model.parameters()]


@pytest.mark.parametrize("arm", ["adamw", "mars-adamw", "mars-adamw-exact", "nadamw"])
@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("grad_clip", [0.0, 0.7])
def test_a_run_is_the_plain_loop_over_mean_gradients(
    tmp_path: Path, arm: str, accumulation: int, grad_clip: float
):
    spec = make_spec(arm=arm, accumulation=accumulation, grad_clip=grad_clip)
    task = Regression()
    run = record(tmp_path, task, spec)
    model, history = train_by_hand(Regression(), spec, clip=grad_clip or None)
    torch.testing.assert_close(weights(task), list(model.parameters()), rtol=1e-5, atol=1e-9)
    assert list(rows_of(run, "loss").values()) == pytest.approx([h[0] for h in history], rel=1e-5)
    norms = [h[1] for h in history]
    assert list(rows_of(run, "grad_norm").values()) == pytest.approx(norms, rel=1e-5)


def test_the_gradient_clip_is_felt_and_zero_means_none(tmp_path: Path):
    finals = {}
    for clip in (0.0, 0.1, 1e9):
        task = Regression()
        record(tmp_path / str(clip), task, make_spec(grad_clip=clip))
        finals[clip] = torch.cat([w.flatten() for w in weights(task)])
    assert torch.equal(finals[0.0], finals[1e9])
    assert not torch.allclose(finals[0.0], finals[0.1], rtol=1e-3)


def test_training_learns(tmp_path: Path):
    run = record(tmp_path, Regression(), make_spec(steps=200, lr=0.1, evaluations=4))
    losses = list(rows_of(run, "valid_loss").values())
    assert run.final_loss is not None
    assert run.final_loss < 0.1 * losses[0]


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_repeated_run_is_bit_identical(tmp_path: Path, precision: str):
    tasks, runs = [], []
    for i in range(2):
        torch.manual_seed(i)
        tasks.append(Regression())
        spec = make_spec(precision=precision, accumulation=2)
        runs.append(record(tmp_path / str(i), tasks[-1], spec))
    assert all(map(torch.equal, weights(tasks[0]), weights(tasks[1])))
    a, b = ([{k: v for k, v in row.items() if k not in TIMINGS} for row in r.rows] for r in runs)
    assert a == b
    assert runs[0].final_loss == runs[1].final_loss


def test_a_run_after_a_diverged_one_is_as_if_alone(tmp_path: Path):
    alone = record(tmp_path / "alone", Regression(), make_spec(accumulation=3))
    diverged = record(tmp_path, Regression(), make_spec(accumulation=3, lr=1e6, arm="adamw"))
    assert diverged.outcome is not None
    assert diverged.outcome.status == "diverged"
    after = record(tmp_path / "after", Regression(), make_spec(accumulation=3))
    assert after.final_loss == alone.final_loss


@pytest.mark.slow_but_one(among=3)
@pytest.mark.parametrize(
    ("steps", "rows"), [(10, 10), (49, 49), (50, 50), (100, 50), (120, 60), (149, 75), (500, 50)]
)
def test_training_rows_are_evenly_spread_and_end_at_last_step(
    tmp_path: Path, steps: int, rows: int
):
    run = record(tmp_path, Scripted([1.0] * steps), make_spec(steps=steps))
    at = list(rows_of(run, "loss"))
    assert len(at) == rows
    assert at[-1] == steps
    every = max(1, steps // 50)
    assert at == [s for s in range(1, steps + 1) if s % every == 0 or s == steps]


def test_training_row_has_mean_loss_since_last_and_current_lr(tmp_path: Path):
    losses = [1.0 + 0.001 * i for i in range(101)]
    spec = make_spec(steps=101, accumulation=1)
    run = record(tmp_path, Scripted(losses), spec)
    rows = rows_of(run, "loss")
    assert rows[2] == pytest.approx((losses[0] + losses[1]) / 2)
    assert rows[100] == pytest.approx((losses[98] + losses[99]) / 2)
    assert rows[101] == pytest.approx(losses[100])
    lrs = rows_of(run, "lr")
    for step, lr in lrs.items():
        assert lr == pytest.approx(0.05 * lr_factor(step - 1, 101, warmup=0.1), rel=1e-12)


def test_tokens_count_every_micro_batch_and_seconds_only_grow(tmp_path: Path):
    run = record(tmp_path, Regression(), make_spec(accumulation=3))
    assert rows_of(run, "tokens") == {step: step * 3 * 32 for step in range(1, 21)}
    seconds = list(rows_of(run, "seconds").values())
    assert seconds == sorted(seconds)
    assert run.outcome is not None
    assert (run.outcome.tokens, run.outcome.steps) == (20 * 96, 20)
    assert run.outcome.seconds >= seconds[-1] - 1e-4 > 0


@pytest.mark.parametrize(
    ("steps", "evaluations", "at"),
    [
        (10, 1, [10]),
        (10, 3, [3, 7, 10]),
        (100, 4, [25, 50, 75, 100]),
        (10, 10, list(range(1, 11))),
        (5, 20, [1, 2, 3, 4, 5]),
    ],
)
def test_evaluations_are_evenly_spread_and_end_at_last_step(
    tmp_path: Path, steps: int, evaluations: int, at: list[int]
):
    run = record(tmp_path, Regression(), make_spec(steps=steps, evaluations=evaluations))
    valid = rows_of(run, "valid_loss")
    assert list(valid) == at
    assert run.final_loss == valid[steps]


def test_the_last_validation_loss_is_the_result_not_the_best(tmp_path: Path):
    task = Scripted([1.0] * 10, valid=[0.5, 0.25, 0.75])
    run = record(tmp_path, task, make_spec(steps=10, evaluations=3))
    assert run.final_loss == 0.75


def test_evaluations_see_the_plans_number_of_tokens(tmp_path: Path):
    task = Regression()
    run = record(tmp_path, task, make_spec(evaluations=1, eval_tokens=123))
    assert run.final_loss == task.evaluate(task.model, 123) != task.evaluate(task.model, 124)


def test_every_step_is_reported_with_the_number_of_steps_taken(tmp_path: Path):
    seen: list[int] = []
    record(tmp_path, Regression(), make_spec(steps=12), seen.append)
    assert seen == list(range(1, 13))


DIVERGENCES: list[tuple[str, dict[str, Any], int]] = [
    ("nan", dict(losses=[1.0, 0.9, float("nan")]), 3),
    ("inf", dict(losses=[1.0, float("inf")]), 2),
    ("nan at once", dict(losses=[float("nan")]), 1),
    ("more than twice the first", dict(losses=[1.0, 1.5, 2.0, 0.1, 2.1]), 5),
    ("validation nan", dict(losses=[1.0] * 10, valid=[0.5, float("nan")]), 7),
    ("validation inf at the end", dict(losses=[1.0] * 10, valid=[0.5, 0.5, float("inf")]), 10),
]


@pytest.mark.parametrize(
    ("script", "steps"), [d[1:] for d in DIVERGENCES], ids=[d[0] for d in DIVERGENCES]
)
def test_divergence_is_an_outcome_with_its_step_and_reason(
    tmp_path: Path, script: dict[str, Any], steps: int
):
    run = record(tmp_path, Scripted(**script), make_spec(steps=10, evaluations=3))
    assert run.outcome is not None
    assert (run.outcome.status, run.outcome.final_loss) == ("diverged", None)
    assert run.outcome.steps == steps
    assert run.outcome.tokens == 32 * steps
    assert run.outcome.reason.endswith(f"at step {steps}")
    assert run.outcome.reason.startswith("validation" if "valid" in script else "training")


def test_a_loss_below_zero_diverges_by_its_rise_as_any_other(tmp_path: Path):
    falling = record(tmp_path, Scripted([-1.0, -1.5, -2.5, *[-3.0] * 7]), make_spec(steps=10))
    assert falling.outcome is not None
    assert falling.outcome.status == "finished"
    rising = record(tmp_path / "up", Scripted([-1.0, -0.5, 0.5]), make_spec(steps=10))
    assert rising.outcome is not None
    assert rising.outcome.reason == "training loss 0.5 at step 3"


class Nested(Regression):
    """Its batches are a dict in a tuple."""

    def batch(self, seed: int, step: int, micro: int) -> Any:
        return ({"all": super().batch(seed, step, micro)}, "a name")

    def loss(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        return super().loss(model, batch[0]["all"])

    @torch.no_grad()
    def evaluate(self, model: torch.nn.Module, tokens: int) -> float:
        return float(self.loss(model, self.batch(tokens, 0, 9)))


def test_batches_may_be_nested(tmp_path: Path):
    plain = record(tmp_path / "plain", Regression(), make_spec())
    nested = record(tmp_path / "nested", Nested(), make_spec())
    assert nested.final_loss == plain.final_loss


class WithDropout(Regression):
    def build_model(self, seed: int) -> torch.nn.Module:
        layer = super().build_model(seed)
        self.model = torch.nn.Sequential(layer, torch.nn.Dropout(0.5))
        return self.model

    def evaluate(self, model: torch.nn.Module, tokens: int) -> float:
        model.eval()
        loss = super().evaluate(model, tokens)
        model.train()
        return loss


def test_dropout_is_the_seeds_whatever_was_drawn_before(tmp_path: Path):
    finals = []
    for i in range(2):
        torch.manual_seed(i)
        finals.append(record(tmp_path / str(i), WithDropout(), make_spec()).final_loss)
    assert finals[0] == finals[1]
    other = record(tmp_path / "2", WithDropout(), make_spec(seed=2**40))
    assert other.final_loss != finals[0]


def test_twice_the_first_loss_has_not_yet_diverged(tmp_path: Path):
    run = record(tmp_path, Scripted([1.0, *[2.0] * 9]), make_spec(steps=10))
    assert run.outcome is not None
    assert (run.outcome.status, run.outcome.reason) == ("finished", "")


@pytest.mark.parametrize("arm", ["adamw", "mars-adamw", "lion"])
def test_an_absurd_learning_rate_diverges_and_does_not_crash(tmp_path: Path, arm: str):
    run = record(tmp_path, Regression(), make_spec(arm=arm, lr=1e8, steps=50))
    assert run.outcome is not None
    assert run.outcome.status == "diverged"
    assert run.final_loss is None
