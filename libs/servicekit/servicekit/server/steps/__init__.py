"""The steps around every call, one per file, outermost first:

trace, metrics, errors, authentication, rate, permission, deadline; then body size and validation, once the bytes are read.

All but the last two are async context managers around the call. All steps run in the call's own task, so a context variable
that a step sets is also set in the handler and in the threads that it starts. A cancelled call leaves all of them.
"""
