"""What the static encoder of the router (router/meaning.py) tells of a prompt, beside other encoders, and its time.

    python benchmarks/meaning.py --data DATA --data PROMPTS            the tables of docs/decisions.md
    python benchmarks/meaning.py --data DATA --data PROMPTS --distil   make router/meaning.safetensors anew first

The folders hold <data set>/{train,test}.jsonl as in benchmarks/outcomes.py. What MiniLM says of a text is kept in
--work: it takes 10 to 40 ms a text, all else a few minutes. Two questions are asked of every encoder, about each test
prompt. *Reworded*: is the nearest of all prompts in other wordings of the same data set? *Near*: is the nearest prompt
of all other data sets from one of the same group? Means are over data sets, on the groups to design on and on those to
confirm on. *With words*: the same where the cosine of hashed words is added, as the router has both.

`--wordllama FOLDER` adds the package wordllama, unpacked or installed there: its tokenizer is read with `tokenizers`.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from routing.distil import TokenVectors, distil, read_tokens
from routing.gather import SentenceCache
from routing.plan import Plan, read_plan
from routing.protocols import is_confirmation
from scipy.sparse import csr_matrix
from traitroute.profiling.analysis.similarity import load_encoder
from traitroute.router import RequestTokens, request_text
from traitroute.router.meaning import PACKAGED, MeaningEncoder, packaged_encoder

Array32 = NDArray[np.float32]
Encode = Callable[[Sequence[str]], NDArray[np.floating[Any]]]
Likeness = Callable[[NDArray[np.bool_]], NDArray[Any]]
"""From which prompts are asked about to their cosines with all, (asked, n)."""
NEAREST = 10
LENGTHS = (50, 200, 500, 1000, 2000, 4000, 8000)
TIMED = 400


@dataclass(frozen=True)
class Prompts:
    """Prompts with the data set, group, wording and item of each."""

    texts: Sequence[str]
    dataset: NDArray[np.str_]
    group: NDArray[np.str_]
    wording: NDArray[np.str_]
    item: NDArray[np.str_]

    @classmethod
    def asked(cls, plan: Plan) -> "Prompts":
        """The test prompts of every data set."""
        rows = [
            (request_text({"messages": list(c)}), a.dataset, a.group, str(r["wording"]), str(r["item"]))
            for a in plan.asked
            if a.kind == "main"
            for c, r in zip(a.conversations, a.rows, strict=True)
        ]
        texts, *columns = zip(*rows, strict=True)
        return cls(texts, *(np.array(c) for c in columns))

    @property
    def confirms(self) -> NDArray[np.bool_]:
        """Which are of a group to confirm on, (n,)."""
        return np.array([is_confirmation(str(g)) for g in self.group])


def same(values: NDArray[np.str_], asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each prompt asked about has the value of each prompt, (asked, n)."""
    return values[asked][:, None] == values


def reworded(prompts: Prompts, likeness: NDArray[Any], asked: NDArray[np.bool_]) -> tuple[float, float]:
    """Of prompts of data sets with several wordings: share whose nearest is of the data set, and mean reciprocal rank;
    prompts of the same wording or item are left out.
    """
    dataset = same(prompts.dataset, asked)
    barred = dataset & (same(prompts.wording, asked) | same(prompts.item, asked))
    return _ranked(likeness, dataset & ~barred, barred, prompts.dataset[asked])


def near(prompts: Prompts, likeness: NDArray[Any], asked: NDArray[np.bool_]) -> tuple[float, float]:
    """The same of groups with several data sets: the nearest is of the group; the prompt's own data set is left out."""
    barred = same(prompts.dataset, asked)
    return _ranked(likeness, same(prompts.group, asked) & ~barred, barred, prompts.dataset[asked])


def _ranked(
    likeness: NDArray[Any], right: NDArray[np.bool_], barred: NDArray[np.bool_], dataset: NDArray[np.str_]
) -> tuple[float, float]:
    open_ = np.where(barred, -np.inf, likeness)
    best = np.where(right, open_, -np.inf).max(axis=1, keepdims=True)
    rank = 1 + (open_ > best).sum(axis=1)
    there = right.any(axis=1)
    means = [(1 / rank[of] == 1, 1 / rank[of]) for d in np.unique(dataset[there]) for of in [there & (dataset == d)]]
    return float(np.mean([first.mean() for first, _ in means])), float(np.mean([each.mean() for _, each in means]))


def agreement(likeness: NDArray[Any], reference: NDArray[Any], group: NDArray[np.bool_]) -> float:
    """Share of the NEAREST of other groups that are those of the reference."""
    both = [np.argpartition(-np.where(group, -np.inf, x), NEAREST, axis=1)[:, :NEAREST] for x in (likeness, reference)]
    return float(np.mean([len(set(a) & set(b)) / NEAREST for a, b in zip(*both, strict=True)]))


def cosines(vectors: NDArray[Any], asked: NDArray[np.bool_]) -> NDArray[Any]:
    """Cosines (asked, n) of centred vectors: what all prompts have in common says nothing."""
    around = vectors.astype(np.float32) - vectors.mean(axis=0, dtype=np.float32)
    unit = around / np.maximum(np.linalg.norm(around, axis=1, keepdims=True), 1e-9)
    return unit[asked] @ unit.T


def hashed(texts: Sequence[str]) -> csr_matrix:
    """Tf-idf of the hashed words of texts, with those of their ends, rows of norm 1 (n, 2 · N_HASHES)."""
    from routing.table import to_sparse
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.preprocessing import normalize

    tokens = [RequestTokens.read(t) for t in texts]
    parts = [to_sparse([t.whole for t in tokens]), to_sparse([t.edges for t in tokens])]
    return csr_matrix(normalize(hstack([TfidfTransformer(sublinear_tf=True).fit_transform(p) for p in parts])))


def wordllama(folder: Path) -> Encode:
    """The static vectors of the package wordllama, averaged over a text as it does."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    [vectors] = load_file(folder / "weights" / "l2_supercat_256.safetensors").values()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    tokenizer.no_padding()
    vectors = vectors.astype(np.float32)

    def encode(texts: Sequence[str]) -> Array32:
        read = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return np.array([vectors[e.ids].mean(axis=0) for e in read])

    return encode


def alone(tokens: TokenVectors) -> MeaningEncoder:
    """Vectors as model2vec makes them: each token by itself, without texts to learn from."""
    return MeaningEncoder.of(tokens.tokens, tokens.alone - tokens.alone.mean(axis=0))


def show_quality(prompts: Prompts, likenesses: dict[str, Likeness]) -> None:
    """Print what each encoder answers, on the groups to design on and on those to confirm on."""
    table = Table("encoder", *(f"{h} {p}" for p in ("design", "confirm") for h in ("reworded", "near", "agrees")))
    reference = next(iter(likenesses.values()))
    for name, likeness in likenesses.items():
        cells = []
        for asked in (~prompts.confirms, prompts.confirms):
            found = likeness(asked)
            values = [reworded(prompts, found, asked), near(prompts, found, asked)]
            cells += [f"{100 * first:.1f} / {100 * mean:.1f}" for first, mean in values]
            cells.append(f"{100 * agreement(found, reference(asked), same(prompts.group, asked)):.0f}%")
        table.add_row(name, *cells)
    Console(width=160).print(table)


def show_times(texts: Sequence[str]) -> None:
    """Print the processor time that a text of each length takes, and what loading takes."""
    encoder, pool = packaged_encoder(), "\n\n".join(texts)
    table = Table("characters", "median ms", "p99 ms")
    random = np.random.default_rng(0)
    for length in LENGTHS:
        starts = random.integers(0, len(pool) - length, TIMED)
        found = []
        for text in [pool[s : s + length] for s in starts]:
            start = time.thread_time()
            encoder.encode_one(text)
            found.append(1000 * (time.thread_time() - start))
        table.add_row(str(length), f"{np.median(found):.3f}", f"{np.quantile(found, 0.99):.3f}")
    Console().print(table)
    code = (
        "import time; t = time.perf_counter(); from traitroute.router.meaning import packaged_encoder; "
        "i = time.perf_counter(); packaged_encoder().encode_one('x'); print(i - t, time.perf_counter() - i)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    imported, loaded = map(float, run.stdout.split())
    held = encoder.steps.nbytes + encoder.scale.nbytes
    print(f"import with numpy {imported:.2f} s, loading {loaded:.2f} s, file {PACKAGED.stat().st_size / 1e6:.1f} MB, "
          f"vectors in memory {held / 1e6:.1f} MB of width {encoder.width}")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables, and before that make the vectors anew if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, action="append", required=True, help="folder of <data set>/test.jsonl")
    parser.add_argument("--work", type=Path, default=Path("runs/meaning"), help="where what MiniLM says is kept")
    parser.add_argument("--distil", action="store_true", help="make router/meaning.safetensors anew")
    parser.add_argument("--wordllama", type=Path, help="folder of the package wordllama")
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    plan = read_plan(args.data, args.work)
    prompts, say = Prompts.asked(plan), SentenceCache(args.work / "sentences.npz")
    tokens = kept_tokens(args.work / "tokens.npz")
    if args.distil:
        data = distil(tokens).to_bytes()
        PACKAGED.write_bytes(data)
        print(f"{PACKAGED}: {len(tokens.tokens)} tokens, {len(data) / 1e6:.1f} MB")
    show_times(prompts.texts)
    encoders = {"MiniLM": say, "ours": packaged_encoder().encode, "tokens alone (model2vec)": alone(tokens).encode}
    if args.wordllama:
        encoders["wordllama"] = wordllama(args.wordllama)
    made = {name: encode(prompts.texts) for name, encode in encoders.items()}
    words = hashed(prompts.texts)

    def of_words(asked: NDArray[np.bool_]) -> NDArray[Any]:
        return (words[asked] @ words.T).toarray().astype(np.float32)

    def of_both(vectors: NDArray[Any], asked: NDArray[np.bool_]) -> NDArray[Any]:
        return cosines(vectors, asked) + of_words(asked)

    likenesses: dict[str, Likeness] = {name: partial(cosines, v) for name, v in made.items()}
    likenesses["hashed words and ends"] = of_words
    likenesses |= {f"{name}, with words": partial(of_both, v) for name, v in made.items()}
    show_quality(prompts, likenesses)


def kept_tokens(file: Path) -> TokenVectors:
    """What MiniLM says of each token, read from `file` or asked for and kept there."""
    if not file.is_file():
        made = read_tokens(load_encoder())
        np.savez(file, tokens=np.array(made.tokens), alone=made.alone, words=made.words)
    with np.load(file) as kept:
        return TokenVectors(tuple(kept["tokens"].tolist()), kept["alone"], kept["words"])


if __name__ == "__main__":
    main()
