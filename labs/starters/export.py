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
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, load_peft_weights
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

TEXT = "The quick brown fox asks the support desk: why does 1 + 1 = 2?\nAnswer in JSON."
SPARE = 1.05  # files are a little larger than their tensors
MERGED = ("LORA", "ADALORA", "LOHA", "LOKR", "IA3", "OFT", "BOFT", "VERA")  # kinds of adapters that change weights


class Stop(Exception):
    """What the user can mend: what was expected, what was found, the fix."""


def check(fine, where, expected, found, fix):
    if not fine:
        raise Stop(f"{where}: expected {expected}, found {found}. Fix: {fix}.")


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
def first_line(error):
    return str(error).strip().splitlines()[0]


def find(options):
    """(adapter folder, its configuration, output). Stop where something is missing, cannot be merged, or would be lost."""
    folder, out = Path(options.adapter), Path(options.output)
    lacking = [name for name in ("adapter_config.json", "adapter_model.safetensors") if not (folder / name).is_file()]
    whole = ": it holds a whole model, nothing is to be merged" * (folder / "model.safetensors").is_file()
    check(not lacking, f"--adapter {folder}", "an adapter", f"no {' and no '.join(lacking)}{whole}", "name the output folder of tune.py")
    config = PeftConfig.from_pretrained(str(folder))
    check(config.peft_type in MERGED, f"--adapter {folder}", "a kind that can be merged", f"{config.peft_type.value}, which does not change weights",
          "deploy it with PEFT, as an adapter")
    check(not out.exists() or options.force, f"--output {out}", "no such folder", "one", "another --output, or --force to replace it")
    ours = not out.exists() or out.is_dir() and (not any(out.iterdir()) or (out / "export.json").is_file())
    check(ours, "--force", "a folder that export.py made", f"{out} without export.json", "choose another --output")
    return folder, config, out


def find_base(options, folder, config):
    """(name of the base model, tokenizer). What cannot be known for sure is said."""
    named = config.base_model_name_or_path
    base = options.base or named
    where, fix = f"base model {base}", "--base with the place where the base model is now"
    try:
        stored = getattr(AutoConfig.from_pretrained(base), "quantization_config", None)
        tokenizer = theirs = AutoTokenizer.from_pretrained(base)
    except (OSError, ValueError) as error:
        check(False, where, "a folder or a hub id (which needs a network once) with a tokenizer", first_line(error), fix)
    method = stored.get("quant_method") if isinstance(stored, dict) else getattr(stored, "quant_method", stored)
    check(not stored, where, "full-precision weights", f"weights stored as {method}", "--base with the model that they were made from")
    if (folder / "tokenizer_config.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
    check(tokenizer.get_vocab() == theirs.get_vocab(), f"{folder} on {base}", "one vocabulary", "two", f"--base with the adapter's own base, {named}")
    if Path(base).name != Path(named).name:
        print(f"The adapter names {named} as its base. {base} must be the same model: no check can tell it from another one of the same shape.")
    settings = folder / "tune.yaml"
    if settings.is_file() and "qlora" in settings.read_text(encoding="utf-8"):
        print("The adapter was trained on 4-bit weights (QLoRA). It is merged into the base model in full precision, so its scores move a little.")
    return base, tokenizer


# ------------------------------------------------------------------ merge, and check what was merged
@torch.inference_mode()
def merge(folder, base, tokenizer):
    """(merged model in float32, largest difference of a score: merged against adapter, adapter against base)."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    where, fix = f"{folder} on {base}", "--base with the model that the adapter was trained on"
    try:
        tuned = PeftModel.from_pretrained(model, str(folder)).eval()
    except (RuntimeError, ValueError) as error:
        check(False, where, "an adapter of this model", first_line(error), fix)
    stored, places = load_peft_weights(str(folder), device="cpu"), get_peft_model_state_dict(tuned, save_embedding_layers=False)
    odd = [name for name in set(stored) ^ set(places) if "embed_tokens" not in name and "lm_head" not in name]
    check(not odd, where, "an adapter of this model", f"{len(odd)} weights on one side only, such as {sorted(odd)[:1]}", fix)
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
    free = shutil.disk_usage(existing).free
    check(free >= need, out, f"{need / 1e6:.0f} MB free", f"{free / 1e6:.0f}", "free some space, --dtype bfloat16, or another --output")
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
    folder, config, out = find(options)
    base, tokenizer = find_base(options, folder, config)
    model, off, changed = merge(folder, base, tokenizer)
    print(f"The adapter moves a score by up to {changed:.4f}; merged, it differs from the adapter by up to {off:.1e}.")
    check(changed > 0, folder, "an adapter that changes something", "one that does not", "train it, or name another --adapter")
    check(off <= options.tolerance, "merged model", f"scores within {options.tolerance} of the adapter's", f"a difference of {off:.4f}",
          "nothing was saved; report it to PEFT; until then deploy the adapter itself")
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
        print("export.py: stopped; nothing was saved. Run the same command again.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        full = any(words in str(error) for words in ("No space left", "File too large", "quota"))
        if not full and not isinstance(error, OSError):
            raise
        fix = "free some space, --dtype bfloat16, or another --output" if full else "check the path, or another --output"
        said = f"the disk is full ({error})" if full else error
        sys.exit(f"export.py: expected files that can be read and written, found {said}. Nothing was saved. Fix: {fix}.")
