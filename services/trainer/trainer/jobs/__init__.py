"""Where jobs run: the contract of a runner, and Ray as one."""
