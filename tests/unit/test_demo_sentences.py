"""What the demo says before its traffic is true: a wait that was in vain is not said to have ended well."""

from __future__ import annotations

from replicator.demo.view import outcome


def test_a_wait_in_vain_is_said_with_its_length() -> None:
    assert outcome("all is there", "some is not there", is_so=True, seconds=120.0) == "all is there"
    assert outcome("all is there", "some is not there", is_so=False, seconds=120.0) == "some is not there after 120 s"
