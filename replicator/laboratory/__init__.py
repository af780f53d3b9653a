"""Everything for trying the program without AWS."""
