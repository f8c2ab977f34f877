"""The command `premirror`: its subcommands are the steps of the loop.

Exit codes: 0 done (or nothing to do), 1 a gate said no, 2 bad input or configuration, 3 infeasible, 4 degraded and
strict, 70 our own bug, 75 try later. Imports that cost seconds (torch, mlflow, lightning) sit inside the commands.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.console import Console

app = typer.Typer(
    name="premirror",
    help="Predicts what will be requested and from where, and puts it there before it is asked for.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="YAML file; see configs/README.md.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override a key: --set key.path=value.")]
HomeOption = Annotated[
    Path | None, typer.Option("--home", help="Home folder (default: $PREMIRROR_HOME or .premirror).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No notes on stderr.")]
KindArgument = Annotated[str, typer.Argument(help="demand, next-content or churn", metavar="MODEL")]
ApproverOption = Annotated[str, typer.Option("--approver", help="Who decides; recorded as claimed when unsigned.")]

EXIT_BUG = 70
EXIT_INFEASIBLE = 3
EXIT_INTERRUPTED = 130


def _load(kind: str, path: Path, assignments: list[str] | None) -> Any:
    from pipelines.config import load

    return load(kind, path, assignments or [])


def _home(given: Path | None) -> Any:
    from pipelines.home import Home

    return Home.find(given).create()


def _model_kind(text: str) -> str:
    from pipelines.errors import PipelineError

    kind = text.replace("_", "-").removeprefix("premirror-")
    if kind not in ("demand", "next-content", "churn"):
        raise PipelineError(f"Unknown model {text!r}. Choose demand, next-content or churn.")
    return kind


@app.command()
def world(
    config: ConfigOption,
    overrides: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Build a benchmark world: requests, contents, nodes, availability, round trips."""
    from pipelines.steps import world_step

    console = Console(as_json, quiet)
    console.result(*world_step(_load("world", config, overrides), _home(home), console))


@app.command()
def ingest(
    config: ConfigOption,
    overrides: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read logs and tables, validate, pseudonymise, write canonical tables."""
    from pipelines.steps import ingest_step

    console = Console(as_json, quiet)
    console.result(*ingest_step(_load("ingest", config, overrides), _home(home), console))


@app.command()
def train(
    model: KindArgument,
    config: ConfigOption,
    overrides: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a model and register it as the candidate."""
    kind = _model_kind(model)
    settings = _load(kind, config, overrides)
    from pipelines.train import train_step

    console = Console(as_json, quiet)
    console.result(*train_step(kind, settings, _home(home), console))


@app.command()
def update(
    model: KindArgument,
    config: ConfigOption,
    at: Annotated[
        str, typer.Option(help="Until when requests or sessions are read (ISO 8601 with zone); default: all.")
    ] = "",
    version: Annotated[str, typer.Option(help="Version number or alias to bring up to date.")] = "champion",
    overrides: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Bring the demand or churn champion up to date with the last days; register the result as the candidate."""
    kind = _model_kind(model)
    settings = _load(kind, config, overrides)
    from pipelines.update import update_step

    console = Console(as_json, quiet)
    console.result(*update_step(kind, settings, _home(home), console, at=at, version=version))


@app.command()
def evaluate(
    model: KindArgument,
    config: ConfigOption,
    overrides: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure candidate, champion and every baseline in one prequential harness."""
    kind = _model_kind(model)
    settings = _load(kind, config, overrides)
    from pipelines.evaluate import evaluate_step

    console = Console(as_json, quiet)
    console.result(*evaluate_step(kind, settings, _home(home), console))


@app.command()
def review(
    model: KindArgument,
    config: ConfigOption,
    overrides: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare candidate and champion (or the best baseline); write the verdict to the registry. Exit 1 when refused."""
    kind = _model_kind(model)
    settings = _load(kind, config, overrides)
    from pipelines.review import review_step

    console = Console(as_json, quiet)
    value, text = review_step(kind, settings, _home(home), console)
    console.result(value, text)
    raise typer.Exit(0 if value["passed"] else 1)


@app.command()
def promote(
    model: KindArgument,
    approver: ApproverOption,
    version: Annotated[str, typer.Option(help="Version number; default: the candidate.")] = "candidate",
    reason: Annotated[str, typer.Option(help="Why; required with --override.")] = "",
    override: Annotated[bool, typer.Option("--override", help="Promote although the gate did not pass.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a reviewed version the champion."""
    from pipelines.review import promote_step

    value, text = promote_step(
        _model_kind(model), _home(home), version=version, approver=approver, reason=reason, override=override
    )
    Console(as_json).result(value, text)


@app.command()
def rollback(
    model: KindArgument,
    approver: ApproverOption,
    reason: Annotated[str, typer.Option(help="Why.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Return to the champion before this one."""
    from pipelines.review import rollback_step

    Console(as_json).result(*rollback_step(_model_kind(model), _home(home), approver=approver, reason=reason))


@app.command()
def history(
    model: KindArgument,
    at: Annotated[str, typer.Option(help="Which version served at this instant (ISO 8601 with zone).")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """The decision log of a model, checked against the registry's aliases."""
    from pipelines.review import history_step

    Console(as_json).result(*history_step(_model_kind(model), _home(home), at=at))


@app.command()
def forecast(
    config: ConfigOption,
    at: Annotated[str, typer.Option(help="Origin (ISO 8601 with zone); default: the end of the data.")] = "",
    overrides: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Forecast demand and departures for the next window with the champions."""
    settings = _load("placement", config, overrides)
    from pipelines.forecast import forecast_step

    console = Console(as_json, quiet)
    console.result(*forecast_step(settings, _home(home), console, at=at))


@app.command()
def place(
    config: ConfigOption,
    at: Annotated[str, typer.Option(help="Origin (ISO 8601 with zone); default: the newest forecast.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan's difference, publish nothing.")] = False,
    overrides: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Solve the placement for the forecast window and publish the plan."""
    _publish_plan(_load("placement", config, overrides), home, Console(as_json, quiet), at, dry_run, refreshes=False)


@app.command()
def refresh(
    config: ConfigOption,
    at: Annotated[str, typer.Option(help="Origin (ISO 8601 with zone); default: the newest forecast.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan's difference, publish nothing.")] = False,
    overrides: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Bring the plan in force up to a newer forecast, with what is held in the lead."""
    _publish_plan(_load("placement", config, overrides), home, Console(as_json, quiet), at, dry_run, refreshes=True)


def _publish_plan(
    settings: Any, home: Path | None, console: Console, at: str, dry_run: bool, *, refreshes: bool
) -> None:
    from pipelines.place import place_step

    value, text = place_step(settings, _home(home), console, at=at, dry_run=dry_run, refreshes=refreshes)
    console.result(value, text)
    raise typer.Exit(EXIT_INFEASIBLE if value.get("status") == "infeasible" else 0)


@app.command()
def rebalance(
    config: ConfigOption,
    events: Annotated[
        Path | None,
        typer.Option(help="JSON lines or Parquet; default: what the tables say otherwise than when the plan was made."),
    ] = None,
    at: Annotated[
        str, typer.Option(help="Now (ISO 8601 with zone); default: the newest event, or the end of the data.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, publish nothing.")] = False,
    overrides: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Bring the plan in force up to what has happened since: route around, move little, publish."""
    settings = _load("placement", config, overrides)
    from pipelines.rebalance import Asked, rebalance_step

    console = Console(as_json, quiet)
    value, text = rebalance_step(settings, _home(home), console, Asked(events, at, dry_run))
    console.result(value, text)
    raise typer.Exit(EXIT_INFEASIBLE if value.get("status") == "infeasible" else 0)


@app.command()
def route(
    content: Annotated[str, typer.Argument(help="Content id.")],
    location: Annotated[str, typer.Argument(help="Where the request comes from.")],
    config: ConfigOption,
    segment: Annotated[int, typer.Option(help="Segment number.")] = 0,
    overrides: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank the sources of one segment for one location under the current plan, with every term explained."""
    settings = _load("placement", config, overrides)
    from pipelines.place import route_step

    Console(as_json).result(*route_step(settings, _home(home), content=content, location=location, segment=segment))


@app.command()
def replay(
    config: ConfigOption,
    processes: Annotated[
        int,
        typer.Option(min=0, help="Rows played at once, each in a process; 0: one a core. The numbers are the same."),
    ] = 1,
    plan: Annotated[
        Path | None,
        typer.Option(help="Folder of a plan (plans/ID or plans/current) to play beside the rows, as it is."),
    ] = None,
    overrides: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Play real requests and departures against rolling plans and every baseline; write the report."""
    settings = _load("replay", config, overrides)
    from pipelines.replay import replay_step

    console = Console(as_json, quiet)
    console.result(*replay_step(settings, _home(home), console, processes=processes, plan_folder=plan))


@app.command("what-if")
def what_if(
    config: ConfigOption,
    overrides: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Replay one method with other storage, uplinks and consent: what would more devices bring?"""
    settings = _load("replay", config, overrides)
    from pipelines.what_if import what_if_step

    console = Console(as_json, quiet)
    console.result(*what_if_step(settings, _home(home), console))


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="Replay id, or 'latest'.")] = "latest",
    compare: Annotated[
        tuple[str, str], typer.Option("--compare", help="Two replay ids (or 'latest'): one page with both.")
    ] = ("", ""),
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a replay's report page again from its saved data, or a page that compares two replays."""
    if any(compare):
        from pipelines.compare import compare_step

        Console(as_json).result(*compare_step(*compare, _home(home)))
        return
    from pipelines.saved_report import report_step

    Console(as_json).result(*report_step(run, _home(home)))


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Loopback address only: there is no TLS yet.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.")] = 8321,
    home: HomeOption = None,
) -> None:
    """Answer forecasts, routes and plans over HTTP."""
    from pipelines.steps import serve_step

    serve_step(_home(home), host=host, port=port)


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(help="Config kind; default: all.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for one file a kind; default: print.")] = None,
) -> None:
    """Write the JSON Schema of the configuration files, for editors."""
    from pipelines.config import schema_step

    print(schema_step(kind, out))


@app.command()
def demo(
    config: Annotated[Path, typer.Option("--config", "-c", help="Which loop.")] = Path("configs/demo/small.yaml"),
    overrides: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """The whole loop: world, ingest, train, review, promote, forecast, place, replay, report."""
    settings = _load("demo", config, overrides)
    from pipelines.demo import demo_step

    console = Console(as_json, quiet)
    console.result(*demo_step(settings, _home(home), console, folder=config.parent))


def main() -> None:
    """Entry point: runs the command and turns every error into a sentence and an exit code."""
    from models.errors import ModelError, RegistryError, UnknownVersion
    from pipelines.errors import PipelineError, TryLater
    from placement.errors import PlacementError

    # One thread for matrix work: the networks are small, sums then do not depend on the machine, and a busy machine is
    # not slowed further by threads that wait for each other. Set before torch or scikit-learn are imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        app()
    except PipelineError as error:
        sys.exit(_fail(error, error.exit_code))
    except UnknownVersion as error:
        sys.exit(_fail(error, PipelineError.exit_code))
    except RegistryError as error:
        sys.exit(_fail(error, TryLater.exit_code))
    except (ModelError, PlacementError) as error:
        sys.exit(_fail(error, PipelineError.exit_code))
    except KeyboardInterrupt:
        sys.exit(_fail("Interrupted; nothing half-written was left behind.", EXIT_INTERRUPTED))
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        sys.exit(_fail(f"{error.filename or 'A file'}: {error.strerror or error}.", PipelineError.exit_code))
    except Exception as error:
        import traceback

        traceback.print_exc()
        sys.exit(_fail(f"This is a fault in premirror itself: {error!r}. Please report it.", EXIT_BUG))


def _fail(error: object, code: int) -> int:
    print(f"premirror: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
