"""Merge an adapter into its base model: one folder of safetensors that needs no PEFT, checked against the adapter.

    python export.py --adapter tuned --output merged
    python export.py --adapter tuned --output merged --dtype bfloat16 --base my/model      # base: where the adapter's own path is gone

A base that was trained on in 4 bits (QLoRA) is loaded in full precision: merging into 4-bit weights would round the merged ones again.
Needs: pip install "torch>=2.13" "transformers>=5.23" "peft>=0.21"
"""
import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

TEXT = "The quick brown fox asks the support desk: why does 1 + 1 = 2?\nAnswer in JSON."
SPARE = 1.05  # files are a little larger than their tensors


class Stop(Exception):
    """What the user can mend: what was expected, what was found, the fix."""


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", required=True, help="folder with adapter_config.json and adapter_model.safetensors")
    parser.add_argument("--output", required=True, help="folder for the merged model; it appears when it is whole")
    parser.add_argument("--base", help="hub id or folder of the base model; default: the one that the adapter names")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="of the saved weights (default: float32)")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="largest difference of a score, merged against adapter (default: 0.001)")
    parser.add_argument("--force", action="store_true", help="replace an earlier merged model in --output")
    return parser.parse_args(arguments)


# ------------------------------------------------------------------ look: nothing heavy before all is known to be there
def find(options):
    """(adapter folder, name of its base model, tokenizer, output). Stop where something is missing or cannot be merged."""
    folder = Path(options.adapter)
    if lacking := [name for name in ("adapter_config.json", "adapter_model.safetensors") if not (folder / name).is_file()]:
        whole = ": it holds a whole model, nothing is to be merged" if (folder / "model.safetensors").is_file() else ""
        raise Stop(f"--adapter {folder}: expected an adapter, found no {' and no '.join(lacking)}{whole}. Fix: name the output folder of tune.py.")
    config = PeftConfig.from_pretrained(str(folder))
    if config.peft_type not in ("LORA", "ADALORA", "LOHA", "LOKR", "IA3", "OFT", "BOFT", "VERA"):
        raise Stop(f"--adapter {folder}: expected a kind that can be merged, found {config.peft_type.value}, which does not change weights. "
                   "Fix: deploy it with PEFT, as an adapter.")
    base = options.base or config.base_model_name_or_path
    try:
        stored = getattr(AutoConfig.from_pretrained(base), "quantization_config", None)
        tokenizer = None if stored else AutoTokenizer.from_pretrained(str(folder) if (folder / "tokenizer_config.json").is_file() else base)
    except (OSError, ValueError) as error:
        raise Stop(f"base model {base}: expected a folder or a hub id (which needs a network once) with a tokenizer, found: "
                   f"{str(error).strip().splitlines()[0]} Fix: --base with the place where the base model is now.") from None
    if stored:
        method = stored.get("quant_method") if isinstance(stored, dict) else getattr(stored, "quant_method", stored)
        raise Stop(f"base model {base}: expected full-precision weights, found weights stored as {method}. "
                   "Fix: --base with the model that they were made from.")
    out = Path(options.output)
    if out.exists() and not options.force:
        raise Stop(f"--output {out}: expected no such folder, found one. Fix: another --output, or --force to replace it.")
    if out.exists() and (out.is_file() or (any(out.iterdir()) and not (out / "export.json").is_file())):
        raise Stop(f"--force: expected a folder that export.py made, found {out} without export.json. Fix: choose another --output.")
    return folder, base, tokenizer, out


# ------------------------------------------------------------------ merge, and check what was merged
@torch.inference_mode()
def merge(folder, base, tokenizer):
    """(merged model in float32, largest difference of a score: merged against adapter, adapter against base)."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    try:
        tuned = PeftModel.from_pretrained(model, str(folder)).eval()
    except (RuntimeError, ValueError) as error:
        raise Stop(f"{folder} on {base}: expected an adapter of this model, found: {str(error).strip().splitlines()[0]} "
                   "Fix: --base with the model that the adapter was trained on.") from None
    with_adapter = tuned(input_ids=ids).logits
    with tuned.disable_adapter():
        changed = (tuned(input_ids=ids).logits - with_adapter).abs().max().item()
    merged = tuned.merge_and_unload(safe_merge=True)  # refuses weights that are no numbers
    return merged, (merged(input_ids=ids).logits - with_adapter).abs().max().item(), changed


def save(model, tokenizer, facts, out, dtype):
    """Write the folder under another name, then rename it: it is there whole or not at all."""
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    need = SPARE * sum(p.numel() for p in model.parameters()) * torch.empty((), dtype=dtype).element_size()
    existing = next(folder for folder in [part.absolute(), *part.absolute().parents] if folder.exists())
    if (free := shutil.disk_usage(existing).free) < need:
        raise Stop(f"{out}: expected {need / 1e6:.0f} MB free, found {free / 1e6:.0f}. Fix: free some space, --dtype bfloat16, or another --output.")
    try:
        model.to(dtype).save_pretrained(part)
        tokenizer.save_pretrained(part)
        (part / "export.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    except BaseException:  # Ctrl-C too
        shutil.rmtree(part, ignore_errors=True)
        raise
    shutil.rmtree(out, ignore_errors=True)
    part.replace(out)


def run(options):
    transformers_logging.disable_progress_bar()
    folder, base, tokenizer, out = find(options)
    model, off, changed = merge(folder, base, tokenizer)
    print(f"The adapter moves a score by up to {changed:.4f}; merged, it differs from the adapter by up to {off:.1e}.")
    if changed == 0:
        raise Stop(f"{folder}: expected an adapter that changes something, found one that does not. Fix: train it, or name another --adapter.")
    if off > options.tolerance:
        raise Stop(f"merged model: expected scores within {options.tolerance} of the adapter's, found a difference of {off:.4f}. Nothing was saved. "
                   "Fix: report it to PEFT; until then deploy the adapter itself.")
    facts = {"adapter": folder.name, "base": base, "dtype": options.dtype, "largest_difference": off}
    save(model, tokenizer, facts, out, getattr(torch, options.dtype))
    print(f"Whole: {out}. Load it with AutoModelForCausalLM.from_pretrained({str(out)!r}, dtype=torch.{options.dtype}).")


if __name__ == "__main__":
    options = parse()
    try:
        run(options)
    except Stop as error:
        sys.exit(f"export.py: {error}")
    except KeyboardInterrupt:
        print("export.py: stopped; nothing was saved.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not any(words in str(error) for words in ("No space left", "File too large", "quota")):
            raise
        sys.exit(f"export.py: the disk is full ({error}). Nothing was saved. Fix: free some space, --dtype bfloat16, or another --output.")
