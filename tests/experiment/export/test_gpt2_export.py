"""A trained GPT becomes transformers' GPT-2 with the same logits."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mars_optim.cli import main

pytest.importorskip("transformers")
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from mars_optim.errors import UserError
from mars_optim.experiment.executors.runnable import load_task
from mars_optim.experiment.export.gpt2 import to_gpt2
from mars_optim.experiment.export.tokenizer import byte_tokenizer
from mars_optim.experiment.plan import ExecutionOptions
from mars_optim.experiment.plan.plan_file import make_plan
from mars_optim.experiment.records import RunWriter, read_run
from mars_optim.experiment.training import load_weights, train
from tests.support.trained import gpt, write_trained
from tests.support.written_run import SIZES, plan_of, write_run

TEXT = "To be, or not to be: \0é Ā 日本 😀\r\n  <0x41> <0x00>\t\x7f"


def tokens(vocabulary: int = 256) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (3, SIZES["context"]), generator=generator)


def test_logits_are_equal_before_and_after_reload(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model, out = gpt(), tmp_path / "hf"
    run = write_trained(tmp_path / "trained", model.state_dict())
    assert main(["export", str(run), "--transformers", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    loaded = AutoModelForCausalLM.from_pretrained(out)
    with torch.no_grad():
        ours, theirs = model(tokens()), loaded(tokens()).logits
    assert theirs.dtype == torch.float32
    assert ours.std() > 0.5
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in out.iterdir()
    }
    assert not list(tmp_path.glob("*.part"))


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def full(*arguments: Any, **options: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    run = write_trained(tmp_path / "trained", gpt().state_dict())
    assert main(["export", str(run), "--transformers", str(tmp_path / "hf")]) == 2
    error = capsys.readouterr().err
    assert "hf cannot be written: I/O error: No space left on device" in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.glob("hf*"))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_logits_are_equal_under_every_option_of_the_task(scaled: bool, bias: bool):
    options: dict[str, Any] = dict(vocabulary=320, bias=bias, scale_attention_by_layer=scaled)
    model = gpt(**options)
    told = {key: str(value).lower() for key, value in options.items()}
    exported = to_gpt2(plan_of(**told).task, model.state_dict(), tokens=256, end_of_text=0)
    with torch.no_grad():
        ours, theirs = model(tokens(320)), exported(tokens(320)).logits
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


def test_logits_are_equal_with_settings_of_a_smaller_model():
    options: dict[str, Any] = dict(bias=True, base_width=4, base_layers=1)
    model = gpt(**options)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                value.normal_()
    told = {key: str(value).lower() for key, value in options.items()}
    exported = to_gpt2(plan_of(**told).task, model.state_dict(), tokens=256, end_of_text=0)
    with torch.no_grad():
        ours, theirs = model(tokens()), exported(tokens()).logits
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


def test_a_run_that_was_trained_goes_all_the_way(tmp_path: Path):
    (tmp_path / "text.txt").write_text("A text of a few words, over and over. " * 900)
    plan = plan_of(corpus=json.dumps(str(tmp_path / "text.txt")), layers=1, batch=2)
    task = load_task(plan)
    spec = read_run(write_run(tmp_path / "specs", plan=plan)).spec
    writer = RunWriter(tmp_path / "runs", spec, {})
    writer.finish(
        train(spec, task, writer, execution=ExecutionOptions(keep_weights=True, keep_best=True))
    )
    model = task.build_model(spec.seed)
    model.load_state_dict(load_weights(writer.path)[1])
    for best in ([], ["--best"]):
        out = tmp_path / f"hf{len(best)}"
        assert main(["export", str(tmp_path), "--transformers", str(out), *best]) == 0
        loaded = AutoModelForCausalLM.from_pretrained(out)
        with torch.no_grad():
            difference = model(tokens()) - loaded(tokens()).logits
        assert difference.abs().max() < 1e-5  # the last weights are the best ones here


def test_byte_for_byte_the_tokenizer_is_the_corpus_loader_s(tmp_path: Path):
    out = tmp_path / "hf"
    run = write_trained(tmp_path / "trained", gpt().state_dict())
    assert main(["export", str(run), "--transformers", str(out)]) == 0
    tokenizer = AutoTokenizer.from_pretrained(out)
    for made in (byte_tokenizer(24), tokenizer):
        for text in (TEXT, "".join(map(chr, range(0x900)))):
            ids = made(text)["input_ids"]
            assert ids == list(text.encode())
            assert made.decode(ids) == text
        assert made.decode([0x41, 0xFF, 0x42]) == "A\N{REPLACEMENT CHARACTER}B"
    assert (tokenizer.eos_token_id, tokenizer.model_max_length, len(tokenizer)) == (0, 24, 256)


def test_gpt2_export_of_train_folder_takes_the_run_with_weights(tmp_path: Path):
    write_run(tmp_path, seed=2)
    write_trained(tmp_path, gpt().state_dict())
    assert main(["export", str(tmp_path), "--transformers", str(tmp_path / "hf")]) == 0


def test_ids_above_the_tokenizer_s_are_never_generated():
    state = gpt(vocabulary=320).state_dict()
    state["wte.weight"][256:] *= 100  # head and embedding are one
    model = to_gpt2(plan_of(vocabulary=320).task, state, tokens=256, end_of_text=0)
    prompt = tokens()[:, :4]
    model.generation_config.eos_token_id = None
    assert int(model(prompt).logits.argmax(-1).max()) >= 256
    made = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False)
    assert made.shape[1] == SIZES["context"]
    assert int(made.max()) < 256


def test_biases_are_taken_over_and_missing_ones_are_zero():
    state = gpt().state_dict()
    model = to_gpt2(plan_of().task, state, tokens=256, end_of_text=0)
    biases = {k: v for k, v in model.named_parameters() if k.endswith("bias")}
    assert len(biases) == 6 * SIZES["layers"] + 1
    assert not any(bool(v.any()) for v in biases.values())
    state["blocks.1.attention.qkv.bias"] = torch.arange(72.0)
    model = to_gpt2(plan_of().task, state, tokens=256, end_of_text=0)
    assert torch.equal(model.transformer.h[1].attn.c_attn.bias, torch.arange(72.0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"blocks.7.norm1.weight": torch.ones(24)}, "task.layers is 3 in the run's manifest and 4"),
        ({"wpe.weight": torch.ones(8, 24)}, "task.context is 24 in the run's manifest and 8"),
        ({"blocks.0.gate.weight": torch.ones(24)}, "which has no 'blocks.0.gate.weight'"),
        ({"blocks.0.mlp.up.weight": torch.ones(24, 24)}, "size mismatch"),
    ],
)
def test_weights_of_another_model_are_refused(change: dict[str, torch.Tensor], words: str):
    with pytest.raises(UserError, match=words):
        to_gpt2(plan_of().task, gpt().state_dict() | change, tokens=256, end_of_text=0)


def test_a_tokenizer_that_knows_more_than_the_model_is_refused():
    with pytest.raises(UserError, match="tokenizer has 300 tokens and the model 256"):
        to_gpt2(plan_of().task, gpt().state_dict(), tokens=300, end_of_text=0)


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["export", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    return error


def test_mistakes_are_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "hf"
    bare = write_run(tmp_path / "bare")
    assert "keep_weights" in error_of(capsys, bare, "--transformers", out)
    several = tmp_path / "several"
    error = error_of(capsys, bare, "--wandb", "--best")
    assert "--best works only with --transformers" in error
    for seed in (1, 2):
        write_trained(several, gpt().state_dict(), seed=seed)
    assert "holds 2 runs, 2 of them" in error_of(capsys, several, "--transformers", out)
    large = write_trained(tmp_path / "large", gpt(vocabulary=300).state_dict())
    assert "'gone' of the run does not exist" in error_of(capsys, large, "--transformers", out)
    other = write_trained(tmp_path / "other", {"conv.weight": torch.ones(2)})
    assert "wpe.weight is missing" in error_of(capsys, other, "--transformers", out)
    run = next(several.glob("runs/*"))
    assert "names its folder" in error_of(capsys, run, "--transformers", out, "--out", "x")
    assert "name the program" in error_of(capsys, run, "--transformers", out, "--tensorboard")
    assert not out.exists()
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert "give a new folder" in error_of(capsys, run, "--transformers", out)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_a_run_of_another_kind_has_no_counterpart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    plan = make_plan({}, ('task.kind="python"', 'task.source="mine.py:Mine"'))
    run = write_run(tmp_path, plan=plan)
    assert "task.kind = 'python'" in error_of(capsys, run, "--transformers", tmp_path / "hf")


def test_without_transformers_the_way_to_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    run = write_trained(tmp_path, gpt().state_dict())
    monkeypatch.setitem(sys.modules, "transformers", None)
    for name in ("gpt2", "tokenizer"):
        monkeypatch.delitem(sys.modules, f"mars_optim.experiment.export.{name}", raising=False)
    error = error_of(capsys, run, "--transformers", tmp_path / "hf")
    assert "transformers is not installed: pip install 'mars-optim[hf]'" in error
