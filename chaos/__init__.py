"""Kills a runtime again and again, and looks from outside whether anything was lost or doubled.

`python -m chaos` starts a provider simulator, and a worker process that drives conversations with
tools and jobs on one database. The worker is killed with SIGKILL, at random instants and at named
commit points, and started again. What it acknowledged, what its tools and jobs did and what its
subscribers saw is in logs of its own, beside the database. In the end the logs and the database
must agree.
"""
