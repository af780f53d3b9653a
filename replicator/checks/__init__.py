"""What `init` creates and what `check` verifies: tables, streams and permissions, each as one fact.

Invariant: nothing here writes to a user's table or deletes anything; the one change that `init` makes to a source
table, when it is asked to, is to enable its stream.
"""
