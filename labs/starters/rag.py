"""Answer questions from your own documents, and measure how well. One file: copy it, read it, change it.
    python rag.py index  --docs handbook/                                     make the search index, or bring it up to date
    python rag.py search "How long does the filter last?" --docs handbook/    what is found; loads no language model
    python rag.py ask    "How long does the filter last?" --docs handbook/    an answer with its sources
    python rag.py eval   questions.jsonl --docs handbook/ --out rag-scores    scores with intervals, and every answer
Documents: a folder or one file of .md, .txt, and .jsonl with {"text": ..., "id": ..., "title": ...} on each line.
Questions: JSONL with {"messages": [...]}, {"prompt", "completion"} or {"question", "answer"}, or CSV with two columns.
A row may hold "sources", ids of documents (gives recall), and "accepted", other right answers. Not answered: gold = --refusal.
Needs: pip install "lancedb>=0.40" "sentence-transformers>=6.2" "transformers>=5.23" "torch>=2.13" scipy
"""
import argparse, csv, hashlib, io, json, logging, os, re, shutil, sys, tempfile, time, unicodedata  # noqa: E401
from pathlib import Path
import numpy as np  # what takes long to import is imported where it is used: --help and mistakes answer at once
os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "LANCEDB_LOG": "error", "TRANSFORMERS_VERBOSITY": "error"}
logging.getLogger("bitsandbytes").setLevel("ERROR")  # else its import advises about a kernel that nobody needs
LANGUAGES = """Arabic Danish Dutch English Finnish French German Greek Hungarian Italian Norwegian Portuguese Romanian Russian Spanish
Swedish Tamil Turkish""".split()  # whose word stems LanceDB knows
# ---------------------------------------------------------------- documents -> chunks -> an index on disk
def read_documents(source: Path) -> list[tuple[str, str, str]]:
    """[(id, title, text)] of each .md and .txt file (its path is its id) and of each line of .jsonl files."""
    documents = {}
    for path in [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.suffix.lower() in (".md", ".txt", ".jsonl")):
        name = path.name if path == source else path.relative_to(source).as_posix()
        for line, row in lines_of(path) if path.suffix.lower() == ".jsonl" else [(1, {"id": name, "text": text_of(path)})]:
            key, text = str(row.get("id", f"{name}:{line}")), row.get("text")
            if not isinstance(text, str) or key in documents:
                stop(f"{path}, line {line}", "a text, and an id of its own", f"{key!r} twice" if key in documents else list(row), "mend the line")
            head = re.match(r"\s*#[ \t]+(.+)\n?", text)  # the first heading is the title
            documents[key] = (key, str(row.get("title") or (head[1].strip() if head else Path(key).stem)), text[head.end():] if head else text)
    return list(documents.values())

def cut(documents: list[tuple[str, str, str]], longest: int) -> list[dict]:
    """One chunk a section, cut again after `longest` words. Each carries its titles: "press it" does not say what to press."""
    chunks = []
    for doc, title, body in documents:
        parts = ["", *re.split(r"(?m)^#{1,6}[ \t]+(.*)$", body)]  # heading, text, heading, text ...
        for heading, text in zip(parts[::2], parts[1::2]):
            spans = [m.span() for m in re.finditer(r"\S+", text)]
            for start in range(0, len(spans), longest):
                piece = text[spans[start][0]:spans[min(start + longest, len(spans)) - 1][1]]
                chunks.append({"number": len(chunks), "doc": doc, "content": f"{title}: {heading}".removesuffix(": ") + f"\n{piece}"})
    return chunks

def update_index(args, embedder) -> None:
    """Only what changed is embedded. The table is built aside; index.json names the one that counts and is replaced last, in one step."""
    import lancedb.index, pyarrow  # noqa: E401
    folder, chunks, known = args.index, cut(read_documents(args.docs), args.words), {}
    if not chunks:
        stop(f"--docs {args.docs}", ".md, .txt or .jsonl documents with text", "none", "check the path")
    digest = hashlib.sha256(json.dumps([args.language, chunks]).encode()).hexdigest()
    if folder.exists() and any(not p.name.startswith("rag-part-") for p in folder.iterdir()):
        table, about, same = open_index(folder, embedder)
        if same and about["digest"] == digest:
            return print(f"{folder}: up to date, {len(chunks)} chunks", file=sys.stderr)
        if about.get("docs") != str(args.docs) or not same:
            print(f"{folder}: was made of {about.get('docs')} by {about['embedder']}, is now made of {args.docs} by {args.embedder}", file=sys.stderr)
        known = {row["content"]: row["vector"] for row in table.search().select(["content", "vector"]).to_list()} if same else {}
    new = list({c["content"]: 0 for c in chunks if c["content"] not in known})
    known |= dict(zip(new, embedder.encode_document(new, normalize_embeddings=True))) if new else {}
    folder.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix="rag-part-", dir=folder))
    try:
        matrix = np.array([known[c["content"]] for c in chunks], dtype=np.float32)
        column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(matrix.ravel()), matrix.shape[1])
        table = lancedb.connect(str(aside)).create_table("new", pyarrow.Table.from_pylist(chunks).append_column("vector", column))
        table.create_index("content", config=lancedb.index.FTS(language=args.language))
        (aside / "new.lance").rename(folder / f"{aside.name}.lance")
        write(folder, {"index.json": json.dumps({"table": aside.name, "digest": digest, "embedder": args.embedder, "docs": str(args.docs)})})
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    for left in [p for p in folder.glob("rag-part-*") if p.name != f"{aside.name}.lance"]:
        shutil.rmtree(left, ignore_errors=True)  # the table before, and what a stopped update left
    long = sum(len(embedder.tokenizer(text)["input_ids"]) > (embedder.max_seq_length or np.inf) for text in new)
    print(f"{folder}: {len(chunks)} chunks, {len(new)} texts embedded, {long} of them cut by the embedder (then lower --words)", file=sys.stderr)
# ---------------------------------------------------------------- answer, judge
def answer(args, rows: list[dict], hits: list[list[dict]]) -> list[dict]:
    """One prediction a row. Where nothing lies near enough, the refusal is given without asking the model."""
    made = [{"id": row["id"], "prompt": reading_prompt(row["messages"][:-1], found[:args.chunks], args.refusal), "answer": args.refusal,
             "gold": row["messages"][-1]["content"], "prompt_tokens": 0, "completion_tokens": 0, "seconds": 0.0} for row, found in zip(rows, hits)]
    asked = [one for one, found in zip(made, hits) if found and found[0]["closest"] >= args.min_cosine]
    for one, reply in zip(asked, generate(*load_model(args.model), [one["prompt"] for one in asked], args.max_new_tokens, 8) if asked else []):
        one |= reply
    for one, found in zip(made, hits):
        read = [] if holds(one["answer"], args.refusal) else found[:args.chunks]
        one["sources"] = list({hit["doc"]: 0 for hit in read})
        one["stands_in"] = next((hit["doc"] for hit in read if holds(hit["content"], one["answer"])), None)
    return made

def holds(text: str, part: str) -> bool:
    return bool(words(part)) and f" {' '.join(words(part))} " in f" {' '.join(words(text))} "  # the words stand there side by side

def judge(args, rows: list[dict], hits: list[list[dict]], made: list[dict]) -> dict[str, list[float]]:
    """Score -> [mean, low, high, rows]; each row's own scores are added to its prediction."""
    for row, found, one in zip(rows, hits, made):
        accepted, sources = ([x] if isinstance(x := row.get(key) or [], str) else x for key in ("accepted", "sources"))
        forms, said, none, silent = [one["gold"], *accepted], one["answer"], holds(one["gold"], args.refusal), holds(one["answer"], args.refusal)
        scores = {"exact": silent if none else not silent and any(words(said) == words(form) for form in forms),
                  "contains": silent if none else not silent and any(holds(said, form) for form in forms),
                  "refusal accuracy": silent == none, "refuses, unanswerable" if none else "refuses, answerable": silent}
        scores |= {} if silent else {"stands in what was read": one["stands_in"] is not None}
        documents = list({hit["doc"]: 0 for hit in found})  # several chunks of one document count once, at their first place
        for k in (1, 3, 5, 10) if sources else ():
            scores[f"recall@{k}"] = len(set(documents[:k]) & set(sources)) / len(set(sources))
        one |= {"scores": {name: float(value) for name, value in scores.items()}, "closest": found[0]["closest"] if found else None}
    scored = [one["scores"] for one in made]
    return {name: interval([scores[name] for scores in scored if name in scores]) for name in sorted(set().union(*scored))}
# ---------------------------------------------------------------- command line
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("command", choices=["index", "search", "ask", "eval"])
    add("what", nargs="?", default="", help="search, ask: the question. eval: the file of questions")
    add("--docs", type=Path, help="documents; without it the index is taken as it is")
    add("--index", type=Path, default="rag-index", help="folder of the index (%(default)s)")
    add("--words", type=int, default=170, help="longest chunk; 170 English words are about the 256 tokens that the default embedder reads")
    add("--language", choices=LANGUAGES, default="English", help="of the documents, for word stems in keyword search (%(default)s)")
    add("--embedder", help="hub id or folder of a sentence-transformers model (the course's all-MiniLM-L6-v2)")
    add("--model", default=os.environ.get("COURSE_MODEL"), help="hub id or folder of a chat model ($COURSE_MODEL, or the course's)")
    add("--mode", choices=["hybrid", "vector", "keyword"], default="hybrid", help="way to search (%(default)s)")
    add("--chunks", type=int, default=3, help="how many chunks the model reads (%(default)s)")
    add("--min-cosine", type=float, default=0.25, help="refuse when the nearest chunk is further away (%(default)s); depends on the embedder")
    add("--refusal", default="Not in our documents.", help="what is said when the documents do not answer (%(default)s)")
    add("--max-new-tokens", type=int, default=64, help="longest answer (%(default)s)")
    add("--columns", help="eval of a CSV: its two columns, such as question,answer")
    add("--out", type=Path, default="rag-scores", help="eval: folder for metrics.json and predictions.jsonl (%(default)s)")
    add("--force", action="store_true", help="eval: replace the files of an earlier run in --out")
    args = parser.parse_args()
    if (args.command == "index") == bool(args.what.strip()) or (args.command == "index" and not args.docs) or min(args.words, args.chunks) < 1:
        parser.error("index wants --docs; search and ask want a question; eval wants a file of questions; counts are 1 or more")
    if args.command == "eval" and args.out.exists() and not args.force:
        stop(f"--out {args.out}", "a folder that is not there yet", "this one", "name another, or give --force to replace the files in it")
    turns = [{"role": "user", "content": args.what}, {"role": "assistant", "content": ""}]
    rows = read_rows(Path(args.what), args.columns) if args.command == "eval" else [{"id": "1", "messages": turns}]
    args.embedder = source_of(args.embedder, "all-minilm-l6-v2-0.1.0", "--embedder")
    args.model = source_of(args.model, "smollm2-135m-instruct-float32", "--model") if args.command in ("ask", "eval") else None
    from sentence_transformers import SentenceTransformer
    embedder = SentenceTransformer(args.embedder)
    if args.docs:
        update_index(args, embedder)
    if args.command == "index":
        return
    hits = search(args, embedder, [row["messages"][-2]["content"] for row in rows])
    if args.command == "search":
        return print(*(f"{rank}. {hit['doc']} | {hit['content']}\n" for rank, hit in enumerate(hits[0][:args.chunks], start=1)), sep="\n")
    made = answer(args, rows, hits)
    if args.command == "ask":
        return print(made[0]["answer"], *(f"  source: {d}" + " (word for word)" * (d == made[0]["stands_in"]) for d in made[0]["sources"]), sep="\n")
    scores = judge(args, rows, hits, made)
    write(args.out, {"predictions.jsonl": "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in made),
                     "metrics.json": json.dumps({"scores": scores, "settings": {k: str(v) for k, v in vars(args).items()}}, indent=2)})
    print(*(f"{name:24} {mean:.3f} [{low:.3f}, {high:.3f}]  {count} rows" for name, (mean, low, high, count) in scores.items()), sep="\n")
# ---------------------------------------------------------------- search
def open_index(folder: Path, embedder):
    """The table that counts, what index.json says of it, and whether this embedder made it."""
    import lancedb
    try:
        about = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        table = lancedb.connect(str(folder)).open_table(about["table"])
    except (OSError, ValueError, LookupError, TypeError):
        stop(folder, "an index made by rag.py", "none", "name another folder, or make one: python rag.py index --docs ... --index ...")
    first = table.search().limit(1).to_list()[0]
    now, then = embedder.encode_document([first["content"]], normalize_embeddings=True)[0], np.array(first["vector"])
    return table, about, now.shape == then.shape and np.allclose(now, then, atol=0.01)

def search(args, embedder, questions: list[str]) -> list[list[dict]]:
    """Up to 40 chunks a question, best first. Hybrid merges vector and keyword search by rank (Cormack et al. 2009, SIGIR)."""
    from lancedb.query import MatchQuery
    (table, about, same), found = open_index(args.index, embedder), []
    if not same:
        stop(args.index, f"an index of {args.embedder}", f"one of {about['embedder']}", "give that --embedder, or index again with --docs")
    for question, vector in zip(questions, embedder.encode_query(questions, normalize_embeddings=True)):
        near = table.search(vector, vector_column_name="vector").distance_type("cosine").limit(40).to_list()
        worded = table.search(MatchQuery(question, "content"), query_type="fts").limit(40).to_list()
        lists = [sorted(near, key=lambda r: (r["_distance"], r["number"])), sorted(worded, key=lambda r: (-r["_score"], r["number"]))]
        fused, closest = {}, round(1 - lists[0][0]["_distance"], 4)
        for ranked in {"hybrid": lists, "vector": lists[:1], "keyword": lists[1:]}[args.mode]:
            for rank, row in enumerate(ranked, start=1):
                hit = fused.setdefault(row["number"], {"doc": row["doc"], "content": row["content"], "closest": closest, "score": 0.0})
                hit["score"] += 1 / (60 + rank)
        found.append(sorted(fused.values(), key=lambda hit: -hit["score"]))
    return found

def reading_prompt(turns: list[dict], hits: list[dict], refusal: str) -> list[dict]:
    """The conversation, with what was found before its last question. Its own system turn stays; ours stands in where there is none."""
    ours = f"Answer the question with a few words from the text above it. If the text does not say it, write: {refusal}"
    text = "\n\n".join(hit["content"] for hit in hits) + f"\nQuestion: {turns[-1]['content']}"
    return [*([] if turns[0]["role"] == "system" else [{"role": "system", "content": ours}]), *turns[:-1], {"role": "user", "content": text}]
# ---------------------------------------------------------------- model (from here to the end the same lines stand in compare.py)
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
