"""A Task of the user's is found by its name and tried before anything is spent on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mars_optim.cli.init import TEMPLATES
from mars_optim.experiment.tasks import check_task, import_task
from mars_optim.experiment.tasks.base import scores_of

TEMPLATE = (TEMPLATES / "task" / "my_task.py").read_text()
TEMPLATE += "\n\nONE = torch.ones((), requires_grad=True)\n"


def load(folder: Path, text: str = TEMPLATE, name: str = "MyTask"):
    path = folder / "own_task_file.py"
    path.write_text(text)
    return import_task(f"{path.name}:{name}", folder)


def test_the_template_keeps_the_protocol(tmp_path: Path):
    check_task(load(tmp_path))


def test_fingerprint_changes_with_the_task_and_with_its_file(tmp_path: Path):
    first, again = load(tmp_path), load(tmp_path)
    assert first.fingerprint == again.fingerprint
    changed = [TEMPLATE.replace("synthetic-1", "synthetic-2"), TEMPLATE + "# a comment\n"]
    prints = {load(tmp_path, text).fingerprint for text in changed}
    assert len(prints | {first.fingerprint}) == 3


def test_a_package_and_a_function_will_do(tmp_path: Path):
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "work.py").write_text(
        TEMPLATE + "\n\ndef make():\n    return MyTask()\n"
    )
    check_task(import_task("own_package.work:make", tmp_path))


def test_a_task_imports_its_neighbours(tmp_path: Path):
    (tmp_path / "own_neighbour.py").write_text("WIDTH = 3\n")
    assert load(tmp_path, "from own_neighbour import WIDTH\n" + TEMPLATE).batch_tokens == 64


NOT_FOUND = [
    ("", "absent.py:MyTask", ["absent.py does not exist"]),
    ("", "absent_package.work:MyTask", ["absent_package.work cannot be imported from"]),
    (
        "import absent_module",
        "own_task_file.py:MyTask",
        ["cannot be imported", "absent_module", "line 1"],
    ),
    ("def a(: pass", "own_task_file.py:MyTask", ["cannot be imported", "SyntaxError"]),
    (
        "class Mine: pass",
        "own_task_file.py:MyTask",
        ["no class or function 'MyTask'", "it has Mine"],
    ),
    (
        "def MyTask(): return 1 / 0",
        "own_task_file.py:MyTask",
        ["MyTask() failed: ZeroDivisionError"],
    ),
    ("class MyTask: pass", "own_task_file.py:MyTask", ["MyTask has no 'fingerprint'"]),
    (TEMPLATE.replace("def loss", "def lose"), "own_task_file.py:MyTask", ["MyTask has no 'loss'"]),
]


@pytest.mark.parametrize(("text", "source", "parts"), NOT_FOUND, ids=[p[0] for *_, p in NOT_FOUND])
def test_what_cannot_be_found_or_made_gives_one_line(
    tmp_path: Path, text: str, source: str, parts: list[str]
):
    (tmp_path / "own_task_file.py").write_text(text)
    with pytest.raises(ValueError, match=r"task\.source") as error:
        import_task(source, tmp_path)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


BROKEN = [
    ("batch_tokens = BATCH", "batch_tokens = 0", "batch_tokens = 0 must be a whole number"),
    ("torch.manual_seed(seed)", "pass", r"build_model\(seed\) gave other weights \(0\.weight\)"),
    ("return nn.Sequential", "return list", r"MyTask.build_model failed: TypeError: list expected"),
    ("address = hash((seed, step, micro)) % 2**63", "address = torch.seed()", "something else at"),
    ('{"x": x, "y": (', '{"z": x, "y": (', r"MyTask.batch|MyTask.loss failed: KeyError: 'x'"),
    ('return F.cross_entropy(model(batch["x"]), batch["y"])', "return 1.0", "returned a float;"),
    ('batch["y"])\n', 'batch["y"], reduction="none")\n', r"of shape \(64,\), torch.float32; a 0-d"),
    ('batch["y"])\n', 'batch["y"]).detach()\n', "without gradient: leave out"),
    ('batch["y"])\n', 'batch["y"]) * torch.nan\n', "must be finite: it is nan"),
    ('F.cross_entropy(model(batch["x"]), batch["y"])', "ONE * 1.0", "does not depend on"),
    ("return float(loss)", "return loss", "evaluate.* returned a Tensor; a Python float"),
    ("return float(loss)", "return float(torch.rand(()))", "evaluate.* returned .* and then "),
    ("        model.train()\n", "", "evaluate.* left the model in evaluation mode"),
    ("model.eval()", "next(model.parameters()).add_(1.0)", "evaluate.* returned|changed the model"),
]  # fmt: skip


@pytest.mark.parametrize(("good", "bad", "message"), BROKEN, ids=[m for *_, m in BROKEN])
def test_task_breaking_the_protocol_names_method_and_remedy(
    tmp_path: Path, good: str, bad: str, message: str
):
    assert good in TEMPLATE
    task = load(tmp_path, TEMPLATE.replace(good, bad))
    with pytest.raises(ValueError, match=message) as error:
        check_task(task)
    assert "\n" not in str(error.value)


def test_batches_may_be_nested_in_any_way(tmp_path: Path):
    text = TEMPLATE.replace(
        'return {"x": x, "y": (torch.tanh(x) @ self.teacher + noise).argmax(dim=1)}',
        "return [x, (torch.tanh(x) @ self.teacher + noise).argmax(dim=1)], {'name': 'any'}",
    )
    for key, place in (('batch["x"]', "batch[0][0]"), ('batch["y"]', "batch[0][1]")):
        text = text.replace(key, place)
    text = text.replace(
        "{k: v[:tokens].to(device) for k, v in self.held_out.items()}",
        "([v[:tokens].to(device) for v in self.held_out[0]], {})",
    )
    check_task(load(tmp_path, text))


def test_trying_a_task_leaves_torchs_global_randomness_to_it(tmp_path: Path):
    task = load(tmp_path)
    model = task.build_model(3)
    check_task(task)
    again = task.build_model(3)
    assert all(map(torch.equal, model.parameters(), again.parameters()))


SEVERAL = TEMPLATE.replace("return float(loss)", 'return {"loss": float(loss), "acc": 0.5}')


def test_an_evaluation_may_tell_several_metrics(tmp_path: Path):
    task = load(tmp_path, SEVERAL)
    check_task(task, metric="acc")
    model = task.build_model(1)
    assert scores_of(task, model, 64).keys() == {"valid_loss", "acc"}
    assert scores_of(task, model, 64)["valid_loss"] == task.evaluate(model, 64)["loss"]


@pytest.mark.parametrize(
    ("old", "new", "metric", "said"),
    [
        (
            "",
            "",
            "ac",
            "returned no 'ac', decision.metric; there are loss, acc; did you mean 'acc'?",
        ),
        ('"loss"', '"los"', "acc", "returned no 'loss', the validation loss; there are los, acc"),
        ('"acc": 0.5', '"acc": float("nan")', "acc", r"\['acc'\] must be finite: it is nan"),
        ('"acc": 0.5', '"acc": loss', "acc", "returned a Tensor as 'acc'"),
    ],
    ids=["misspelt", "no loss", "nan", "tensor"],
)
def test_a_metric_that_cannot_decide_is_named(
    tmp_path: Path, old: str, new: str, metric: str, said: str
):
    task = load(tmp_path, SEVERAL.replace(old, new) if old else SEVERAL)
    with pytest.raises(ValueError, match=said):
        check_task(task, metric=metric)


def test_a_metric_needs_a_dict(tmp_path: Path):
    with pytest.raises(ValueError, match=r'returned no .acc.*return a dict such as \{"loss": ...'):
        check_task(load(tmp_path), metric="acc")


def with_metric_named(folder: Path, name: str, value: str = "10.0 - float(loss)"):
    return load(folder, SEVERAL.replace('"acc": 0.5', f'"{name}": {value}'))


@pytest.mark.parametrize("name", ["step", "tokens", "seconds", "valid_loss"])
def test_a_metric_with_the_name_of_a_rows_own_column_is_named(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match=f"returned '{name}', .* another name;") as error:
        check_task(with_metric_named(tmp_path, name))
    assert "\n" not in str(error.value)


def test_the_loss_may_be_told_under_its_columns_name_too(tmp_path: Path):
    task = with_metric_named(tmp_path, "valid_loss", "float(loss)")
    check_task(task)
    model = task.build_model(1)
    assert scores_of(task, model, 64) == {"valid_loss": task.evaluate(model, 64)["loss"]}


def test_no_other_metric_takes_the_place_of_the_loss(tmp_path: Path):
    task = with_metric_named(tmp_path, "valid_loss")
    model = task.build_model(1)
    assert scores_of(task, model, 64)["valid_loss"] == task.evaluate(model, 64)["loss"]


def test_a_key_of_an_evaluation_that_is_no_text_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="returned the key 1: give a text"):
        check_task(load(tmp_path, SEVERAL.replace('"acc": 0.5', "1: 0.5")))


def test_scores_that_are_something_else_are_named_before_a_run(tmp_path: Path):
    task = load(tmp_path)
    task.scores = []
    with pytest.raises(ValueError, match=r"MyTask\.scores failed: TypeError"):
        check_task(task)
