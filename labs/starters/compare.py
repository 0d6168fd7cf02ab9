"""Compare ways to do one task on the same rows: prompts, examples, documents, tuned models. One file: copy it, read it, change it.

    python compare.py test.jsonl base few-shot:8 adapter:tuned --train train.jsonl --out comparison
Systems, each held against the first one row by row:
    base                     the model, with each row's own prompt
    few-shot:K, nearest:K    K solved rows of --train before it: each answer as often as the others, or those most like the row
    prompts:FILE             the prompts of a predictions file, such as those with documents in rag-scores/predictions.jsonl (RAG)
    adapter:FOLDER           a result of tune.py, or any PEFT adapter
    model:NAME               another model, by hub id or folder
    predictions:FILE         ready answers: JSONL with {"id", "prompt", "gold", "answer"}, such as tuned/predictions_after.jsonl
Parts are joined by + (prompts:rag-scores/predictions.jsonl+adapter:tuned), and NAME= before a system names it (small=model:tuned-full).
Rows: JSONL with {"messages": [...]}, {"prompt", "completion"} or {"question", "answer"}, or CSV with two columns.
Needs: pip install "transformers>=5.23" "torch>=2.13" rouge-score scipy, peft for adapter, sentence-transformers for nearest
"""
import argparse, csv, io, json, logging, math, os, random, re, sys, tempfile, time, unicodedata  # noqa: E401
from pathlib import Path
import numpy as np  # what takes long to import is imported where it is used: --help and mistakes answer at once
os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
logging.getLogger("bitsandbytes").setLevel("ERROR")  # else its import advises about a kernel that nobody needs
KINDS, COSTS = ("few-shot", "nearest", "prompts", "adapter", "model", "predictions"), ("prompt_tokens", "completion_tokens", "seconds")
# ---------------------------------------------------------------- systems, rows, prompts
def parse_system(text: str) -> dict[str, str]:
    """"small=nearest:4+adapter:out" -> {"name": "small", "nearest": "4", "adapter": "out"}"""
    name, rest = re.fullmatch(r"(?:([\w .-]+)=)?(.*)", text).groups()
    parts = dict(part.partition(":")[::2] for part in rest.split("+"))
    for kind, value in parts.items():
        if (kind not in KINDS or not value or (kind in KINDS[:2] and not re.fullmatch("[1-9][0-9]*", value))) and (kind, value) != ("base", ""):
            stop(f"system {text!r}", f"base, or one of {', '.join(KINDS)} with a value, as in few-shot:8", f"{kind}:{value}", "see --help")
    return {"name": name or rest, **parts}

def question_of(row: dict) -> str:
    """What the user and earlier answers say, in one spelling: rows that ask the same are the same row."""
    return " ".join(" ".join(turn["content"] for turn in row["messages"][:-1] if turn["role"] != "system").casefold().split())

def predicted(path: Path, rows: list[dict]) -> list[dict]:
    """The rows of a predictions file, in the order of the evaluation. Each row must be there, with the same gold answer."""
    found = {str(one.get("id")): one for _, one in lines_of(path)}
    for row in rows:
        one, gold = found.get(row["id"], {}), row["messages"][-1]["content"]
        if not (isinstance(one.get("answer"), str) and isinstance(one.get("prompt"), list) and str(one.get("gold")).strip() == gold.strip()):
            stop(path, f"row {row['id']!r} with prompt, answer and gold {gold[:50]!r}", f"gold {one.get('gold')!r}", "predict these rows and ids")
    return [found[row["id"]] for row in rows]

def examples(args, system: dict, rows: list[dict], train: list[dict]) -> list[list[dict]]:
    """The solved rows that each row is shown. Nearest: by cosine of the embeddings, the most like one last."""
    if "nearest" in system:
        from sentence_transformers import SentenceTransformer
        embedder = SentenceTransformer(source_of(args.embedder, "all-minilm-l6-v2-0.1.0", "--embedder"))
        ours, theirs = (embedder.encode_query([question_of(row) for row in some], normalize_embeddings=True) for some in (rows, train))
        return [[train[n] for n in order[-int(system["nearest"]):]] for order in np.argsort(ours @ theirs.T, axis=1)]
    shuffled = random.Random(0).sample(train, len(train))
    golds = [row["messages"][-1]["content"] for row in shuffled]  # one row of each answer, then a second of each, and so on
    return [[shuffled[n] for n in sorted(range(len(golds)), key=lambda n: golds[:n].count(golds[n]))[:int(system["few-shot"])]]] * len(rows)

def asked(row: dict, system: dict, left_out: int = 0) -> list[dict]:
    """How each system is asked: its prompt of the row, with its solved rows, but the first `left_out`, between instruction and question."""
    turns = system["turns"][row["id"]]
    shown = [t for one in system["shown"][row["id"]][left_out:] for t in one["messages"] if t["role"] != "system"]
    return [*(t for t in turns if t["role"] == "system"), *shown, *(t for t in turns if t["role"] != "system")]

def fitting(row: dict, system: dict, tokenizer, room: float) -> tuple[list[dict], int]:
    """`asked` in at most `room` tokens, and how many solved rows had to be left out for that."""
    for left_out in range(len(system["shown"][row["id"]]) + 1):
        prompt = asked(row, system, left_out)
        if len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)) <= room:
            break
    return prompt, left_out
# ---------------------------------------------------------------- run, judge
def run(args, systems: list[dict], rows: list[dict], train: list[dict]) -> dict[str, list[dict]]:
    """System -> one prediction a row. A model stays loaded for systems that follow each other and share it."""
    made, key, tokenizer, model = {}, None, None, None
    for system in systems:
        print(system["name"], file=sys.stderr)
        if "predictions" in system:
            answers = predicted(Path(system["predictions"]), rows)
        else:
            wanted = system.get("model") or args.model, system.get("adapter")
            if key != wanted:
                key, model = wanted, None  # frees the one before
                tokenizer, model = load_model(wanted[0])
                if wanted[1]:
                    from peft import PeftModel
                    model = PeftModel.from_pretrained(model, wanted[1]).eval()
            ready = predicted(Path(system["prompts"]), rows) if "prompts" in system else [{"prompt": row["messages"][:-1]} for row in rows]
            shown = examples(args, system, rows, train) if {"few-shot", "nearest"} & set(system) else [[]] * len(rows)
            system |= {"turns": {row["id"]: one["prompt"] for row, one in zip(rows, ready)}, "shown": {row["id"]: x for row, x in zip(rows, shown)}}
            new = args.max_new_tokens or 8 + math.ceil(1.25 * max(len(tokenizer(row["messages"][-1]["content"])["input_ids"]) for row in rows))
            context = getattr(model.config.get_text_config(), "max_position_embeddings", math.inf)
            prompts, fewer = zip(*(fitting(row, system, tokenizer, context - new) for row in rows))
            if any(fewer):
                args.notes.append(f"{system['name']}: {sum(map(bool, fewer))} rows see up to {max(fewer)} fewer examples, to fit {context} tokens.")
            answers = generate(tokenizer, model, prompts, new, args.batch_size)
            answers = [{"prompt": prompt} | answer for prompt, answer in zip(prompts, answers)]
        made[system["name"]] = [{"id": row["id"], "gold": row["messages"][-1]["content"]} | one for row, one in zip(rows, answers)]
    return made

def fields(text: str) -> dict[str, str] | None:
    """Field -> its value as JSON text, in which 1 is not true, if the text is one JSON object and nothing else."""
    try:
        return {k: json.dumps(v, sort_keys=True) for k, v in json.loads(text).items()}
    except (ValueError, AttributeError):
        return None

def score(golds: list[str], answers: list[str]) -> dict[str, np.ndarray]:
    """Metric -> one number a row. Gold records are scored by field, one of few answers as labels, other texts by ROUGE-L."""
    from rouge_score.rouge_scorer import RougeScorer
    rows = [(gold, answer, fields(gold), fields(answer)) for gold, answer in zip(golds, answers)]
    if all(record for _, _, record, _ in rows):
        found = {"exact match": [said == record for _, _, record, said in rows], "valid JSON": [said is not None for *_, said in rows],
                 "field accuracy": [np.mean([(said or {}).get(k) == record[k] for k in record]) for _, _, record, said in rows]}
    else:
        found = {"exact match": [" ".join(answer.split()) == " ".join(gold.split()) for gold, answer, *_ in rows]}
        if len({tuple(words(gold)) for gold in golds}) <= max(2, min(20, len(golds) // 3)):
            found["label accuracy"] = [words(answer) == words(gold) for gold, answer, *_ in rows]
        else:
            rouge = RougeScorer(["rougeL"], tokenizer=type("Words", (), {"tokenize": staticmethod(words)})())
            found["ROUGE-L"] = [rouge.score(gold, answer)["rougeL"].fmeasure for gold, answer, *_ in rows]
    return {metric: np.array(values, dtype=float) for metric, values in found.items()}

def difference(ours: np.ndarray, first: np.ndarray) -> dict:
    """The mean of ours - first over the same rows with its 95 % bootstrap interval, and on how many rows either is better."""
    d = ours - first
    low, high = np.quantile(np.random.default_rng(0).choice(d, (2000, len(d))).mean(axis=1), [0.025, 0.975])
    verdict, mean = "better" if low > 0 else "worse" if high < 0 else "cannot tell", [round(float(v), 4) for v in (d.mean(), low, high)]
    return {"mean": mean, "better": int((d > 0).sum()), "worse": int((d < 0).sum()), "verdict": verdict}
# ---------------------------------------------------------------- report
def report(args, rows: int, table: dict, costs: dict, leads: dict) -> str:
    metrics, few = list(next(iter(table.values()))), " With so few rows, intervals are too narrow." * (rows < 30)
    lines = [f"# {rows} rows of {args.eval.name}", "", f"| system | {' | '.join(metrics)} | prompt tokens | answer tokens | seconds |",
             "|---" * (4 + len(metrics)) + "|"]
    for name, scores in table.items():
        cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*x[:3]) for x in scores.values()] + ["-" if x is None else f"{x:g}" for x in costs[name].values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", f"Against {next(iter(table))}, on the same rows:", "", "| system | metric | difference | better on | worse on | verdict |",
              "|---" * 6 + "|"]
    for name, metric, d in ((name, metric, d) for name, ds in leads.items() for metric, d in ds.items()):
        cells = ["{:+.3f} [{:+.3f}, {:+.3f}]".format(*d["mean"]), str(d["better"]), str(d["worse"]), d["verdict"]]
        lines.append(f"| {name} | {metric} | {' | '.join(cells)} |")
    lines += ["", f"Means with 95 % intervals; `cannot tell`: the interval of the difference holds 0.{few} Tokens and seconds: of one request, "
              f"{args.batch_size} at a time; `-`: not recorded. Only --train finds rows that were trained on.", *args.notes]
    return "\n".join(lines) + "\n"
# ---------------------------------------------------------------- command line
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("eval", type=Path, help="the rows to judge by")
    add("systems", nargs="+", help="two or more; see above")
    add("--train", type=Path, help="the rows that examples come from and models were tuned on; none of them may be judged by")
    add("--model", default=os.environ.get("COURSE_MODEL"), help="hub id or folder of a chat model ($COURSE_MODEL, the adapter's, or the course's)")
    add("--embedder", help="for nearest: hub id or folder of a sentence-transformers model (the course's all-MiniLM-L6-v2)")
    add("--max-new-tokens", type=int, help="longest answer (a quarter more than the longest gold answer)")
    add("--batch-size", type=int, default=8, help="requests at a time (%(default)s)")
    add("--columns", help="CSV: the two columns, such as question,answer")
    add("--out", type=Path, default="comparison", help="folder for report.md, metrics.json and all predictions (%(default)s)")
    add("--force", action="store_true", help="replace the files of an earlier run in --out")
    args = parser.parse_args(namespace=argparse.Namespace(notes=[]))  # what the report must say beside the numbers
    systems = [parse_system(text) for text in args.systems]
    if len({system["name"] for system in systems}) < max(2, len(systems)):
        parser.error("expected two or more systems, each with a name of its own (NAME=...)")
    if args.out.exists() and not args.force:
        stop(f"--out {args.out}", "a folder that is not there yet", "this one", "name another, or give --force to replace the files in it")
    rows, train = read_rows(args.eval, args.columns), read_rows(args.train, args.columns) if args.train else []
    if (k := max(int(system.get(how, 0)) for system in systems for how in ("few-shot", "nearest"))) > len(train):
        stop("--train", f"at least {k} rows to show as examples", len(train), "give a larger file, or show fewer")
    known = {question_of(row): row["id"] for row in train}
    if leaks := [f"{row['id']} (there {known[question_of(row)]})" for row in rows if question_of(row) in known]:
        stop(args.eval, f"no row of {args.train}", f"{len(leaks)}: {', '.join(leaks[:9])}", "remove them from one of the files, and tune again")
    for system in (system for system in systems if "adapter" in system):
        configs = [c for c in (Path(system["adapter"], name, "adapter_config.json") for name in ("", "adapter")) if c.is_file()]
        config = configs[0] if configs else stop(f"adapter:{system['adapter']}", "a PEFT adapter", "none", "for a whole model write model:FOLDER")
        system["adapter"], args.model = str(config.parent), args.model or json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]
    if any(not {"predictions", "model"} & set(system) for system in systems):
        args.model = source_of(args.model, "smollm2-135m-instruct-float32", "--model")
    made = run(args, systems, rows, train)
    scores = {name: score([row["messages"][-1]["content"] for row in rows], [one["answer"] for one in some]) for name, some in made.items()}
    table, first = {name: {metric: interval(x) for metric, x in own.items()} for name, own in scores.items()}, next(iter(scores))
    leads = {name: {metric: difference(x, scores[first][metric]) for metric, x in scores[name].items()} for name in list(scores)[1:]}
    costs = {name: {c: round(float(np.mean([one[c] for one in some])), 3) if all(c in one for one in some) else None for c in COSTS}
             for name, some in made.items()}
    files = {re.sub(r"[^\w.-]+", "-", f"predictions_{name}.jsonl"): "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in some)
             for name, some in made.items()}
    facts = {"scores": table, "against": {first: leads}, "costs": costs, "settings": vars(args)}
    write(args.out, files | {"metrics.json": json.dumps(facts, indent=1, default=str),
                             "report.md": (text := report(args, len(rows), table, costs, leads))})
    print(text)
# ---------------------------------------------------------------- model (from here to the end the same lines stand in rag.py)
def source_of(given: str | None, folder: str, flag: str) -> str:
    """A folder or hub id as given; without one, the course's own model, which `python course.py lab` puts into its cache."""
    home = {"win32": os.environ.get("LOCALAPPDATA") or "~/AppData/Local", "darwin": "~/Library/Caches"}.get(sys.platform)
    cache = os.environ.get("COURSE_CACHE") or Path(home or os.environ.get("XDG_CACHE_HOME") or "~/.cache", "fine-tuning-course")
    path = Path(given or Path(cache, folder)).expanduser()
    if not path.is_dir() and not (given and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", given)):
        stop(flag, "a model", f"nothing at {path}", f"give {flag} a folder or a hub id, or run `python course.py lab` in the course's folder once")
    return str(path) if path.is_dir() else given

def load_model(source: str):
    """Tokenizer and model, on a GPU if there is one: in bfloat16 where it can, else float16. On a CPU in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    gpu, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    dtype = torch.float32 if not gpu else torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left")
        tokenizer.get_chat_template()
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError) as error:
        stop(f"--model {source}", "a chat model with safetensors", str(error).split("\n")[0], "check the name; a hub id needs a network once")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer, model.to("cuda" if gpu else "mps" if mps else "cpu").eval()

def generate(tokenizer, model, prompts: list[list[dict]], max_new_tokens: int, batch_size: int) -> list[dict]:
    """Greedy answers in the order of `prompts`, with tokens and seconds of each request (the time of a batch, shared by its rows)."""
    import torch
    order, made = sorted(range(len(prompts)), key=lambda n: len(str(prompts[n]))), {}
    for start in range(0, len(order), batch_size):
        chosen, begin = order[start:start + batch_size], time.perf_counter()
        batch = tokenizer.apply_chat_template([prompts[n] for n in chosen], add_generation_prompt=True, padding=True, return_tensors="pt")
        width, room = batch["input_ids"].shape[1], getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if room and width + max_new_tokens > room:
            stop("prompt and answer", f"at most {room} tokens", width + max_new_tokens, "fewer examples or chunks, or lower --max-new-tokens")
        with torch.inference_mode():
            out = model.generate(**batch.to(model.device), max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        for n, mask, new in zip(chosen, batch["attention_mask"], out[:, width:]):
            made[n] = {"answer": tokenizer.decode(new, skip_special_tokens=True).strip(), "prompt_tokens": int(mask.sum()),
                       "completion_tokens": int((new != tokenizer.pad_token_id).sum()), "seconds": (time.perf_counter() - begin) / len(chosen)}
        print(f"  {len(made)} of {len(prompts)} answers", file=sys.stderr, end="\r" if len(made) < len(prompts) else "\n")
    return [made[n] for n in range(len(prompts))]

def stop(where, expected, found, fix):
    raise SystemExit(f"{where}: expected {expected}, found {found}. Fix: {fix}.")
def text_of(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        stop(f"{path}, line {data.count(10, 0, error.start) + 1}", "UTF-8 text", f"the byte {data[error.start]:#x}", "save the file as UTF-8")
def lines_of(path: Path):
    """(line number, object) of each line of a JSONL file, or of a CSV file with a header."""
    text = text_of(path)
    if path.suffix.lower() == ".csv":
        sign = max(",;\t", key=text.partition("\n")[0].count)  # some spreadsheets write semicolons
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=sign, skipinitialspace=True)
        return (yield from ((reader.line_num, row) for row in reader))
    for number, line in ((n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()):
        try:
            row = json.loads(line)
        except ValueError as error:
            stop(f"{path}, line {number}", "one JSON object", error, f"double quotes, one row a line; an array: jq -c '.[]' {path} > rows.jsonl")
        yield number, row if isinstance(row, dict) else {"found": row}
def read_rows(path: Path, columns: str | None) -> list[dict]:
    """Rows {"id", "messages", ...} that end with a question and its answer. One bad line refuses the file; nothing is dropped."""
    rows, first, roles = [], {}, ("user", "assistant", "system")
    for number, row in lines_of(path):
        for pair in [columns.split(",")] if columns else [("prompt", "completion"), ("question", "answer")]:
            if "messages" not in row and set(pair) <= set(row):
                row["messages"] = sum([row[n] if isinstance(row[n], list) else [{"role": r, "content": row[n]}] for n, r in zip(pair, roles)], [])
        turns = row.get("messages")
        if not (isinstance(turns, list) and all(isinstance(t, dict) and t.get("role") in roles and isinstance(said := t.get("content"), str)
                and said.strip() for t in turns) and [t["role"] for t in turns[-2:]] == ["user", "assistant"] and None not in row):
            fix = "see --help; in a CSV file name two --columns, fill empty cells, write a text that holds a comma between double quotes"
            stop(f"{path}, line {number}", "messages, the last two a user's and an assistant's text, or two columns", str(row)[:200], fix)
        row["id"] = str(row.get("id") or number)
        if first.setdefault(row["id"], number) != number:
            stop(f"{path}, line {number}", "an id of its own", f"{row['id']!r}, as in line {first[row['id']]}", "rename one of the two")
        rows.append(row)
    return rows or stop(path, "at least one row", "none", "put one conversation on each line")
def write(folder: Path, files: dict[str, str | bytes]) -> None:
    """All files appear in the folder, or none: they are written aside first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="part-", dir=folder.parent) as aside:
        for name, content in files.items():
            Path(aside, name).write_bytes(content if isinstance(content, bytes) else content.encode())
        folder.mkdir(exist_ok=True)
        for name in files:
            os.replace(Path(aside, name), folder / name)
def words(text: str) -> list[str]:
    """Words of any script in small letters, without punctuation; numbers stay whole: 0.7, 12:30, 1,250 as 1250."""
    text = re.sub(r"(?<=\d),(?=\d{3}\b)|[.:](?!\d)", lambda m: "" if m[0] == "," else " ", unicodedata.normalize("NFKC", text).casefold())
    return "".join(c if unicodedata.category(c)[0] in "LMN" or c in ".:" else " " for c in text).split()
def interval(values) -> list[float]:
    """[mean, low, high, rows], 95 %: Wilson's interval for zeros and ones (it holds at 0 of n), else the bootstrap over rows."""
    from scipy.stats import binomtest
    x = np.asarray(values, dtype=float)
    share, draws = set(x) <= {0.0, 1.0}, np.random.default_rng(0).choice(x, (2000, len(x))).mean(axis=1)
    low, high = binomtest(int(x.sum()), len(x)).proportion_ci(method="wilson") if share else np.quantile(draws, [0.025, 0.975])
    return [round(float(v), 4) for v in (x.mean(), low, high)] + [len(x)]

if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("Stopped. Nothing is half-written. Run the same command again.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        full, said = re.search("No space left|File too large|quota", str(error)), str(error).split("\n")[0]
        if not full and not isinstance(error, OSError):
            raise
        stop("files", *(("room to write", f"the disk is full ({said})", "free space") if full else ("one to read", said, "check path and network")))
