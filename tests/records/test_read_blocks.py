"""Long lists of reads, in blocks that the results of many partitions share."""

from __future__ import annotations

from sqlalchemy import text

from include.records import read_blocks
from include.records.records import Records
from tests.records.builders import (
    nightly,
)


def test_records_do_not_grow_with_the_square_of_the_partitions(records: Records) -> None:
    """Twice the nights take about twice the space, and every list comes back whole."""
    sizes, nights = [], nightly(80)
    for start, end in ((0, 40), (40, 80)):
        for made in nights[start:end]:
            lease = records.leases.claim(
                "loans", "train_model", made.key, owner="me", attempt=1, ttl=30
            )
            records.results.commit(lease, made)
            records.results.commit(lease, made)  # a lost answer: the same again changes nothing
        with records.database.engine.connect() as connection:
            kept = [
                connection.execute(text(f"SELECT sum(length(reads)) FROM {table}")).scalar()
                for table in ("results", "reads")
            ]
        sizes.append(sum(kept))
    assert sizes[1] < 2.6 * sizes[0], "lists of their own would take four times the space"
    found = records.results.of("loans", stage="train_model")
    assert [sorted(row.reads) for row in found] == [sorted(row.reads) for row in nights]
    one = records.results.get("loans", nights[-1].key, "train_model")
    assert one is not None
    assert sorted(one.reads) == sorted(nights[-1].reads)
    assert records.results.states("loans") == {("train_model", row.key): "done" for row in nights}
    assert records.forget("loans")["reads"] > 0


def test_a_block_is_of_one_table_in_one_month_and_named_by_its_content() -> None:
    reads = [
        [table, key, f"sha256:{table}{key}"]
        for table in ("labels", "curated/orders")
        for key in ("2026-01-30", "2026-01-31", "2026-02-01")
    ]
    blocks = read_blocks.split_into_blocks(reads)
    assert [len(block) for block in blocks.values()] == [2, 1, 2, 1]
    assert read_blocks.block_digests([*blocks, ["t", "k", "d"]]) == list(blocks)
    assert sorted(read_blocks.join_blocks(list(blocks), blocks)) == sorted(reads)
    assert read_blocks.join_blocks([("t", "k", "d")], {}) == [["t", "k", "d"]]
    longer = read_blocks.split_into_blocks([*reads, ["labels", "2026-02-02", "sha256:x"]])
    assert len(blocks.keys() & longer.keys()) == 3, (
        "only the newest month's block of a table is new"
    )
