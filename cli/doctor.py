"""`traitroute doctor`: is everything there that serving needs, and what to do where it is not."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from typing import Annotated

import typer
from rich.progress import Progress, TaskID
from rich.table import Table
from rich.text import Text

from ..adapters import Location
from ..serving.doctor import Finding, Verdict, check_packages, check_registry, check_upstream
from .console import console, progress_bars
from .options import DEFAULT_REGISTRY, RegistryPath, secret

_STYLES = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}


def doctor(
    registry: RegistryPath = DEFAULT_REGISTRY,
    upstream: Annotated[
        list[str] | None, typer.Option("--upstream", "-u", help="A server that a gateway would use; repeatable.")
    ] = None,
    upstream_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable with the key of the upstreams.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check registry, weights, vLLM and its plugin, and say what to do; exit code 1 if something fails.

    Examples:

        traitroute doctor

        traitroute doctor --upstream http://gpu1:8000 --json
    """
    key = secret("--upstream-key-env", upstream_key_env)
    with nullcontext() if as_json else progress_bars() as progress:
        findings = list(_findings(registry, upstream or [], key, progress))
    failed = any(finding.verdict is Verdict.FAIL for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": not failed, "findings": [*map(asdict, findings)]}, indent=2))
    else:
        console.print(_table(findings))
    raise typer.Exit(1 if failed else 0)


def _findings(
    registry: Location, upstreams: list[str], key: str | None, progress: Progress | None
) -> Iterator[Finding]:
    bars: list[TaskID] = []

    def on_weights(done: int, total: int) -> None:
        if progress is None:
            return
        if not bars:
            bars.append(progress.add_task("read weights", total=total))
        progress.update(bars[0], completed=done)

    yield from check_registry(registry, on_weights=on_weights)
    yield from check_packages()
    for url in upstreams:
        yield check_upstream(url, key=key)


def _table(findings: list[Finding]) -> Table:
    table = Table()
    table.add_column("check", overflow="fold")
    table.add_column("", no_wrap=True)
    table.add_column("found", overflow="fold")
    table.add_column("what to do", overflow="fold")
    for each in findings:
        verdict = Text(each.verdict, style=_STYLES[each.verdict])
        table.add_row(Text(each.check), verdict, Text(each.found), Text(each.advice))
    return table
