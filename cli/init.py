"""`traitroute init`: from adapters and examples to a suite, a first look at it, and what a full profile costs."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..adapters import AllowedSources, InputError
from .adapters import AllowRoot
from .console import console, say, show_matrix, warn
from .options import DEFAULT_REGISTRY, RegistryPath, engine_name, names
from .profile import AdapterOption, AdaptersOption, SameBaseOption, given_adapters, known_base

if TYPE_CHECKING:
    from ..profiling import Suite
    from ..profiling.smoke import Smoke


def init(
    adapter: AdapterOption = None,
    adapters: AdaptersOption = None,
    examples: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLACE",
            help="Rows of your tasks: a folder of TASK/test.jsonl or TASK.jsonl (.csv, .parquet), one of these, or a "
            "suite; repeatable.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Base model: a Hub id, a folder or a GGUF file [default: the one the adapters name]."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The suite that is written.")] = Path("suite.yaml"),
    registry: RegistryPath = DEFAULT_REGISTRY,
    test: Annotated[int, typer.Option(min=1, help="Examples a task in the full profile.")] = 100,
    smoke: Annotated[
        int, typer.Option(min=0, help="Examples a task in the smoke profile, with at most three adapters; 0: none.")
    ] = 8,
    engine: Annotated[str, typer.Option(help="auto, transformers or vllm.")] = "auto",
    same_base: SameBaseOption = False,
    allow_root: AllowRoot = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a suite that is there.")] = False,
) -> None:
    """Make a suite of the adapters you have and examples of your tasks, try a few, and say what a full profile costs.

    On a terminal it asks for what is not given. Rows have `input` (the prompt as it is sent), `target` (the right
    answer), and for classification `label`. Nothing is trained, and nothing but the suite is written.

    Examples:

        traitroute init --adapters ./loras --examples ./my_tasks

        traitroute init --adapter polite=./polite-lora --examples ./my_tasks/refunds --examples ./my_tasks/faq
    """
    from ..profiling import target_suite

    chosen = engine_name(engine)
    if out.exists() and not force:
        raise InputError(f"{out} is there already: profile it, give another --out, or write over it with --force")
    if not (adapter or adapters):
        adapter, adapters = _asked_adapters()
    given = given_adapters(adapter, adapters, same_base=same_base)
    if nameless := next((each.name for each in given if each.uri is None), None):
        raise InputError(f"init takes adapters by their place: --adapter {nameless}=FOLDER, a Hub id or a URL")
    places = examples or names(_asked("Examples of your tasks: a folder of TASK.jsonl", option="--examples"))
    base = (
        base or known_base(registry, given) or _asked("Base model, a Hub id, a folder or a GGUF file", option="--base")
    )
    suite = target_suite(places, given, base_model=base).altered(test=test)
    seen = None
    if smoke:
        seen = _smoke(suite, smoke, chosen, AllowedSources.from_environment(allow_root or (), typed=True))
        suite = suite.without_adapters(seen.set_aside)
    _write(suite, out)
    _say_next(suite, out, registry, seen)


def _asked_adapters() -> tuple[list[str] | None, Path | None]:
    place = _asked("Your adapters: a folder of PEFT folders, or NAME=PLACE, ...", option="--adapters")
    folder = Path(place).expanduser()
    return (None, folder) if folder.is_dir() else (names(place), None)


def _asked(question: str, *, option: str) -> str:
    """What a person on a terminal answers.

    Raises:
        InputError: nobody is there to be asked.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputError(f"{option} is not given, and this is no terminal to ask on")
    return typer.prompt(question).strip()


def _smoke(suite: "Suite", examples: int, engine: str, allowed: AllowedSources) -> "Smoke":
    from ..profiling.smoke import smoke_profile

    with console.status(f"smoke profile: {examples} examples a task"):
        seen = smoke_profile(suite, allowed=allowed, engine=engine_name(engine), examples=examples)
    for name, why in seen.set_aside.items():
        warn(f"{name} was set aside: {why}")
    if not seen.adapters:
        raise InputError("no adapter is left to profile: see the reasons above")
    rows = {
        name: [f"{100 * score:.0f}" for score in scores]
        for name, scores in zip(("base", *seen.adapters), seen.scores, strict=True)
    }
    title = f"smoke profile: mean score in % of {seen.examples} answers, {seen.seconds:.0f} s"
    show_matrix(title, rows, seen.tasks)
    if seen.alike:
        warn(f"{', '.join(seen.alike)} answered as base on these few examples: a full profile tells whether everywhere")
    return seen


def _write(suite: "Suite", out: Path) -> None:
    out.write_text(suite.to_yaml(), encoding="utf-8")
    say(f"wrote {out}: {len(suite.adapters)} adapters, {len(suite.tasks)} tasks, base model {suite.base_model}")


def _say_next(suite: "Suite", out: Path, registry: object, seen: "Smoke | None") -> None:
    if seen is not None:
        say(
            f"a full profile asks for {seen.answers} answers: about {_duration(seen.full_s)} here, as fast as these "
            "few; a killed one goes on where it was"
        )
    option = "" if registry == DEFAULT_REGISTRY else f" --registry {registry}"
    say("next:")
    for command in _commands(suite, out):
        say(f"  traitroute {command}{option}")


def _commands(suite: "Suite", out: Path) -> Sequence[str]:
    prompt = " ".join(suite.tasks[0].test_examples[0].prompt.split())[:60].replace('"', "'").replace("$", "")
    return (f"profile {out}", f'route "{prompt}" --explain', "serve")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
