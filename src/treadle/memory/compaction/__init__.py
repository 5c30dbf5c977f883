"""Compaction: keeps what the model reads of a history within the window of the model.

`tokens` estimates sizes, `tally` adds them up and knows where a history may be cut, and `cut`
chooses a cut; all three are pure. `strategies` are the settings of an agent, and `budget` the
limits that follow for its model. `summary_writer` asks a model for a summary. `compactor` does the
whole work for one thread.
"""
