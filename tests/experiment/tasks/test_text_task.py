"""Batches, weights and losses that can be paired between arms."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mars_optim.experiment.tasks import Corpus
from tests.support.corpora import small_corpus, small_task

ADDRESSES = [(seed, step, micro) for seed in (0, 1, 11) for step in (0, 1, 11) for micro in (0, 1)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("text"))


def test_same_address_gives_same_batch_in_every_task_on_the_text(corpus: Corpus, tmp_path: Path):
    a, b = small_task(corpus), small_task(small_corpus(tmp_path), width=16, layers=2)
    for address in ADDRESSES:
        assert torch.equal(a.batch(*address), b.batch(*address))


def test_batches_ignore_call_order_models_and_the_global_seed(
    corpus: Corpus,
):
    task = small_task(corpus)
    first = {address: task.batch(*address) for address in ADDRESSES}
    shuffled = random.Random(0).sample(ADDRESSES, len(ADDRESSES))
    for address in shuffled:
        torch.manual_seed(address[0])
        task.build_model(address[1])
        assert torch.equal(task.batch(*address), first[address])


def test_drawing_and_building_leave_global_random_state_alone(
    corpus: Corpus,
):
    task = small_task(corpus)
    before = torch.get_rng_state()
    task.batch(1, 2, 3)
    task.build_model(4)
    assert torch.equal(torch.get_rng_state(), before)


address = st.tuples(*[st.integers(0, 10**6)] * 3)


@given(a=address, b=address)
def test_different_addresses_are_different_batches(
    corpus: Corpus, a: tuple[int, int, int], b: tuple[int, int, int]
):
    task = small_task(corpus, batch=8)
    assert torch.equal(task.batch(*a), task.batch(*b)) == (a == b)


def test_addresses_that_read_alike_are_different_batches(corpus: Corpus):
    task = small_task(corpus)
    alike = [(1, 11, 1), (11, 1, 1), (1, 1, 11), (111, 1, 1), (1, 1, 1)]
    batches = [task.batch(*a).tolist() for a in alike]
    assert len({str(b) for b in batches}) == len(alike)


def test_a_batch_is_windows_of_the_training_text(corpus: Corpus):
    task = small_task(corpus)
    text = corpus.train.numpy().tobytes()
    batch = task.batch(0, 0, 0)
    assert batch.shape == (4, 17)
    assert batch.dtype == torch.int64
    assert task.batch_tokens == 4 * 16
    for row in batch.tolist():
        assert bytes(row) in text


def test_batches_reach_both_ends_of_the_training_text():
    text = torch.arange(18, dtype=torch.uint8)
    task = small_task(Corpus("x", text, text, 1, ""), context=16, batch=8)  # two windows fit
    rows = {tuple(row) for step in range(4) for row in task.batch(0, step, 0).tolist()}
    assert rows == {tuple(range(17)), tuple(range(1, 18))}


def test_weights_are_equal_for_equal_seeds_and_differ_otherwise(corpus: Corpus):
    task = small_task(corpus)
    torch.manual_seed(1)
    a = task.build_model(3).state_dict()
    torch.manual_seed(2)
    b = small_task(corpus, batch=9).build_model(3).state_dict()
    c = task.build_model(4).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["wte.weight"], c["wte.weight"])


def test_the_fingerprint_is_the_hash_of_the_text(corpus: Corpus):
    assert small_task(corpus).fingerprint == corpus.sha256


def test_batch_loss_is_mean_cross_entropy_of_the_next_byte(corpus: Corpus):
    task = small_task(corpus)
    model, batch = task.build_model(0), task.batch(0, 0, 0)
    logs = model(batch[:, :-1]).log_softmax(-1).double()
    by_hand = [-logs[b, t, batch[b, t + 1]].item() for b in range(4) for t in range(16)]
    assert task.loss(model, batch).item() == pytest.approx(sum(by_hand) / 64, rel=1e-5)


def by_hand(model: nn.Module, corpus: Corpus, *, context: int, windows: int) -> float:
    """The mean loss over evenly spread windows, one window and one byte at a time."""
    last = len(corpus.valid) - context - 1
    losses = []
    for i in range(windows):
        offset = int(i * last / (windows - 1)) if windows > 1 else 0
        window = corpus.valid[offset : offset + context + 1].long()
        logs = model(window[None, :-1])[0].double().log_softmax(-1)
        losses += [-logs[t, window[t + 1]].item() for t in range(context)]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("windows", [1, 2, 3, 7])
def test_validation_loss_is_the_mean_over_evenly_spread_windows(corpus: Corpus, windows: int):
    task = small_task(corpus, batch=1)  # evaluates four windows at a time: 7 makes an odd chunk
    model = task.build_model(0)
    expected = by_hand(model, corpus, context=16, windows=windows)
    assert task.evaluate(model, 16 * windows) == pytest.approx(expected, rel=1e-6)


def test_validation_loss_is_repeatable_for_any_batch_size(
    corpus: Corpus,
):
    task = small_task(corpus)
    model = task.build_model(0)
    loss = task.evaluate(model, 500)
    assert [task.evaluate(model, 500) for _ in range(2)] == [loss, loss]
    assert small_task(corpus, batch=3).evaluate(model, 500) == pytest.approx(loss, rel=1e-6)


def test_evaluation_takes_one_window_at_least_and_all_at_most(
    corpus: Corpus,
):
    task = small_task(corpus)
    model = task.build_model(0)
    n = len(corpus.valid)
    assert task.evaluate(model, 10**9) == task.evaluate(model, n - 1)
    assert task.evaluate(model, 1) == task.evaluate(model, 16)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_mode_and_gradients_unchanged(corpus: Corpus, training: bool):
    task = small_task(corpus)
    model = task.build_model(0).train(training)
    seen = []
    model.register_forward_hook(lambda module, args, out: seen.append(module.training))
    task.evaluate(model, 100)
    assert model.training is training
    assert not any(seen)
    assert all(p.grad is None for p in model.parameters())
