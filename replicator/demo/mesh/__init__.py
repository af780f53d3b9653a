"""The demonstration of the modes in which users write in every region."""
