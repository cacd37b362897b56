"""Answers to contributor shares, spans and reliability."""
