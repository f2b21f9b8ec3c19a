"""trl's SFTTrainer for `mars pilot`: called once for each run, as plan.toml says.

Name your checkpoint and your data below. As it stands a tiny random model learns some of Python's
own sources, byte by byte, so that everything runs at once and offline.
"""

import argparse
import os
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from mars_optim import MARSAdamW, param_groups
from mars_optim.integrations.transformers import RecordMetrics

MODEL = ""  # a folder with a checkpoint, or its name on the Hugging Face hub; "" for the tiny one
LORA = True  # False trains all weights
LENGTH, BATCH = 64, 8  # tokens in a row, rows in a batch


def data() -> Dataset:
    """Rows with a column "text", or "messages"; see trl's page on SFTTrainer."""
    files = sorted(Path(os.__file__).parent.glob("*.py"))[:40]
    lines = "".join(file.read_text(encoding="utf-8") for file in files)
    return Dataset.from_dict({"text": [lines[i : i + 256] for i in range(0, 2**18, 256)]})


def checkpoint():
    """Model and tokenizer."""
    if MODEL:
        model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
        return model, AutoTokenizer.from_pretrained(MODEL)
    alphabet = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bytes_only = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only, eos_token="<end>", pad_token="<end>"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(alphabet),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return AutoModelForCausalLM.from_config(config), tokenizer


def optimizer_for(model: torch.nn.Module, name: str, lr: float) -> torch.optim.Optimizer:
    """An arm's optimizer; it gets the parameters that are trained, and no others."""
    adamw = dict(lr=lr, betas=(0.9, 0.95), betas_1d=(0.9, 0.95), weight_decay=0.1)
    if name == "nadamw-auto":
        groups = param_groups(model, **adamw, gamma="auto", correction="folded", clip=None)
        return MARSAdamW(groups)
    if name == "mars-adamw":
        return MARSAdamW(param_groups(model, lr=lr))
    assert name == "adamw", name
    keys = ("params", "lr", "betas", "weight_decay")  # the same groups
    groups = [{k: g[k] for k in keys} for g in param_groups(model, **adamw, gamma=0.0, clip=None)]
    return torch.optim.AdamW(groups)


def main() -> None:
    """One run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--optimizer", required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    model, tokenizer = checkpoint()
    rows = data().train_test_split(test_size=0.1, seed=0)
    gpu = torch.cuda.is_available()
    config = SFTConfig(
        output_dir=str(args.out / "trainer"),
        max_steps=args.steps,
        seed=args.seed,  # of the order of the rows, and of LoRA's matrices
        learning_rate=args.lr,
        lr_scheduler_type="cosine",
        warmup_steps=args.steps // 20,  # a share of the steps: the pilot makes runs of any length
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=4 * BATCH,
        max_length=LENGTH,
        bf16=gpu,
        use_cpu=not gpu,
        gradient_checkpointing=False,
        logging_steps=max(1, args.steps // 50),
        include_num_input_tokens_seen=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model,
        args=config,
        train_dataset=rows["train"],
        eval_dataset=rows["test"],
        processing_class=tokenizer,
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear") if LORA else None,
        callbacks=[RecordMetrics(args.out)],  # writes metrics.jsonl
    )
    trainer.optimizer = optimizer_for(trainer.model, args.optimizer, args.lr)
    trainer.train()
    trainer.evaluate()  # after the last step: this is the run's result


if __name__ == "__main__":
    main()
