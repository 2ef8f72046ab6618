"""From campaigns to the model and the audience of svc-targeting."""

from dataclasses import replace

import polars as pl
import pytest

from madang_pipelines.publish import copy_champions
from madang_pipelines.targeting.features import (
    audience,
    layout_of,
    recipients,
    user_columns,
)
from madang_pipelines.targeting.training import train_targeting
from madang_runtime.models.registry import ModelRegistry
from madang_targeting.audience import AUDIENCE, Audiences
from madang_targeting.model import NAME, TargetingModel
from madang_targeting.trees import TreeTraining

QUICK = TreeTraining(rounds=10, learning_rate=0.2, threads=1)


def tables_with(city, **frames):
    """The city's tables, some of them others."""
    return replace(city.tables, frames=city.tables.frames | frames)


def trained(tables, folder):
    """The model of a training."""
    registry = ModelRegistry(f"file://{folder}/models")
    version = train_targeting(tables, registry, QUICK)
    return version and TargetingModel(
        registry.load(NAME, version), Audiences(registry, folder / "copies").get
    )


def test_answers_are_those_before_the_send_and_in_the_audience_all(city):
    layout = layout_of(city.tables)
    period = city.tables.test_period
    users = user_columns(city.tables, layout, period, QUICK)
    user = users["user_id"][0]
    campaigns = pl.DataFrame(
        {
            "campaign_id": ["z", "a", "m"],
            "group": layout.groups[:3],
            "channel": ["push", "push", "mail"],
            "period": [period] * 3,
        }
    )
    sends = pl.DataFrame(
        {
            "campaign_id": ["z", "a", "m"],
            "user_id": [user] * 3,
            "told": [True, True, True],
            "clicked": [True, False, False],
            "ordered": [False] * 3,
        }
    ).reverse()
    found = recipients({period: users}, layout, campaigns, sends)
    names = ["campaign_id", "told_push", "answered_push", "told_mail"]
    assert found.select(names).rows() == [("z", 0, 0, 0), ("a", 1, 1, 0), ("m", 2, 1, 0)]
    now = audience(users, layout, campaigns, sends).filter(user_id=user)
    assert now.select(names[1:]).row(0) == (2, 1, 1)


def test_what_users_did_is_from_before_the_campaigns_period(city):
    layout, orders = layout_of(city.tables), []
    actions = city.tables.frames["actions"].filter(pl.col("type") == "order")
    for period in (0, 1, city.tables.test_period):
        columns = user_columns(city.tables, layout, period, QUICK)
        assert set(columns.columns) == {"user_id", *layout.columns()} - {
            name for name in layout.about if name.startswith(("told_", "answered_"))
        }
        orders.append((columns["orders"].exp() - 1).sum())
        before = len(actions.filter(pl.col("period") < period))
        assert orders[-1] == pytest.approx(before, abs=0.5)


def test_a_campaigns_recipients_are_a_sample_of_who_was_told(city):
    tables, period = city.tables, city.tables.test_period
    layout = layout_of(tables)
    users = {period: user_columns(tables, layout, period, QUICK)}
    given = users, layout, tables.frames["campaigns"], tables.frames["sends"]
    found = recipients(*given, 40)
    assert found["told"].all()
    assert set(found.group_by("campaign_id").len()["len"]) == {40}
    assert found.rows() == recipients(*given, 40).rows()


def test_odd_names_few_campaigns_and_unknown_groups_train(city, tmp_path):
    campaigns = city.tables.frames["campaigns"].head(4)
    odd = campaigns.with_columns(
        channel=pl.Series(["인앱 / in app", "인앱 / in app", "push", "push"]),
        group=pl.Series([*campaigns["group"].head(3), "a group that nobody sells"]),
    )
    items = city.tables.frames["items"].with_columns(
        category_name=pl.when(pl.int_range(pl.len()) % 50 == 0)
        .then(pl.lit(""))
        .otherwise("category_name")
    )
    sends = city.tables.frames["sends"].join(odd, "campaign_id", how="semi")
    model = trained(tables_with(city, campaigns=odd, sends=sends, items=items), tmp_path)
    assert "인앱 / in app" in model.layout.channels
    assert odd["campaign_id"][3] not in model.campaigns
    assert model.audience.size == 500
    columns = model.layout.columns()
    for channel in model.layout.channels:
        rates = model.simulate(
            model.sample.inputs, columns, channel, model.layout.groups[:2], ["clicked"]
        )
        assert ((rates > 0) & (rates < 1)).all()


def test_without_responses_there_is_no_model(city, tmp_path):
    quiet = city.tables.frames["sends"].with_columns(clicked=False)
    assert trained(tables_with(city, sends=quiet), tmp_path) is None


def test_a_model_is_published_with_its_audience(city, tmp_path):
    source, target = (ModelRegistry(f"file://{tmp_path}/{name}") for name in ("here", "there"))
    first = train_targeting(city.tables, source, QUICK)
    train_targeting(city.tables, source, QUICK)
    source.set_alias(NAME, "champion", first)
    copy_champions(source, target, replace=False)
    files = target.load(NAME, target.resolve(NAME))
    assert files.manifest.version == first
    assert TargetingModel(files, Audiences(target, tmp_path).get).audience.size == 500
    assert files.manifest.parameters["audience"] in target.versions(AUDIENCE)
