"""Fine-tune a chat model on your own rows, and see what it gained on held-out rows.

    python tune.py --train train.jsonl --eval test.jsonl
    python tune.py --train train.csv --eval test.csv --prompt_column text --completion_column label --method qlora
    python tune.py --config tune.yaml --resume                      flags from a YAML file; go on after a stop
    accelerate launch --cpu --num_processes 2 tune.py --train …     two processes (on GPUs without --cpu)

Rows: chat JSONL {"messages": […]}, {"prompt", "completion"}, {"prompt", "chosen", "rejected"} for dpo, or CSV with a header.
Needs: pip install "torch>=2.13" "transformers>=5.23" "trl>=1.16" "peft>=0.21" bitsandbytes rouge-score tensorboard psutil
"""
import csv, hashlib, io, json, math, os, re, shutil, sys, time  # noqa: E401
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig, PeftModel, prepare_model_for_kbit_training
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, EarlyStoppingCallback, TrainerCallback
from transformers.hf_argparser import HfArg
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer, TrlParser

METHODS, PRECISIONS = ("lora", "qlora", "dora", "full", "dpo"), ("auto", "float32", "bfloat16")

@dataclass
class Settings:
    train: str = HfArg(default="train.jsonl", help="rows to learn: .jsonl or .csv")
    eval: str = HfArg(default="test.jsonl", help="rows to judge by, before and after; none of them may stand in --train")
    output: str = HfArg(default="tuned", help="folder of the result; called OUTPUT.part until the run is whole")
    model: str | None = HfArg(default=None, help="hub id or folder of a chat model; default: SmolLM2-135M-Instruct, the course's copy if it is there")
    method: str = HfArg(default="lora", help=f"what is trained: {', '.join(METHODS)}")
    prompt_column: str = HfArg(default="prompt", help="CSV: column with what is asked")
    completion_column: str = HfArg(default="completion", help="CSV: column with the answer to learn")
    system: str | None = HfArg(default=None, help="an instruction for every row that has none of its own")
    epochs: float = HfArg(default=2.0, help="times through the rows")
    batch_size: int = HfArg(default=4, help="rows per step, over all processes; taken in parts where memory is short")
    learning_rate: float | None = HfArg(default=None, help="default: by method and size of the model")
    rank: int = HfArg(default=16, help="rank of the adapter; its alpha is the same, so that the step size does not change with it")
    beta: float = HfArg(default=0.1, help="dpo: how closely to stay with the base model")
    patience: int = HfArg(default=0, help="stop early after so many checks without a lower loss on every tenth row of --train; 0: never")
    precision: str = HfArg(default="auto", help=f"of the products in training: {', '.join(PRECISIONS)}")
    seed: int = HfArg(default=0, help="of the adapter's start and the order of rows")
    check: bool = HfArg(default=False, help="look at the data, predict the memory, and stop")
    resume: bool = HfArg(default=False, help="go on with a run that was stopped, with its settings")
    force: bool = HfArg(default=False, help="replace an earlier result, or start an unfinished run anew")

class Stop(Exception):
    """What the user can mend: what was expected, what was found, the fix."""

def show(text):
    if PartialState().is_main_process:
        print(text, flush=True)

# ------------------------------------------------------------------ data: every line is checked before anything is loaded
def read(path, s, tokenizer):
    """The rows of a file; the first bad line stops the script."""
    if not Path(path).is_file():
        raise Stop(f"{path}: expected a .jsonl or .csv file, found {'a folder' if Path(path).is_dir() else 'nothing'}. Fix: check the path.")
    text, rows, number = Path(path).read_text(encoding="utf-8-sig", errors="replace"), [], 1
    try:
        if path.endswith(".csv"):
            table = csv.DictReader(io.StringIO(text, newline=""))
            if not {s.prompt_column, s.completion_column} <= set(table.fieldnames or ()):
                raise ValueError(f"expected the columns {s.prompt_column} and {s.completion_column}, found {table.fieldnames}; see --prompt_column")
            lines = ((table.line_num, {"prompt": r[s.prompt_column], "completion": r[s.completion_column]}) for r in table)
        else:
            lines = ((n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip())
        for number, line in lines:
            given = json.loads(line) if isinstance(line, str) else line
            rows.append({"line": number, "id": str(number)} | row_of(given, s, tokenizer))
    except (ValueError, csv.Error) as error:
        raise Stop(f"{path}, line {number}: {error}. Fix: the forms of rows stand at the top of tune.py.") from None
    if not rows:
        raise Stop(f"{path}: expected at least one row, found none. Fix: write one row per line.")
    return rows

def row_of(given, s, tokenizer):
    """Prompt, gold answer and, for dpo, rejected answer of one row in any of the forms, with token ids; ValueError says what is wrong.

    `start` is where the answer begins in the ids: what stands before is masked, the rest is learnt.
    """
    def turns(value, role):
        return [{"role": role, "content": value}] if isinstance(value, str) else value or []
    if not isinstance(given, dict):
        raise ValueError(f"expected a JSON object, found {given!r}")
    chat = given.get("messages") or turns(given.get("prompt"), "user") + turns(given.get("completion") or given.get("chosen"), "assistant")
    worse = turns(given.get("rejected"), "assistant") if s.method == "dpo" else []
    for turn in chat + worse:
        said = turn.get("content") if isinstance(turn, dict) and turn.get("role") in ("system", "user", "assistant") else None
        if not isinstance(said, str) or not said.strip() or "\ufffd" in said:
            raise ValueError(f"expected turns with a role (system, user, assistant) and UTF-8 text as content, found {turn}")
    if len(chat) < 2 or chat[-1]["role"] != "assistant":
        raise ValueError(f"expected a prompt and then the assistant's answer, found the keys {[*given]} and roles {[t['role'] for t in chat]}")
    if s.method == "dpo" and not (worse and worse[-1]["role"] == "assistant" and worse[:-1] in ([], chat[:-1])):
        raise ValueError("expected, for dpo, a rejected answer to the same prompt")
    prompt = [{"role": "system", "content": s.system}] * bool(s.system and chat[0]["role"] != "system") + chat[:-1]
    words = re.findall(r"\w+", " ".join(t["content"] for t in prompt if t["role"] == "user").lower())
    row = {"prompt": prompt, "grams": {tuple(words[i : i + 4]) for i in range(max(1, len(words) - 3))}, **({"id": given["id"]} if "id" in given else {})}
    before = tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
    for name, answer in (("gold", chat[-1:]), ("rejected", worse[-1:])):
        ids = tokenizer.apply_chat_template(prompt + answer)["input_ids"] if answer else before
        start = next((i for i, (a, b) in enumerate(zip(before, ids)) if a != b), min(len(before), len(ids)))
        row |= {name: answer[0]["content"] if answer else None, f"{name}_ids": ids, f"{name}_start": start}
    return row

# ------------------------------------------------------------------ model: where it is, what a step needs, how it is loaded
def find_model(name):
    """Name, configuration and tokenizer; the default is the course's copy of SmolLM2, else the hub's."""
    places = {"win32": os.environ.get("LOCALAPPDATA"), "darwin": "~/Library/Caches"}
    cache = os.environ.get("COURSE_CACHE") or f"{places.get(sys.platform) or os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/fine-tuning-course"
    copy = Path(cache).expanduser() / "smollm2-135m-instruct-float32"
    name = name or (str(copy) if (copy / "model.safetensors").is_file() else "HuggingFaceTB/SmolLM2-135M-Instruct")
    name = str(Path(name).resolve()) if Path(name).is_dir() else name  # it is written into the adapter
    try:
        config, tokenizer = AutoConfig.from_pretrained(name), AutoTokenizer.from_pretrained(name, padding_side="left")
    except (OSError, ValueError) as error:
        raise Stop(f"--model {name}: expected the folder of a causal model or its id on the hub (which needs a network once), found: "
                   f"{str(error).strip().splitlines()[0]} Fix: check the name. The course's model comes with `python course.py lab`.") from None
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return name, config, tokenizer

def fit(s, config, longest, state):
    """Rows at once and checkpointing of the quickest step that fits, counted from the configuration (a quarter off on a CPU, untested on GPUs)."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    text, cpu, full, share = config.get_text_config(), state.device.type != "cuda", s.method == "full", s.batch_size // state.num_processes
    shapes = [m.weight.shape for n, m in model.named_modules() if "embed" not in n and "head" not in n and hasattr(m, "weight") and m.weight.ndim == 2]
    total, linear, wide = sum(p.numel() for p in model.parameters()), sum(a * b for a, b in shapes), 4 if full or cpu else 2
    free = psutil.virtual_memory().available / state.num_processes if cpu else torch.cuda.mem_get_info()[0]
    for checkpointing, batch in ((c, b) for c in (False, True) for b in range(share, 0, -1) if share % b == 0):
        tokens = batch * longest * (2 if s.method == "dpo" else 1)
        layer = tokens * (4 if s.precision == "float32" else 2) * (10 * text.hidden_size + 4 * text.intermediate_size) * (1.3 if full or not cpu else 1.85)
        parts = {"weights": wide * (total - linear) + linear * (0.52 + 4 * cpu if s.method == "qlora" else wide),
                 "gradients and optimizer": 12 * total if full else 16 * s.rank * sum(a + b for a, b in shapes),
                 "activations": layer + 4 * tokens * text.hidden_size * text.num_hidden_layers if checkpointing else layer * text.num_hidden_layers,
                 "scores over the vocabulary": 32 * min(tokens, 4096) * min(text.vocab_size, 32768)}  # TRL scores in tiles of this size
        need = 0.6e9 + sum(parts.values())
        if need < 0.9 * free:
            show(f"Memory: about {need / 1e9:.1f} GB of {free / 1e9:.1f}; {batch} rows at once{', with checkpointing' * checkpointing}.")
            return batch, checkpointing, total
    raise Stop(f"Memory: expected to need at most {0.9 * free / 1e9:.1f} GB, found {need / 1e9:.1f} for one row of {longest} tokens: "
               f"{', '.join(f'{n} {b / 1e9:.1f}' for n, b in parts.items())}. Fix: --method qlora, a smaller --model, or shorter rows.")

def load(name, s, state):
    """The model in float32, or in bfloat16 on a GPU that trains only an adapter; with qlora packed in 4 bits (NF4)."""
    quick = torch.bfloat16 if s.precision == "bfloat16" else torch.float32
    packed = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=quick)
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32 if state.device.type == "cpu" or s.method == "full" else quick,
                                                 quantization_config=packed if s.method == "qlora" else None, device_map={"": state.device})
    for layer in model.modules():  # else bitsandbytes packs a layer anew at its first use on some CPUs, and no gradient passes it any more
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    return model.eval()

# ------------------------------------------------------------------ method: what is trained, and how
class Watch(TrainerCallback):
    """Stops before a gradient that is no number is used, and marks checkpoints that are whole."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        if not all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None):
            raise Stop(f"Step {state.global_step + 1}: expected finite gradients, found a value that is no number. Fix: lower --learning_rate.")

    def on_save(self, args, state, control, **_):
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / "whole").touch()

def trainer_for(model, tokenizer, rows, s, folder, batch, checkpointing, state):
    """The trainer. The order of rows depends on the seed alone, so neither a stop nor the number of processes changes it."""
    def dataset(rows):
        if s.method == "dpo":
            said = {key: [[{"role": "assistant", "content": r[key]}] for r in rows] for key in ("gold", "rejected")}
            return Dataset.from_dict({"prompt": [r["prompt"] for r in rows], "chosen": said["gold"], "rejected": said["rejected"]})
        labels = [[-100] * r["gold_start"] + r["gold_ids"][r["gold_start"] :] for r in rows]
        return Dataset.from_dict({"input_ids": [r["gold_ids"] for r in rows], "labels": labels})
    checked, rows = (rows[::10], [r for n, r in enumerate(rows) if n % 10]) if s.patience else ([], rows)
    seen, order, generator = round(s.epochs * len(rows)), [], torch.Generator().manual_seed(s.seed)
    while len(order) < seen:  # rows of like length share a step
        order += get_length_grouped_indices([len(r["gold_ids"]) for r in rows], s.batch_size, generator=generator)
    often = math.ceil(seen / s.batch_size / 50)  # steps between two logs; ten times as many between two checkpoints
    settings = dict(
        output_dir=f"{folder}/checkpoints", num_train_epochs=1, train_sampling_strategy="sequential", max_length=None, seed=s.seed,
        per_device_train_batch_size=batch, gradient_accumulation_steps=s.batch_size // state.num_processes // batch, gradient_checkpointing=checkpointing,
        learning_rate=s.learning_rate, lr_scheduler_type="linear", warmup_steps=0.1, bf16=s.precision == "bfloat16", use_cpu=state.device.type == "cpu",
        logging_steps=often, save_steps=10 * often, eval_steps=10 * often, eval_strategy="steps" if checked else "no", save_total_limit=2,
        load_best_model_at_end=bool(checked), report_to="tensorboard", logging_nan_inf_filter=False, dataloader_pin_memory=False)
    kind, args = (DPOTrainer, DPOConfig(beta=s.beta, **settings)) if s.method == "dpo" else (SFTTrainer, SFTConfig(**settings))
    adapter = LoraConfig(r=s.rank, lora_alpha=s.rank, target_modules="all-linear", use_dora=s.method == "dora", task_type="CAUSAL_LM")
    if s.method == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    trainer = kind(model, args=args, train_dataset=dataset([rows[i] for i in order[:seen]]), eval_dataset=dataset(checked) if checked else None,
                   processing_class=tokenizer, peft_config=None if s.method == "full" else adapter,
                   callbacks=[Watch()] + [EarlyStoppingCallback(s.patience)] * bool(checked))
    for weight in trainer.model.parameters():
        weight.data = weight.data.float() if weight.requires_grad else weight.data  # TRL made a 4-bit model's adapter bfloat16
    return trainer

# ------------------------------------------------------------------ judge: the same rows before and after
@torch.inference_mode()
def judge(model, tokenizer, rows):
    """Per row the greedy answer, and the nats per token of the gold and of the rejected answer; each process takes its share of the rows."""
    def nats(ids, start):
        ids = torch.tensor([ids], device=model.device)
        scores = model(input_ids=ids, use_cache=False, logits_to_keep=ids.shape[1] - start + 1).logits[0, :-1].float()
        return torch.nn.functional.cross_entropy(scores, ids[0, start:]).item()
    found, longest = [], math.ceil(1.25 * max(len(r["gold_ids"]) - r["gold_start"] for r in rows))
    with PartialState().split_between_processes(sorted(rows, key=lambda r: r["gold_start"])) as mine:
        for part in (mine[i : i + 16] for i in range(0, len(mine), 16)):
            texts = [tokenizer.apply_chat_template(r["prompt"], tokenize=False, add_generation_prompt=True) for r in part]
            given = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
            out = model.generate(**given, max_new_tokens=longest, do_sample=False, temperature=None, top_p=None, top_k=None)
            for row, text in zip(part, tokenizer.batch_decode(out[:, given["input_ids"].shape[1] :], skip_special_tokens=True)):
                found.append({"line": row["line"], "answer": text.strip(), **{
                    name: nats(row[f"{name}_ids"], row[f"{name}_start"]) for name in ("gold", "rejected") if row[name]}})
    return sorted(gather_object(found), key=lambda x: x["line"])

def scores(rows, judged):
    """name -> one number per row. Labels are scored where gold is one of few, JSON where gold is JSON."""
    def is_json(text):
        try:
            return isinstance(json.loads(text), (dict, list))
        except ValueError:
            return False
    pairs, rouge = [(x["answer"], r["gold"].strip()) for r, x in zip(rows, judged)], RougeScorer(["rougeL"])
    found = {"exact_match": [a == g for a, g in pairs], "rouge_l": [rouge.score(g, a)["rougeL"].fmeasure for a, g in pairs],
             "log_perplexity": [x["gold"] for x in judged], "json_valid": [is_json(a) for a, g in pairs if is_json(g)]}
    if len({g for _, g in pairs}) <= min(20, len(pairs) / 3):
        found["label_accuracy"] = [a.strip(" .!?\"'").lower() == g.strip(" .!?\"'").lower() for a, g in pairs]
    if rows[0]["rejected"]:
        found["prefers_chosen"] = [x["gold"] < x["rejected"] for x in judged]
    return {name: np.array(values, dtype=float) for name, values in found.items() if values}

def interval(values):
    """[mean, low, high]: 95 % bootstrap over rows."""
    drawn = values[np.random.default_rng(0).integers(0, len(values), (4000, len(values)))].mean(1)
    return [round(float(x), 4) for x in (values.mean(), *np.quantile(drawn, [0.025, 0.975]))]
