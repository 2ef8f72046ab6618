"""Makes a segment: look-alikes of who responded before, OR whom the models of preference groups
expect to respond."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from madang.common.v1.serving_info_pb2 import ModelVersion
from madang.targeting.v1 import targeting_pb2 as pb
from madang.targeting.v1.segment_record_pb2 import SegmentMembers
from madang_runtime.errors import Code, MadangError, reason
from madang_targeting.audience import Audience, GetAudience
from madang_targeting.curve import Cut, Unions
from madang_targeting.forecast import CURVE_POINTS, curve_point
from madang_targeting.lookalike import train_response
from madang_targeting.members import Members, drawn
from madang_targeting.model import OUTCOMES, Inputs, Recipients, TargetingModel
from madang_targeting.references import channel_shift, recipients_of
from madang_targeting.results import Event, ResultStore, campaign_not_found
from madang_targeting.scoring import Parts, Scorer, Scores, score_audience
from madang_targeting.segment_store import SegmentStore, done_segment, segment_not_found
from madang_targeting.trees import TreeTraining
from madang_targeting.work import Work

_DRAWN_AT_ONCE = 100_000
_TRAINING = TreeTraining(rounds=300, leaves=6, learning_rate=0.05)


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
        groups = model.groups_of(spec)
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
        known = recipients_of(self._results, spec, model, goal, work)
        work.note("learning", 0.0)
        columns = model.layout.columns(None if len(known.did) else model.groups_of(spec))
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

    def _scorer(
        self,
        spec: pb.SegmentSpec,
        model: TargetingModel,
        columns: Sequence[str],
        outcomes: tuple[str, str],
        known: Recipients,
        work: Work,
    ) -> Scorer:
        groups = model.groups_of(spec)

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

        shift = channel_shift(spec, model, columns, outcomes[0], known)

        def by_both(inputs: Inputs) -> Scores:
            alike, expected = expit(logit(lookalike(inputs)) + shift), simulate(inputs)
            both = np.stack([(alike + expected[0]) / 2, expected[1]])
            return Scores(alike, expected[0], both)

        return by_both

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
