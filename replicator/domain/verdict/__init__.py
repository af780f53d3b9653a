"""The verdict on a group: what is wrong, in the order in which it should be looked at."""
