"""What vectors in closed form reach by themselves: `python bench/quality_vectors.py FOLDER`.

The folder has lists of users and their items, split as published. Chosen on a tenth of what is
learned from, judged on all test users.
"""

import sys
import time
from pathlib import Path

from madang_candidate import spectral
from madang_pipelines.features import FeatureBuilder
from madang_pipelines.imports.importing import import_tables
from madang_pipelines.imports.ready import find_mappings
from madang_pipelines.networks import choices_of
from madang_pipelines.own.visits import visit_tables


def main() -> None:
    """Choose, make, judge, print."""
    started = time.perf_counter()
    mapping = find_mappings(Path(sys.argv[1]))[0]
    tables = visit_tables(mapping.name, import_tables(mapping, ("interactions", "items")))
    builder = FeatureBuilder(tables)
    past = choices_of(tables, builder)
    how = spectral.choose(past)
    user, item = spectral.vectors(past, how)
    later = choices_of(tables, builder, held_out=True)
    recall, ndcg = spectral.judge(user, item, past, later)
    print(f"{mapping.name}: {past.users:,} users, {past.items:,} items, {len(past.user):,} choices")
    print(f"{how}; NDCG@20 where it was chosen {how.ndcg:.4f}")
    print(f"{len(recall):,} users: Recall@20 {recall.mean():.4f}, NDCG@20 {ndcg.mean():.4f}")
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
