"""`madang demo`: data → models → mesh → a feed, and its trace."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from rich.console import Console

from madang.ranker.v1 import ranker_pb2, ranker_pb2_grpc
from madang.targeting.v1 import targeting_pb2 as pb
from madang_cli.advert import AdSlot
from madang_cli.arrival import Order, draw_arrival, refreshed, summary
from madang_cli.feeding import explained, feed_request, show_feed, someone
from madang_cli.mesh.mesh import LocalMesh, MeshInfo, wait_for
from madang_cli.newcomer import NEWCOMER, SURFACE, Newcomer, print_waves
from madang_cli.outreach import Campaign, draw_curve, reference
from madang_cli.searching import SearchBox
from madang_cli.show import (
    Catalogue,
    headings,
    print_ads,
    print_arrivals,
    print_data,
    print_quality,
    print_segment,
    print_why,
    steps,
)
from madang_cli.traces import draw_trace
from madang_cli.workspace import DataSource, Workspace, load
from madang_pipelines.city.campaigns import CampaignWorld
from madang_pipelines.eta.evaluation import evaluate_city as evaluate_arrivals
from madang_pipelines.eta.training import EtaPlan
from madang_pipelines.publish import publish
from madang_pipelines.tables import Tables
from madang_pipelines.training import Recipe

_EVALUATED = 1200
_TIMEOUT = 5.0
_TOLD = 600


def run_demo(home: Path, console: Console) -> None:
    """Run everything on the simulated city in a folder of its own, and take it down again."""
    workspace, heading, source = Workspace(home), headings(console), DataSource()
    workspace.clear()
    heading("data and models")
    with steps(console) as report:
        data = load(source, lambda share: report("data", share))
        workspace.train(source, data, Recipe(), report)
        quality = workspace.evaluate(data, _EVALUATED, lambda s: report("evaluation", s))
    print_data(data.tables, console)
    print_quality(quality, "Held-out period, by the simulator's truth", console)
    plan = EtaPlan("standard", clock=data.tables.clock)
    with steps(console) as report:
        report("arrivals, evaluation", 0.0)
        arrivals, fitted = evaluate_arrivals(data.tables, data.deliveries, plan)
        report("arrivals, evaluation", 1.0)
    print_arrivals(arrivals, "Held-out period, by when orders arrived", console)
    dispatch = fitted.correlations[0, 1]
    console.print(
        f"Where dispatch is slow the kitchen is too (correlation {dispatch:.2f}): convolved as "
        "if\nthey were independent, intervals are too sure."
    )

    heading("the mesh")
    with started(workspace, console) as mesh:
        heading("a home feed")
        catalogue = Catalogue(home / "data")
        answer = show_feed(mesh.info, data.tables, catalogue, console, heading)
        heading("when it arrives")
        _arrival(mesh.info, data.tables, answer, catalogue, console)
        heading("a fresh shop")
        gateway = mesh.info.gateway
        shop = Newcomer(data.tables, data.truth, workspace.features, gateway)
        _newcomer(shop, gateway, catalogue, console)
        heading("ads")
        _ads(mesh.info, data.tables, catalogue, console)
        heading("whom to tell")
        _outreach(mesh.info, data.tables, data.outreach, console)
        heading("search")
        _search(mesh.info, data.tables, console)
        heading("the feed's request, traced")
        draw_trace(mesh.info.traces, answer.serving_info.trace_id, console)
    console.print("\nEverything is stopped. Next: [bold]madang up[/], see the README.")


@contextmanager
def started(workspace: Workspace, console: Console) -> Iterator[LocalMesh]:
    """The mesh of what was trained, with its features published."""
    with LocalMesh(
        workspace.home, "demo", note=lambda part: console.print(f"  {part} is ready")
    ) as mesh:
        rows = publish(workspace.features, mesh.info.gateway)
        mesh.wait_serving()
        console.print(f"  {rows:,} feature rows published through the gateway {mesh.info.gateway}")
        yield mesh


def _arrival(
    info: MeshInfo,
    tables: Tables,
    feed: ranker_pb2.RecommendResponse,
    catalogue: Catalogue,
    console: Console,
) -> None:
    """Someone orders from the first of their feed; and the lists that the batch has made."""
    session = feed_request(someone(tables))
    shop = next(i.item_id for i in feed.items if i.HasField("arrival") or i is feed.items[-1])
    with grpc.insecure_channel(info.gateway) as channel:
        order = Order(channel, shop, session.place, session.request_time)
        answer = order.predict()
        console.print(f"[bold]{catalogue.name(shop)}[/], {answer.service}: minutes from now")
        draw_arrival(answer, console)
        token = order.buffer(10, "it snows")
        console.print("Somebody adds 10 minutes to the shop, as it snows, and takes them away:")
        console.print(summary(order.predict(token)))
        order.predict(order.buffer(0, "it stopped"))
        usual = {stage.name: stage.mean_minutes for stage in answer.stages}
        late = round(2 * usual["dispatch"]) + 4
        console.print(
            f"Its courier came after {late} minutes (usual: {usual['dispatch']:.0f}), so the "
            "rest is slower too:"
        )
        console.print(summary(order.ended("dispatch", late)))
    wait_for(lambda: refreshed(info.metrics)[1] > 0, 60)
    rows, seconds = refreshed(info.metrics)
    console.print(
        f"For lists {rows:,} pairs of shop and cell were estimated and written in {seconds:.1f} s."
    )


def _newcomer(shop: Newcomer, gateway: str, catalogue: Catalogue, console: Console) -> None:
    """A shop opens; users near it come in waves, and the bandit learns whom to show it."""
    seconds = shop.open()
    catalogue.add_twin(NEWCOMER, shop.twin, "new")
    console.print(
        f"[bold]{catalogue.name(NEWCOMER)}[/] opens, unknown to the models. "
        f"{seconds * 1000:.0f} ms later it is a candidate."
    )
    with steps(console) as report:
        waves = shop.waves(lambda share: report(f"users of '{SURFACE}'", share))
    print_waves(waves, console)
    with grpc.insecure_channel(gateway) as channel:
        ranker = ranker_pb2_grpc.RankerServiceStub(channel)
        print_why(explained(ranker, shop.last_page.request_id, NEWCOMER), catalogue, console, 2)


def _ads(info: MeshInfo, tables: Tables, catalogue: Catalogue, console: Console) -> None:
    """Someone's ads; and one whose budget is spent."""
    with grpc.insecure_channel(info.gateway) as channel:
        slot = AdSlot(channel, feed_request(someone(tables)), catalogue)
        page = slot.page(least=3)
        print_ads(page, catalogue, console)
        ranker = ranker_pb2_grpc.RankerServiceStub(channel)
        best = page.items[0].item_id
        print_why(explained(ranker, page.request_id, best), catalogue, console, 2)
        spent = slot.spend(best)
    console.print(
        f"{spent.clicks} users open it at {catalogue.bid(best):,.0f} won each, and its "
        f"{catalogue.daily_budget(best):,.0f} won for the day are spent.\n"
        f"{spent.seconds * 1000:,.0f} ms later no page shows it."
    )


def _outreach(info: MeshInfo, tables: Tables, world: CampaignWorld, console: Console) -> None:
    """A segment from a campaign before, with its curve; a sample, and what was learned from it."""
    like = reference(tables)
    console.print(
        f"Campaign {like.campaign_id} told {like.told:,} users of {like.group} by {like.channel}; "
        f"{like.clicked:,} opened it.\nWho is like them, or likes {like.group}?"
    )
    with grpc.insecure_channel(info.gateway) as channel:
        campaign = Campaign(channel, world, like, "demo")
        with steps(console) as report:
            first = campaign.segment("demo-sample", _TOLD, report)
        console.print("How many would open it, by how many are told, from the best on:")
        draw_curve(first, console)
        print_segment(first, console)
        sample = campaign.send("demo-sample", pb.MEMBER_PART_SAMPLE)
        console.print(
            f"A sample of {sample.told} is told, within their caps: {sample.clicked} open it. That "
            "is\nlearned from, and others are chosen:"
        )
        with steps(console) as report:
            second = campaign.segment("demo-main", _TOLD, report, learn=True)
        main = campaign.send("demo-main", pb.MEMBER_PART_MAIN)
        held = campaign.held_out("demo-main")
        print_segment(second, console)
    console.print(
        f"Of {main.told} who are told {main.clicked / main.told:.0%} open it and "
        f"{main.ordered / main.told:.0%} order; of {held.told} who are held out\n"
        f"{held.ordered / max(held.told, 1):.0%} order anyway."
    )


def _search(info: MeshInfo, tables: Tables, console: Console) -> None:
    """Someone types, searches, and asks."""
    with grpc.insecure_channel(info.gateway) as channel:
        box = SearchBox(channel, feed_request(someone(tables)))
        box.open(console, tables)
        box.type(console)
        box.find(console)
        box.mean(console, tables)
        box.ask(console)
