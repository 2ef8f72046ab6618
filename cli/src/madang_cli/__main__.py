"""The command line."""

import signal
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import grpc
import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from madang.ranker.v1 import ranker_pb2, ranker_pb2_grpc
from madang_cli.mesh.mesh import LocalMesh, MeshInfo, find, healthy
from madang_cli.mesh.processes import ProcessFailedError
from madang_cli.reflect import CallError, find_rpc
from madang_cli.reflect import call as call_rpc
from madang_cli.show import (
    Catalogue,
    print_arrivals,
    print_data,
    print_explorations,
    print_off_policy,
    print_quality,
    print_why,
    steps,
)
from madang_cli.traces import draw_trace
from madang_cli.workspace import DataSource, Workspace, load
from madang_pipelines.imports.mapping import TABLES, MappingError
from madang_runtime.clients import from_rpc_error
from madang_runtime.errors import MadangError
from madang_runtime.models.registry import CHAMPION, ModelRegistry
from madang_runtime.text import ENCODER

# What trains takes seconds to import: commands import what only they need.
app = typer.Typer(
    help="Madang: a marketplace's intelligence as a gRPC mesh.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

Home = Annotated[Path, typer.Option(help="Folder of models, features, data and meshes.")]
Name = Annotated[str, typer.Option(help="Name of the mesh; several run side by side.")]
Data = Annotated[
    Path | None,
    typer.Option(help="Mapping of your files, or their folder; unset takes the simulated city."),
]
_HOME = Path("run")


@app.command()
def train(
    service: Annotated[
        str, typer.Argument(help="One service only, by your own data; unset trains all.")
    ] = "",
    data: Data = None,
    home: Home = _HOME,
    results: Annotated[
        str, typer.Option(help="host:port of a mesh whose campaigns are learned from, too.")
    ] = "",
) -> None:
    """Train all models, and make them champions."""
    from madang_pipelines.targeting.results import collect, with_campaigns
    from madang_pipelines.training import Recipe

    if service or data:
        _train_own(service, data, home)
        return
    source, workspace = DataSource(), Workspace(home)
    with steps(console) as report:
        loaded = load(source, lambda share: report("data", share))
        if results:
            with_campaigns(loaded.tables, *collect(results))
        workspace.train(source, loaded, Recipe(), report)
    print_data(loaded.tables, console)


def _train_own(service: str, data: Path | None, home: Path) -> None:
    """One service, or all that a mapping has tables for."""
    from madang_cli.own_data import print_report
    from madang_pipelines.imports.ready import open_mappings
    from madang_pipelines.own.training import Plans, services_for

    if data is None:
        raise typer.BadParameter("--data names the mapping of your files, or their folder")
    try:
        found = open_mappings(data)
        found = [m for m in found if service in services_for(m)] or found
        if len(found) > 1:
            names = ", ".join(mapping.name for mapping in found)
            raise MappingError(f"{data} holds more than one data set: {names}; name one's folder")
        wanted = [service] if service else services_for(found[0])
        if not wanted:
            raise MappingError(f"{found[0].name} has no table that a service learns from")
        for own in wanted:
            with steps(console) as report:
                made = Workspace(home).train_own(own, found[0], Plans(), report)
            for one in made:
                print_report(one, console)
    except MappingError as error:
        raise typer.BadParameter(str(error)) from error


@app.command(name="eval")
def evaluate(
    home: Home = _HOME,
    sessions: Annotated[int, typer.Option(help="Held-out sessions to judge by.")] = 1500,
) -> None:
    """Show how good the champions are on held-out data, beside simple baselines."""
    workspace = Workspace(home)
    source, cards = workspace.source(), workspace.cards()
    if not source:
        raise typer.BadParameter(f"nothing is trained in {home}; run `madang train` first")
    for one in cards:
        console.print(Markdown(one))
    if cards:
        return
    with steps(console) as report:
        loaded = load(source, lambda share: report("data", share))
        results = workspace.evaluate(loaded, sessions, lambda s: report("evaluation", s))
    print_quality(results, f"{loaded.tables.name}, held-out period", console)


@app.command()
def demo(data: Data = None, home: Home = _HOME / "demo") -> None:
    """Data → models → mesh → a feed and its trace, in one go."""
    if not data:
        from madang_cli.demo import run_demo

        run_demo(home, console)
        return
    from madang_cli.own_demo import run_own_demo

    try:
        run_own_demo(data, home, console)
    except MappingError as error:
        raise typer.BadParameter(str(error)) from error


@app.command()
def up(
    home: Home = _HOME,
    name: Name = "default",
    workers: Annotated[int, typer.Option(min=1, help="Processes a service.")] = 1,
    port: Annotated[int, typer.Option(help="The gateway's port; 0 takes a free one.")] = 0,
    milvus: Annotated[
        bool, typer.Option("--milvus", help="Search documents in Milvus Lite, not in memory.")
    ] = False,
) -> None:
    """Start Valkey, Envoy and all services, and run until Ctrl-C."""
    from madang_pipelines.publish import publish

    workspace = Workspace(home)
    if not workspace.source():
        raise typer.BadParameter(f"nothing is trained in {home}; run `madang train` first")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    with LocalMesh(
        home,
        name,
        workers=workers,
        gateway_port=port,
        milvus=milvus,
        note=lambda p: console.print(f"{p} is ready"),
    ) as mesh:
        rows = publish(workspace.features, mesh.info.gateway)
        console.print(f"{rows:,} feature rows published")
        mesh.wait_serving()
        _print_endpoints(mesh.info)
        failed = ""
        while not stopping.wait(0.5) and not failed:
            failed = mesh.failed()
    if failed:
        raise ProcessFailedError(f"{failed} ended by itself; see {mesh.info.folder}/{failed}.log")


def _print_endpoints(info: MeshInfo) -> None:
    console.print(f"\n[bold]gateway[/]  {info.gateway}   gRPC, gRPC-Web and JSON")
    for service, address in info.services.items():
        console.print(f"  {service:<14} {address}")
    console.print(f"[bold]envoy[/]    http://{info.admin}")
    console.print(f"[bold]metrics[/]  {' '.join(info.metrics.values())}")
    console.print(f"[bold]traces[/]   {info.traces}   (also for Jaeger: upload as OTLP JSON)")
    console.print("Ctrl-C stops everything.")


@app.command()
def status(home: Home = _HOME, name: Name = "default") -> None:
    """Show which parts of a running mesh are healthy."""
    info = _running(home, name)
    table = Table("part", "address", "health", title=f"mesh {name}, process {info.pid}")
    for service, address in (info.services | info.background).items():
        state = "[green]serving" if healthy(address) else "[red]not serving"
        table.add_row(service, address, state)
    try:
        with urllib.request.urlopen(f"http://{info.admin}/ready", timeout=1) as answer:
            state = answer.read().decode().strip().lower()
    except OSError as error:
        state = f"[red]{error}"
    table.add_row("gateway", info.gateway, state)
    console.print(table)


@app.command()
def call(
    rpc: Annotated[str, typer.Argument(help="SERVICE.METHOD, such as ranker.Recommend.")],
    request: Annotated[str, typer.Argument(help="The request as JSON.")] = "{}",
    home: Home = _HOME,
    name: Name = "default",
    gateway: Annotated[str, typer.Option(help="host:port; unset takes the mesh's.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds.")] = 10.0,
) -> None:
    """Call any RPC from JSON."""
    target = find_rpc(rpc)
    try:
        for answer in call_rpc(gateway or _running(home, name).gateway, target, request, timeout):
            typer.echo(answer)
    except grpc.RpcError as error:
        _refused(error)


@app.command(name="publish")
def publish_bundle(
    registry: Annotated[str, typer.Option(help="fsspec URL of the mesh's model registry.")],
    gateway: Annotated[str, typer.Option(help="host:port of the mesh.")],
    home: Home = _HOME,
    replace: Annotated[bool, typer.Option(help="Also champions of its own.")] = False,
    patience: Annotated[float, typer.Option(help="Seconds to wait for the mesh to start.")] = 600.0,
) -> None:
    """Bring what was trained here to a mesh elsewhere: models, then features, lists, campaigns."""
    from madang_pipelines.publish import copy_champions, publish

    workspace = Workspace(home)
    if not workspace.source():
        raise typer.BadParameter(f"nothing is trained in {home}; run `madang train` first")
    others = copy_champions(workspace.registry, ModelRegistry(registry), replace=replace)
    if others:
        typer.echo(f"{registry} has champions of its own: {', '.join(others)}")
        typer.echo("they stay, and so do the features that they read; --replace replaces both")
        return
    typer.echo(f"{registry} has our champions")
    rows = publish(workspace.features, gateway, patience=patience)
    typer.echo(f"{rows:,} feature rows published to {gateway}")


@app.command(name="views")
def take_views(
    folder: Annotated[Path, typer.Argument(help="Of a Feast repository's Python files.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the views as YAML, a file each.")
    ] = None,
    gateway: Annotated[str, typer.Option(help="host:port of a mesh to apply them to.")] = "",
) -> None:
    """Take over the feature views of a Feast repository."""
    from madang_cli.views import print_views
    from madang_pipelines.publish import apply_views
    from madang_pipelines.sources.feast import as_yaml, read_feast

    try:
        found = read_feast(folder)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    print_views(found, console)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        for view in found.views:
            (out / f"{view.name}.yaml").write_text("\n".join(as_yaml(view)) + "\n", "utf-8")
        typer.echo(f"written to {out}")
    if gateway:
        try:
            changed = apply_views(found.views, gateway)
        except grpc.RpcError as error:
            _refused(error)
        typer.echo(f"{changed} of {len(found.views)} views are new or changed at {gateway}")


data_app = typer.Typer(help="Your own data.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command(name="inspect")
def inspect_data(
    path: Annotated[Path, typer.Argument(help="A mapping, or a file that has none yet.")],
    folder: Annotated[
        Path | None, typer.Option(help="Where a mapping's files are; unset: beside it.")
    ] = None,
    table: Annotated[
        str, typer.Option(help=f"Of a file, what its rows are: {', '.join(TABLES)}.")
    ] = "",
) -> None:
    """Look at files before anything is trained on them: columns, types, what is set aside."""
    from madang_cli.own_data import inspect

    if table and table not in TABLES:
        raise typer.BadParameter(f"there is no table {table!r}; there are {', '.join(TABLES)}")
    try:
        inspect(path, folder, table, console)
    except MappingError as error:
        raise typer.BadParameter(str(error)) from error


@app.command(name="verify")
def verify_mesh(
    home: Home = _HOME,
    name: Name = "default",
    gateway: Annotated[str, typer.Option(help="host:port; unset takes the mesh's.")] = "",
    jaeger: Annotated[str, typer.Option(help="URL of Jaeger, to look for the trace.")] = "",
    user: Annotated[str, typer.Option(help="Any user.")] = "u00020",
    latitude: Annotated[float, typer.Option(help="Of a place that is delivered to.")] = 37.4959,
    longitude: Annotated[float, typer.Option(help="Of that place.")] = 127.0664,
) -> None:
    """Call every service of a mesh and check the answers."""
    from madang_cli.verify import Visitor, verify

    failed = False
    target = gateway or _running(home, name).gateway
    for finding in verify(target, Visitor(user, latitude, longitude), jaeger):
        failed |= bool(finding.error)
        mark = f"[red]✗ {finding.check}:[/] {finding.error}" if finding.error else None
        console.print(mark or f"[green]✓[/] {finding.check}: {finding.seen}", highlight=False)
    if failed:
        raise typer.Exit(1)


@app.command()
def alias(
    model: Annotated[str, typer.Argument(help="A model of the registry, such as eta-standard.")],
    name: Annotated[str, typer.Argument(help="champion, challenger, shadow …")],
    version: Annotated[str, typer.Argument(help="A version or another alias; empty removes it.")],
    home: Home = _HOME,
) -> None:
    """Point an alias at a version: what follows it takes it within seconds."""
    registry = Workspace(home).registry
    if not version:
        registry.remove_alias(model, name)
        typer.echo(f"{model} has no {name} any more")
        return
    found = registry.resolve(model, version) if registry.has_alias(model, version) else version
    registry.set_alias(model, name, found)
    typer.echo(f"{name} of {model} is {found}")


@app.command(name="model")
def take_model(
    path: Annotated[Path, typer.Argument(help="YAML that names an ONNX and what it reads.")],
    home: Home = _HOME,
    alias_name: Annotated[str, typer.Option("--alias", help="Of the new version.")] = CHAMPION,
) -> None:
    """Let the ranker run on a model of your own, any ONNX."""
    from madang_pipelines.features import load_views
    from madang_pipelines.own.onnx_model import OwnModelError, register_own_model
    from madang_pipelines.publish import own_views
    from madang_pipelines.training import RANKER

    workspace = Workspace(home)
    try:
        views = load_views() | own_views(workspace.features)
        version = register_own_model(path, views, workspace.registry)
    except (OwnModelError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    workspace.registry.set_alias(RANKER, alias_name, version)
    typer.echo(f"{alias_name} of {RANKER} is {version}, from {path}")


@app.command(name="encoder")
def take_encoder(
    folder: Annotated[Path, typer.Argument(help="In the layout of sentence-transformers.")],
    texts: Annotated[
        Path | None,
        typer.Option(help="File of lines such as will be searched; they set the thresholds."),
    ] = None,
    home: Home = _HOME,
    alias_name: Annotated[str, typer.Option("--alias", help="Of the new version.")] = CHAMPION,
) -> None:
    """Let search run on another sentence encoder."""
    try:
        from madang_pipelines.search.folders import FolderError, import_encoder
    except ModuleNotFoundError as error:
        raise typer.BadParameter("pip install sentence-transformers first") from error
    lines = texts.read_text().splitlines() if texts else None
    registry = Workspace(home).registry
    try:
        version = import_encoder(folder, registry, lines)
    except FolderError as error:
        raise typer.BadParameter(str(error)) from error
    registry.set_alias(ENCODER, alias_name, version)
    typer.echo(f"{alias_name} of {ENCODER} is {version}, from {folder}")


@app.command(name="replay")
def replay_day(
    versions: Annotated[
        list[str] | None, typer.Argument(help="Versions or aliases; none: champion.")
    ] = None,
    service: Annotated[str, typer.Option(help="Kind of service.")] = "standard",
    day: Annotated[int, typer.Option(help="Of the data, from 0; from its end, -1.")] = -1,
    home: Home = _HOME,
) -> None:
    """What versions would have said of when a day's orders arrive, before one is released."""
    from madang_eta.stage_model import EtaModel
    from madang_pipelines.eta.replay import replay

    workspace = Workspace(home)
    orders = workspace.orders()
    if orders is None:
        raise typer.BadParameter(f"{home} has no orders; run `madang train` first")
    registry, name = workspace.registry, f"eta-{service}"
    models = {}
    for wanted in versions or ["champion"]:
        version = registry.resolve(name, wanted) if registry.has_alias(name, wanted) else wanted
        models[wanted] = EtaModel(registry.load(name, version))
    count, scores = replay(orders, models, day)
    print_arrivals(scores, f"{count:,} orders of {service} on day {day}", console)


@app.command()
def trace(
    trace_id: Annotated[str, typer.Argument(help="The trace_id of an answer's serving_info.")],
    home: Home = _HOME,
    name: Name = "default",
) -> None:
    """Draw a request's way through the mesh."""
    if not draw_trace(_running(home, name).traces, trace_id, console):
        console.print(f"[red]no span of trace {trace_id!r} has arrived")
        raise typer.Exit(1)


@app.command()
def why(
    request_id: Annotated[str, typer.Argument(help="The request_id of a Recommend answer.")],
    item_id: Annotated[str, typer.Argument(help="An item of it; unset takes the first.")] = "",
    home: Home = _HOME,
    name: Name = "default",
) -> None:
    """Tell why an item was where it was on a page."""
    with grpc.insecure_channel(_running(home, name).gateway) as channel:
        request = ranker_pb2.ExplainRequest(request_id=request_id, item_id=item_id)
        try:
            answer = ranker_pb2_grpc.RankerServiceStub(channel).Explain(request, timeout=10)
        except grpc.RpcError as error:
            _refused(error)
    print_why(answer, Catalogue(home / "data"), console)


@app.command(name="ope")
def off_policy(
    data: Annotated[
        Path | None, typer.Option(help="Folder of logs as the Open Bandit Dataset has them.")
    ] = None,
    logs: Annotated[
        Path | None, typer.Option(help="Folder of svc-ranker's logs: decisions and feedback.")
    ] = None,
    surface: Annotated[str, typer.Option(help="Of the logs, the surface to judge.")] = "home",
    reward: Annotated[
        Literal["CLICK", "CONVERSION"], typer.Option(help="Of the logs, what counts.")
    ] = "CONVERSION",
) -> None:
    """Estimate what one policy would have earned from the log of another: IPS, SNIPS, DR."""
    from madang_pipelines.sources.decision_log import load_explorations
    from madang_pipelines.sources.open_bandit import load_campaigns

    if data:
        print_off_policy(load_campaigns(data), console)
    if logs:
        print_explorations(load_explorations(logs, surface, reward), surface, console)
    if not data and not logs:
        raise typer.BadParameter("give --data or --logs")


@app.command()
def searches(
    logs: Annotated[
        Path | None,
        typer.Option(help="Folder of the logs searches and feedback; unset takes the mesh's."),
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="Positions that count as seen.")] = 10,
    slow_ms: Annotated[float, typer.Option(help="What is slow.")] = 100.0,
    home: Home = _HOME,
    name: Name = "default",
) -> None:
    """Report what became of searches: without an answer, slow, clicked."""
    from madang_cli.searches import print_searches
    from madang_pipelines.search.query_log import report_searches

    try:
        report = report_searches(logs or home / "mesh" / name, k=k)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    print_searches(report, slow_ms, console)


def _refused(error: grpc.RpcError) -> NoReturn:
    refused = from_rpc_error(error)
    console.print(f"[red]{refused.code} {refused.reason_name}[/] {refused.message}")
    raise typer.Exit(1) from error


def _running(home: Path, name: str) -> MeshInfo:
    info = find(home, name)
    if not info:
        raise typer.BadParameter(f"no mesh {name!r} runs in {home}; start one by `madang up`")
    return info


def main() -> None:
    """Run the command line; expected failures become one message."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # so that children are stopped
    try:
        app()
    except (CallError, MadangError, ProcessFailedError, ValueError) as error:
        console.print(f"[red]{error}")
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
