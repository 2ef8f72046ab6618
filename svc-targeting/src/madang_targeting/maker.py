"""Makes a segment: look-alikes of who responded before, OR whom the models of preference groups
expect to respond."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from madang.common.v1.serving_info_pb2 import ModelVersion
from madang.targeting.v1 import targeting_pb2 as pb
from madang.targeting.v1.segment_record_pb2 import SegmentMembers
from madang_runtime.errors import Code, MadangError, reason
from madang_targeting.audience import Audience, GetAudience
from madang_targeting.calibration import foretold
from madang_targeting.curve import Cut, Unions
from madang_targeting.lookalike import train_response
from madang_targeting.members import Members, drawn
from madang_targeting.model import OUTCOMES, Inputs, Recipients, TargetingModel
from madang_targeting.results import Event, ResultStore
from madang_targeting.scoring import Parts, Scorer, Scores, score_audience
from madang_targeting.segment_store import SegmentStore
from madang_targeting.trees import StoppedError, TreeTraining

CURVE_POINTS = 40
_MOST_LEARNED, _DRAWN_AT_ONCE, _COMPARED = 200_000, 100_000, 20_000
_TRAINING = TreeTraining(rounds=300, leaves=6, learning_rate=0.05)
_EVENTS = {"clicked": Event.CLICK, "ordered": Event.ORDER}


@dataclass(frozen=True)
class Work:
    """How a making is watched.

    Attributes:
        note: told the stage and the share of it that is done.
        stopped: asked whether to stop.
        threads: to work with.
    """

    note: Callable[[str, float], None] = lambda stage, share: None
    stopped: Callable[[], bool] = lambda: False
    threads: int = 1

    def heed(self) -> None:
        """Raises: StoppedError, when it is to stop."""
        if self.stopped():
            raise StoppedError


@dataclass(frozen=True)
class Made:
    """A segment.

    Attributes:
        result: for callers.
        members: of each part, by their rows of the audience's version.
    """

    result: pb.SegmentResult
    members: SegmentMembers = field(default_factory=SegmentMembers)


class SegmentMaker:
    """Makes segments.

    Args:
        segments: that others refer to.
        results: of campaigns since the model was trained.
        audience: gives a version.
    """

    def __init__(self, segments: SegmentStore, results: ResultStore, audience: GetAudience) -> None:
        self._segments, self._results, self._audience = segments, results, audience

    def check(self, spec: pb.SegmentSpec, model: TargetingModel) -> None:
        """Whether there is all that a segment refers to.

        Raises:
            MadangError: CHANNEL_NOT_FOUND, CAMPAIGN_NOT_FOUND, PREFERENCE_GROUP_NOT_FOUND,
                SEGMENT_NOT_FOUND, SEGMENT_NOT_DONE, FIELD_INVALID, STORE_UNAVAILABLE.
        """
        unknown = [c for c in spec.reference_campaign_ids if c not in model.campaigns]
        for campaign, known in zip(unknown, self._results.known(unknown), strict=True):
            if not known:
                raise campaign_not_found(campaign)
        groups = groups_of(spec, model)
        if not groups:
            raise MadangError(
                Code.INVALID_ARGUMENT,
                reason.ERROR_REASON_FIELD_INVALID,
                "spec.groups: are needed, as the model does not know what the reference campaigns "
                "were about",
                field="spec.groups",
            )
        model.check(spec.channel, groups)
        for name in (*spec.within_segment_ids, *spec.exclude_segment_ids):
            done_segment(self._segments, name)

    def make(
        self, segment_id: str, spec: pb.SegmentSpec, model: TargetingModel, work: Work
    ) -> Made:
        """Make it.

        Raises:
            MadangError: as `check`, and TOO_FEW_RESPONSES.
            StoppedError: it was told to stop.
        """
        self.check(spec, model)
        work.note("reading", 0.0)
        audience = model.audience
        eligible = self._eligible(spec, audience, work)
        goal, other = OUTCOMES[spec.goal], next(o for k, o in OUTCOMES.items() if k != spec.goal)
        known = self._recipients(spec, model, goal, work)
        work.note("learning", 0.0)
        columns = model.layout.columns(None if len(known.did) else groups_of(spec, model))
        scorer = self._scorer(spec, model, columns, (goal, other), known, work)
        parts = Parts(audience.path, columns)
        scored = score_audience(
            parts, scorer, eligible, lambda share: work.note("scoring", share), work.stopped
        )
        unions = Unions(scored.histogram)
        cut = unions.best(spec.size) if spec.size else unions.largest(spec.least_rate)
        rows, cut = scored.take(cut, spec.size)
        work.note("drawing", 0.0)
        parts_of = self._split(segment_id, spec, audience, rows, work)
        in_order = sorted(OUTCOMES, key=lambda o: o != spec.goal)
        spread = [model.spread[OUTCOMES[o]] for o in in_order]

        def point(cut: Cut) -> pb.CurvePoint:
            return curve_point(cut, spec.goal, spread)

        result = pb.SegmentResult(
            size=len(rows),
            main_size=len(parts_of[0]),
            sample_size=len(parts_of[1]),
            held_out_size=len(parts_of[2]),
            audience_size=int(eligible.sum()),
            expected=point(cut),
            everybody=point(unions.everybody),
            by_lookalike=int((scored.first[rows] >= cut.first).sum()) if len(known.did) else 0,
            by_preference=int((scored.second[rows] >= cut.second).sum()),
            curve=[point(c) for c in unions.curve(CURVE_POINTS)],
            learned_from=len(known.did),
            responded=int(known.did.sum()),
            model=ModelVersion(name=model.manifest.name, version=model.manifest.version),
            audience_version=audience.version,
        )
        packed = [Members.of_rows(part).pack() for part in parts_of]
        return Made(result, SegmentMembers(main=packed[0], sample=packed[1], held_out=packed[2]))

    def _eligible(self, spec: pb.SegmentSpec, audience: Audience, work: Work) -> NDArray[np.bool_]:
        """Who may be in it, shape [n]."""
        eligible = np.full(audience.size, not spec.within_segment_ids)
        for name in spec.within_segment_ids:
            eligible[self._rows_of(name, audience)] = True
            work.heed()
        for name in spec.exclude_segment_ids:
            eligible[self._rows_of(name, audience)] = False
            work.heed()
        for campaign in spec.exclude_told_campaign_ids:
            told = self._results.read(campaign).get(Event.SENT, set())
            eligible[audience.rows(sorted(told))] = False
            work.heed()
        return eligible

    def _rows_of(self, segment_id: str, audience: Audience) -> NDArray[np.int64]:
        segment = done_segment(self._segments, segment_id)
        packed = self._segments.members(segment_id)
        if packed is None:
            raise segment_not_found(segment_id)
        members = SegmentMembers.FromString(packed)
        all_parts = (members.main, members.sample, members.held_out)
        found = Members.any_of([Members.unpack(part) for part in all_parts]).rows()
        return audience.rows_of(self._audience(segment.result.audience_version), found)

    def _recipients(
        self, spec: pb.SegmentSpec, model: TargetingModel, goal: str, work: Work
    ) -> Recipients:
        """Whom to learn from: of campaigns that the model was trained on as they were then, of
        those since then as the audience has them, which is from before."""
        campaigns = list(dict.fromkeys(spec.reference_campaign_ids))
        before = [c for c in campaigns if c in model.campaigns]
        since = [c for c in campaigns if c not in model.campaigns]
        known = [model.recipients(before, goal)] if before else []
        sent, did, channels = [], [], []
        for campaign in since:
            found = self._results.read(campaign)
            rows = model.audience.rows(sorted(found.get(Event.SENT, set())))
            responded = model.audience.rows(sorted(found.get(_EVENTS[goal], set())))
            sent.append(rows)
            did.append(np.isin(rows, responded))
            channel = self._results.channel(campaign)
            channels.append(np.full(len(rows), channel or spec.channel))
            work.heed()
        if since:
            rows, responses = np.concatenate(sent), np.concatenate(did)
            chosen = _some(len(rows))
            inputs = _gather(model, rows[chosen], work)
            through = np.concatenate(channels)[chosen]
            known.append(Recipients(inputs, responses[chosen], through))
        if not known:
            none = np.empty(0, np.bool_)
            return Recipients(np.empty((0, 0), np.float32), none, none.astype(np.str_))
        chosen = _some(sum(len(k.did) for k in known))
        columns = zip(*((k.inputs, k.did, k.channels) for k in known), strict=True)
        return Recipients(*(np.concatenate(column)[chosen] for column in columns))

    def _scorer(
        self,
        spec: pb.SegmentSpec,
        model: TargetingModel,
        columns: Sequence[str],
        outcomes: tuple[str, str],
        known: Recipients,
        work: Work,
    ) -> Scorer:
        groups = groups_of(spec, model)

        def simulate(inputs: Inputs) -> NDArray[np.float64]:
            return model.simulate(inputs, columns, spec.channel, groups, outcomes, work.threads)

        if not spec.reference_campaign_ids:

            def by_preference(inputs: Inputs) -> Scores:
                expected = simulate(inputs)
                return Scores(np.zeros(len(inputs)), expected[0], expected)

            return by_preference
        training = replace(_TRAINING, threads=work.threads, stopped=work.stopped)
        try:
            lookalike = train_response(known.inputs, known.did, training)
        except ValueError as error:
            raise MadangError(
                Code.FAILED_PRECONDITION, reason.ERROR_REASON_TOO_FEW_RESPONSES, str(error)
            ) from error

        shift = self._channel_shift(spec, model, columns, outcomes[0], known)

        def by_both(inputs: Inputs) -> Scores:
            alike, expected = expit(logit(lookalike(inputs)) + shift), simulate(inputs)
            both = np.stack([(alike + expected[0]) / 2, expected[1]])
            return Scores(alike, expected[0], both)

        return by_both

    def _channel_shift(
        self,
        spec: pb.SegmentSpec,
        model: TargetingModel,
        columns: Sequence[str],
        goal: str,
        known: Recipients,
    ) -> float:
        """By how much the message's channel is answered more than those that the recipients were
        sent by: what the simulators expect of the recipients through either, in log odds."""
        groups, some = groups_of(spec, model), np.linspace(0, len(known.did) - 1, _COMPARED)
        rows = np.unique(some.astype(int))
        inputs, channels = known.inputs[rows], known.channels[rows]
        through = set(channels.tolist()) & set(model.layout.channels) - {spec.channel}
        if not through:
            return 0.0

        def expected(inputs: Inputs, channel: str) -> NDArray[np.float64]:
            rates: NDArray[np.float64] = model.simulate(inputs, columns, channel, groups, [goal])[0]
            return rates

        ours = expected(inputs, spec.channel)
        theirs = ours.copy()
        for channel in through:
            own = channels == channel
            theirs[own] = expected(inputs[own], channel)
        return float(logit(ours.mean()) - logit(theirs.mean()))

    def _split(
        self,
        segment_id: str,
        spec: pb.SegmentSpec,
        audience: Audience,
        rows: NDArray[np.int64],
        work: Work,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """To tell, to tell first, not to tell."""
        if not spec.held_out_share and not spec.sample_share:
            return rows, rows[:0], rows[:0]
        held, sample = np.zeros((2, len(rows)), np.bool_)
        for at in range(0, len(rows), _DRAWN_AT_ONCE):
            own = slice(at, at + _DRAWN_AT_ONCE)
            ids = audience.ids(rows[own])
            held[own] = drawn(
                ids, spec.held_out_share, f"held out {spec.campaign_id or segment_id}"
            )
            sample[own] = drawn(ids, spec.sample_share, f"sample {segment_id}")
            work.heed()
        sample &= ~held
        return rows[~held & ~sample], rows[sample], rows[held]


def groups_of(spec: pb.SegmentSpec, model: TargetingModel) -> list[str]:
    """The groups that a message is about."""
    before = (model.campaigns.get(c) for c in spec.reference_campaign_ids)
    return list(spec.groups) or sorted({b.group for b in before if b})


def curve_point(cut: Cut, goal: "pb.Outcome.ValueType", spread: Sequence[float]) -> pb.CurvePoint:
    """What telling whom a cut takes would bring; `spread` between campaigns, the goal's first."""
    rates = [
        _rate(float(expected) / cut.size if cut.size else 0.0, cut.size, own)
        for expected, own in zip(cut.expected, spread, strict=True)
    ]
    clicks_first = goal == pb.OUTCOME_CLICK
    return pb.CurvePoint(
        size=round(cut.size),
        click_rate=rates[0 if clicks_first else 1],
        order_rate=rates[1 if clicks_first else 0],
    )


def _rate(expected: float, users: float, spread: float) -> pb.Rate:
    within = foretold(expected, users, spread)
    return pb.Rate(expected=expected, low=within.low, high=within.high)


def _some(n: int) -> NDArray[np.int64]:
    """So many rows as can be learned from, drawn by chance but always the same."""
    if n <= _MOST_LEARNED:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, _MOST_LEARNED, replace=False))


def _gather(model: TargetingModel, rows: NDArray[np.int64], work: Work) -> Inputs:
    """Inputs of some users, shape [n, columns]."""
    columns = model.layout.columns()
    found = np.empty((len(rows), len(columns)), np.float32)
    parts = Parts(model.audience.path, columns).read(
        lambda share: work.note("reading", share), work.stopped
    )
    for at, inputs in parts:
        own = np.flatnonzero((rows >= at) & (rows < at + len(inputs)))
        found[own] = inputs[rows[own] - at]
    return found


def done_segment(segments: SegmentStore, segment_id: str) -> pb.Segment:
    """A segment that is made.

    Raises:
        MadangError: SEGMENT_NOT_FOUND, SEGMENT_NOT_DONE, STORE_UNAVAILABLE.
    """
    kept = segments.get(segment_id)
    if kept is None:
        raise segment_not_found(segment_id)
    segment = kept.record.segment
    if segment.operation.state != pb.OPERATION_STATE_DONE:
        state = pb.OperationState.Name(segment.operation.state).removeprefix("OPERATION_STATE_")
        raise MadangError(
            Code.FAILED_PRECONDITION,
            reason.ERROR_REASON_SEGMENT_NOT_DONE,
            f"segment {segment_id!r} is {state}, it has no members",
            segment=segment_id,
        )
    return segment


def segment_not_found(segment_id: str) -> MadangError:
    """NOT_FOUND, SEGMENT_NOT_FOUND."""
    return MadangError(
        Code.NOT_FOUND,
        reason.ERROR_REASON_SEGMENT_NOT_FOUND,
        f"there is no segment {segment_id!r}",
        segment=segment_id,
    )


def campaign_not_found(campaign_id: str) -> MadangError:
    """NOT_FOUND, CAMPAIGN_NOT_FOUND."""
    return MadangError(
        Code.NOT_FOUND,
        reason.ERROR_REASON_CAMPAIGN_NOT_FOUND,
        f"nobody is known to have been sent campaign {campaign_id!r}",
        campaign=campaign_id,
    )
