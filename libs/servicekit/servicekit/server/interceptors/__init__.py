"""What happens around every RPC, one idea a file, outermost first:

trace, metrics, errors, authentication, rate, permission, deadline, validation.

Each but the last is an async context manager around the call. They all run in the RPC's own task, so what one sets in a
context variable holds for the handler and for the threads it starts, and a cancelled call unwinds through all of them.
"""
