"""The command line, and the one place where our errors become one line and an exit code.

Exit code 2: the input is wrong and the user can mend it. Exit code 1: the run went wrong.
"""

import sys
from importlib import import_module
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

INTERRUPTED = 130
"""The exit code by which Typer ends a command at Ctrl-C, without a message."""

COMMANDS = {
    "init": (
        "init:init",
        "Make a suite of the adapters you have and examples of your tasks, try a few, and say what a full profile "
        "costs.",
    ),
    "profile": (
        "profile:profile",
        "Take the adapters you have, or train one per source task; measure all on all tasks, fit traits and routing.",
    ),
    "adapters": ("adapters:app", "List, add, replace and remove adapters."),
    "profiles": ("profiles:app", "List, compare and roll back profile versions; fit anew."),
    "tasks": ("tasks:app", "Add tasks to the profile."),
    "judge": (
        "judge:judge",
        "Say what a judge cost, whether order or length decides, and whether it agrees with people.",
    ),
    "registry": ("registry:app", "Make, migrate or copy a registry, or free what its weight store no longer needs."),
    "matrix": ("matrix:matrix", "Print what was measured, for base and every adapter on every task."),
    "traits": (
        "matrix:traits",
        "Print the traits of the newest profile, and where they place each adapter; or label them.",
    ),
    "compare": (
        "compare:compare",
        "Compare two profiles, as of a small and a larger base, on what both have: adapters, tasks and test rows.",
    ),
    "report": (
        "report:report",
        "Write every analysis of a profile as one self-contained page, its figures and tables beside it.",
    ),
    "predict": (
        "report:predict",
        "Forecast the gains of a LoRA trained on DATA over every profiled task, with intervals.",
    ),
    "route": ("route:route", "Say which adapter a request needs, or `base`, without running any model."),
    "replay": (
        "replay:replay",
        "Say which of yesterday's decisions another profile version would have made otherwise, and what that is worth.",
    ),
    "recalibrate": (
        "recalibrate:recalibrate",
        "Show, and with --apply keep, what feedback says of predicted gains, by kind of request and adapter.",
    ),
    "lift": ("lift:lift", "Say by how much `auto` is better than base on your own traffic, from a control group."),
    "suggest-tasks": (
        "suggest_tasks:suggest_tasks",
        "Say how much of the traffic is unlike everything profiled, and which task to profile for it.",
    ),
    "compose": (
        "compose:compose",
        "Merge two or three adapters into one for what none of them does well; admit it only if it is surely better.",
    ),
    "samples": ("samples:app", "Requests that recur and that nothing profiled is like: a few texts."),
    "serve": ("serve:serve", 'Serve the base model and all adapters; requests with `"model": "auto"` are routed.'),
    "gateway": (
        "gateway:gateway",
        'Route `"model": "auto"` in front of any OpenAI-compatible servers (vLLM, SGLang, LoRAX, Ollama, hosted).',
    ),
    "serve-extproc": (
        "gateway:serve_extproc",
        'Route `"model": "auto"` for Envoy, and for what is built on it (llm-d, AIBrix, Envoy Gateway).',
    ),
    "tenants": ("tenants:app", "Say which API keys may use which adapters, and make such keys."),
    "worker": ("worker:worker", "Measure every adapter that waits, and open it to routing."),
    "jobs": ("worker:app", "List, show and retry the jobs of `traitroute worker`."),
    "mcp": (
        "serve:mcp",
        "Answer an agent's questions about skills over MCP on standard input and output; no model is run.",
    ),
    "doctor": (
        "doctor:doctor",
        "Check registry, weights, vLLM and its plugin, and say what to do; exit code 1 if something fails.",
    ),
    "demo": ("demo:demo", "Train adapters, measure them, fit traits, serve with vLLM, send requests to `auto`, stop."),
}
"""Where each command is defined, as MODULE:NAME, and its line in the list of commands."""

_SETTINGS: dict[str, Any] = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": "markdown"}


class LazyGroup(TyperGroup):
    """Imports a command when it is run, so that help comes at once and a command loads only what it needs."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command that the arguments name, and import it."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else load(name), rest


def load(name: str) -> Any:
    """Import a command."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    command = getattr(import_module(f".{module}", __package__), attribute)
    alone = typer.Typer(**_SETTINGS)
    alone.callback()(_not_loaded)
    if isinstance(command, typer.Typer):
        alone.add_typer(command, name=name)
    else:
        alone.command(name)(command)
    group = typer.main.get_command(alone)
    assert isinstance(group, TyperGroup)
    return group.commands[name]


def _not_loaded() -> None:
    """Stands for a command where only its name and summary are needed."""


app = typer.Typer(
    name="traitroute",
    cls=LazyGroup,
    help=(
        "Measure what every LoRA adapter really does, and route each request to the one it needs.\n\n"
        "Start with `traitroute init --adapters YOUR_LORAS --examples YOUR_TASKS`, then `traitroute profile "
        'suite.yaml`, `traitroute route "2 + 2?" --explain` and `traitroute serve`. Without adapters of your own, '
        "`traitroute profile mini` trains six."
    ),
    no_args_is_help=True,
    **_SETTINGS,
)
for _name, (_, _summary) in COMMANDS.items():
    app.command(_name, help=_summary)(_not_loaded)


def main() -> None:
    """Run the command line; user mistakes end in one line, never in a traceback."""
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _say("stopped; finished work is kept, run the same command to go on")
        raise
    except Exception as exc:
        # Imported here, so that help does not wait for the registry's libraries.
        from ..adapters import InputError, TraitRouteError

        if isinstance(exc, InputError | ImportError):
            _end(" ".join(line.strip() for line in str(exc).splitlines()), 2)
        if isinstance(exc, TraitRouteError | OSError):
            _end(str(exc), 1)
        raise


def _end(message: str, code: int) -> NoReturn:
    _say(f"error: {message}", style="red")
    sys.exit(code)


def _say(text: str, *, style: str | None = None) -> None:
    from rich.console import Console

    error = Console(stderr=True, soft_wrap=True, highlight=False)
    error.print(text, style=style, markup=False)
