"""`traitroute profile`: train, or take adapters that are there; measure, fit, record."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ..adapters import AllowedSources, InputError, Location, Method, Registry, RegistryError
from .adapters import AllowRoot
from .console import console, progress_bars, say, show_matrix, warn
from .options import DEFAULT_REGISTRY, Concurrency, On, RegistryPath, ServerKey, engine_name, names, secret

if TYPE_CHECKING:
    from ..profiling import GivenAdapter, Profile, Suite
    from ..profiling.execution.executor import Executor
    from ..profiling.profile import Prepared
    from ..profiling.served import MeasuringServer
    from ..profiling.traits.space import TraitSpace
    from ..serving import EngineName

AdapterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        metavar="NAME[=PLACE]",
        help="An adapter that is there already: NAME=FOLDER, a Hub id or a URL, or the NAME of one in the registry; "
        "repeatable.",
    ),
]
AdaptersOption = Annotated[
    Path | None, typer.Option("--adapters", metavar="DIR", help="Every adapter that PEFT saved in a folder below DIR.")
]
SameBaseOption = Annotated[
    bool,
    typer.Option("--same-base", help="Their base model is this one, though their configurations say other."),
]

NO_TRAITS = "there are no traits to speak of, for they compare adapters: routing is between these and the base model"
"""Said of a profile of one or two adapters."""


def profile(
    suite: Annotated[
        str | None, typer.Argument(help="A suite file, or a built-in suite: mini, paper-local, paper.")
    ] = None,
    registry: RegistryPath = DEFAULT_REGISTRY,
    data: Annotated[
        Path | None,
        typer.Option(
            help="A folder of `TASK/{train,test}.jsonl`: the rows of a suite's local tasks, or with "
            "--sources all there is."
        ),
    ] = None,
    sources: Annotated[str, typer.Option(help="With --data: tasks to train an adapter on, comma-separated.")] = "",
    targets: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLACE",
            help="Tasks that are only measured: a folder of TASK/test.jsonl or TASK.jsonl (or .csv, .parquet), one of "
            "these, or a suite; with --data the names of tasks. Comma-separated, or repeated.",
        ),
    ] = None,
    adapter: AdapterOption = None,
    adapters: AdaptersOption = None,
    rows: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="Rows of `input` (the prompt as it was trained on) and `target` that a given adapter was trained on, "
            "where that is known; repeatable.",
        ),
    ] = None,
    same_base: SameBaseOption = False,
    allow_root: AllowRoot = None,
    train: Annotated[
        int | None, typer.Option(min=1, help="Training rows per source [default: the suite's, or 200].")
    ] = None,
    test: Annotated[int | None, typer.Option(min=1, help="Test rows per task [default: the suite's, or 100].")] = None,
    share: Annotated[
        float, typer.Option(min=0.01, max=1, help="Measure so much of the test rows: 0.35 kept 93% of routing's gain.")
    ] = 1.0,
    tasks: Annotated[
        str,
        typer.Option(
            help="Only these tasks of the suite, comma-separated, with their ablations; of those only the ones that "
            "are named here, where any is."
        ),
    ] = "",
    method: Annotated[
        Method | None, typer.Option(help="PEFT method, instead of the suite's; vLLM serves lora and rslora.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the training, instead of the suite's.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Base model: a Hub id, a folder or a GGUF file, instead of the suite's.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="auto, transformers or vllm, instead of the suite's.")] = None,
    server: Annotated[
        str | None,
        typer.Option(
            help="URL of a running server of this base model and these adapters: measure there, at its lowest "
            "priority, with no second copy of the model."
        ),
    ] = None,
    api_key_env: ServerKey = None,
    concurrency: Concurrency = 4,
    scout: Annotated[
        str | None,
        typer.Option(
            metavar="BASE",
            help="A smaller base model: train and measure every source on it first, and on the suite's own only those "
            "that bring most together there. Five of ten chosen so kept 88 to 90% of what all ten could do. It saves "
            "time only where the small one costs well below half of what the large one does.",
        ),
    ] = None,
    scout_keep: Annotated[
        int | None, typer.Option(min=2, help="With --scout: so many sources are kept [default: half of them].")
    ] = None,
    runs: Annotated[Path | None, typer.Option(help="Where training runs are kept, to resume them.")] = None,
    on: On = "local",
) -> None:
    """Take the adapters you have, or train one per source task; measure all on all tasks, fit traits and routing.

    Nothing is trained for --adapter, --adapters and a suite's `adapters`; any number from one is enough. A killed run
    goes on where it was: run the same command again.

    Examples:

        traitroute profile --adapter polite=./polite-lora --adapter terse=./terse-lora --targets my_tasks

        traitroute profile --adapter legal=acme/legal-lora@v2 --allow-root hub --targets my_tasks

        traitroute profile --adapters ./loras --targets my_tasks --base ./my-base-model

        traitroute profile --adapters ./loras --targets my_tasks --server http://localhost:8000

        traitroute profile mini

        traitroute profile mini --on local:2

        traitroute profile paper-local --data my_tasks --train 128 --test 40

        traitroute profile --data my_tasks --sources gsm8k,mnli --targets boolq --train 400

        traitroute profile mini --base ./my-base-model --scout smollm2-135m-instruct --scout-keep 3
    """
    from ..profiling import folder_suite, load_suite, target_suite
    from ..profiling.execution.places import check_place, open_executor

    check_place(on)
    given = given_adapters(adapter, adapters, rows, same_base=same_base)
    wanted = [place for text in targets or () for place in ([text] if Path(text).exists() else names(text))]
    if suite is not None and (sources or wanted):
        raise InputError("--sources and --targets go without a suite; a suite names its own tasks")
    if suite is None and data is None and not (given and wanted):
        raise InputError(
            "give adapters and tasks (`--adapters FOLDER --targets FOLDER`), a suite (`traitroute profile mini`), or "
            "--data FOLDER --sources ..."
        )
    if suite is None and data is not None and not (sources or given):
        raise InputError("--data needs --sources: name at least two tasks to train adapters on, or give --adapter")
    if server is not None and engine is not None:
        raise InputError("--engine measures in this process, and --server on a server that runs: give one of them")
    if scout is None and scout_keep is not None:
        raise InputError("--scout-keep goes with --scout BASE: how many of the sources that are tried there are kept")
    engine_given = None if engine is None else engine_name(engine)
    if suite is not None:
        chosen = load_suite(suite) if data is None else load_suite(suite).over(data)
        chosen = chosen.with_adapters(given)
    else:
        chosen = folder_suite(data, names(sources), wanted, adapters=given) if data else target_suite(wanted, given)
        base = base or (known_base(registry, given) if given else None)
    chosen = chosen.altered(
        tasks=names(tasks), train=train, test=test, share=share, base_model=base, method=method, seed=seed
    )
    allowed = AllowedSources.from_environment(allow_root or (), typed=True)
    keep = runs or registry.beside(".runs")
    with open_executor(on, warn=warn) as executor:
        if scout is not None:
            chosen = _scouted(chosen, scout, scout_keep, keep, engine_given, executor)
        if server is None:
            result = _profile_here(chosen, registry, keep, engine_given, allowed, executor)
        else:
            from ..profiling.served import measuring_server

            key = secret("--api-key-env", api_key_env)
            with measuring_server(
                server, api_key=key, concurrency=concurrency, same_base=same_base, warn=warn
            ) as there:
                result = _profile_there(chosen, registry, keep, there, allowed, executor)
    show_profile(result)
    console.print(f"registry: {registry}, profile version {result.version}")


def _scouted(
    suite: "Suite", base: str, keep: int | None, runs: Path, engine: "EngineName | None", executor: "Executor"
) -> "Suite":
    """The suite with the sources that a small base model chose."""
    from ..profiling.scout import scout, with_sources

    say(f"scout: every source on {base} first, in {runs / 'scout'}")
    with progress_bars() as progress:
        found = scout(suite, base, runs / "scout", keep=keep, engine=engine, executor=executor, progress=progress)
    table = Table("source", "gain over base with those above it")
    for each in found:
        table.add_row(each.source, f"{each.reached:.0%} of that of all {len(suite.sources)}")
    console.print(f"worth an adapter, by {base}:")
    console.print(table)
    return with_sources(suite, [each.source for each in found])


def _profile_here(
    suite: "Suite",
    registry: Location,
    runs: Path,
    engine: "EngineName | None",
    allowed: AllowedSources,
    executor: "Executor",
) -> "Profile":
    from ..profiling.profile import prepare, profile_prepared

    prepared = prepare(suite, warn=warn)
    _say_prepared(prepared)
    with Registry.create(registry) as store, progress_bars() as progress:
        return profile_prepared(
            prepared, store, runs, engine=engine, allowed=allowed, executor=executor, progress=progress
        )


def _profile_there(
    suite: "Suite",
    registry: Location,
    runs: Path,
    server: "MeasuringServer",
    allowed: AllowedSources,
    executor: "Executor",
) -> "Profile":
    """Profile on a server that runs; nothing is written before it is known to run the base model."""
    from ..profiling.profile import prepare, profile_prepared

    known = _known_bases(registry)
    prepared = prepare(suite, warn=warn, open_base=lambda _: server.open_base(suite, known))
    engine = server.open_engine(prepared.base)
    _say_prepared(prepared)
    if not engine.scores:
        say("the server gives no log-probabilities of prompts: answers are measured, likelihoods are not")
    with Registry.create(registry) as store, progress_bars() as progress:
        return profile_prepared(
            prepared,
            store,
            runs,
            engine=engine,
            allowed=allowed,
            executor=executor,
            progress=progress,
            check=lambda adapters: server.check(engine, adapters, store),
        )


def _say_prepared(prepared: "Prepared") -> None:
    say(f"prepared: rows of suite {prepared.suite.name}, base model {prepared.base.name}; {prepared.seconds:.0f} s")


def given_adapters(
    named: Sequence[str] | None, folder: Path | None, rows: Sequence[str] | None = None, *, same_base: bool = False
) -> "list[GivenAdapter]":
    """The adapters of the options --adapter, --adapters and --rows.

    Raises:
        InputError: a name cannot be one, or rows are given of an adapter that is not.
    """
    from ..profiling.given import find_adapters, named_adapter

    given = [named_adapter(text, same_base=same_base) for text in named or ()]
    given += find_adapters(folder, same_base=same_base) if folder is not None else []
    files = {name: file for name, _, file in (text.partition("=") for text in rows or ())}
    if lost := files.keys() - {each.name for each in given}:
        raise InputError(f"--rows {min(lost)}=FILE: no adapter of this name is given")
    return [each.model_copy(update={"rows": Path(file)}) if (file := files.get(each.name)) else each for each in given]


def known_base(registry: Location, given: "Sequence[GivenAdapter]") -> str | None:
    """The base model of the registry's adapters, else of the given ones by their configurations; None without any."""
    from ..profiling.given import stated_base

    known = sorted(set(_known_bases(registry).values()))
    return known[0] if len(known) == 1 else stated_base(given)


def _known_bases(registry: Location) -> dict[str, str]:
    """The names, by digest, of the base models that the registry has adapters for."""
    try:
        with Registry.open(registry, read_only=True) as store:
            return store.base_models()
    except RegistryError:
        # It is made by the run.
        return {}


def show_profile(result: "Profile") -> None:
    """Print matrix, traits against the null, and the time that each stage took."""
    show_scores(result)
    show_traits(result)
    for name, why in result.set_aside.items():
        warn(f"{name} was set aside: {why}")
    laps = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in result.seconds.items())
    reused = sum(t.reused for t in result.training)
    console.print(f"time: {laps}" + (f" ({reused} adapters reused)" if reused else ""))


def show_scores(result: "Profile") -> None:
    """Print the mean score of base and adapters on each task, in percent; gains in green, losses in red."""
    matrix = result.matrix
    rows = {"base": [f"{100 * s:.0f}" for s in matrix.base]}
    for name, scores, gains in zip(matrix.adapters, matrix.scores, matrix.gains, strict=True):
        rows[name] = list(map(_cell, scores, gains))
    show_matrix("transfer matrix: mean score in % (gain over base)", rows, matrix.tasks)


def show_traits(result: "Profile") -> None:
    """Print each component's share of variance beside its permutation null."""
    console.print(trait_table(result.traits, result.matrix.tasks))
    routing = result.routing
    if len(result.matrix.adapters) < 3:
        console.print(NO_TRAITS)
    console.print(
        f"router: {routing.trait_scores.shape[1]} components; a gain of which nothing is known is off by "
        f"{routing.error_unknown:.2f}"
    )


def _cell(score: float, gain: float) -> str:
    text = f"{100 * score:.0f} ({100 * gain:+.0f})"
    return f"[green]{text}[/]" if gain > 0 else f"[red]{text}[/]" if gain < 0 else text


def trait_table(traits: "TraitSpace", tasks: Sequence[str]) -> Table:
    """Each component of the gains on `tasks`, beside its permutation null."""
    table = Table(
        "component",
        "variance",
        "95% of null",
        "p",
        "trait?",
        "strongest loadings",
        title="components of the gains",
        title_justify="left",
    )
    rows = zip(traits.explained_variance_ratio_, traits.null_, traits.p_values_, strict=True)
    for i, (share, null, p) in enumerate(rows):
        order = abs(traits.components_[i]).argsort()[::-1][:3]
        loadings = ", ".join(f"{tasks[j]} {traits.components_[i, j]:+.2f}" for j in order)
        figures = (f"{i + 1}", f"{100 * share:.1f}%", f"{100 * null:.1f}%", f"{p:.3f}")
        table.add_row(*figures, "yes" if traits.supported_[i] else "no", loadings)
    return table
