"""Whom a segment's look-alikes are learned from: the recipients of its reference campaigns."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from madang.targeting.v1 import targeting_pb2 as pb
from madang_targeting.model import Inputs, Recipients, TargetingModel
from madang_targeting.results import Event, ResultStore
from madang_targeting.scoring import Parts
from madang_targeting.work import Work

_MOST_LEARNED, _COMPARED = 200_000, 20_000
_EVENTS = {"clicked": Event.CLICK, "ordered": Event.ORDER}


def recipients_of(
    results: ResultStore, spec: pb.SegmentSpec, model: TargetingModel, goal: str, work: Work
) -> Recipients:
    """Whom to learn from: of campaigns that the model was trained on as they were then, of
    those since then as the audience has them, which is from before."""
    campaigns = list(dict.fromkeys(spec.reference_campaign_ids))
    before = [c for c in campaigns if c in model.campaigns]
    since = [c for c in campaigns if c not in model.campaigns]
    known = [model.recipients(before, goal)] if before else []
    sent, did, channels = [], [], []
    for campaign in since:
        found = results.read(campaign)
        rows = model.audience.rows(sorted(found.get(Event.SENT, set())))
        responded = model.audience.rows(sorted(found.get(_EVENTS[goal], set())))
        sent.append(rows)
        did.append(np.isin(rows, responded))
        channel = results.channel(campaign)
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


def channel_shift(
    spec: pb.SegmentSpec,
    model: TargetingModel,
    columns: Sequence[str],
    goal: str,
    known: Recipients,
) -> float:
    """By how much the message's channel is answered more than those that the recipients were
    sent by: what the simulators expect of the recipients through either, in log odds."""
    groups, some = model.groups_of(spec), np.linspace(0, len(known.did) - 1, _COMPARED)
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
