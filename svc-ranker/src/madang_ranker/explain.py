"""Why an item was where it was on a page."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from madang.ranker.v1 import ranker_pb2 as pb
from madang.ranker.v1.decision_pb2 import Decision
from madang_ranker.decisions import DecisionLog
from madang_ranker.reasons import Reasons
from madang_ranker.scoring import DcnScorer, ScoreRequest
from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.models.inputs import Column, InputRows
from madang_runtime.stages import Stages


class Explainer:
    """Answers Explain from what was kept of a page.

    A feature's contribution is by occlusion: the score minus what the model gives when the feature
    has no value and all else is as it was.
    """

    def __init__(self, decisions: DecisionLog, scorer: Callable[[], DcnScorer]) -> None:
        self._decisions = decisions
        self._scorer = scorer

    def explain(self, request: pb.ExplainRequest, stages: Stages) -> pb.ExplainResponse:
        """Answer Explain.

        Raises:
            MadangError: DECISION_NOT_FOUND, ITEM_NOT_FOUND, STORE_UNAVAILABLE, NOT_READY.
        """
        with stages.stage("decision"):
            decision = self._decisions.find(request.request_id)
        if decision is None:
            raise _not_found(
                reason.ERROR_REASON_DECISION_NOT_FOUND, "request_id", request.request_id
            )
        i = _place(decision, request.item_id)
        answer = pb.ExplainResponse(
            user_id=decision.user_id,
            request_time=decision.request_time,
            place=decision.place,
            surface=decision.surface,
            item_id=decision.item_ids[i],
            position=decision.first_position + i,
            score=_number(decision.scores, i),
            propensity=_number(decision.propensities, i),
            reasons=Reasons.of_columns(
                list(decision.sources),
                decision.source_ranks,
                decision.source_scores,
                len(decision.item_ids),
            ).at(i),
        )
        if decision.HasField("exploration") and decision.exploration.explored[i]:
            answer.bandit.CopyFrom(_draw(decision, i))
        scorer = self._scorer()
        if not decision.HasField("model"):
            answer.unexplained = "no model scores this surface: items are as they were retrieved"
        elif not decision.clicks:
            answer.unexplained = "scoring was degraded: the page is in the order of retrieval"
        else:
            answer.terms.extend(_terms(decision, i))
            if scorer.version == decision.model:
                with stages.stage("contributions"):
                    answer.features.extend(_contributions(scorer, decision, i))
            else:
                answer.unexplained = (
                    f"version {decision.model.version} scored the page, "
                    f"{scorer.version.version} serves now"
                )
        answer.serving_info.CopyFrom(
            stages.serving_info([decision.model] if decision.HasField("model") else [])
        )
        answer.serving_info.degraded.extend(decision.degraded)
        return answer


def _terms(decision: Decision, i: int) -> list[pb.UtilityTerm]:
    """The summands of the item's score."""
    click = _number(decision.clicks, i)
    summands = (
        ("click", decision.click_weight, click),
        ("order", decision.order_weight, _number(decision.orders, i)),
        ("annoyance", -decision.annoyance_weight, _number(decision.hides, i)),
        ("revenue", decision.revenue_weight, _number(decision.bids, i) * click),
        ("reactive", decision.reactive_weight, _number(decision.reactives, i)),
    )
    return [pb.UtilityTerm(name=n, weight=w, value=v) for n, w, v in summands if w]


def _contributions(scorer: DcnScorer, decision: Decision, i: int) -> list[pb.FeatureContribution]:
    """Every feature of the user and the item, what moved the score most first."""
    user = scorer.user_inputs.unpack(decision.user_ints, decision.user_floats)
    items = scorer.item_inputs.unpack(decision.item_ints, decision.item_floats)
    item = InputRows(items.ints[i : i + 1], items.floats[i : i + 1])
    context = InputRows(
        np.frombuffer(decision.context_ints, "<i8").reshape(1, -1),
        np.frombuffer(decision.context_floats, "<f4").reshape(1, -1),
    )
    whole = ScoreRequest(user, context, item)
    of_user, of_item = scorer.user_inputs.columns(), scorer.item_inputs.columns()
    occluded = [replace(whole, user=scorer.user_inputs.without(user, c)) for c in of_user]
    occluded += [replace(whole, items=scorer.item_inputs.without(item, c)) for c in of_item]
    scores = scorer.score_all([whole, *occluded])
    per_click = decision.click_weight + decision.revenue_weight * _number(decision.bids, i)
    weights = np.array([per_click, decision.order_weight, -decision.annoyance_weight])
    worth = np.array([(s.click[0], s.order[0], s.hide[0]) for s in scores]) @ weights
    found = _valued(of_user, user, worth[0] - worth[1 : 1 + len(of_user)])
    found += _valued(of_item, item, worth[0] - worth[1 + len(of_user) :])
    return sorted(found, key=lambda f: -abs(f.contribution))


def _valued(
    columns: Sequence[Column], rows: InputRows, contributions: NDArray[np.float64]
) -> list[pb.FeatureContribution]:
    return [
        pb.FeatureContribution(
            feature=column.name,
            values=(rows.ints if column.kind == "i" else rows.floats)[0, column.at].tolist(),
            contribution=contribution,
        )
        for column, contribution in zip(columns, contributions.tolist(), strict=True)
    ]


def _draw(decision: Decision, i: int) -> pb.BanditDraw:
    """How the bandit came to put the item there."""
    found = decision.exploration
    at = list(found.pool_item_ids).index(decision.item_ids[i])
    return pb.BanditDraw(
        batch_id=found.batch_id,
        segment=found.segment,
        ranking=found.ranking,
        rankings=found.rankings,
        impressions=int(np.frombuffer(found.pool_impressions, "<u4")[at]),
        rewards=int(np.frombuffer(found.pool_rewards, "<u4")[at]),
        rate=_number(found.rates, i),
        pool=len(found.pool_item_ids),
    )


def _place(decision: Decision, item_id: str) -> int:
    """The item's place on the page; the first when none is named."""
    if not item_id:
        return 0
    if item_id not in decision.item_ids:
        raise _not_found(reason.ERROR_REASON_ITEM_NOT_FOUND, "item_id", item_id)
    return list(decision.item_ids).index(item_id)


def _not_found(why: "reason.ErrorReason.ValueType", field: str, value: str) -> MadangError:
    what = "page is kept under" if field == "request_id" else "item of the page is"
    return MadangError(Code.NOT_FOUND, why, f"{field}: no {what} {value!r}", field=field)


def _number(values: bytes, i: int) -> float:
    """The i-th number; 0 where the version that kept the page had no such column."""
    return float(np.frombuffer(values, "<f4")[i]) if values else 0.0
