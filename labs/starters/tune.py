"""Fine-tune a chat model on your own rows, and see what it gained on held-out rows.

    python tune.py --train train.jsonl --eval test.jsonl
    python tune.py --train train.csv --eval test.csv --columns text,label --method qlora
Rows: chat JSONL {"messages": […]}, {"prompt", "completion"}, {"prompt", "chosen", "rejected"} for dpo, or CSV with a header.
Needs: pip install "torch>=2.13" "transformers>=5.23" "trl>=1.16" "peft>=0.21" bitsandbytes rouge-score tensorboard psutil
"""
import csv, hashlib, io, json, math, os, re, shutil, sys, time, types, warnings  # noqa: E401
from dataclasses import asdict, dataclass
from pathlib import Path
import numpy as np, psutil, torch  # noqa: E401
from accelerate import PartialState, utils
from datasets import Dataset
from huggingface_hub import ModelCardData
from peft import LoraConfig, PeftModel
from rouge_score.rouge_scorer import RougeScorer
from tqdm import trange
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, EarlyStoppingCallback, TrainerCallback
from transformers.hf_argparser import HfArg
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer, TrlParser, trainer as trl_trainer
WORD = re.compile(r"[\w\u0900-\u097f]+")  # Devanagari's vowel signs belong to their word

@dataclass
class Settings:
    train: str = HfArg(default="train.jsonl", help="rows to learn: .jsonl or .csv")
    eval: str = HfArg(default="test.jsonl", help="rows to judge by, before and after; none of them may stand in --train")
    output: str = HfArg(default="tuned", help="folder of the result; called OUTPUT.part until the run is whole")
    model: str | None = HfArg(default=None, help="hub id or folder of a chat model; default: SmolLM2-135M-Instruct, the course's copy if it is there")
    method: str = HfArg(default="lora", help="what is trained: lora, qlora, dora, full or dpo")
    columns: str = HfArg(default="prompt,completion", help="CSV: the columns with what is asked and with the answer to learn")
    epochs: float = HfArg(default=2.0, help="times through the rows")
    batch_size: int = HfArg(default=4, help="rows per step, over all processes; taken in parts where memory is short")
    learning_rate: float | None = HfArg(default=None, help="default: by method and size of the model")
    rank: int = HfArg(default=16, help="rank of the adapter; its alpha is the same, so that the step size does not change with it")
    patience: int = HfArg(default=0, help="stop early after so many checks without a lower loss on every tenth row of --train; 0: never")
    precision: str = HfArg(default="auto", help="of the products in training: float32, bfloat16, or auto for what the hardware does well")
    seed: int = HfArg(default=0, help="of the adapter's start and the order of rows")
    resume: bool = HfArg(default=False, help="go on with a run that was stopped, with its settings")
    force: bool = HfArg(default=False, help="replace an earlier result, or start an unfinished run anew")

def stop(where, expected, found, fix):
    raise SystemExit(f"{where}: expected {expected}, found {found}. Fix: {fix}.")
# ------------------------------------------------------------------ 1. data: every line is checked before anything is loaded
def read(path, columns, tokenizer, pairs=False):
    """The rows of a file; the first bad line stops the script."""
    text, rows, number = Path(path).read_text(encoding="utf-8-sig", errors="replace") if Path(path).is_file() else "", [], 1
    lines = enumerate(text.split("\n"), 1)
    try:
        if path.endswith(".csv"):
            table, (asked, _, told) = csv.DictReader(io.StringIO(text, newline="")), columns.partition(",")
            if not {asked, told} <= set(table.fieldnames or ()):
                raise ValueError(f"expected the columns {columns} (--columns), found {table.fieldnames}")
            lines = ((table.line_num, json.dumps({"prompt": r[asked], "completion": r[told]})) for r in table)
        for number, line in lines:
            rows += [row_of(json.loads(line), number, tokenizer, pairs)] if line.strip() else []
    except (ValueError, TypeError, csv.Error) as error:
        raise SystemExit(f"{path}, line {number}: {error}. Fix: the forms of rows stand at the top of tune.py.") from None
    return rows or stop(path, "a .jsonl or .csv file with rows", "none", "check the path; write one row on each line")

def row_of(given, number, tokenizer, pairs):
    """A row in any of the forms: prompt, gold answer, token ids, what the trainer gets; tokens before `start` are masked, the rest is learnt."""
    def turns(value, role):
        return [{"role": role, "content": value}] if isinstance(value, str) else value or []
    given = given if isinstance(given, dict) else {"found": given}
    chat = given.get("messages") or turns(given.get("prompt"), "user") + turns(given.get("completion") or given.get("chosen"), "assistant")
    worse = turns(given.get("rejected"), "assistant") if pairs else []
    for turn in [*chat, *worse]:
        said = turn.get("content") if isinstance(turn, dict) and turn.get("role") in ("system", "user", "assistant") else None
        if not isinstance(said, str) or not said.strip() or "\ufffd" in said:
            raise ValueError(f"expected turns with a role (system, user, assistant) and UTF-8 text as content, found {turn}")
    paired = worse[:-1] in ([], chat[:-1]) and [turn["role"] for turn in worse[-1:]] == ["assistant"]
    if len(chat) < 2 or chat[-1]["role"] != "assistant" or pairs and not paired:
        raise ValueError(f"expected a prompt and the assistant's answer, with dpo also a rejected answer to that prompt; found {str(given)[:150]}")
    before = tokenizer.apply_chat_template(chat[:-1], add_generation_prompt=True)["input_ids"]
    ids = tokenizer.apply_chat_template(chat)["input_ids"]
    start = next((i for i, (a, b) in enumerate(zip(before, ids)) if a != b), min(len(before), len(ids)))
    learn = {"prompt": chat[:-1], "chosen": chat[-1:], "rejected": worse[-1:]}
    asked = " ".join(turn["content"] for turn in chat[:-1] if turn["role"] == "user").lower()
    words = WORD.findall(asked) or [asked]
    return {"line": number, "id": str(given.get("id", number)), "prompt": chat[:-1], "gold": chat[-1]["content"], "ids": ids, "start": start,
            "learn": learn if pairs else {"input_ids": ids, "labels": [-100] * start + ids[start:]},
            "fours": {tuple(words[i : i + 4]) for i in range(max(1, len(words) - 3))}}
# ------------------------------------------------------------------ 2. model: where it is, what a step needs, how it is loaded
def find_model(name):
    """Name, configuration and tokenizer; the default is the course's copy of SmolLM2, else the hub's."""
    places = {"win32": os.environ.get("LOCALAPPDATA"), "darwin": "~/Library/Caches"}
    cache = os.environ.get("COURSE_CACHE") or f"{places.get(sys.platform) or os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/fine-tuning-course"
    copy = Path(cache).expanduser() / "smollm2-135m-instruct-float32"
    name = name or (str(copy) if (copy / "model.safetensors").is_file() else "HuggingFaceTB/SmolLM2-135M-Instruct")
    name = str(Path(name).resolve()) if Path(name).is_dir() else name  # it is written into the adapter
    try:
        config, tokenizer = AutoConfig.from_pretrained(name), AutoTokenizer.from_pretrained(name, padding_side="left")
        tokenizer.get_chat_template()
    except (OSError, ValueError) as error:
        stop(f"--model {name}", "the folder of a chat model or its id on the hub (which needs a network once)",
             str(error).strip().splitlines()[0], "check the name; the course's model comes with `python course.py lab`")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return name, config, tokenizer

def fit(s, config, longest, answer, state):
    """(rows at once, bytes, parameters) of a step that fits, from the configuration alone: a quarter off on a CPU, untested on a GPU."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    text, cpu, full = config.get_text_config(), state.device.type != "cuda", s.method == "full"
    matrices = [w for name, w in model.named_parameters() if w.ndim == 2 and not re.search("embed|head", name)]
    total, linear, wide = sum(p.numel() for p in model.parameters()), sum(w.numel() for w in matrices), 4 if full or cpu else 2
    weights = wide * (total - linear) + linear * (0.52 + 4 * cpu if s.method == "qlora" else wide) + 6 * linear * (s.method == "dora")
    adam = 12 * total if full else 16 * s.rank * sum(sum(w.shape) for w in matrices)
    token = text.num_hidden_layers * (10 * text.hidden_size + 4 * text.intermediate_size) * (4 if s.precision == "float32" else 2.6)
    token *= {"full": 1.35, "dora": 2.3, "qlora": 2.0}.get(s.method, 1.8) if cpu else 1  # what is kept for the way back, and the gaps between
    free = psutil.virtual_memory().available / state.num_processes if cpu else torch.cuda.mem_get_info()[0]
    for batch in (b for b in range(s.batch_size, 0, -1) if s.batch_size % (b * state.num_processes) == 0):
        step = batch * longest * token + 32 * min(batch * answer, 4096) * min(text.vocab_size, 32768)  # and scores of the vocabulary, in tiles
        if (need := 0.6e9 + weights + adam + step * (2 if s.method == "dpo" else 1)) < 0.9 * free:  # dpo: the better and the worse answer
            return batch, need, total
    stop("memory", f"a need below {0.9 * free / 1e9:.1f} GB", f"{need / 1e9:.1f} for one row of {longest} tokens (weights {weights / 1e9:.1f}, "
         f"optimizer {adam / 1e9:.1f})", "--method qlora, a smaller --model, or shorter rows")

def load(name, s, state):
    """The model in float32, or in bfloat16 on a GPU that trains only an adapter; with qlora packed in 4 bits (NF4)."""
    quick = torch.bfloat16 if s.precision == "bfloat16" else torch.float32
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=quick)
    model = AutoModelForCausalLM.from_pretrained(
        name, dtype=quick if state.device.type == "cuda" and s.method != "full" else torch.float32, device_map={"": state.device},
        quantization_config=nf4 if s.method == "qlora" else None)
    for layer in model.modules():  # else bitsandbytes packs 4-bit layers anew at their first use on some CPUs, and no gradient passes them
        layer.support_avx512bf16_for_cpu = False
    return model.eval()
# ------------------------------------------------------------------ 3. method and 4. run: what is trained, and how
def in_order(rows, s):
    """The rows of all epochs, those of like length in one step. Neither a stop nor the number of processes changes the order."""
    seen, order, generator = round(s.epochs * len(rows)), [], torch.Generator().manual_seed(s.seed)
    while len(order) < seen:
        order += get_length_grouped_indices([len(row["ids"]) for row in rows], s.batch_size, generator=generator)
    return [rows[n] for n in order[:seen]]

class StopAtNaN(TrainerCallback):
    """A gradient that is no number would spoil every weight: stop before that step."""
    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        if not all(w.grad.isfinite().all() for w in model.parameters() if w.grad is not None):
            stop(f"step {state.global_step + 1}", "a loss that is a number", "NaN or infinity: the steps before were too large, and the weights left "
                 "the range of numbers", f"a lower --learning_rate, such as {args.learning_rate / 10:g}, with --force; if it is step 1: the rows")

def train(model, tokenizer, rows, s, work, batch, state):
    """Train with TRL, from the last whole checkpoint if there is one, and save: losses, and minutes. With patience, every tenth row is kept back."""
    checked = rows[::10] if s.patience else []
    rows = in_order([r for n, r in enumerate(rows) if n % 10 or not s.patience], s)
    often = math.ceil(len(rows) / s.batch_size / 50)  # steps between two logs; five times as many between two checkpoints
    settings = dict(
        output_dir=f"{work}/checkpoints", seed=s.seed, num_train_epochs=1, train_sampling_strategy="sequential", max_length=None,
        per_device_train_batch_size=batch, gradient_accumulation_steps=s.batch_size // state.num_processes // batch, gradient_checkpointing=False,
        learning_rate=s.learning_rate, lr_scheduler_type="linear", warmup_steps=0.1, bf16=s.precision == "bfloat16",
        use_cpu=state.device.type == "cpu", logging_steps=often, report_to="tensorboard", save_steps=5 * often, save_total_limit=2,
        eval_strategy="steps" if checked else "no", eval_steps=5 * often, load_best_model_at_end=bool(checked))
    lora = LoraConfig(r=s.rank, lora_alpha=s.rank, target_modules="all-linear", use_dora=s.method == "dora", task_type="CAUSAL_LM")
    parts = dict(model=model, processing_class=tokenizer, peft_config=None if s.method == "full" else lora,
                 train_dataset=Dataset.from_list([r["learn"] for r in rows]),
                 eval_dataset=Dataset.from_list([r["learn"] for r in checked]) if checked else None,
                 callbacks=[StopAtNaN(), *([EarlyStoppingCallback(s.patience)] if checked else [])])
    trl_trainer.utils._use_triton = lambda device: True  # else TRL 1.16 on a CPU scores the vocabulary at masked tokens too, and throws that away
    trainer = DPOTrainer(args=DPOConfig(**settings), **parts) if s.method == "dpo" else SFTTrainer(args=SFTConfig(**settings), **parts)
    for weight in trainer.model.parameters():
        weight.data = weight.data.float() if weight.requires_grad else weight.data  # TRL made a 4-bit model's adapter bfloat16
    whole = [f.parent for f in work.glob("checkpoints/*/trainer_state.json") if f.read_text(encoding="utf-8").endswith("\n}\n")]  # written last
    last, begun = max(whole, key=lambda folder: int(folder.name.split("-")[1]), default=None), time.monotonic()
    trainer.train(resume_from_checkpoint=last and str(last))
    trainer.save_model(str(work))
    losses = [x["loss"] for x in trainer.state.log_history if "loss" in x]
    return {"losses": losses, "minutes": round((time.monotonic() - begun) / 60, 2), "minutes_from": last.name if last else "the start"}
# ------------------------------------------------------------------ 5. judge: the same rows before and after
@torch.no_grad()
def judge(model, tokenizer, rows, title):
    """Per row the greedy answer, and the nats per token of the gold one; each process takes its share of the rows."""
    found, longest = [], math.ceil(1.25 * max(len(r["ids"]) - r["start"] for r in rows))
    with PartialState().split_between_processes(sorted(rows, key=lambda r: r["start"])) as mine:
        for part in (mine[i : i + 16] for i in trange(0, len(mine), 16, desc=title, disable=not PartialState().is_main_process)):
            given = tokenizer.apply_chat_template([r["prompt"] for r in part], add_generation_prompt=True, padding=True, return_tensors="pt")
            out = model.generate(**given.to(model.device), max_new_tokens=longest, do_sample=False, temperature=None, top_p=None, top_k=None)
            for r, text in zip(part, tokenizer.batch_decode(out[:, given["input_ids"].shape[1] :], skip_special_tokens=True)):
                ids = torch.tensor([r["ids"]], device=model.device)
                said = model(input_ids=ids, use_cache=False, logits_to_keep=ids.shape[1] - r["start"] + 1).logits[0, :-1].float()
                found.append({"line": r["line"], "answer": text.strip(), "nats": torch.nn.functional.cross_entropy(said, ids[0, r["start"]:]).item()})
    return sorted(utils.gather_object(found), key=lambda x: x["line"])

def scores(rows, judged):
    """name -> one number per row. Labels are scored where gold is one of few, JSON where gold is JSON."""
    def is_json(text):
        try:
            return isinstance(json.loads(text), (dict, list))
        except ValueError:
            return False
    pairs = [(x["answer"], r["gold"].strip()) for r, x in zip(rows, judged)]
    rouge = RougeScorer(["rougeL"], tokenizer=types.SimpleNamespace(tokenize=lambda text: WORD.findall(text.lower())))  # its own knows a to z only
    found = {"exact_match": [a == g for a, g in pairs], "rouge_l": [rouge.score(g, a)["rougeL"].fmeasure for a, g in pairs],
             "log_perplexity": [x["nats"] for x in judged], "json_valid": [is_json(a) for a, g in pairs if is_json(g)]}
    if len({g for _, g in pairs}) <= min(20, len(pairs) / 3):
        found["label_accuracy"] = [a.strip(" .!?\"'").lower() == g.strip(" .!?\"'").lower() for a, g in pairs]
    return {name: np.array(values, dtype=float) for name, values in found.items() if values}
# ------------------------------------------------------------------ 6. save: what a stranger needs
SAMPLE = """from pathlib import Path
from transformers import pipeline
ask = pipeline("text-generation", str(Path(__file__).resolve().parent))  # an adapter brings its base model
print(ask({prompt}, max_new_tokens=200, do_sample=False)[0]["generated_text"][-1]["content"])"""

def save(s, rows, sides, facts, work):
    """Scores, answers, model card and sample.py, beside the weights and the tokenizer that the trainer saved; the card's table."""
    def interval(values):  # mean, low, high: 95 % bootstrap over rows
        drawn = values[np.random.default_rng(0).integers(0, len(values), (4000, len(values)))].mean(1)
        return [round(float(x), 4) for x in (values.mean(), *np.quantile(drawn, [0.025, 0.975]))]
    before, after = (scores(rows, judged) for judged in sides)
    measured = {name: {"before": interval(before[name]), "after": interval(x), "difference": interval(x - before[name])} for name, x in after.items()}
    table = "\n".join(f"| {name} | " + " | ".join("{} [{}, {}]".format(*x) for x in row.values()) + " |" for name, row in measured.items())
    base = Path(s.model).name if Path(s.model).is_dir() else s.model  # a path of this machine helps nobody else
    data = "\n".join(f"- {part}: {x['rows']} rows of `{x['file']}`, sha256 `{x['sha256']}`" for part, x in facts["data"].items())
    for name, judged in zip(("before", "after"), sides):
        lines = [json.dumps({"id": r["id"], "prompt": r["prompt"], "gold": r["gold"], "answer": x["answer"]}) for r, x in zip(rows, judged)]
        (work / f"predictions_{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (work / "metrics.json").write_text(json.dumps(facts | {"scores": measured}, indent=1), encoding="utf-8")
    (work / "sample.py").write_text(SAMPLE.format(prompt=rows[0]["prompt"]), encoding="utf-8")
    (work / "training_args.bin").unlink()  # a pickle
    head = ModelCardData(base_model=base if base == s.model else None, library_name="transformers" if s.method == "full" else "peft",
                         pipeline_tag="text-generation", tags=[s.method, "trl"])
    (work / "README.md").write_text(f"""---\n{head}\n---
# {Path(s.output).name}\n\n`{base}`, tuned by {s.method} with the settings in `tune.yaml`. `sample.py` asks it.\n\n{data}\n
Greedy answers to {len(rows)} held-out rows before and after, with 95 % bootstrap intervals; the difference is paired. An interval without width
means that all rows agree, not that it is certain. Perplexity is exp(log_perplexity). Nothing else was measured.\n
| score | before | after | difference |\n|---|---|---|---|\n{table}\n
Training: {facts["minutes"]} minutes from {facts["minutes_from"]} on, {facts["peak_gb"]} GB at its peak, last loss {facts["losses"][-1]}.
""", encoding="utf-8")
    return table
# ------------------------------------------------------------------ all of it, in this order
def main(s):
    out, work, state = Path(s.output), Path(f"{Path(s.output)}.part"), PartialState(cpu=not torch.accelerator.is_available())
    show = print if state.is_main_process else lambda *_: None
    if s.resume and (work / "tune.yaml").is_file():
        s = Settings(**json.loads((work / "tune.yaml").read_text(encoding="utf-8")) | {"resume": True})
    elif s.resume or (not s.force and (work.exists() or out.exists())):
        stop(work, "a stopped run" if s.resume else f"neither it nor {out}", "none" if s.resume else "one", "--resume, --force or another --output")
    known = s.method in ("lora", "qlora", "dora", "full", "dpo") and s.precision in ("auto", "float32", "bfloat16")
    if not known or min(s.epochs, s.rank, s.batch_size, s.learning_rate or 1) <= 0 or s.batch_size % state.num_processes:
        stop("flags", f"what --help names, numbers above 0, and a --batch_size that {state.num_processes} processes can share", s, "see --help")
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()
    s.precision = ("bfloat16" if fast else "float32") if s.precision == "auto" else s.precision
    s.model, config, tokenizer = find_model(s.model)
    rows, held = read(s.train, s.columns, tokenizer, s.method == "dpo"), read(s.eval, s.columns, tokenizer)
    alike = [(len(both) / len(h["fours"] | r["fours"]), f"{h['line']}={r['line']}") for h in held for r in rows if (both := h["fours"] & r["fours"])]
    same, near = [lines for share, lines in alike if share == 1], [lines for share, lines in alike if 0.5 < share < 1]
    if same:
        stop(s.eval, f"no row of {s.train}", f"lines {', '.join(same[:9])}", "remove them from one of the two")
    lengths, answers, first, start = [len(r["ids"]) for r in rows], [len(r["ids"]) - r["start"] for r in rows], rows[0]["ids"], rows[0]["start"]
    show(f"{len(rows)} rows to learn, {sum(lengths)} tokens, {max(lengths)} in the longest; {len(held)} rows to judge by; {len(near)} near-duplicates"
         f" {near[:9]}.\n--- masked\n{tokenizer.decode(first[:start])}\n--- learnt\n{tokenizer.decode(first[start:])}\n---")
    if max(lengths) > (room := config.get_text_config().max_position_embeddings):
        stop(s.train, f"rows of at most {room} tokens, the model's context", max(lengths), "shorten or remove them")
    batch, need, total = utils.broadcast_object_list([fit(s, config, max(lengths), max(answers), state)])[0]  # the same in each process
    s.learning_rate = s.learning_rate or {"full": 1e-4, "dpo": 1e-4}.get(s.method, 2e-3) * (1 if total < 1e9 else 0.1)  # 2e-3 was measured on 1.3e8
    if state.is_main_process and not s.resume:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        (work / "tune.yaml").write_text(json.dumps(asdict(s) | {"force": False}, indent=1), encoding="utf-8")
    model, begun = load(s.model, s, state), time.monotonic()
    with torch.no_grad(), torch.autocast(state.device.type, torch.bfloat16, enabled=s.precision == "bfloat16"):
        model(input_ids=torch.tensor([first] * batch, device=state.device), logits_to_keep=1)
    minutes = 3 * (time.monotonic() - begun) / batch / len(first) * sum(lengths) * s.epochs / state.num_processes / 60  # there and back
    show(f"Predicted: {need / 1e9:.1f} GB with {batch} rows at once, {minutes:.1f} min of training, and twice the judging that begins now.")
    before = judge(model, tokenizer, held, "before")
    os.environ["TENSORBOARD_LOGGING_DIR"] = f"{work}/logs"
    facts = train(model, tokenizer, rows, s, work, batch, state)
    state.wait_for_everyone()
    del model
    model = load(str(work), s, state) if s.method == "full" else PeftModel.from_pretrained(load(s.model, s, state), str(work)).eval()
    after = judge(model, tokenizer, held, "after")  # what was saved, not what is in memory
    if state.is_main_process:
        status = Path("/proc/self/status")  # tells the peak on Linux; elsewhere: what is in use at the end
        peak = int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) * 1024 if status.exists() else psutil.Process().memory_info().rss
        facts["peak_gb"] = round((torch.cuda.max_memory_allocated() or peak) / 1e9, 2)
        facts["data"] = {part: {"file": Path(path).name, "rows": len(some), "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}
                         for part, path, some in (("train", s.train, rows), ("eval", s.eval, held))}
        show(f"score | before | after | difference\n{save(s, held, (before, after), facts, work)}\nWhole: {out}")
        if out.exists():
            out.rename(f"{out}.{int(time.time())}")
        work.rename(out)

if __name__ == "__main__":
    warnings.simplefilter("ignore", FutureWarning)
    parser = TrlParser(Settings, description="Fine-tune a chat model on your own rows; --config FILE.yaml takes the same names.")
    try:
        settings = parser.parse_args_and_config()[0]
    except Exception as error:  # a wrong flag, or a wrong YAML file
        parser.error(str(error))
    try:
        main(settings)
    except KeyboardInterrupt:
        print(f"tune.py: stopped. Go on with --output {settings.output} --resume.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not (isinstance(error, OSError) or re.search("No space left|File too large|file write failed|quota|not enough space", str(error))):
            raise
        raise SystemExit(f"the disk is full, or not writable ({error}). Fix: mend it, go on with --output {settings.output} --resume.") from None
