"""Compaction: keeps what the model reads of a history inside the window of the model.

`tokens` estimates, `tally` adds up and knows where a history may be cut, `cut` chooses; all pure.
`strategies` is what an agent is given, `budget` what becomes of it for a model. `summary_writer`
has a model tell what leaves, `compactor` does it all for one thread.
"""
