"""Static token vectors: what is read of a text, and that any text is read calmly and soon."""

import base64
import random
import time

import numpy as np
import pytest
from traitroute.adapters import InputError
from traitroute.router.meaning import MAX_SPLIT, PACKAGED, MeaningEncoder, Vocabulary, packaged_encoder, words_of

TOKENS = ("play", "##ing", "##ed", "a", "game", ".", "cafe", "##s")


@pytest.fixture(scope="module")
def small() -> MeaningEncoder:
    return MeaningEncoder.of(TOKENS, np.random.default_rng(0).normal(size=(len(TOKENS), 16)))


def counted(text: str) -> dict[str, int]:
    vocabulary = Vocabulary(TOKENS)
    places, counts = vocabulary.counts(words_of(text))
    return {vocabulary.tokens[p]: int(n) for p, n in zip(places, counts, strict=True)}


def test_words_are_read_without_case_and_accents() -> None:
    assert words_of("  Café_au LAIT, 3x!") == ["cafe", "_", "au", "lait", ",", "3x", "!"]


def test_known_words_are_counted_and_others_split_into_the_longest_pieces() -> None:
    assert counted("Play a game. Playing games, played a CAFÉ.") == {
        "play": 3, "a": 2, "game": 2, ".": 2, "cafe": 1, "##ing": 1, "##s": 1, "##ed": 1,
    }  # fmt: skip


def test_a_word_with_a_part_that_is_no_piece_says_nothing() -> None:
    assert counted("playful " + "play" + "ing" * 8) == {}


def test_only_so_many_unknown_words_are_split() -> None:
    many = [f"game{'s' * n}{'ed' * m}{'ing' * k}" for n in range(5) for m in range(4) for k in range(3)][1:]
    assert sum(n for t, n in counted(" ".join(many)).items() if t == "game") == MAX_SPLIT < len(many)


def test_one_text_is_encoded_as_many_are(small: MeaningEncoder) -> None:
    texts = ["play a game", "", "cafes", "unknown"]
    vectors = small.encode(texts)
    assert vectors.shape == (4, 16)
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, [small.encode_one(t) for t in texts])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 0, 1, 0], abs=1e-6)
    assert small.encode([]).shape == (0, 16)


def test_eight_bits_keep_the_direction() -> None:
    vectors = np.random.default_rng(1).normal(size=(len(TOKENS), 256)) * np.geomspace(1e-3, 1e3, len(TOKENS))[:, None]
    encoder = MeaningEncoder.of(TOKENS, vectors)
    for i, token in enumerate(TOKENS):
        if not token.startswith("##"):
            assert encoder.encode_one(token) @ vectors[i] / np.linalg.norm(vectors[i]) > 0.9999


def test_an_encoder_comes_back_from_its_file(small: MeaningEncoder) -> None:
    again = MeaningEncoder.from_bytes(small.to_bytes())
    assert again.vocabulary.tokens == TOKENS
    assert again.digest == small.digest
    assert np.array_equal(again.encode_one("playing"), small.encode_one("playing"))
    other = MeaningEncoder.of(TOKENS, np.ones((len(TOKENS), 16)))
    assert other.digest != small.digest


@pytest.mark.parametrize("cut", [0, 7, 100, -1])
def test_a_broken_file_is_said_to_be_one(small: MeaningEncoder, cut: int) -> None:
    with pytest.raises(InputError, match=r"no token vectors can be read .* reinstall"):
        MeaningEncoder.from_bytes(small.to_bytes()[:cut])


def test_a_missing_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("traitroute.router.meaning.PACKAGED", PACKAGED.with_name("gone.safetensors"))
    with pytest.raises(InputError, match=r"gone\.safetensors cannot be read"):
        packaged_encoder.__wrapped__()


@pytest.mark.parametrize(
    ("text", "alike", "unlike"),
    [
        ("What is the plural of mouse?", "Give the plural form of the word goose.", "Translate to German: the house."),
        (
            "Summarise this article in one sentence.",
            "Write a short headline for the news story below.",
            "How many legs do three dogs have?",
        ),
        (
            "Tom has 3 apples and buys 5 more. How many apples does he have?",
            "Solve: a farmer sold 12 of his 40 sheep, how many are left?",
            "Is the following comment toxic? You are an idiot.",
        ),
    ],
)
def test_the_same_task_in_other_words_is_nearer_than_another_task(text: str, alike: str, unlike: str) -> None:
    one, two, three = packaged_encoder().encode([text, alike, unlike])
    assert one @ two > one @ three + 0.1


_RANDOM = random.Random(0)
HOSTILE = {
    "letters": "a" * 1_000_000,
    "spaces": " " * 1_000_000,
    "empty lines": "x" + "\n" * 1_000_000 + "x",
    "emoji": "😀" * 1_000_000,
    "base64": base64.b64encode(_RANDOM.randbytes(750_000)).decode(),
    "unknown words": " ".join("".join(_RANDOM.choices("qxzjvkw", k=24)) for _ in range(40_000)),
    "accents": "e" + "\u0301" * 1_000_000,
    "hangul": "각" * 1_000_000,
    "NUL": "\0" * 1000 + "word\0word",
    "lone surrogates": "\ud800 word \udfff" * 1000,
    "marks": "#" * 1_000_000,
    "numbers": "1 2 3 45 678 " * 100_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_any_text_is_read_calmly_and_soon(text: str) -> None:
    encoder = packaged_encoder()
    vector = encoder.encode_one(text)
    times = []
    for _ in range(5):
        start = time.process_time()
        encoder.encode_one(text)
        times.append(time.process_time() - start)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5) or not vector.any()
    assert min(times) < 0.02
