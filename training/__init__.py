"""Trains the embedded model, reproducibly and with one command. Not part of the wheel."""
