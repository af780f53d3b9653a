"""Pure decisions about shards: lineage, assignment, snapshots."""
