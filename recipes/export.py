"""Exports a verl checkpoint to a Hugging Face folder and proves that the export is the trained policy.

``python -m recipes.export --checkpoint_dir RUN --start_model M --prompts valid.parquet --out_dir D`` takes the
latest checkpoint of a GRPO or SFT run, merges its FSDP shards (and a LoRA adapter into its base), and checks that

* the exported weights differ from the start model's, and
* the exported model gives the log-probabilities of the policy, which is loaded straight from the checkpoint's
  shards, on validation prompts and their continuations.

The folder appears under its name only when both hold; ``export.json`` in it holds the figures, and which prompt the
data were prepared with, and whether to think (``manifest.json`` beside the prompts says that). ``README.md`` is the
model card, into which ``recipes.card`` fills results.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_prep.common.atomic import atomic_output
from data_prep.common.errors import InputError, run_main
from data_prep.common.json_file import read_json
from data_prep.common.prompt_tokens import prompt_tokens
from recipes.models import EXPORT_FIGURES
from recipes.report.model_card import new_card
from recipes.trained_models import CARD

# The export is bfloat16, the policy float32: the mean difference that rounding makes is below this, in nats a token.
MAX_MEAN_LOGPROB_DIFFERENCE = 0.05
CONTINUATION_TOKENS = 32


def latest_checkpoint(run_dir: Path) -> Path:
    """The folder with the newest checkpoint's model shards.

    Raises:
        InputError: the run has no finished checkpoint.
    """
    marker = run_dir / "latest_checkpointed_iteration.txt"
    if not marker.is_file():
        raise InputError(f"no checkpoint in {run_dir}; let the run reach trainer.save_freq or its last step")
    step = run_dir / f"global_step_{marker.read_text().strip()}"
    checkpoint = step / "actor" if (step / "actor").is_dir() else step
    if not (checkpoint / "fsdp_config.json").is_file():
        raise InputError(f"{checkpoint} holds no FSDP checkpoint; remove it to fall back to an older one")
    return checkpoint


def policy_state(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The policy's full float32 tensors by name, joined from the shards of all ranks."""
    world_size = json.loads((checkpoint / "fsdp_config.json").read_text())["world_size"]
    shards = [
        torch.load(
            checkpoint / f"model_world_size_{world_size}_rank_{rank}.pt",
            map_location="cpu",
            weights_only=False,
            mmap=True,
        )
        for rank in range(world_size)
    ]
    state = {}
    for name, tensor in shards[0].items():
        if isinstance(tensor, DTensor):
            placement = tensor.placements[-1]
            parts = [shard[name].to_local() for shard in shards]
            tensor = torch.cat(parts, dim=placement.dim) if placement.is_shard() else parts[0]
        state[name] = tensor.float()
    return state


def load_policy(checkpoint: Path, start_model: str) -> torch.nn.Module:
    """The policy as verl trained it: base and, for LoRA, adapter apart."""
    model = AutoModelForCausalLM.from_pretrained(start_model, dtype=torch.float32)
    state = policy_state(checkpoint)
    lora = checkpoint / "lora_train_meta.json"
    if lora.is_file():
        from peft import LoraConfig, get_peft_model

        adapted = {name.split(".lora_A.")[0].split(".")[-1] for name in state if ".lora_A." in name}
        settings = json.loads(lora.read_text())
        config = LoraConfig(r=settings["r"], lora_alpha=settings["lora_alpha"], target_modules=sorted(adapted))
        model = get_peft_model(model, config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("lm_head.weight")]  # tied to the embeddings
    if missing or unexpected:
        raise InputError(f"{checkpoint} does not fit {start_model}: missing {missing[:3]}, unexpected {unexpected[:3]}")
    return model.eval()


def merge(checkpoint: Path, start_model: str, out_dir: Path) -> None:
    """Write the checkpoint's model and tokenizer to ``out_dir`` with verl's merger; then merge a LoRA adapter."""
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    if subprocess.run([*command, "--local_dir", checkpoint, "--target_dir", out_dir]).returncode:
        raise InputError(f"verl's merger failed on {checkpoint} (see above); check it and the free disk space")
    adapter = out_dir / "lora_adapter"
    if adapter.is_dir():
        from peft import PeftModel

        # verl's merger leaves the base weights untouched beside the adapter.
        base = AutoModelForCausalLM.from_pretrained(start_model, dtype=torch.float32)
        merged = PeftModel.from_pretrained(base, adapter).merge_and_unload().to(torch.bfloat16)
        for old in out_dir.glob("*.safetensors*"):
            old.unlink()
        merged.save_pretrained(out_dir)


@torch.no_grad()
def token_logprobs(model: torch.nn.Module, sequence: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (length - 1,) of each token of ``sequence`` (length,) given those before it."""
    logits = model(sequence[None]).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(-1, sequence[1:, None])[:, 0]


def sequences_of(model: torch.nn.Module, tokenizer: Any, prompts: Iterable[list[dict]]) -> list[torch.Tensor]:
    """Each prompt (chat messages) with the model's greedy continuation, as token ids (length,)."""
    sequences = []
    for messages in prompts:
        ids = torch.tensor(prompt_tokens(tokenizer, [list(messages)]))
        mask = torch.ones_like(ids)
        output = model.generate(ids, attention_mask=mask, max_new_tokens=CONTINUATION_TOKENS, do_sample=False)
        sequences.append(output[0])
    return sequences


def weight_digests(model: torch.nn.Module) -> dict[str, bytes]:
    """A digest of each weight in bfloat16, which is what an export holds."""
    return {
        name: hashlib.sha256(weight.bfloat16().view(torch.int16).numpy()).digest()
        for name, weight in model.state_dict().items()
    }


def verify(checkpoint: Path, start_model: str, exported_dir: Path, prompts: Path, num_prompts: int = 8) -> dict:
    """Compare export, policy and start model, of which one at a time is in memory.

    Raises:
        InputError: the export equals the start model, or its log-probabilities are not the policy's.
    """
    import pandas as pd

    def logprobs(model: torch.nn.Module) -> torch.Tensor:
        return torch.cat([token_logprobs(model, sequence) for sequence in sequences])

    tokenizer = AutoTokenizer.from_pretrained(exported_dir)
    model = AutoModelForCausalLM.from_pretrained(exported_dir, dtype=torch.float32).eval()
    sequences = sequences_of(model, tokenizer, pd.read_parquet(prompts)["prompt"].head(num_prompts))
    after, of_export = weight_digests(model), logprobs(model)
    del model
    model = AutoModelForCausalLM.from_pretrained(start_model, dtype=torch.float32).eval()
    before, of_start = weight_digests(model), logprobs(model)
    del model
    changed = [name for name, digest in after.items() if before[name] != digest]
    if not changed:
        raise InputError(f"the export of {checkpoint} equals its start model {start_model}: nothing was trained")

    of_policy = logprobs(load_policy(checkpoint, start_model))
    difference = (of_export - of_policy).abs()
    figures = {
        "checkpoint": str(checkpoint),
        "start_model": start_model,
        "tensors": len(after),
        "tensors_changed": len(changed),
        "logprob_difference_mean": difference.mean().item(),
        "logprob_difference_max": difference.max().item(),
        "logprob_difference_of_start_mean": (of_start - of_policy).abs().mean().item(),
    }
    if not figures["logprob_difference_mean"] < MAX_MEAN_LOGPROB_DIFFERENCE:
        raise InputError(f"the export of {checkpoint} is not its policy: {figures}")
    return figures


def prompt_settings(data: Path) -> dict[str, Any]:
    """What the parquet files in ``data`` were prepared with, None where that is not known.

    ``prompt``: the name or the path of the prompt; ``think``: whether the model is to think.
    """
    manifest = data / "manifest.json"
    options = read_json(manifest).get("options", {}) if manifest.is_file() else {}
    return {name: options.get(name) for name in ("prompt", "think")}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint_dir", type=Path, required=True, help="trainer.default_local_dir of the run")
    parser.add_argument("--start_model", required=True, help="the model that the run started from")
    parser.add_argument("--prompts", type=Path, required=True, help="parquet file with validation prompts")
    parser.add_argument("--out_dir", type=Path, required=True, help="the Hugging Face folder to write")
    args = parser.parse_args(argv)
    if not args.prompts.is_file():
        raise InputError(f"no such file: {args.prompts}; run data_prep.ehrsql or data_prep.ecg_expert_qa first")

    checkpoint = latest_checkpoint(args.checkpoint_dir)
    with atomic_output(args.out_dir, EXPORT_FIGURES) as folder:
        merge(checkpoint, args.start_model, folder)
        figures = verify(checkpoint, args.start_model, folder, args.prompts)
        figures |= prompt_settings(args.prompts.parent)
        (folder / EXPORT_FIGURES).write_text(json.dumps(figures, indent=1) + "\n")
        (folder / CARD).write_text(str(new_card(folder)), encoding="utf-8")
    print(json.dumps(figures, indent=1))
    changed = f"{figures['tensors_changed']} of {figures['tensors']} tensors changed"
    print(f"exported {checkpoint} to {args.out_dir}: {changed}")


if __name__ == "__main__":
    run_main(main)
