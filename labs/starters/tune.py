"""Fine-tune a chat model on your own rows, and see what it gained on held-out rows.
    python tune.py --train train.jsonl --eval test.jsonl
    python tune.py --train train.csv --eval test.csv --columns text,label --method qlora
Rows: chat JSONL {"messages": […]}, {"prompt", "completion"}, {"prompt", "chosen", "rejected"} for dpo, or CSV with a header.
Needs: pip install "torch>=2.13" "transformers>=5.23" "trl>=1.16" "peft>=0.21" bitsandbytes rouge-score tensorboard psutil
"""
import contextlib, csv, dataclasses, hashlib, io, json, math, os, re, shlex, shutil, sys, time, types, warnings  # noqa: E401
from pathlib import Path
import datasets, jinja2, numpy as np, psutil, torch, tqdm  # noqa: E401
from accelerate import PartialState, utils
from peft import LoraConfig, PeftModel
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, EarlyStoppingCallback
from transformers.hf_argparser import HfArg
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer, TrlParser, trainer as trl_trainer
WORD = re.compile(r"[\w\u0900-\u097f]+")  # Devanagari's vowel signs belong to their word

@dataclasses.dataclass
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
    resume: bool = HfArg(default=False, help="go on with a run that was stopped; with the same flags and rows")
    force: bool = HfArg(default=False, help="start an unfinished run anew; an earlier result in OUTPUT is renamed, not lost")

def check(fine, where, expected, found, fix):  # all that can go wrong is said in this form
    if not fine:
        raise SystemExit(f"{where}: expected {expected}, found {found}. Fix: {fix}.")
# ------------------------------------------------------------------ 1. data: every line is checked before anything is loaded
def read(path, columns, tokenizer, pairs=False):
    """The rows of a file; the first bad line stops the script."""
    data, rows, line = Path(path).read_bytes() if Path(path).is_file() else b"", [], 1
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", errors="replace")
    check(text.lstrip()[:1] != "[", path, "a JSON object on each line", "a JSON array", f"make lines of it: jq -c '.[]' {path} > rows.jsonl")
    lines = enumerate(text.split("\n"), 1)
    if path.lower().endswith(".csv"):
        sign, (asked, _, told) = max(",;\t", key=text.partition("\n")[0].count), columns.partition(",")  # some spreadsheets write semicolons
        names = (table := csv.DictReader(io.StringIO(text, newline=""), delimiter=sign, skipinitialspace=True)).fieldnames or []
        check({asked, told} <= set(names), f"{path}, line 1", f"the columns {columns}", names, f'see --columns: --columns "{",".join(names[:2])}"')
        lines = ((table.line_num, json.dumps(r if None in r else {"prompt": r[asked], "completion": r[told]})) for r in table)
    try:
        for line, words in lines:
            rows += [row_of(json.loads(words), line, tokenizer, pairs)] if words.strip() else []
    except (ValueError, TypeError, jinja2.TemplateError, csv.Error) as error:
        check(False, f"{path}, line {line}", "a row in one of the forms at the top of tune.py", error,
              "mend or remove the row" + ", and write a text that holds a comma between double quotes" * path.lower().endswith(".csv"))
    return rows or check(False, path, "a .jsonl or .csv file with rows", "none", "check the path; write one row on each line")

def row_of(given, line, tokenizer, pairs):
    """A row in any of the forms: prompt, gold answer, token ids, what the trainer gets; tokens before `start` are masked, the rest is learnt."""
    def turns(value, role):
        return value if isinstance(value, list) else [] if value is None else [{"role": role, "content": value}]
    given = given if isinstance(given, dict) else {"found": given}
    answer, worse = turns(given.get("completion", given.get("chosen")), "assistant"), turns(given.get("rejected"), "assistant") if pairs else []
    chat = turns(given.get("messages"), "user") or turns(given.get("prompt"), "user") + answer
    for turn in [*chat, *worse]:
        said = turn.get("content") if isinstance(turn, dict) and turn.get("role") in ("system", "user", "assistant") else None
        if not isinstance(said, str) or not said.strip() or "\ufffd" in said:
            raise ValueError(f"{turn}, which is not a turn with a role (system, user, assistant) and UTF-8 text as content")
    paired = worse[:-1] in ([], chat[:-1]) and [turn["role"] for turn in worse[-1:]] == ["assistant"]
    if len(chat) < 2 or chat[-1]["role"] != "assistant" or pairs and not paired:
        raise ValueError(f"{str(given)[:150]} without a prompt and, as the last turn, the assistant's answer" + ", or without a rejected one" * pairs)
    before = tokenizer.apply_chat_template(chat[:-1], add_generation_prompt=True)["input_ids"]
    ids, other = (tokenizer.apply_chat_template(chat[:-1] + end)["input_ids"] if end else [] for end in (chat[-1:], worse[-1:]))
    start = next((i for i, (a, b) in enumerate(zip(before, ids)) if a != b), min(len(before), len(ids)))
    pair = {"prompt": chat[:-1], "chosen": chat[-1:], "rejected": worse[-1:]}
    asked = " ".join(turn["content"] for turn in chat[:-1] if turn["role"] == "user").lower()
    words = WORD.findall(asked) or [asked]
    return {"line": line, "id": str(given.get("id", line)), "prompt": chat[:-1], "gold": chat[-1]["content"], "ids": ids, "start": start,
            "learn": pair if pairs else {"input_ids": ids, "labels": [-100] * start + ids[start:]},
            "tokens": len(ids) + len(other), "longest": max(len(ids), len(other)),  # with dpo's rejected answer
            "fours": {tuple(words[i : i + 4]) for i in range(max(1, len(words) - 3))}}
# ------------------------------------------------------------------ 2. model: where it is, what a step needs, how it is loaded
def find_model(name):
    """Name, configuration and tokenizer; the default is the course's copy of SmolLM2, else the hub's."""
    home = {"win32": os.environ.get("LOCALAPPDATA"), "darwin": "~/Library/Caches"}.get(sys.platform) or os.environ.get("XDG_CACHE_HOME", "~/.cache")
    copy = Path(os.environ.get("COURSE_CACHE") or f"{home}/fine-tuning-course", "smollm2-135m-instruct-float32").expanduser()
    name = name or (str(copy) if (copy / "model.safetensors").is_file() else "HuggingFaceTB/SmolLM2-135M-Instruct")
    name = str(Path(name).resolve()) if Path(name).is_dir() else name  # it is written into the adapter
    try:
        config, tokenizer = AutoConfig.from_pretrained(name), AutoTokenizer.from_pretrained(name, padding_side="left")
        tokenizer.get_chat_template()
    except (OSError, ValueError) as error:
        said = str(error).strip().splitlines()[0]
        check(False, f"--model {name}", "a chat model: folder or hub id", said, "check name and network; `python course.py lab` brings the course's")
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
    free = 0.9 * (psutil.virtual_memory().available / state.num_processes if cpu else torch.cuda.mem_get_info()[0])
    for batch in (b for b in range(s.batch_size, 0, -1) if s.batch_size % (b * state.num_processes) == 0):
        step = batch * longest * token + 32 * min(batch * answer, 4096) * min(text.vocab_size, 32768)  # and scores of the vocabulary, in tiles
        if (need := 0.6e9 + weights + adam + step * (2 if s.method == "dpo" else 1)) < free:  # dpo: the better and the worse answer
            return batch, need, total
    method = "lora" if cpu or s.method in ("dora", "full") else "qlora"  # on a CPU packed weights save nothing
    knobs = ["close programs", *["--precision bfloat16"] * (s.precision == "float32"), *[f"--method {method}"] * (s.method not in ("dpo", method))]
    check(False, "memory", f"a need below {free / 1e9:.1f} GB", f"{need / 1e9:.1f} GB for one row of {longest} tokens (weights {weights / 1e9:.1f}, "
          f"optimizer {adam / 1e9:.1f})", f"in this order: {', '.join(knobs)}, leave out the longest rows, a smaller --model")

def load(name, s, state):
    """The model in float32, or in bfloat16 on a GPU that trains only an adapter; with qlora packed in 4 bits (NF4)."""
    quick = torch.bfloat16 if s.precision == "bfloat16" else torch.float32
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=quick)
    nf4, dtype = nf4 if s.method == "qlora" else None, quick if state.device.type == "cuda" and s.method != "full" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, device_map={"": state.device}, quantization_config=nf4)
    for layer in model.modules():  # else bitsandbytes packs 4-bit layers anew at their first use on some CPUs, and no gradient passes them
        layer.support_avx512bf16_for_cpu = False
    return model.eval()
# ------------------------------------------------------------------ 3. method and 4. run: what is trained, and how
def in_order(rows, s):
    """The rows of all epochs, those of like length in one step. Neither a stop nor the number of processes changes the order."""
    lengths, generator = [row["longest"] for row in rows], torch.Generator().manual_seed(s.seed)
    order = [n for _ in range(math.ceil(s.epochs)) for n in get_length_grouped_indices(lengths, s.batch_size, generator=generator)]
    return [rows[n] for n in order[: round(s.epochs * len(rows))]]

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
        eval_strategy="steps" if checked else "no", eval_steps=5 * often, load_best_model_at_end=bool(checked),
        restore_callback_states_from_checkpoint=True)  # after --resume patience counts on
    lora = LoraConfig(r=s.rank, lora_alpha=s.rank, target_modules="all-linear", use_dora=s.method == "dora", task_type="CAUSAL_LM")
    learnt, kept = (datasets.Dataset.from_list([r["learn"] for r in some]) if some else None for some in (rows, checked))
    parts = dict(model=model, processing_class=tokenizer, peft_config=None if s.method == "full" else lora, train_dataset=learnt, eval_dataset=kept,
                 callbacks=[EarlyStoppingCallback(s.patience)] if checked else None)
    trl_trainer.utils._use_triton = lambda device: True  # else TRL 1.16 on a CPU scores the vocabulary at masked tokens too, and throws that away
    trainer = DPOTrainer(args=DPOConfig(**settings), **parts) if s.method == "dpo" else SFTTrainer(args=SFTConfig(**settings), **parts)
    nan = f"lower the rate, such as --learning_rate {s.learning_rate / 10:g} --force; if it is step 1, look at the rows"
    for weight in (w for w in trainer.model.parameters() if w.requires_grad):
        weight.data = weight.data.float()  # TRL made a 4-bit model's adapter bfloat16
        weight.register_hook(lambda slope: check(slope.isfinite().all(), f"step {trainer.state.global_step + 1}", "a number as loss", "NaN", nan))
    whole = [f.parent for f in work.glob("checkpoints/*/trainer_state.json") if (text := f.read_text(encoding="utf-8")).endswith("\n}\n")  # its last
             and f'patience_counter": {s.patience}\n' not in text]  # else: from the best one; its next steps are done again, and end the same
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
        for part in (mine[i : i + 16] for i in tqdm.trange(0, len(mine), 16, desc=title, disable=not PartialState().is_main_process)):
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
        with contextlib.suppress(ValueError):
            return isinstance(json.loads(text), (dict, list))
    pairs = [(x["answer"], r["gold"].strip()) for r, x in zip(rows, judged)]
    rouge = RougeScorer(["rougeL"], tokenizer=types.SimpleNamespace(tokenize=lambda text: WORD.findall(text.lower())))  # its own knows a to z only
    found = {"exact_match": [a == g for a, g in pairs], "rouge_l": [rouge.score(g, a)["rougeL"].fmeasure for a, g in pairs],
             "log_perplexity": [x["nats"] for x in judged], "json_valid": [bool(is_json(a)) for a, g in pairs if is_json(g)]}
    if len({g for _, g in pairs}) <= min(20, len(pairs) / 3):
        found["label_accuracy"] = [a.strip(" .!?\"'").lower() == g.strip(" .!?\"'").lower() for a, g in pairs]
    return {name: np.array(values, dtype=float) for name, values in found.items() if values}
# ------------------------------------------------------------------ 6. save: what a stranger needs
def save(s, rows, sides, facts, work):
    """Scores, answers, model card and sample.py, beside the weights and the tokenizer that the trainer saved; the card's table."""
    def interval(values):  # mean, low, high: 95 % bootstrap over rows
        drawn = values[np.random.default_rng(0).integers(0, len(values), (4000, len(values)))].mean(1)
        return [round(float(x), 4) for x in (values.mean(), *np.quantile(drawn, [0.025, 0.975]))]
    before, after = (scores(rows, judged) for judged in sides)
    measured = {name: {"before": interval(before[name]), "after": interval(x), "difference": interval(x - before[name])} for name, x in after.items()}
    table = "\n".join(f"| {name} | " + " | ".join("{} [{}, {}]".format(*x) for x in row.values()) + " |" for name, row in measured.items())
    for name, judged in zip(("before", "after"), sides):
        lines = [{"id": r["id"], "prompt": r["prompt"], "gold": r["gold"], "answer": x["answer"]} for r, x in zip(rows, judged)]
        (work / f"predictions_{name}.jsonl").write_text("".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines), encoding="utf-8")
    (work / "metrics.json").write_text(json.dumps(facts | {"scores": measured}, indent=1), encoding="utf-8")
    (work / "sample.py").write_text(f"""import pathlib, transformers
ask = transformers.pipeline("text-generation", str(pathlib.Path(__file__).resolve().parent))  # an adapter brings its base model
print(ask({rows[0]["prompt"]}, max_new_tokens=200, do_sample=False)[0]["generated_text"][-1]["content"])\n""", encoding="utf-8")
    (work / "training_args.bin").unlink()  # a pickle
    here, data = Path(s.model).is_dir(), "\n".join("- {}: {rows} rows of {file}, sha256 `{sha256}`".format(p, **x) for p, x in facts["data"].items())
    (work / "README.md").write_text(f"""---\nlibrary_name: {"transformers" if s.method == "full" else "peft"}\npipeline_tag: text-generation
tags: [{s.method}, trl]{"" if here else f"{chr(10)}base_model: {s.model}"}\n---
# {Path(s.output).name}\n\n`{Path(s.model).name if here else s.model}`, tuned by {s.method} with `tune.yaml`. `sample.py` asks it.\n\n{data}\n
Greedy answers to {len(rows)} held-out rows, with 95 % bootstrap intervals; the difference is paired. Perplexity is exp(log_perplexity).\n
| score | before | after | difference |\n|---|---|---|---|\n{table}\n
Training: {facts["minutes"]} minutes from {facts["minutes_from"]} on, {facts["peak_gb"]} GB at its peak, last loss {facts["losses"][-1]}.
""", encoding="utf-8")
    return table
# ------------------------------------------------------------------ all of it, in this order
def look(s, rows, held, tokenizer, room):
    """What the model will see, as text. Evaluation rows that are learnt, and rows that are too long, stop the script."""
    alike = [(len(both) / len(h["fours"] | r["fours"]), f"{h['line']}={r['line']}") for h in held for r in rows if (both := h["fours"] & r["fours"])]
    same, near = [lines for share, lines in alike if share == 1], [lines for share, lines in alike if 0.5 < share < 1]
    found = "the same file" if Path(s.eval).resolve() == Path(s.train).resolve() else f"lines {', '.join(same[:9])}"
    check(not same, s.eval, f"no row of {s.train}", found, "keep a row in one of the two only; of one file put every fifth row aside for --eval")
    long = [f"{path}, line {r['line']}" for path, some in ((s.train, rows), (s.eval, held)) for r in some if r["longest"] > room]
    check(not long, "rows", f"at most {room} tokens in each, the model's context", f"more in {'; '.join(long[:9])}", "shorten or remove them")
    masked, learnt = tokenizer.decode(rows[0]["ids"][: rows[0]["start"]]), tokenizer.decode(rows[0]["ids"][rows[0]["start"] :])
    return (f"{len(rows)} rows to learn, {sum(r['tokens'] for r in rows)} tokens, {max(r['longest'] for r in rows)} in the longest; {len(held)} rows "
            f"to judge by; {len(near)} near-duplicates {near[:9]}.\n--- masked\n{masked}\n--- learnt\n{learnt}\n---")

def main(s):
    out, work, state = Path(s.output), Path(f"{Path(s.output)}.part"), PartialState(cpu=not torch.accelerator.is_available())
    begun, here = (work / "tune.yaml").is_file(), [str(folder) for folder in (work, out) if folder.exists()]
    check(begun or not s.resume, "--resume", f"a stopped run in {work}", "none", "start it without --resume")
    check(s.resume or s.force or not here, "--output", f"neither {work} nor {out}", here, f"{'--resume, ' * begun}--force, or another --output")
    sound = min(s.epochs, s.rank, s.batch_size, s.learning_rate or 1) > 0 and s.batch_size % state.num_processes == 0
    sound = sound and s.precision in ("auto", "float32", "bfloat16") and s.method in ("lora", "qlora", "dora", "full", "dpo")
    check(sound, "flags", f"what --help names, numbers above 0, a --batch_size that {state.num_processes} processes can share", s, "see --help")
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()
    s.precision = ("bfloat16" if fast else "float32") if s.precision == "auto" else s.precision
    s.model, config, tokenizer = find_model(s.model)
    rows, held = read(s.train, s.columns, tokenizer, s.method == "dpo"), read(s.eval, s.columns, tokenizer)
    state.print(look(s, rows, held, tokenizer, config.get_text_config().max_position_embeddings))
    longest, answer = max(r["longest"] for r in rows), max(r["longest"] - r["start"] for r in rows)
    batch, need, total = utils.broadcast_object_list([fit(s, config, longest, answer, state)])[0]  # the same in each process
    s.learning_rate = s.learning_rate or {"full": 1e-4, "dpo": 1e-4}.get(s.method, 2e-3) * (1 if total < 1e9 else 0.1)  # 2e-3 was measured on 1.3e8
    data = {part: {"file": Path(path).name, "rows": len(some), "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}
            for part, path, some in (("train", s.train, rows), ("eval", s.eval, held))}
    lines = [f"{name}: {json.dumps(x)}" for name, x in dataclasses.asdict(s).items() if name not in ("resume", "force")]
    lines += [f"# {part}: sha256 {x['sha256']}" for part, x in data.items()]
    other = [line for line in lines if s.resume and line not in (work / "tune.yaml").read_text(encoding="utf-8").split("\n")]
    check(not other, "--resume", f"what stands in {work}/tune.yaml", "; ".join(other), "give the same flags and rows, or start anew with --force")
    state.wait_for_everyone()  # all have looked what is there
    if state.is_main_process and not s.resume:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        (work / "tune.new").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (work / "tune.new").rename(work / "tune.yaml")  # whole or not at all: from now on there is something to resume
    model, begin = load(s.model, s, state), time.monotonic()
    with torch.no_grad(), torch.autocast(state.device.type, torch.bfloat16, enabled=s.precision == "bfloat16"):
        model(input_ids=torch.tensor([rows[0]["ids"]] * batch, device=state.device), logits_to_keep=1)
    there = (time.monotonic() - begin) / batch / len(rows[0]["ids"]) * sum(r["tokens"] for r in rows) * s.epochs / state.num_processes / 60
    state.print(f"Predicted: {need / 1e9:.1f} GB with {batch} rows at once, {3 * there:.1f} min of training, and twice the judging that begins now.")
    before = judge(model, tokenizer, held, "before")
    os.environ["TENSORBOARD_LOGGING_DIR"] = f"{work}/logs"
    facts = train(model, tokenizer, rows, s, work, batch, state) | {"data": data}
    state.wait_for_everyone()
    del model
    utils.release_memory()  # trainer and optimizer hold each other: else both models are in memory at once
    model = load(str(work), s, state) if s.method == "full" else PeftModel.from_pretrained(load(s.model, s, state), str(work)).eval()
    after = judge(model, tokenizer, held, "after")  # what was saved, not what is in memory
    if state.is_main_process:
        status = Path("/proc/self/status")  # tells the peak on Linux; elsewhere: what is in use at the end
        peak = int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) * 1024 if status.exists() else psutil.Process().memory_info().rss
        facts["peak_gb"] = round((torch.cuda.max_memory_allocated() or peak) / 1e9, 2)
        print(f"score | before | after | difference\n{save(s, held, (before, after), facts, work)}\nWhole: {out}")
        if out.exists():
            out.rename(f"{out}.{int(time.time())}")
        work.rename(out)

if __name__ == "__main__":
    warnings.simplefilter("ignore", FutureWarning)
    parser = TrlParser(Settings, description="Fine-tune a chat model on your own rows; --config FILE.yaml takes the same names.")
    try:
        s = parser.parse_args_and_config()[0]
    except Exception as error:  # a wrong flag, or a wrong YAML file
        parser.error(str(error))
    try:
        main(s)
    except (KeyboardInterrupt, Exception) as error:
        again = shlex.join(["python", *(word for word in sys.argv if word not in ("--resume", "--force"))])
        again += " --resume" * Path(f"{Path(s.output)}.part", "tune.yaml").is_file()
        if isinstance(error, KeyboardInterrupt):
            print(f"tune.py: stopped. Go on with: {again}", file=sys.stderr)
            sys.exit(130)
        full = re.search("No space left|File too large|file write failed|quota|not enough space", said := str(error).strip().split("\n")[0])
        if not full and not isinstance(error, OSError):
            raise
        check(False, "disk", "files that can be read and written", f"the disk is full ({said})" if full else said, f"mend it, go on with: {again}")
