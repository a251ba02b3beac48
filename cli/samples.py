"""`traitroute samples`: the texts that servers keep of requests that recur and that nothing profiled is like."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from ..adapters import InputError, KindComparison, Registry, RegistryError, Sample
from ..router import RoutingProfile
from ..serving.traffic.sampling import KEY, SampleKeys, likeness_to
from .comparing import JudgeKey, JudgeModel, JudgeUrl, Tenants, comparer_of, referee_of, sample_keys
from .console import console, say
from .options import DEFAULT_REGISTRY, Concurrency, RegistryPath, ServerKey, newest_profile, secret

app = typer.Typer(no_args_is_help=True, help="Requests that recur and that nothing profiled is like: a few texts.")
KindName = Annotated[str, typer.Argument(help="The kind, as `traitroute samples list` names it.", show_default=False)]
SHOWN = 300
"""Characters of a text that `list --texts` prints."""


@app.command("key")
def make_key() -> None:
    """Make a key for TRAITROUTE_SAMPLE_KEY, and print it; it is kept nowhere.

    Servers that are given it keep a few texts of requests that recur and that nothing profiled is like, encrypted, for
    some hours. To change keys put the new one before the old one, separated by a space, until what the old one
    encrypted has expired.

    Example:

        export TRAITROUTE_SAMPLE_KEY=$(traitroute samples key)
    """
    say(SampleKeys.new_key())


@app.command("list")
def list_samples(
    registry: RegistryPath = DEFAULT_REGISTRY,
    texts: Annotated[
        int, typer.Option(min=0, max=100, help="Print so many texts of each kind too, which takes the key.")
    ] = 0,
) -> None:
    """List the kinds of requests of which texts are kept, with what they are least unlike.

    Example:

        traitroute samples list --texts 3
    """
    with Registry.open(registry, read_only=True) as store:
        samples, lineage = store.samples(), store.lineage()
        profile = RoutingProfile.from_bytes(newest_profile(store).data)
    kinds: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        kinds[sample.kind].append(sample)
    if not kinds:
        say(f"no texts are kept: servers keep some once {KEY} is set and requests recur that nothing is like")
        return
    keys = SampleKeys.from_environment()
    table = Table("kind", "requests", "first", "last", "expire until", "tenants", "least unlike")
    for kind, of_kind in sorted(kinds.items(), key=lambda each: -len(each[1])):
        first, last, until = (
            _age(when)
            for when in (of_kind[0].created_at, of_kind[-1].created_at, max(each.expires_at for each in of_kind))
        )
        tenants = ", ".join(sorted({each.tenant or "operator" for each in of_kind}))
        table.add_row(kind, str(len(of_kind)), first, last, until, escape(tenants), _near(of_kind, lineage, profile))
    console.print(table)
    if texts:
        _show_texts(kinds, keys, texts)


@app.command("forget")
def forget_samples(
    kind: Annotated[str | None, typer.Argument(help="The kind; with --all, every one.", show_default=False)] = None,
    registry: RegistryPath = DEFAULT_REGISTRY,
    every: Annotated[bool, typer.Option("--all", help="Forget the texts of every kind.")] = False,
) -> None:
    """Remove the texts of a kind now, or of all.

    Examples:

        traitroute samples forget 3f9a01c2

        traitroute samples forget --all
    """
    if (kind is None) != every:
        raise InputError("give the kind whose texts are to be forgotten, or --all")
    with Registry.open(registry) as store:
        if not (removed := store.forget_samples(kind)) and kind is not None:
            raise RegistryError(f"no texts of kind {kind!r} are kept: traitroute samples list")
    say(f"{removed} texts were removed")


@app.command("compare")
def compare_samples(
    server: Annotated[
        str, typer.Option("--server", help="URL of a running server of the registry's adapters, with or without /v1.")
    ],
    kinds: Annotated[
        list[str] | None, typer.Argument(metavar="[KIND]...", help="The kinds; all without.", show_default=False)
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            metavar="judge|agreement|format",
            help="Who says which answer is better: a judge; the other adapters, where more give it too; or whether it "
            "is JSON, or one of the options, where the request asks for that.",
        ),
    ] = "judge",
    judge: JudgeModel = None,
    judge_url: JudgeUrl = None,
    judge_key_env: JudgeKey = None,
    registry: RegistryPath = DEFAULT_REGISTRY,
    api_key_env: ServerKey = None,
    concurrency: Concurrency = 4,
    admit: Annotated[
        bool,
        typer.Option("--admit/--dry-run", help="Have the kinds that are worth it join the profile, or only say so."),
    ] = False,
    tenants: Tenants = None,
) -> None:
    """Compare the likeliest adapters and base on the requests that are kept, by a judge, agreement or format.

    SERVER answers at its lowest priority. Verdicts are first given on answers to profiled tasks, where it is known who
    was right, and on the requests they are believed as far as that shows. A judge is shown the texts and the answers.
    A kind is worth admitting where what would then be chosen is surely better than what is chosen now. What was found
    is kept for `traitroute samples compared` and `admit`; the profile does not change without --admit.

    Example:

        traitroute samples compare --server http://localhost:8000 --judge gpt-5 --judge-url https://api.example/v1
    """
    try:
        from ..profiling.jobs.steps import served_name
        from ..serving.engines.completions import CompletionsClient
        from ..serving.engines.openai import OpenAIEngine
    except ImportError as exc:
        raise ImportError("a server is asked with an extra: pip install 'traitroute[worker]'") from exc
    from ..profiling.base_model import open_base_files
    from ..profiling.kind_admission import admit as admit_kind
    from ..profiling.profile import quiet_libraries

    referee = referee_of(by, judge, judge_url, judge_key_env)
    sample_keys()
    quiet_libraries()
    key = secret("--api-key-env", api_key_env)
    with Registry.open(registry) as store, CompletionsClient(server, api_key=key) as client:
        base = open_base_files(newest_profile(store).summary.base_model, store.base_models())
        engine = OpenAIEngine(client, base.path, concurrency=concurrency, address=lambda a: served_name(store, a))
        for each in comparer_of(store, engine, referee, tenants, say).compare(kinds or []):
            _show_comparison(each)
            if not each.worth_it:
                continue
            if admit:
                say(f"joined the profile as version {admit_kind(store, each.kind)}")
            else:
                say(f"the profile is as it was: traitroute samples admit {each.kind}")


@app.command("compared")
def list_comparisons(registry: RegistryPath = DEFAULT_REGISTRY) -> None:
    """Show what comparing gave, by `samples compare` or by a worker, and which kinds are worth admitting.

    Example:

        traitroute samples compared
    """
    with Registry.open(registry, read_only=True) as store:
        found, lineage = store.comparisons(), store.lineage()
        joined = {each.kind: each.judged_at for each in newest_profile(store).summary.recurring}
    if not found:
        say("nothing was compared: traitroute samples compare, or a worker with --compare")
    for each in found:
        if each.refused is not None:
            say(f"kind {each.kind}, by {each.by}, {_age(each.compared_at)}: not compared, since {each.refused}")
            continue
        _show_comparison(each)
        if joined.get(each.kind) == each.compared_at.isoformat(timespec="seconds"):
            say("it has joined the profile")
        elif each.profile_version not in lineage:
            say("the profile was fitted anew since: compare again")


@app.command("admit")
def admit_kind(kind: KindName, registry: RegistryPath = DEFAULT_REGISTRY) -> None:
    """Have a kind that was compared, and is worth it, join the profile as a new version.

    Example:

        traitroute samples admit 3f9a01c2
    """
    from ..profiling.kind_admission import admit

    with Registry.open(registry) as store:
        say(f"kind {kind} joined the profile, which is version {admit(store, kind)} now: servers follow")


@app.command("remove")
def remove_kind(kind: KindName, registry: RegistryPath = DEFAULT_REGISTRY) -> None:
    """Take a kind that was compared out of the profile again, as a new version.

    Example:

        traitroute samples remove 3f9a01c2
    """
    from ..profiling.kind_admission import remove

    with Registry.open(registry) as store:
        say(f"kind {kind} left the profile, which is version {remove(store, kind)} now")


def _show_comparison(comparison: KindComparison) -> None:
    title = (
        f"kind {comparison.kind}, {comparison.requests} requests, by {comparison.by}, {_age(comparison.compared_at)}"
    )
    table = Table("adapter", title=escape(title), title_justify="left")
    for column in ("judged", "verdict", "predicted gain", "believed gain", "chosen now", "then"):
        table.add_column(column, justify="right")
    for i, name in enumerate(comparison.adapters):
        believed = f"{comparison.gains[i]:+.2f} ± {comparison.errors[i]:.2f}"
        shares = (f"{comparison.before[i]:.0%}", f"{comparison.after[i]:.0%}")
        verdict = f"{comparison.verdicts[i]:+.2f}" if comparison.counts[i] else "none"
        table.add_row(name, str(comparison.counts[i]), verdict, f"{comparison.predicted[i]:+.2f}", believed, *shares)
    console.print(table)
    worth = "worth admitting" if comparison.worth_it else "not surely better than what is chosen now"
    say(f"what would be chosen then is better by {comparison.lead:+.3f}, at least {comparison.low:+.3f}: {worth}")


def _show_texts(kinds: Mapping[str, Sequence[Sample]], keys: SampleKeys | None, count: int) -> None:
    if keys is None:
        raise InputError(f"{KEY} is not set: texts are shown to whoever has the servers' key")
    for kind, of_kind in kinds.items():
        for sample in of_kind[:count]:
            text = keys.decrypt(sample.text)
            # Strangers wrote it: nothing in it may steer a terminal.
            shown = "(encrypted by another key)" if text is None else repr(text[:SHOWN])[1:-1]
            say(f"{kind}: {shown}")


def _near(samples: Sequence[Sample], lineage: Sequence[int], profile: RoutingProfile) -> str:
    """The profiled tasks that the samples are least unlike."""
    rows = [sample.row() for sample in samples if sample.profile_version in lineage]
    if not rows:
        return "kept before the profile was fitted anew"
    near = likeness_to(np.mean(rows, axis=0, keepdims=True), profile.centroids, profile)[0]
    return ", ".join(f"{profile.tasks[i]} ({near[i]:.2f})" for i in np.argsort(-near)[:3])


def _age(when: datetime) -> str:
    hours = (when - datetime.now(UTC)).total_seconds() / 3600
    return f"{abs(hours):.0f} h ago" if hours < 0 else f"in {hours:.0f} h"
