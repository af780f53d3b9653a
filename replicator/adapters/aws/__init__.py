"""Clients of AWS services and what their answers mean."""
