"""What the documents ask a reader to type, to run or to open exists and works."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from traitroute.cli.main import app
from typer.core import TyperGroup

from .cli.conftest import profiled  # noqa: F401
from .servers import serving

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"

FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(<?([^)\s>]+)>?[^)]*\)")
ASSIGNMENT = re.compile(r"\w+=")


def commands(markdown: str) -> Iterator[list[str]]:
    """The commands of the fenced bash blocks, word by word, without variables set before them."""
    for language, block in FENCED.findall(markdown):
        if language == "bash":
            yield from _commands(block)


def check_traitroute(arguments: list[str]) -> None:
    """Let the command line itself parse the arguments, without running anything."""
    name, command = "traitroute", typer.main.get_command(app)
    while isinstance(command, TyperGroup) and arguments and arguments[0] != "--help":
        name, command, arguments = command.resolve_command(typer.Context(command), arguments)
    assert name and command
    if "--help" not in arguments:
        command.make_context(name, list(arguments))


def missing_targets(arguments: list[str]) -> list[str]:
    """The targets of a `make` command that the Makefile lacks."""
    makefile = (ROOT / "Makefile").read_text()
    targets = [a for a in arguments if not a.startswith("-") and not ASSIGNMENT.match(a)]
    return [t for t in targets if not re.search(rf"^{re.escape(t)}:", makefile, re.MULTILINE)]


def broken_links(document: Path) -> list[str]:
    """The relative links of a document that lead to no file."""
    links = LINK.findall(FENCED.sub("", document.read_text(encoding="utf-8")))
    local = [link for link in links if not re.match(r"[a-z]+:|#", link)]
    return [link for link in local if not (document.parent / link.partition("#")[0]).exists()]


def _commands(block: str) -> Iterator[list[str]]:
    # A comment swallows its line end; doubled, one is left to end the command before it.
    text = block.replace("\\\n", " ").replace("\n", "\n\n")
    words = shlex.shlex(text, posix=True, punctuation_chars="\n;|&")
    words.whitespace = " \t"
    words.whitespace_split = True
    command: list[str] = []
    for word in [*words, "\n"]:
        if set(word) <= set("\n;|&"):
            if command:
                yield command
            command = []
        elif command or not (ASSIGNMENT.match(word) or word == "$"):
            command.append(word)


def of_readme(program: str) -> list[list[str]]:
    found = commands(README.read_text(encoding="utf-8"))
    return [words[1:] for words in found if Path(words[0]).name == program]


def test_every_traitroute_command_of_the_readme_parses() -> None:
    lines = of_readme("traitroute")
    assert lines
    for arguments in lines:
        check_traitroute(arguments)


def test_every_make_target_of_the_readme_exists() -> None:
    lines = of_readme("make")
    assert lines
    assert [missing_targets(arguments) for arguments in lines] == [[]] * len(lines)


def test_every_link_to_a_file_resolves() -> None:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    assert README in documents
    broken = {d.name: links for d in documents if (links := broken_links(d))}
    assert broken == {}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("serve --prot 1", "No such option"),
        ("serve --port x", "valid integer"),
        ("profile --data", "requires an argument"),
        ("route", "Missing"),
        ("sever", "No such command"),
        ("adapters lst", "No such command"),
    ],
)
def test_a_command_that_does_not_parse_would_be_found(line: str, complaint: str) -> None:
    with pytest.raises(Exception, match=complaint):
        check_traitroute(line.split())


def test_a_missing_target_or_file_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "here.md").write_text("[a](here.md#top) [b](https://x.y) [c](#d) [e](gone.md)")
    assert broken_links(tmp_path / "here.md") == ["gone.md"]
    assert missing_targets(["-j2", "demo", "ARGS=x", "dmeo"]) == ["dmeo"]


def test_commands_are_found_between_comments_pipes_and_continuations() -> None:
    block = """```bash
# don't
A=1 traitroute route "one # two"  # three
echo x | traitroute route - \\
    --json && make demo
```
"""
    assert list(commands(block)) == [
        ["traitroute", "route", "one # two"],
        ["echo", "x"],
        ["traitroute", "route", "-", "--json"],
        ["make", "demo"],
    ]


def python_blocks() -> list[str]:
    return [block for language, block in FENCED.findall(README.read_text(encoding="utf-8")) if language == "python"]


@pytest.mark.parametrize("block", [b for b in python_blocks() if "http://" not in b])
def test_python_of_the_readme_runs_beside_a_registry(
    block: str,
    profiled: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(profiled.parent)
    exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "because" in printed
    assert "mean: " in printed


async def _answer(request: Request) -> JSONResponse:
    """A chat completion as a routing server answers it."""
    model = (await request.json())["model"]
    message = {"role": "assistant", "content": f"asked for {model}"}
    body = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "critic",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    return JSONResponse(body, headers={"x-traitroute-adapter": "critic", "x-traitroute-gain": "+0.500"})


@pytest.mark.parametrize("block", [b for b in python_blocks() if "http://" in b])
def test_python_of_the_readme_runs_against_a_server(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openai", reason="needs the client: pip install 'traitroute[client]'")
    server = Starlette(routes=[Route("/v1/chat/completions", _answer, methods=["POST"])])
    with serving(server) as url:
        exec(compile(block.replace("http://localhost:8000", url), "README.md", "exec"), {})
    assert capsys.readouterr().out == "critic +0.500\nasked for auto\n"
