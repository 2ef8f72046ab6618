"""Someone's interactions as canonical tables, and the models that learn from them."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import yaml

from madang_pipelines.imports.importing import import_tables
from madang_pipelines.imports.mapping import MappingError, read_mapping
from madang_pipelines.imports.ready import find_mappings
from madang_pipelines.own.training import Plans, train_own
from madang_pipelines.own.visits import RECIPE, VisitPlan, visit_tables
from madang_pipelines.publish import save_features
from madang_pipelines.training import RANKER, TOWER, quick
from madang_runtime.models.registry import CHAMPION, ModelRegistry

USERS, ITEMS, VISITS = 60, 40, 40


def draw(seed=0):
    """Users who mostly go to three places of their own, in time order."""
    rng = np.random.default_rng(seed)
    home = rng.integers(0, ITEMS, (USERS, 3))
    usual = home[np.arange(USERS)[:, None], rng.integers(0, 3, (USERS, VISITS))]
    visited = np.where(rng.random(usual.shape) < 0.7, usual, rng.integers(0, ITEMS, usual.shape))
    return visited, np.sort(rng.integers(1_000_000_000, 1_010_000_000, usual.shape), axis=1)


def write_checkins(folder, **changes):
    """The files of a public set of check-ins, that a mapping that comes with us fits."""
    visited, times = draw()
    files = {}
    for part, span in (("train", slice(0, 30)), ("test", slice(30, VISITS))):
        for name, values in ((part, visited), (f"time_{part}", times)):
            lines = [" ".join(map(str, [u, *values[u, span]])) for u in range(USERS)]
            files[f"{name}.txt"] = "\n".join(lines) + "\n"
    files["location.txt"] = "".join(f"{i} {30 + i / 50} {-97 - i / 50}\n" for i in range(ITEMS))
    files["cat.txt"] = "".join(f"{i} {i % 7}\n" for i in range(ITEMS))
    for name, text in (files | changes).items():
        (folder / name).write_text(text)
    return find_mappings(folder)[0]


def tables_of(mapping):
    return visit_tables(mapping.name, import_tables(mapping))


def write_rows(folder, mapping=None, **columns):
    """A file of rows and its mapping."""
    visited, times = draw()
    rows = {
        "who": [f"u{u}" for u in np.repeat(np.arange(USERS), VISITS)],
        "what": [f"i{i}" for i in visited.ravel()],
        "at": times.ravel(),
    } | columns
    pl.DataFrame(rows).write_csv(folder / "rows.csv")
    table = {"files": "rows.csv", "columns": {"user": "who", "item": "what", "time": "at"}}
    whole = {"name": "mine", "interactions": table} | (mapping or {})
    (folder / "my.yaml").write_text(yaml.safe_dump(whole))
    return read_mapping(folder / "my.yaml")


def test_a_given_split_is_taken(tmp_path):
    mapping = write_checkins(tmp_path)
    tables, (visited, times) = tables_of(mapping), draw()
    assert not any(q.rows for q in tables.quality)
    assert len(tables.frames["actions"]) == USERS * VISITS
    held_out = tables.frames["sessions"].filter(pl.col("period") == tables.test_period)
    assert sorted(held_out["time"].to_list()) == sorted((times[:, 30] * 1000).tolist())
    at = dict(held_out.select("user_id", "latitude").iter_rows())
    assert at["7"] == pytest.approx(30 + visited[7, 29] / 50), "where the history ends"
    past = tables.frames["sessions"].filter(pl.col("period") < tables.test_period)
    assert past["period"].min() == 1, "features need a past"
    assert tables.frames["items"]["category"].to_list()[:8] == [1, 2, 3, 4, 5, 6, 7, 1]


def test_an_item_without_a_place_is_set_aside_with_its_interactions(tmp_path):
    placed = [f"{i} {30 + i / 50} -97\n" for i in range(2, ITEMS)]
    mapping = write_checkins(tmp_path, **{"location.txt": "0 95 -97\n" + "".join(placed)})
    tables, (visited, _) = tables_of(mapping), draw()
    found = {q.source: q.rows for q in tables.quality}
    assert len(found["interactions"]) == (visited < 2).sum()
    assert {why for _, why in found["interactions"]} == {"item is not known, or has no place"}
    assert found["location.txt"] == [(1, "latitude is not between -90 and 90")]
    tables.save(tmp_path / "out")
    aside = pl.read_ndjson(tmp_path / "out" / "set_aside.jsonl")
    assert len(aside) == sum(len(q.rows) for q in tables.quality)


def test_without_a_split_the_last_fifth_of_each_user_is_held_out(tmp_path):
    shuffled = np.random.default_rng(1).permutation(USERS * VISITS)
    visited, times = draw()
    mapping = write_rows(
        tmp_path,
        who=[f"u{u}" for u in shuffled // VISITS],
        what=[f"i{i}" for i in visited.ravel()[shuffled]],
        at=times.ravel()[shuffled],
    )
    actions = tables_of(mapping).frames["actions"]
    held = actions.filter(pl.col("period") == actions["period"].max())
    assert len(held) == USERS * VISITS // 5
    first = held.group_by("user_id").agg(pl.col("time").min())
    last = actions.join(held, ["user_id", "time"], how="anti").group_by("user_id")
    both = first.join(last.agg(before=pl.col("time").max()), "user_id")
    assert (both["before"] <= both["time"]).all()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"who": ["u1"] * USERS * VISITS}, "1 users to learn from; at least 20"),
        ({"what": ["i1"] * USERS * VISITS}, "1 items to learn from; at least 20"),
        ({"who": ["a"], "what": ["b"], "at": [1]}, "1 interactions to learn from; at least 500"),
        ({"who": [f"u{i // 2}" for i in range(USERS * VISITS)]}, "nothing is left to judge by"),
        (
            {"who": [f"u{min(i // 2, 1150)}" for i in range(USERS * VISITS)]},
            "only 32 have enough of the same user",
        ),
    ],
)
def test_too_little_to_learn_from_is_refused(tmp_path, columns, said):
    with pytest.raises(MappingError, match=said):
        tables_of(write_rows(tmp_path, **columns))


PLANS = Plans(VisitPlan(replace(RECIPE, dcn_sizes=quick().dcn_sizes), 50))


def test_where_people_come_back_ours_is_beside_repeats(tmp_path):
    registry = ModelRegistry(f"file://{tmp_path}/models")
    made = train_own("candidate", write_checkins(tmp_path), registry, PLANS)
    scores = made.reports[0].scores
    assert set(scores) == {"popularity", "repeats", "cohort lists", "ours"}
    assert made.reports[0].chosen["ranking"].startswith("DCN, epochs 3, batches of 32")
    for metric in ("next@10", "next NDCG@10", "Recall@10", "NDCG@10"):
        assert scores["ours"][metric].value > scores["popularity"][metric].value
    for name in (TOWER, RANKER):
        version = made.reports[0].versions[name]
        assert registry.resolve(name, CHAMPION) == version
        assert registry.manifest(name, version).parameters["data"] == "Gowalla check-ins"
    save_features(made.home, tmp_path / "features")
    assert len(pl.read_parquet(tmp_path / "features" / "user_profile.parquet")) == USERS


def test_where_nobody_comes_back_no_list_has_what_was_chosen(tmp_path):
    rng = np.random.default_rng(2)
    taste = rng.integers(0, 2, USERS)
    items = np.stack([rng.permutation(60)[:VISITS] + 60 * t for t in taste])
    mapping = write_rows(tmp_path, what=[f"i{i}" for i in items.ravel()])
    registry = ModelRegistry(f"file://{tmp_path}/models")
    scores = train_own("candidate", mapping, registry, PLANS).reports[0].scores
    assert set(scores) == {"popularity", "cohort lists", "ours"}
    assert scores["ours"]["Recall@10"].value > 1.2 * scores["popularity"]["Recall@10"].value


def test_who_chose_what_is_enough_for_a_feed(tmp_path):
    rng, users = np.random.default_rng(2), 90
    items = np.stack([rng.permutation(60)[:VISITS] + 60 * (u % 4) for u in range(users)])
    lists = {"files": "rows.csv", "columns": {"user": "who", "item": "what"}}
    mapping = write_rows(
        tmp_path,
        {"interactions": lists},
        who=[f"u{u}" for u in np.repeat(np.arange(users), VISITS)],
        what=[f"i{i}" for i in items.ravel()],
        at=1,
    )
    registry = ModelRegistry(f"file://{tmp_path}/models")
    made = train_own("candidate", mapping, registry, PLANS).reports[0]
    assert made.chosen["retrieval"].startswith("vectors in closed form")
    assert set(made.scores) == {"popularity", "cohort lists", "ours", "by vectors alone"}
    # Twenty-eight of sixty are new to a user, of whom eight are held out.
    assert made.scores["ours"]["NDCG@10"].value > 0.25
    assert made.scores["popularity"]["NDCG@10"].value < 0.15
