"""Kills services at their crash points and checks what the next process makes of what was left."""
