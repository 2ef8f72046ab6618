"""Segments: how they are asked for, made, called off, and begun anew."""

import gc
import secrets
import threading
import time
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from opentelemetry.trace import NoOpTracer
from prometheus_client import CollectorRegistry

from madang.targeting.v1 import targeting_pb2 as pb
from madang.targeting.v1.segment_record_pb2 import SegmentMembers
from madang_runtime.changelog.errors import unavailable
from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.models.registry import ModelRegistry
from madang_runtime.times import now_ms
from madang_targeting.audience import AUDIENCE, USERS, Audiences
from madang_targeting.desk import SegmentDesk
from madang_targeting.listing import MemberLister
from madang_targeting.lookalike import train_response
from madang_targeting.maker import SegmentMaker
from madang_targeting.members import Members
from madang_targeting.model import NAME, OUTCOMES, Layout, Simulator, TargetingModel, pack
from madang_targeting.results import Event
from madang_targeting.stores.memory import MemoryResultStore, MemorySegmentStore
from madang_targeting.trees import StoppedError, TreeTraining
from madang_targeting.work import Work
from madang_targeting.worker import Worker, WorkMetrics

USER_COUNT = 20_000
LAYOUT = Layout(
    about=["age"], by_group=["likes"], groups=["chicken", "tea"], channels=["push", "mail"]
)
QUICK = TreeTraining(rounds=60, learning_rate=0.1, threads=1)
CLICK, ORDER = pb.OUTCOME_CLICK, pb.OUTCOME_ORDER


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def people(rng, n):
    """Users: who likes what clicks on it, and older ones order."""
    frame = pl.DataFrame(rng.normal(size=(n, 3)), schema=LAYOUT.columns())
    return frame.cast(pl.Float32)


def chances(frame, group, channel):
    """P(click), P(order) of users who are told."""
    likes, age = frame[f"likes.{group}"].to_numpy(), frame["age"].to_numpy()
    base = {"push": -2.0, "mail": -2.6}[channel]
    return sigmoid(base + 1.2 * likes), sigmoid(-2.5 + 0.8 * likes + 0.8 * age)


def recipients(rng, campaign, group, channel, n=4000):
    frame = people(rng, n)
    did = [rng.random(n) < p for p in chances(frame, group, channel)]
    about = [pl.lit(campaign).alias("campaign_id")]
    events = [pl.Series(o, d) for o, d in zip(OUTCOMES.values(), did, strict=True)]
    return frame.select(*about, *events, pl.all())


def register(registry, users, version_of=None):
    """A model that was trained on a campaign by channel and group."""
    rng = np.random.default_rng(1)
    sent = {
        (group, channel): recipients(rng, f"{group}-{channel}", group, channel)
        for group in LAYOUT.groups
        for channel in LAYOUT.channels
    }
    simulators = {}
    for channel in LAYOUT.channels:
        own = [
            frame.rename({f"likes.{g}": "likes"}).select(*OUTCOMES.values(), "age", "likes")
            for (g, c), frame in sent.items()
            if c == channel
        ]
        rows = pl.concat(own)
        inputs = rows.select("age", "likes").to_numpy()
        models = {o: train_response(inputs, rows[o].to_numpy(), QUICK) for o in OUTCOMES.values()}
        simulators[channel] = {o: Simulator(m.trees, m.calibration) for o, m in models.items()}
    campaigns = [{"campaign_id": f"{g}-{c}", "group": g, "channel": c} for g, c in sent]
    files, parameters = pack(
        LAYOUT,
        simulators,
        {"clicked": 0.1, "ordered": 0.1},
        pa.Table.from_pylist(campaigns),
        pl.concat(sent.values()).to_arrow(),
    )
    version = registry.register(AUDIENCE, {USERS: users})
    return registry.register(NAME, files, parameters=parameters | {"audience": version})


class World:
    """A service's parts around stores in memory, and what is true of its users."""

    def __init__(self, folder):
        self.users = people(np.random.default_rng(0), USER_COUNT)
        self.ids = [f"u{i:05}" for i in range(USER_COUNT)]
        path = folder / "given.parquet"
        self.users.with_columns(user_id=pl.Series(self.ids)).write_parquet(
            path, row_group_size=3000
        )
        self.registry = ModelRegistry(f"file://{folder}/models")
        self.version = register(self.registry, path)
        self.audiences = Audiences(self.registry, folder / "copies")
        self.model = TargetingModel(self.registry.load(NAME, self.version), self.audiences.get)
        self.anew()

    def anew(self):
        self.segments, self.results = MemorySegmentStore(), MemoryResultStore()
        self.maker = SegmentMaker(self.segments, self.results, self.audiences.get)
        self.desk = SegmentDesk(self.segments, self.maker, lambda: self.model)
        self.lister = MemberLister(self.segments, self.audiences.get)

    def worker(self, **options):
        given = {"lease_seconds": 5, "threads": 1, **options}
        metrics = WorkMetrics(CollectorRegistry())
        made = Worker(self.segments, self.maker, lambda: self.model, NoOpTracer(), metrics, **given)
        made.start()
        return made

    def make(self, name="s", **spec):
        """Make a segment at once; returns its result and the rows of its parts."""
        made = self.maker.make(name, asked(**spec), self.model, Work())
        return made.result, rows_of(made.members)

    def keep(self, name, **spec):
        """Ask for a segment and have it made."""
        self.desk.create(pb.CreateSegmentRequest(segment_id=name, spec=asked(**spec)))
        worker = self.worker()
        assert waited(lambda: self.desk.get(name).operation.end_time.seconds)
        worker.close()
        return self.desk.get(name)

    def listed(self, name, part=pb.MEMBER_PART_MAIN, token=""):
        request = pb.ListMembersRequest(segment_id=name, part=part, page_token=token)
        return [user for m in self.lister.stream(request) for user in m.user_ids]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return World(tmp_path_factory.mktemp("targeting"))


@pytest.fixture
def world(built):
    built.anew()
    return built


def asked(**spec):
    given = {"groups": ["chicken"], "channel": "push", "goal": CLICK, **spec}
    if not {"size", "least_rate"} & set(given):
        given["size"] = 2000
    return pb.SegmentSpec(**given)


def rows_of(members: SegmentMembers):
    packed = (members.main, members.sample, members.held_out)
    return [Members.unpack(part).rows().astype(int) for part in packed]


def waited(ready, seconds=20):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if ready():
            return True
        time.sleep(0.02)
    return False


def why(call, *arguments):
    with pytest.raises(MadangError) as caught:
        call(*arguments)
    error = caught.value
    return f"{error.code} {error.reason_name} {error.about.get('field', '')}".strip()


def create(desk, name="s", **spec):
    return desk.create(pb.CreateSegmentRequest(segment_id=name, spec=asked(**spec)))


# --- What is made ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "alike"),
    [({}, False), ({"reference_campaign_ids": ["chicken-push"], "groups": []}, True)],
)
@pytest.mark.parametrize("goal", [CLICK, ORDER])
def test_a_segment_is_of_whom_most_is_to_be_expected(world, spec, alike, goal):
    result, (rows, sample, held) = world.make(goal=goal, **spec)
    assert len(rows) == result.size == result.main_size == 2000
    assert not len(sample) + len(held)
    click, order = chances(world.users, "chicken", "push")
    true = {CLICK: click, ORDER: order}
    best = np.sort(true[goal])[::-1][: len(rows)].mean()
    assert true[goal][rows].mean() > 0.9 * best
    for rate, chance in ((result.expected.click_rate, click), (result.expected.order_rate, order)):
        assert rate.expected == pytest.approx(chance[rows].mean(), rel=0.15)
        assert rate.low < chance[rows].mean() < rate.high
    assert result.everybody.size == result.audience_size == USER_COUNT
    assert result.everybody.click_rate.expected == pytest.approx(click.mean(), rel=0.1)
    assert (result.learned_from, result.by_lookalike > 0) == ((4000, True) if alike else (0, False))
    sizes = [point.size for point in result.curve]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == USER_COUNT
    assert result.model.version == world.version


def test_a_wanted_rate_is_reached_by_as_many_as_can(world):
    result, (rows, _, _) = world.make(least_rate=0.3)
    click, _ = chances(world.users, "chicken", "push")
    assert result.expected.click_rate.expected >= 0.3
    assert click[rows].mean() == pytest.approx(0.3, abs=0.03)
    nobody, parts = world.make(least_rate=0.99)
    assert nobody.size == sum(map(len, parts)) == 0


def test_more_than_there_are_is_everybody(world):
    assert world.make(size=10**9)[0].size == USER_COUNT


def test_of_several_groups_the_likeliest_counts(world):
    _, (rows, _, _) = world.make(groups=["chicken", "tea"])
    best = np.maximum(*(chances(world.users, g, "push")[0] for g in LAYOUT.groups))
    assert best[rows].mean() > 0.9 * np.sort(best)[::-1][: len(rows)].mean()


def test_a_segment_learns_from_what_was_recorded_since(world):
    """A campaign that moves users whom no model expects: only its sample's results tell."""
    rng = np.random.default_rng(5)
    age = world.users["age"].to_numpy()
    sent = rng.choice(USER_COUNT, 5000, replace=False)
    clicked = sent[rng.random(5000) < sigmoid(-2 - 2 * age[sent])]
    world.results.append("new", Event.SENT, [world.ids[i] for i in sent])
    world.results.append("new", Event.CLICK, [world.ids[i] for i in clicked])
    world.results.append("new", Event.CLICK, ["nobody we know"])
    spec = {"reference_campaign_ids": ["new"], "exclude_told_campaign_ids": ["new"]}
    result, (rows, _, _) = world.make(**spec)
    assert (result.learned_from, result.responded) == (5000, len(clicked))
    assert not set(rows) & set(sent.tolist()), "nobody is told twice"
    assert result.audience_size == USER_COUNT - 5000
    true = sigmoid(-2 - 2 * age)
    without, (others, _, _) = world.make(exclude_told_campaign_ids=["new"])
    assert true[rows].mean() > 2 * true[others].mean()
    assert without.learned_from == 0


@pytest.mark.parametrize("before", ["push", "mail"])
@pytest.mark.parametrize("now", ["push", "mail"])
def test_responders_by_another_channel_are_expected_by_this_one(world, before, now):
    spec = {"reference_campaign_ids": [f"chicken-{before}"], "groups": [], "channel": now}
    result, (rows, _, _) = world.make(**spec)
    click, _ = chances(world.users, "chicken", now)
    assert result.expected.click_rate.expected == pytest.approx(click[rows].mean(), rel=0.13)
    assert result.everybody.click_rate.expected == pytest.approx(click.mean(), rel=0.13)


def test_a_campaign_that_is_named_twice_counts_once(world):
    world.results.append("new", Event.SENT, world.ids[:1000], "push")
    world.results.append("new", Event.CLICK, world.ids[:100])
    result, _ = world.make(reference_campaign_ids=["new", "new"])
    assert (result.learned_from, result.responded) == (1000, 100)


def test_parts_are_drawn_and_the_campaign_holds_out_the_same(world):
    spec = {"campaign_id": "c1", "held_out_share": 0.2, "sample_share": 0.1}
    result, (rows, sample, held) = world.make(size=5000, **spec)
    assert len(set(rows) | set(sample) | set(held)) == len(rows) + len(sample) + len(held)
    assert result.size == result.main_size + result.sample_size + result.held_out_size == 5000
    assert len(held) / result.size == pytest.approx(0.2, abs=0.03)
    assert len(sample) / (result.size - len(held)) == pytest.approx(0.1, abs=0.03)
    _, (more, _, still) = world.make(name="t", size=9000, **spec)
    assert set(held) <= set(still)
    assert not set(more) & set(held)


def test_segments_are_built_on_segments(world):
    world.keep("young", size=6000)
    world.keep("few", size=1000, held_out_share=0.5)
    within, (rows, _, _) = world.make(
        groups=["tea"], within_segment_ids=["young"], exclude_segment_ids=["few"], size=500
    )
    inside = {world.ids.index(u) for u in world.listed("young")}
    assert set(rows) <= inside
    few = {*world.listed("few"), *world.listed("few", pb.MEMBER_PART_HELD_OUT)}
    assert not {world.ids[i] for i in rows} & few
    assert within.audience_size == len(inside) - len(few & {world.ids[i] for i in inside})


def test_segments_of_an_older_audience_are_found_by_their_users(world, tmp_path):
    """The next audience has other rows: users left, came, and were sorted anew."""
    world.keep("old", size=3000)
    old = set(world.listed("old"))
    ids = world.ids[::-1][:15_000]
    path = tmp_path / "given.parquet"
    world.users[::-1][:15_000].with_columns(user_id=pl.Series(ids)).write_parquet(path)
    version = register(world.registry, path)
    model = TargetingModel(world.registry.load(NAME, version), world.audiences.get)
    made = world.maker.make("new", asked(within_segment_ids=["old"], size=10**6), model, Work())
    found = {ids[i] for i in rows_of(made.members)[0]}
    assert found == old & set(ids)
    assert set(world.listed("old")) == old


# --- How it is asked for --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ({"groups": []}, "INVALID_ARGUMENT FIELD_INVALID spec.groups"),
        ({"size": 0}, "INVALID_ARGUMENT FIELD_INVALID spec.size"),
        ({"size": -3}, "INVALID_ARGUMENT FIELD_INVALID spec.size"),
        ({"least_rate": 1.0}, "INVALID_ARGUMENT FIELD_INVALID spec.least_rate"),
        ({"least_rate": float("nan")}, "INVALID_ARGUMENT FIELD_INVALID spec.least_rate"),
        ({"channel": "pigeon"}, "NOT_FOUND CHANNEL_NOT_FOUND channel"),
        ({"groups": ["moon"]}, "NOT_FOUND PREFERENCE_GROUP_NOT_FOUND groups"),
        ({"reference_campaign_ids": ["never"]}, "NOT_FOUND CAMPAIGN_NOT_FOUND"),
        ({"exclude_segment_ids": ["never"]}, "NOT_FOUND SEGMENT_NOT_FOUND"),
        ({"within_segment_ids": ["waiting"]}, "FAILED_PRECONDITION SEGMENT_NOT_DONE"),
    ],
)
def test_what_can_not_be_made_is_refused_at_once(world, spec, error):
    create(world.desk, "waiting")
    assert why(lambda: create(world.desk, **spec)) == error
    assert world.segments.get("s") is None


def test_a_campaign_that_the_model_does_not_know_needs_groups(world):
    world.results.append("new", Event.SENT, ["u00001"])
    spec = {"reference_campaign_ids": ["new"], "groups": []}
    assert why(lambda: create(world.desk, **spec)).startswith("INVALID_ARGUMENT FIELD_INVALID")


def test_the_same_again_is_the_same_and_another_is_refused(world):
    first = create(world.desk)
    assert create(world.desk) == first
    assert why(lambda: create(world.desk, size=3)) == "ALREADY_EXISTS SEGMENT_EXISTS"
    world.desk.delete("s")
    assert create(world.desk, size=3).segment_id == "s"
    assert why(world.desk.delete, "nothing") == "NOT_FOUND SEGMENT_NOT_FOUND"
    assert why(world.desk.get, "nothing") == "NOT_FOUND SEGMENT_NOT_FOUND"
    assert why(world.desk.cancel, "nothing") == "NOT_FOUND SEGMENT_NOT_FOUND"


def test_segments_are_paged_without_their_curves(world):
    world.keep("b", size=10)
    for name in "acd":
        create(world.desk, name)
    first = world.desk.page(pb.ListSegmentsRequest(page_size=3))
    assert [s.segment_id for s in first.segments] == ["a", "b", "c"]
    assert not first.segments[1].result.curve
    assert first.segments[1].result.size == 10
    assert not first.segments[0].HasField("result")
    rest = world.desk.page(pb.ListSegmentsRequest(page_size=3, page_token=first.next_page_token))
    assert ([s.segment_id for s in rest.segments], rest.next_page_token) == (["d"], "")
    assert world.desk.get("b").result.curve


# --- Members --------------------------------------------------------------------------------


def test_members_are_streamed_and_taken_up_again(world):
    world.keep("s", size=15_000, sample_share=0.2)
    request = pb.ListMembersRequest(segment_id="s")
    parts = list(world.lister.stream(request))
    assert [len(p.user_ids) for p in parts][:-1] == [10_000]
    whole = [user for p in parts for user in p.user_ids]
    assert whole == sorted(set(whole))
    assert world.listed("s", token=parts[0].page_token) == list(parts[1].user_ids)
    assert world.listed("s", token=parts[-1].page_token) == []
    sample = world.listed("s", pb.MEMBER_PART_SAMPLE)
    assert sample
    assert not set(sample) & set(whole)
    token = parts[0].page_token
    wrong = "INVALID_ARGUMENT PAGE_TOKEN_INVALID page_token"
    assert why(lambda: world.listed("s", 9)) == "INVALID_ARGUMENT FIELD_INVALID part"
    for part, given in ((pb.MEMBER_PART_SAMPLE, token), (pb.MEMBER_PART_MAIN, "?")):
        assert why(lambda part=part, given=given: world.listed("s", part, given)) == wrong
    world.desk.delete("s")
    assert why(world.listed, "s") == "NOT_FOUND SEGMENT_NOT_FOUND"
    time.sleep(0.002)
    world.keep("s", size=15_000, sample_share=0.2)
    assert why(lambda: world.listed("s", token=token)) == wrong, "another segment of the same id"


def test_a_segment_that_is_not_made_has_no_members(world):
    create(world.desk)
    assert why(world.listed, "s") == "FAILED_PRECONDITION SEGMENT_NOT_DONE"


# --- Operations -----------------------------------------------------------------------------


def test_too_few_responses_are_said(world):
    world.results.append("quiet", Event.SENT, world.ids[:300])
    world.results.append("quiet", Event.CLICK, world.ids[:3])
    operation = world.keep("s", reference_campaign_ids=["quiet"]).operation
    assert operation.state == pb.OPERATION_STATE_FAILED
    assert operation.error.reason == "TOO_FEW_RESPONSES"
    assert "3 of 300 recipients responded" in operation.error.message


class Slow:
    """A maker that works until it is told to go on."""

    def __init__(self, maker):
        self._maker, self.go_on, self.begun = maker, threading.Event(), threading.Event()
        self.check = maker.check

    def make(self, segment_id, spec, model, work):
        self.begun.set()
        while not self.go_on.wait(0.02):
            work.note("waiting", 0.5)
            if work.stopped():
                raise StoppedError
        return self._maker.make(segment_id, spec, model, replace(work, threads=1))


@pytest.fixture
def slow(world):
    made = Slow(world.maker)
    world.maker = made
    world.desk = SegmentDesk(world.segments, made, lambda: world.model)
    return made


def state(world, name="s"):
    return pb.OperationState.Name(world.desk.get(name).operation.state)[16:]


def test_progress_is_seen_while_it_is_made(world, slow):
    create(world.desk)
    assert state(world) == "PENDING"
    worker = world.worker()
    assert waited(lambda: world.desk.get("s").operation.stage == "waiting")
    operation = world.desk.get("s").operation
    assert (state(world), operation.progress, operation.attempts) == ("RUNNING", 0.5, 1)
    slow.go_on.set()
    assert waited(lambda: state(world) == "DONE")
    operation = world.desk.get("s").operation
    assert operation.end_time.ToMilliseconds() >= operation.create_time.ToMilliseconds()
    worker.close()


@pytest.mark.parametrize("begun", [False, True])
def test_what_is_called_off_stops(world, slow, begun):
    create(world.desk)
    worker = world.worker() if begun else None
    if begun:
        assert slow.begun.wait(5)
    world.desk.cancel("s")
    assert waited(lambda: state(world) == "CANCELLED", 5)
    assert world.desk.cancel("s").state == pb.OPERATION_STATE_CANCELLED
    assert create(world.desk).state == pb.OPERATION_STATE_CANCELLED
    if worker:
        create(world.desk, "next")
        slow.go_on.set()
        assert waited(lambda: state(world, "next") == "DONE"), "the worker goes on with others"
        worker.close()


def test_what_is_deleted_stays_so(world, slow):
    create(world.desk)
    worker = world.worker()
    assert slow.begun.wait(5)
    world.desk.delete("s")
    slow.go_on.set()
    worker.close()
    assert world.segments.get("s") is world.segments.members("s") is None


def test_a_service_that_stops_leaves_its_work_to_others(world, slow):
    create(world.desk)
    worker = world.worker()
    assert slow.begun.wait(5)
    worker.close()
    assert state(world) == "PENDING"
    slow.go_on.set()
    other = world.worker()
    assert waited(lambda: state(world) == "DONE", 3), "at once, not after the lease"
    assert world.desk.get("s").operation.attempts == 1
    other.close()


def test_work_of_who_died_is_begun_anew_and_they_can_not_undo_it(world, slow):
    create(world.desk)
    kept = world.segments.get("s")
    dead, operation = kept.record, kept.record.segment.operation
    dead.worker, operation.state, operation.attempts = "dead", pb.OPERATION_STATE_RUNNING, 1
    dead.lease_time.FromMilliseconds(now_ms() + 1500)
    assert world.segments.put(dead, kept.version)
    slow.go_on.set()
    worker = world.worker()
    time.sleep(0.7)
    assert (state(world), world.desk.get("s").operation.attempts) == ("RUNNING", 1)
    assert waited(lambda: state(world) == "DONE")
    assert world.desk.get("s").operation.attempts == 2
    worker.close()
    members = world.segments.members("s")
    assert not world.segments.put(dead, kept.version + 1, b"of the dead")
    assert world.segments.members("s") == members


def test_a_maker_that_is_long_silent_keeps_its_lease(world, slow):
    made = []

    def silent(*_):
        made.append(1)
        time.sleep(4)
        raise MadangError(Code.FAILED_PRECONDITION, reason.ERROR_REASON_TOO_FEW_RESPONSES, "")

    slow.make = silent
    create(world.desk)
    workers = [world.worker(lease_seconds=1.5) for _ in range(2)]
    assert waited(lambda: state(world) == "FAILED", 10)
    for worker in workers:
        worker.close()
    assert len(made) == world.desk.get("s").operation.attempts == 1


class Flaky:
    """A store of which some answers are lost, although they were written, and which is away for a
    moment when the segment is done."""

    def __init__(self, store):
        self._store, self._puts, self.away = store, 0, 2

    def __getattr__(self, name):
        return getattr(self._store, name)

    def put(self, record, seen, members=None):
        done = record.segment.operation.state == pb.OPERATION_STATE_DONE
        if done and self.away:
            self.away -= 1
            raise unavailable(TimeoutError())
        found = self._store.put(record, seen, members)
        self._puts += 1
        if self._puts % 2 and record.segment.operation.state == pb.OPERATION_STATE_RUNNING:
            raise unavailable(TimeoutError())
        return found


def test_what_was_made_is_not_lost_when_the_store_is(world, slow):
    create(world.desk)
    flaky = Flaky(world.segments)
    metrics = WorkMetrics(CollectorRegistry())
    worker = Worker(
        flaky, slow, lambda: world.model, NoOpTracer(), metrics, lease_seconds=3, threads=1
    )
    worker.start()
    assert slow.begun.wait(15)
    time.sleep(1.5)
    slow.go_on.set()
    assert waited(lambda: state(world) == "DONE", 10)
    worker.close()
    assert not flaky.away
    assert len(world.listed("s")) == 2000


def test_what_kills_its_makers_is_given_up(world, slow):
    create(world.desk)
    kept = world.segments.get("s")
    kept.record.segment.operation.attempts = 5
    kept.record.segment.operation.state = pb.OPERATION_STATE_RUNNING
    world.segments.put(kept.record, kept.version)
    worker = world.worker()
    assert waited(lambda: state(world) == "FAILED", 5)
    assert "workers died" in world.desk.get("s").operation.error.message
    worker.close()


def test_several_workers_make_each_segment_once(world):
    made = []
    inner = world.maker.make

    def make(segment_id, *rest):
        made.append(segment_id)
        return inner(segment_id, *rest)

    world.maker.make = make
    names = [f"s{i}" for i in range(6)]
    for name in names:
        create(world.desk, name)
    workers = [world.worker() for _ in range(3)]
    assert waited(lambda: all(state(world, name) == "DONE" for name in names))
    for worker in workers:
        worker.close()
    assert sorted(made) == names


def test_a_bug_fails_the_operation_and_not_the_worker(world):
    def broken(*_):
        raise ZeroDivisionError

    inner, world.maker.make = world.maker.make, broken
    create(world.desk)
    worker = world.worker()
    assert waited(lambda: state(world) == "FAILED", 5)
    assert world.desk.get("s").operation.error.reason == "INTERNAL"
    world.maker.make = inner
    create(world.desk, "next")
    assert waited(lambda: state(world, "next") == "DONE")
    worker.close()


def test_a_sample_is_from_all_over_the_audience(world):
    found = world.model.sample
    rows = [world.ids.index(user) for user in found.ids]
    whole = world.users.select(LAYOUT.columns()).to_numpy()
    assert (found.inputs == whole[rows]).all()
    assert len(rows) > 1000
    assert (np.histogram(rows, 4, (0, USER_COUNT))[0] > 0.15 * len(rows)).all()


def test_an_audience_is_copied_from_a_registry_elsewhere_once(world, tmp_path):
    registry = ModelRegistry(f"memory://{secrets.token_hex(4)}")
    audiences = Audiences(registry, tmp_path)
    file = tmp_path / "users.parquet"
    pl.DataFrame({"user_id": ["a", "b"], "x": [1.0, 2.0]}).write_parquet(file)
    versions = [registry.register(AUDIENCE, {USERS: file}) for _ in range(5)]
    found = [audiences.get(v) for v in versions]
    assert all(a.ids(np.array([1, 0])) == ["b", "a"] for a in found)
    assert all(audiences.get(v) is a for v, a in zip(versions, found, strict=True))
    assert found[0].rows(["b", "z"]).tolist() == [1]
    copies = [a.path for a in found]
    del found
    gc.collect()
    assert [c.exists() for c in copies] == [False, False, True, True, True], "the last few stay"
    assert audiences.get(versions[0]).path.exists()
    copies[1].write_bytes(b"half of it")
    assert why(audiences.get, versions[1]) == "FAILED_PRECONDITION MODEL_CORRUPT"
    assert audiences.get(versions[1]).size == 2, "a broken copy is made anew"
