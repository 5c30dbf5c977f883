"""AG-UI, the Agent User Interaction Protocol: https://docs.ag-ui.com.

A mapping only: a request is a message to a thread, or the answers to the calls that a run waits
for, and its events are made of the events of that run.
"""
